"""A session of the Claude Agent SDK in orchdb, without a model: what the SDK mirrors, and what it reads back.

``ClaudeAgentOptions(session_store=OrchdbSessionStore(db))`` does the first part by itself.
"""

import asyncio
import sys
from typing import Any

from claude_agent_sdk import get_session_messages_from_store, list_sessions_from_store, project_key_for_directory

from orchdb import DatabaseManager
from orchdb.integrations.claude_agent_sdk import OrchdbSessionStore

SESSION = "4a6c2f3e-8d0b-4c55-9a37-1f2e3d4c5b6a"


def entries() -> list[Any]:
    """What Claude Code writes of a question and its answer."""
    usage = {"input_tokens": 12, "output_tokens": 40, "cache_read_input_tokens": 9000, "cache_creation_input_tokens": 0}
    answer = {
        "id": "msg_1",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Two files."}],
        "usage": usage,
    }
    question = {"role": "user", "content": "What is here?"}
    first = {"type": "user", "uuid": "6d1b0d54-1111-4c1a-8c5e-000000000001", "parentUuid": None, "message": question}
    second = {
        "type": "assistant",
        "uuid": "6d1b0d54-1111-4c1a-8c5e-000000000002",
        "parentUuid": first["uuid"],
        "message": answer,
    }
    always = {"sessionId": SESSION, "cwd": "/home/someone/work", "timestamp": "2026-05-01T10:00:00.000Z"}
    return [first | always, second | always]


async def main(path: str) -> None:
    async with DatabaseManager(path) as db:
        store = OrchdbSessionStore(db)
        project = project_key_for_directory("/home/someone/work")
        await store.append({"project_key": project, "session_id": SESSION}, entries())

        for found in await list_sessions_from_store(store, directory="/home/someone/work"):
            print("session:", found.session_id, "-", found.summary)
        for message in await get_session_messages_from_store(store, SESSION, directory="/home/someone/work"):
            print(f"{message.type}:", message.message["content"])
        for agent in await db.list_agents(SESSION):
            for prompt in await db.list_prompts(agent["id"]):
                print("prompt:", prompt["prompt_text"], "->", prompt["response_text"])
                print("tokens:", prompt["tokens_input"], "in,", prompt["tokens_output"], "out; $", prompt["cost_usd"])


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ":memory:"))

"""A program that uses whichever version of orchdb comes first on its path, and writes and reads on demand."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from orchdb import DatabaseManager, OrchdbError
from orchdb.schema.revisions import HEAD


async def _write(db: DatabaseManager, name: str) -> None:
    async with db.transaction() as tx:
        agent = await tx.create_agent(await tx.create_orchestrator_agent(name), name, context={"name": name})
        await tx.create_prompt(agent, "command", name)
        await tx.create_agent_log(agent, "INFO", "milestone", name, {"name": name})
    await db.update_agent(agent, status="executing")
    await db.create_system_log("INFO", "versions", name)


async def _everything(db: DatabaseManager) -> list[Any]:
    agents = await db.list_agents()
    prompts = [await db.list_prompts(agent["id"]) for agent in agents]
    return [
        *await db.list_orchestrator_agents(),
        *agents,
        *(prompt for some in prompts for prompt in some),
        *await db.list_recent_agent_logs(limit=None),
        *await db.get_system_logs(),
    ]


async def _main(url: str, options: dict[str, Any]) -> None:
    try:
        async with DatabaseManager(url, **options) as db:
            print(json.dumps({"head": HEAD, "revision": await db.schema_version()}), flush=True)
            while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
                if word != "read":
                    await _write(db, word)
                print(json.dumps(await _everything(db) if word == "read" else word, default=str), flush=True)
    except OrchdbError as error:
        print(json.dumps({"head": HEAD, "refused": type(error).__name__, "said": str(error)}), flush=True)


if __name__ == "__main__":
    for options in json.loads(sys.argv[2]):
        asyncio.run(_main(sys.argv[1], options))

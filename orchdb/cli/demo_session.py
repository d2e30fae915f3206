"""The session that ``orchdb demo`` plays: a planner, three builders at the same time, a reviewer.

No model is called: the answers are written here, and waiting for them is a short sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchdb.manager import DatabaseManager
from orchdb.rows import AgentStatus
from orchdb.schema.values import new_id

MODEL = "demo-model"
COMPONENT = "orchdb-demo"
Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Exchange:
    """One prompt and what comes back; without a response it fails."""

    prompt: str
    response: str | None
    tokens_input: int
    tokens_output: int
    tokens_cache_read: int = 0
    seconds: float = 0.05
    prompt_type: str = "command"

    @property
    def cost_usd(self) -> float:
        """US dollars, at 3 a million tokens read, 0.30 from the cache, and 15 written."""
        return (3 * self.tokens_input + 0.3 * self.tokens_cache_read + 15 * self.tokens_output) / 1e6


@dataclass(frozen=True)
class Part:
    """What one agent does in the session."""

    name: str
    agent_type: str
    status: AgentStatus
    exchanges: Sequence[Exchange]


PLANNER = Part(
    "planner",
    "planner",
    "planning",
    [Exchange("Plan a login page.", "1. form  2. session handling  3. tests", 2_140, 412, prompt_type="adw")],
)
BUILDERS = [
    Part(
        "form-builder",
        "builder",
        "executing",
        [
            Exchange("Build the form.", "Wrote login.html and login.css.", 3_020, 890, seconds=0.08),
            Exchange("Run the linter.", "No findings.", 120, 40, 3_020, prompt_type="tool_call"),
        ],
    ),
    Part(
        "session-builder",
        "builder",
        "executing",
        [Exchange("Build the session handling.", "Wrote session.py: signed cookies.", 3_410, 1_120, seconds=0.12)],
    ),
    Part(
        "test-builder",
        "builder",
        "executing",
        [
            Exchange("Write the tests.", None, 2_980, 0, seconds=0.04),
            Exchange("Again, in two parts.", "Wrote 14 tests.", 310, 1_450, 2_980, prompt_type="correction"),
        ],
    ),
]
REVIEWER = Part(
    "reviewer",
    "reviewer",
    "reviewing",
    [
        Exchange(
            "Review the three parts.", "Approved; one remark on cookie age.", 1_200, 260, 6_400, prompt_type="followup"
        )
    ],
)


async def play(db: DatabaseManager, say: Say) -> str:
    """The id of the session that was played and stored.

    Args:
        say: Told who does what, as it happens.
    """
    session = new_id()
    definition = await _definition(db, "orchestrator", "orchestrator")
    orchestrator = await db.create_agent(definition, session, status="executing", context={"goal": "a login page"})
    await db.create_system_log("INFO", COMPONENT, "session started", {"session_id": session})
    for parts in ([PLANNER], BUILDERS, [REVIEWER]):
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(_work(db, session, orchestrator, part, say))
    await db.update_agent(orchestrator, status="completed")
    await db.create_system_log("INFO", COMPONENT, "session completed", {"session_id": session})
    return session


async def _definition(db: DatabaseManager, name: str, agent_type: str) -> str:
    """The id of the definition with this name, which an earlier demo may have left."""
    return await db.get_or_create_orchestrator_agent(
        f"demo-{name}", "Made by orchdb demo.", agent_type, default_model=MODEL
    )


async def _work(db: DatabaseManager, session: str, orchestrator: str, part: Part, say: Say) -> None:
    definition = await _definition(db, part.name, part.agent_type)
    agent = await db.create_agent(definition, session, parent_agent_id=orchestrator)
    await db.update_agent(agent, status=part.status)
    await db.create_agent_log(agent, "INFO", "state_change", f"{part.name} is {part.status}")
    say(part.name, part.status)
    for exchange in part.exchanges:
        await _exchange(db, agent, exchange)
        say(part.name, exchange.prompt + ("" if exchange.response else " (failed, tries again)"))
    await db.update_agent(agent, status="completed")
    await db.create_agent_log(agent, "INFO", "milestone", f"{part.name} is done", {"prompts": len(part.exchanges)})
    say(part.name, "completed")


async def _exchange(db: DatabaseManager, agent: str, exchange: Exchange) -> None:
    prompt = await db.create_prompt(agent, exchange.prompt_type, exchange.prompt, status="streaming", model_used=MODEL)
    started = time.perf_counter()
    await asyncio.sleep(exchange.seconds)
    latency_ms = round((time.perf_counter() - started) * 1000)
    error = None if exchange.response else "the answer was cut off"
    async with db.transaction() as tx:  # the answer, its cost and its log line: all of them or none
        await tx.complete_prompt(
            prompt,
            exchange.response,
            status="failed" if error else "completed",
            tokens_input=exchange.tokens_input,
            tokens_output=exchange.tokens_output,
            tokens_cache_read=exchange.tokens_cache_read,
            cost_usd=exchange.cost_usd,
            latency_ms=latency_ms,
            error_message=error,
        )
        if error:
            await tx.create_agent_log(agent, "ERROR", "error", error, {"prompt_id": prompt})
        else:
            await tx.create_agent_log(agent, "INFO", "cost_update", exchange.response or "", {"usd": exchange.cost_usd})

"""Files with rows of every kind, and the places that they are copied to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchdb import DatabaseManager, NewAgentLog

TEXT = "tab\there, \\N and \\. stay\nsecond line\r\n\x1f\x1e\x1d 漢字 \U0001f600 'quoted' \"twice\""


async def fill(path: str | Path, lines: int = 3) -> None:
    """Make a database with rows of every kind."""
    async with DatabaseManager(path) as db:
        definition = await db.create_orchestrator_agent("scout", TEXT, metadata={"b": [1, 2.5, None], "a": {"é": "ü"}})
        gone = await db.create_orchestrator_agent("gone")
        await db.delete_orchestrator_agent(gone, soft=True)
        lead = await db.create_agent(definition, "now", context={"large": 1e20, "small": 1e-9, "whole": 10.0})
        agents = [await db.create_agent(definition, "now", lead, config={"n": n}, cost_usd=0.1) for n in range(3)]
        for agent in agents:
            prompt = await db.create_prompt(agent, "adw", TEXT, model_used="large")
            await db.complete_prompt(prompt, "Done", tokens_input=3, tokens_output=4, cost_usd=0.000123, latency_ms=7)
        await db.create_agent_logs([_line(agents[number % 3], number) for number in range(lines)])
        await db.create_agent_log(lead, "ERROR", "error", "", "a text", event_id="once")
        await db.create_system_log("WARNING", "watchdog", TEXT, [True, "", {}])
        async with db.agent_run(definition, "now") as run:
            await run.log("INFO", "milestone", "at work")


def _line(agent: str, number: int) -> NewAgentLog:
    message = f"{TEXT} {number}"
    return {
        "agent_id": agent,
        "log_level": "INFO",
        "log_type": "milestone",
        "message": message,
        "details": {"at": number},
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with rows of every kind."""
    path = tmp_path / "first.db"
    asyncio.run(fill(path))
    return path

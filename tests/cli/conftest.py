"""A database with a session that is known, on each engine in turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from orchdb import DatabaseManager
from tests.conftest import Target

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\u202egnirts\ttab\nsecond line\r\x9b1m"


@dataclass(frozen=True)
class Recorded:
    """The database, and the ids of what is in it.

    Attributes:
        url: The database.
        session: The session with two agents; there is an older one, ``before``.
        lead: The agent that runs, and has a prompt and lines.
        helper: The agent that has failed.
        prompt: The prompt of the lead.
        definition: The definition of both.
    """

    url: str
    session: str
    lead: str
    helper: str
    prompt: str
    definition: str


async def _record(url: str) -> Recorded:
    async with DatabaseManager(url) as db:
        definition = await db.create_orchestrator_agent("scout")
        await db.create_agent(definition, "before", status="completed", created_at="2020-01-01T00:00:00", cost_usd=0.25)
        lead = await db.create_agent(definition, "now", status="executing", started_at="2026-01-02T03:04:05")
        helper = await db.create_agent(
            definition, "now", lead, status="failed", error_message=HOSTILE, created_at="2026-01-02T03:04:06"
        )
        prompt = await db.create_prompt(lead, "command", f"Look at {HOSTILE}", model_used="large")
        await db.complete_prompt(
            prompt, "Seen: 漢字", tokens_input=1000, tokens_output=200, tokens_cache_read=34, cost_usd=1.5
        )
        await db.create_agent_log(lead, "INFO", "milestone", "begun", {"step": 1})
        await db.create_agent_log(helper, "ERROR", "error", HOSTILE)
        await db.create_system_log("WARNING", "watchdog", "too warm", {"celsius": 91})
    return Recorded(url, "now", lead, helper, prompt, definition)


@pytest.fixture
def recorded(target: Target) -> Recorded:
    """The database on each engine in turn."""
    return asyncio.run(_record(target.url))


@pytest.fixture
def recorded_file(tmp_path: object) -> Recorded:
    """The database as a file."""
    return asyncio.run(_record(f"{tmp_path}/orchestrator.db"))

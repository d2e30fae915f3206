"""The sessions of a database, with what they have cost."""

from __future__ import annotations

from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.inspection.sessions import list_sessions


async def test_a_session_has_used_what_usage_says_to_the_last_digit(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    await db.create_agent(definition, "idle")
    dear = await db.create_agent(definition, "dear")
    await db.add_agent_cost(dear, 0.7)
    gone = await db.create_agent(definition, "dear")
    for agent in (dear, gone):
        for number in range(30):
            prompt = await db.create_prompt(agent, "command", f"{number}")
            await db.complete_prompt(prompt, "x", cost_usd=0.1, tokens_input=7, tokens_cache_read=2)
    await db.delete_agent(gone, soft=True)
    shown: dict[str, Any] = {row["session_id"]: row for row in await list_sessions(db)}
    (used,) = await db.usage(session_id="dear")
    names = ("prompts", "tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write", "cost_usd")
    assert {name: shown["dear"][name] for name in names} == {name: dict(used)[name] for name in names}
    assert (shown["dear"]["cost_usd"], shown["dear"]["prompts"], shown["dear"]["agents"]) == (3.7, 30, 1)
    assert [shown["idle"][name] for name in names] == [0, 0, 0, 0, 0, 0.0]


async def test_a_page_of_sessions_sums_up_nothing_but_what_is_on_it(
    db: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = await db.create_orchestrator_agent("scout")
    for name in ("first", "second", "third"):
        await db.create_agent(definition, name)
    summed: list[Any] = []
    usage = DatabaseManager.usage

    async def watched(self: DatabaseManager, *keys: Any, **filters: Any) -> Any:
        summed.append(filters)
        return await usage(self, *keys, **filters)

    monkeypatch.setattr(DatabaseManager, "usage", watched)
    assert [row["session_id"] for row in await list_sessions(db, limit=2)] == ["third", "second"]
    assert summed == [{"session_id": ["third", "second"]}]

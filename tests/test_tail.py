"""Following a log while others write to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchdb import AgentLogRow, DatabaseManager, InvalidValueError, NotConnectedError
from tests.conftest import Target
from tests.support import NO_ROW, taken


async def test_a_tail_begins_with_what_is_new(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "old")
    lines = db.tail_agent_logs(agent_id, poll_seconds=0.01)
    following = asyncio.create_task(taken(lines, 1))
    await asyncio.sleep(0.1)
    await db.create_agent_log(agent_id, "INFO", "milestone", "new", {"step": 1})
    (row,) = await following
    assert (row["message"], row["details"]) == ("new", {"step": 1})
    assert row in await db.get_agent_logs(agent_id)


async def test_a_tail_goes_on_where_another_one_stopped(db: DatabaseManager, agent_id: str) -> None:
    numbers = [await db.create_agent_log(agent_id, "INFO", "milestone", f"line {n}") for n in range(5)]
    first = await taken(db.tail_agent_logs(after_id=0), 2)
    rest = await taken(db.tail_agent_logs(after_id=first[-1]["id"]), 3)
    assert [row["id"] for row in first + rest] == numbers


async def test_the_filters_of_a_tail_leave_the_others_out(db: DatabaseManager, agent_id: str) -> None:
    definition = await db.create_orchestrator_agent("other")
    other = await db.create_agent(definition, "session-1")
    await db.create_agent_log(other, "ERROR", "error", "line 0")
    await db.create_agent_log(agent_id, "INFO", "error", "line 1")
    await db.create_agent_log(agent_id, "ERROR", "milestone", "line 2")
    await db.create_agent_log(agent_id, "ERROR", "error", "line 3")
    assert await _messages(db.tail_agent_logs(agent_id, after_id=0), 3) == ["line 1", "line 2", "line 3"]
    assert await _messages(db.tail_agent_logs(None, "ERROR", after_id=0), 3) == ["line 0", "line 2", "line 3"]
    assert await _messages(db.tail_agent_logs(agent_id, "ERROR", "error", after_id=0), 1) == ["line 3"]


async def _messages(lines: AsyncIterator[AgentLogRow], number: int) -> list[str]:
    return [row["message"] for row in await taken(lines, number)]


async def test_an_agent_that_cannot_exist_has_no_lines_to_follow(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "x")
    for stranger in (NO_ROW, "no id"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(db.tail_agent_logs(stranger, after_id=0, poll_seconds=0.01))


async def test_a_tail_crosses_gaps_and_more_lines_than_one_look_reads(db: DatabaseManager, agent_id: str) -> None:
    line = {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": "x"}
    numbers = await db.create_agent_logs([line] * 1201)  # type: ignore[list-item]
    assert [row["id"] for row in await taken(db.tail_agent_logs(agent_id, after_id=0), 1201)] == numbers


async def test_the_system_log_can_be_followed(db: DatabaseManager) -> None:
    await db.create_system_log("INFO", "scheduler", "started")
    await db.create_system_log("ERROR", "scheduler", "failed")
    await db.create_system_log("ERROR", "worker", "failed too")
    (row,) = await taken(db.tail_system_logs("ERROR", "worker", after_id=0), 1)
    assert row["message"] == "failed too"
    assert len(await taken(db.tail_system_logs(after_id=0), 3)) == 3


async def test_a_tail_ends_when_the_manager_is_closed(target: Target) -> None:
    db = DatabaseManager(target.url)
    await db.connect()
    following = asyncio.create_task(taken(db.tail_system_logs(poll_seconds=0.01), 1))
    await asyncio.sleep(0.05)
    await db.close()
    with pytest.raises(NotConnectedError):
        await following


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("after_id", {"after_id": -1}),
        ("after_id", {"after_id": "5"}),
        ("poll_seconds", {"poll_seconds": 0}),
        ("poll_seconds", {"poll_seconds": float("nan")}),
        ("poll_seconds", {"poll_seconds": float("inf")}),
        ("poll_seconds", {"poll_seconds": "1"}),
    ],
)
async def test_what_a_tail_cannot_use_is_refused_at_once(
    db: DatabaseManager, column: str, options: dict[str, Any]
) -> None:
    for tail in (db.tail_agent_logs, db.tail_system_logs):
        with pytest.raises(InvalidValueError) as caught:
            tail(**options)
        assert caught.value.column == column

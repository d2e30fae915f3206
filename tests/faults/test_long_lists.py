"""Long lists: while one is read, the event loop is free for others again and again.

Counted and not timed: between two turns of another task only so many functions may be called. The counts are the same
on a busy machine as on an idle one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import make_url

from orchdb import AgentLogRow, DatabaseManager, NewAgentLog
from tests.support.databases import call

ROWS = 12_000
MOST_CALLS = 25_000
"""In one stretch. A portion of 500 rows is some 4,000; all rows would be 80,000 and more."""


class Turns:
    """The turns that another task gets, and the most functions that were called between two of them."""

    def __init__(self) -> None:
        self.turns = 0
        self.most_calls = 0
        self._calls = 0

    def _hook(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in {"call", "c_call"}:
            self._calls += 1

    async def _take(self) -> None:
        while True:
            self.most_calls = max(self.most_calls, self._calls)
            self._calls = 0
            self.turns += 1
            await asyncio.sleep(0)

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Take turns beside this block, and count the calls of this thread, which is the loop's."""
        task = asyncio.create_task(self._take())
        await asyncio.sleep(0)
        sys.setprofile(self._hook)
        try:
            yield
            await asyncio.sleep(0)
        finally:
            sys.setprofile(None)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def lines(db: DatabaseManager, agent_id: str) -> list[int]:
    """The ids of many lines."""
    items: list[NewAgentLog] = [
        {
            "agent_id": agent_id,
            "log_level": "INFO",
            "log_type": "tool_call",
            "message": f"line {number}",
            "details": {"number": number, "list": [number]},
        }
        for number in range(ROWS)
    ]
    return await db.create_agent_logs(items)


def checked(rows: list[AgentLogRow], lines: list[int]) -> None:
    assert [row["id"] for row in rows] == lines
    assert [row["message"] for row in rows] == [f"line {number}" for number in range(len(lines))]
    assert [row["details"] for row in rows] == [{"number": n, "list": [n]} for n in range(len(lines))]


async def test_a_long_list_leaves_turns_to_others(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    turns = Turns()
    async with turns.counted():
        rows = await db.get_agent_logs(agent_id)
    checked(rows, lines)
    assert turns.turns >= ROWS / 1000
    assert turns.most_calls <= MOST_CALLS


async def test_a_long_list_in_a_block_leaves_turns_to_others(
    db: DatabaseManager, agent_id: str, lines: list[int]
) -> None:
    turns = Turns()
    async with db.transaction() as tx:
        last = await tx.create_agent_log(agent_id, "INFO", "x", "not seen by others")
        async with turns.counted():
            rows = await tx.get_agent_logs(agent_id)
        assert rows.pop()["id"] == last
        checked(rows, lines)
        assert len(await tx.get_agent_logs(agent_id)) == ROWS + 1
        await tx.create_agent_log(agent_id, "INFO", "x", "the block goes on")
    assert turns.turns >= ROWS / 1000
    assert turns.most_calls <= MOST_CALLS
    assert len(await db.get_agent_logs(agent_id)) == ROWS + 2


async def test_a_long_list_behind_a_pooler_leaves_turns_to_others(postgres_url: str) -> None:
    url = make_url(postgres_url).set(drivername="postgresql+asyncpg").update_query_dict({"pooler": "transaction"})
    async with DatabaseManager(url) as db:
        await db.create_system_logs({"log_level": "INFO", "component": "x", "message": str(n)} for n in range(ROWS))
        turns = Turns()
        async with turns.counted():
            rows = await db.get_system_logs()
    assert [row["message"] for row in rows] == [str(number) for number in range(ROWS)]
    assert turns.turns >= ROWS / 1000
    assert turns.most_calls <= MOST_CALLS


async def test_a_page_of_any_size_is_complete(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    for size in (1, 127, 128, 129, 499, 500, 501, 999, 1000, 1001, 5000, 5500, 5501, 10_500, ROWS, ROWS + 1):
        checked(await db.get_agent_logs(agent_id, limit=size), lines[:size])


async def test_a_long_list_that_is_cancelled_anywhere_harms_nothing(
    db: DatabaseManager, agent_id: str, lines: list[int]
) -> None:
    for pause in (0.0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1):
        reading = asyncio.create_task(db.get_agent_logs(agent_id))
        await asyncio.sleep(pause)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        async with db.transaction() as tx:
            inside = asyncio.create_task(tx.get_agent_logs(agent_id))
            await asyncio.sleep(pause)
            inside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await inside
            await tx.create_system_log("INFO", "x", "x")
    assert len(await db.get_system_logs()) == 7
    checked(await db.get_agent_logs(agent_id), lines)


async def test_long_lists_beside_each_other_are_complete(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    for rows in await asyncio.gather(*(db.get_agent_logs(agent_id) for _ in range(4))):
        checked(rows, lines)


@contextmanager
def collections_of_old_objects() -> Iterator[list[int]]:
    """How often the collector of cycles looked at all objects; as a list, which grows."""
    found: list[int] = []

    def look(phase: str, information: dict[str, int]) -> None:
        if phase == "start" and information["generation"] == 2:
            found.append(1)

    gc.collect()
    gc.callbacks.append(look)
    try:
        yield found
    finally:
        gc.callbacks.remove(look)


async def test_the_collector_of_cycles_leaves_the_rows_of_a_long_list_alone(
    db: DatabaseManager, agent_id: str, lines: list[int]
) -> None:
    with collections_of_old_objects() as found:
        kept = [await db.get_agent_logs(agent_id) for _ in range(10)]
        assert len(kept) == 10
    assert len(found) <= 1
    assert gc.isenabled()
    assert gc.get_freeze_count() < 1000


async def test_what_a_program_has_frozen_stays_frozen(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        checked(await db.get_agent_logs(agent_id), lines)
        assert gc.get_freeze_count() >= frozen * 0.9
    finally:
        gc.unfreeze()


async def test_every_list_can_be_long(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    await db.create_prompts({"agent_id": agent_id, "prompt_type": "adw", "prompt_text": str(n)} for n in range(1200))
    await db.create_system_logs({"log_level": "INFO", "component": "x", "message": str(n)} for n in range(1200))
    assert [row["prompt_text"] for row in await db.list_prompts(agent_id)] == [str(n) for n in range(1200)]
    assert [row["message"] for row in await db.get_system_logs()] == [str(n) for n in range(1200)]
    newest = await call(db, "list_recent_agent_logs", None)
    assert [row["id"] for row in newest] == lines[::-1]
    assert [row["id"] for row in await db.get_logs_by_type("tool_call", 3000)] == lines[:-3001:-1]

"""Logs that are followed while others write to them: on a server a lower id can be committed after a higher one."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from orchdb import DatabaseManager
from tests.conftest import Target
from tests.support.databases import taken


class _UndoError(Exception):
    pass


async def _write(db: DatabaseManager, agent_id: str, name: str, rng: random.Random, acknowledged: set[int]) -> None:
    """Thirty steps of a writer: single lines, batches, transactions that take their time, and some that are undone."""
    for step in range(30):
        kind = rng.choice(("single", "batch", "slow", "undone"))
        message = f"{name} {step}"
        if kind == "single":
            acknowledged.add(await db.create_agent_log(agent_id, "INFO", "milestone", message))
        elif kind == "batch":
            line = {"agent_id": agent_id, "log_level": "INFO", "log_type": "batch", "message": message}
            acknowledged.update(await db.create_agent_logs([line] * rng.choice((5, 40))))  # type: ignore[list-item]
        else:
            try:
                async with db.transaction() as tx:
                    number = await tx.create_agent_log(agent_id, "INFO", "milestone", message)
                    await asyncio.sleep(rng.uniform(0, 0.02))
                    if kind == "undone":
                        raise _UndoError
                acknowledged.add(number)
            except _UndoError:
                pass


@pytest.mark.parametrize("seed", range(3))
async def test_a_tail_beside_6_writers_misses_no_line_and_gives_each_once(
    db: DatabaseManager, target: Target, agent_id: str, seed: int
) -> None:
    rng, acknowledged, seen = random.Random(seed), set[int](), list[int]()

    async def follow() -> None:
        async for row in db.tail_agent_logs(agent_id, after_id=0, poll_seconds=0.001):
            seen.append(row["id"])

    async with DatabaseManager(target.url) as other:
        following = asyncio.create_task(follow())
        writers = [_write((db, other)[n % 2], agent_id, f"writer {n}", rng, acknowledged) for n in range(6)]
        await asyncio.gather(*writers)
        async with asyncio.timeout(20):
            while len(seen) < len(acknowledged):
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait((following,))
    assert seen == sorted(acknowledged)


async def test_a_line_waits_for_an_earlier_one_that_is_not_committed_yet(db: DatabaseManager, agent_id: str) -> None:
    async def late() -> None:
        await db.create_agent_log(agent_id, "INFO", "milestone", "late")

    lines = db.tail_agent_logs(after_id=0, poll_seconds=0.01)
    async with db.transaction() as tx:
        await tx.create_agent_log(agent_id, "INFO", "milestone", "early")
        writing = asyncio.create_task(late())
        following = asyncio.create_task(taken(lines, 2))
        await asyncio.sleep(0.1)
        assert not following.done()
    await writing
    assert [row["message"] for row in await following] == ["early", "late"]


async def test_a_line_waits_for_an_id_that_was_taken_before_its_row_was_written(
    db: DatabaseManager, target: Target, agent_id: str
) -> None:
    """As many rows are copied to a server: their ids come first."""
    reserve, name = "SELECT nextval(pg_get_serial_sequence('agent_logs', 'id'))", "(id, agent_id, log_type, message)"
    lines = db.tail_agent_logs(after_id=0, poll_seconds=0.01)
    async with db.transaction() as tx:
        number = 1 if target.engine == "sqlite" else (await tx.conn.exec_driver_sql(reserve)).scalar_one()
        writing = asyncio.create_task(db.create_agent_log(agent_id, "INFO", "milestone", "late"))
        following = asyncio.create_task(taken(lines, 2))
        await asyncio.sleep(0.2)
        await tx.conn.exec_driver_sql(
            f"INSERT INTO agent_logs {name} VALUES ({number}, '{agent_id}', 'milestone', 'early')"
        )
        await asyncio.sleep(0.1)
    assert await writing > number
    async with asyncio.timeout(5):
        assert [row["message"] for row in await following] == ["early", "late"]


async def test_a_tail_that_begins_beside_writers_gives_what_is_committed_after_its_call_and_nothing_else(
    db: DatabaseManager, target: Target, agent_id: str
) -> None:
    committed, told, seen, calls = list[int](), set[int](), list[int](), 0

    async def write(manager: DatabaseManager, rng: random.Random) -> None:
        """Lines whose ids are taken long before they are committed, some of them undone."""
        for _ in range(60):
            before, undone = calls, rng.random() < 0.2
            with suppress(_UndoError):
                async with manager.transaction() as tx:
                    numbers = [await tx.create_agent_log(agent_id, "INFO", "m", "x") for _ in range(rng.randint(1, 3))]
                    await asyncio.sleep(rng.uniform(0, 0.01))
                    if undone:
                        raise _UndoError
                    before = calls
                committed.extend(number for number in numbers if before)  # their commit began after the call
                told.update(numbers)

    async def follow() -> None:
        async for row in lines:
            seen.append(row["id"])

    async with DatabaseManager(target.url) as other:
        writers = [asyncio.create_task(write((db, other)[n % 2], random.Random(n))) for n in range(6)]
        await asyncio.sleep(0.2)
        earlier = set(told)
        lines = db.tail_agent_logs(poll_seconds=0.002)
        calls += 1
        following = asyncio.create_task(follow())
        await asyncio.gather(*writers)
        async with asyncio.timeout(20):
            while not set(committed) <= set(seen):
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait((following,))
    assert earlier
    assert seen == sorted(set(seen))
    assert earlier.isdisjoint(seen)
    assert set(seen) <= told


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("many", [1, 1201])
async def test_a_tail_that_begins_while_a_lower_id_is_uncommitted_gives_it_and_not_the_higher_one(
    postgres_url: str, engine: str, many: int
) -> None:
    url = postgres_url.replace("postgresql://", f"postgresql+{engine}://")
    line: Any = {"log_level": "INFO", "component": "test", "message": "lower"}
    async with DatabaseManager(url) as db, DatabaseManager(url) as other:
        undone = other.transaction()
        async with db.transaction() as tx:
            numbers = [await tx.create_system_log("INFO", "test", "lower") for _ in range(many // 400)]
            await (await undone.__aenter__()).create_system_log("INFO", "test", "undone")
            numbers += await tx.create_system_logs([line] * many)
            await db_line(other, "higher, and before the call")
            lines = other.tail_system_logs(poll_seconds=0.01)
            await db_line(other, "after the call")
            following = asyncio.create_task(taken(lines, len(numbers) + 2))
            await asyncio.sleep(0.2)
            assert not following.done()
        await undone.__aexit__(_UndoError, _UndoError(), None)
        await db_line(other, "last")
        rows = await following
    assert [row["id"] for row in rows[:-2]] == numbers
    assert [row["message"] for row in rows[-2:]] == ["after the call", "last"]


async def db_line(db: DatabaseManager, message: str) -> None:
    """A line, by another task than the one that is inside a transaction."""
    await asyncio.create_task(db.create_system_log("INFO", "test", message))

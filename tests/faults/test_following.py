"""Logs that are followed while others write to them: on a server a lower id can be committed after a higher one."""

from __future__ import annotations

import asyncio
import random

import pytest

from orchdb import DatabaseManager
from tests.conftest import Target
from tests.support import taken


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

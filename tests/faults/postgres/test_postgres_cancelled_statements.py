"""Postgres: what a cancelled statement must not leave behind: itself, an open transaction, the lock of a row."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.testing.cancellation import await_points

from orchdb import DatabaseManager
from tests.support.faults import log, seen, until
from tests.support.postgres_sessions import Watched, watched
from tests.support.stepped import Stepped

# A statement that sets this message runs until it is cancelled, with the row locked.
SLOW = """
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_sleep(30); RETURN NEW; END$$;
    CREATE TRIGGER be_slow BEFORE UPDATE ON agents FOR EACH ROW WHEN (NEW.error_message = 'slow')
    EXECUTE FUNCTION be_slow()
"""
ROWS = 30  # more than 24 are copied


@dataclass(frozen=True)
class Work:
    """Operations on one agent."""

    db: DatabaseManager
    agent: str

    async def alone(self, name: str) -> None:
        await log(self.db, f"{name} a")

    async def crowd(self, name: str) -> None:
        """So many appends at once that some share a commit."""
        await asyncio.gather(*(log(self.db, f"{name} {number}") for number in range(ROWS)))

    async def bulk(self, name: str) -> None:
        line = {"log_level": "INFO", "component": "fault", "message": f"{name} bulk"}
        await self.db.create_system_logs([line] * ROWS)  # type: ignore[list-item]

    async def update(self, name: str) -> None:
        await self.db.update_agent(self.agent, error_message=name)

    async def together(self, name: str) -> None:
        async with self.db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", f"{name} a")
            await tx.add_agent_cost(self.agent, 1)
            async with tx.transaction():
                await tx.create_system_log("INFO", "fault", f"{name} b")
            await tx.conn.execute(text("SELECT 1"))
            await tx.get_system_logs(limit=1)

    async def rows_left(self, name: str) -> None:
        async with self.db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", f"{name} a")
            async with tx.conn.stream(text("SELECT * FROM system_logs")) as result:
                async for _ in result:
                    await asyncio.sleep(0)

    async def reading(self, name: str) -> None:
        del name
        await seen(self.db)

    async def slow(self, name: str) -> None:
        del name
        await self.db.update_agent(self.agent, error_message="slow")

    async def slow_together(self, name: str) -> None:
        async with self.db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", name)
            await tx.update_agent(self.agent, error_message="slow")

    async def slow_own(self, name: str) -> None:
        del name
        async with self.db.transaction() as tx:
            await tx.conn.execute(text("UPDATE agents SET error_message = 'slow' RETURNING id"))

    async def slow_reading(self, name: str) -> None:
        del name
        assert self.db.conn is not None
        await self.db.conn.execute(text("SELECT pg_sleep(30)"))


@asynccontextmanager
async def at_work(url: URL, **options: Any) -> AsyncIterator[tuple[Work, Watched]]:
    """A connected manager with an agent, and the server's view."""
    with watched(url) as server:
        async with DatabaseManager(url, **options) as db:
            definition = await db.create_orchestrator_agent(f"fault {uuid.uuid4()}")
            yield Work(db, await db.create_agent(definition, "session")), server


async def cancelled(operation: Awaitable[Any], reached: Callable[[], Awaitable[Any]]) -> bool:
    """Cancel the operation when it has reached its moment; whether that was in time."""
    task = asyncio.ensure_future(operation)
    await reached()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


# SQLAlchemy drops the connection of a cancelled stream without closing psycopg's cursor, which then complains.
@pytest.mark.filterwarnings("ignore:<psycopg.AsyncServerCursor object:ResourceWarning")
async def test_with_the_collector_off_nothing_runs_or_is_locked_50_ms_after_each_of_320_cancelled_statements(
    url: URL,
) -> None:
    hits = 0
    waited: list[float] = []
    async with at_work(url) as (work, server):
        server.ask(SLOW)
        await work.bulk("before")
        quick = [work.update, work.together, work.rows_left, work.bulk, work.alone, work.reading]
        slow = [work.slow, work.slow_together, work.slow_own, work.slow_reading]
        gc.collect()
        gc.disable()
        try:
            for number in range(160):
                await cancelled(quick[number % 6]("quick"), lambda: asyncio.sleep(random.random() * 0.003))
                waited.append(await until_nothing_is_left(server))
                hits += await cancelled(slow[number % 4]("slow"), lambda: until(server.sleeping))
                waited.append(await until_nothing_is_left(server))
        finally:
            gc.enable()
        await log(work.db, "the last one")
        assert "slow" not in await seen(work.db)
        assert await settled(work.db)
    assert hits == 160  # each of them was running on the server
    assert len(waited) == 320
    # The median, for a machine that is busy with something else: what leaks stays for 30 s and more.
    assert statistics.median(waited) < 0.05


async def until_nothing_is_left(server: Watched) -> float:
    """How long it takes until no statement runs, no transaction is open and no agent is locked."""
    started = time.monotonic()
    while (busy := server.busy()) or not server.agents_are_free():
        assert time.monotonic() - started < 5, busy or "an agent is locked"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


async def settled(db: DatabaseManager) -> bool:
    """Every connection of the pool is there for the next ones, and nothing goes on behind the scenes."""
    backend: Any = db._executor.backend
    pool = backend._pool
    await until(lambda: len(asyncio.all_tasks()) == 1 and not pool._endings)
    await asyncio.wait_for(asyncio.gather(*(seen(db) for _ in range(20))), 5)
    return bool(pool._slots._free == backend._settings.options.pool_size)


@pytest.mark.parametrize("late", [False, True], ids=["before it waits", "when the answer is there"])
@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_cancellation_at_every_await_point_leaves_all_or_nothing_and_every_row_free(
    url: URL, cancels: int, late: bool
) -> None:
    async with at_work(url, pool_size=2, pool_timeout=5) as (work, server):
        for operation, whole in (
            (work.together, (0, 2)),
            (work.alone, (0, 1)),
            (work.crowd, range(ROWS + 1)),
            (work.bulk, (0, ROWS)),
            (work.update, (0,)),
        ):
            points = 0
            async for name in cancelled_everywhere(operation, cancels, late):
                points += 1
                await until_nothing_is_left(server)
                assert len([line for line in server.lines() if line.startswith(f"{name} ")]) in whole, name
            assert points >= cancels
        assert await settled(work.db)
        # Each transaction wrote two lines and added one to the cost, or nothing.
        ((cost,),) = server.ask("SELECT coalesce(cost_usd, 0) FROM agents")
        assert cost == sum(line.startswith("together") for line in server.lines()) / 2


async def test_a_connection_for_reading_is_not_cut_off_while_it_is_made_anew(url: URL) -> None:
    async with at_work(url) as (work, server):
        with warnings.catch_warnings(record=True) as unclosed:
            warnings.simplefilter("always")
            for turns in range(12):
                await cancelled(work.slow_reading(""), lambda: until(server.sleeping))
                reading = asyncio.create_task(seen_by_own_statement(work.db))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
                gc.collect()
            assert await seen_by_own_statement(work.db) == 1
            gc.collect()
        assert [str(warning.message) for warning in unclosed] == []


async def seen_by_own_statement(db: DatabaseManager) -> int:
    assert db.conn is not None
    number: int = (await db.conn.execute(text("SELECT 1"))).scalar_one()
    return number


Operation = Callable[[str], Awaitable[None]]


async def cancelled_everywhere(operation: Operation, cancels: int, late: bool) -> AsyncIterator[str]:
    """Cancel the operation at each point in turn, or at each two; its name each time, when it has ended."""
    for first in count():
        name = f"{operation.__name__}-{first}"
        if not await cancelled_at(operation, name, first, late=late):
            return
        yield name
        for second in count(first + 1) if cancels == 2 else ():
            name = f"{operation.__name__}-{first}-{second}"
            reached = await cancelled_at(operation, name, first, second, late=late)
            yield name
            if not reached:
                break


async def cancelled_at(operation: Operation, name: str, *points: int, late: bool) -> bool:
    """Run the operation, cancelled at these points; whether it came as far as the last one."""
    stepped = Stepped(operation(name), *points, late=late)

    async def run() -> None:
        await stepped

    task = asyncio.create_task(run())
    await asyncio.wait((task,), timeout=10)
    assert task.done()
    assert task.cancelled() == (stepped.count > points[0]), task.exception()
    return stepped.count > points[-1]


async def test_a_cancellation_at_every_await_of_sqlalchemy_leaves_no_session(url: URL) -> None:
    with await_points() as points:
        await from_open_to_close(url, "whole")
    with watched(url) as server:
        for number in range(1, points.count + 1):
            with await_points(cancel_at=(number,)) as cancels:
                task = cancels.create_task(from_open_to_close(url, f"{number}"))
                with suppress(asyncio.CancelledError):
                    await task
            assert task.cancelled() == bool(cancels.cancelled_at)
            await until(lambda: not server.sessions())
            assert server.agents_are_free()
            assert len([line for line in server.lines() if line.startswith(f"{number} ")]) in (0, 2)
        assert len([line for line in server.lines() if line.startswith("whole ")]) == 2
        assert points.count > 20


async def from_open_to_close(url: URL, name: str) -> None:
    async with at_work(url) as (work, _):
        await work.together(name)

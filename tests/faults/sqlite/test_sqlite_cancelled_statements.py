"""SQLite: what a cancelled statement must not leave behind: the write lock, an old snapshot, a blocked queue."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.testing.cancellation import await_points

from orchdb import DatabaseManager, OperationError
from tests.support.faults import foreign_lock, lock_is_free, log, messages, opened, seen, until
from tests.support.stepped import Stepped

INSERT = "INSERT INTO system_logs (component, message) VALUES ('fault', 'own') RETURNING id"


async def own_insert(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.conn.execute(text(INSERT))


async def rows_left(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "rows left")
        result = await tx.conn.stream(text("SELECT * FROM system_logs"))
        async for _ in result:
            await asyncio.sleep(0)


async def own_reading(db: DatabaseManager) -> None:
    assert db.conn is not None
    await db.conn.execute(text("SELECT a.message FROM system_logs a, system_logs b LIMIT 5000"))


async def bulk(db: DatabaseManager) -> None:
    line = {"log_level": "INFO", "component": "fault", "message": "bulk"}
    await db.create_system_logs([line] * 200)  # type: ignore[list-item]


KINDS: list[Callable[[DatabaseManager], Awaitable[Any]]] = [
    own_insert,
    rows_left,
    own_reading,
    bulk,
    lambda db: log(db, "alone"),
    lambda db: db.get_system_logs(limit=500),
]


async def test_with_the_collector_off_the_lock_is_free_50_ms_after_each_of_320_cancelled_statements(path: Path) -> None:
    cancelled = 0
    waited: list[float] = []
    async with DatabaseManager(path) as db:
        await bulk(db)
        gc.collect()
        gc.disable()
        try:
            for number in range(320):
                task = asyncio.ensure_future(KINDS[number % len(KINDS)](db))
                await asyncio.sleep(random.random() * 0.003)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                cancelled += task.cancelled()
                started = time.monotonic()
                await until(lambda: lock_is_free(path), 2)
                waited.append(time.monotonic() - started)
        finally:
            gc.enable()
        await log(db, "the last one")
    assert cancelled >= 20
    # Two exceptions, for a machine that was busy with something else; a leaked lock would never be free.
    assert sorted(waited)[-3] < 0.05


async def test_a_cancelled_read_is_interrupted_and_the_next_one_sees_the_present(path: Path) -> None:
    async with DatabaseManager(path) as db:
        with opened(path) as other:
            other.execute("BEGIN")
            insert = "INSERT INTO system_logs (component, message) VALUES ('fault', ?)"
            other.executemany(insert, [(f"{number} {'x' * 200}",) for number in range(30_000)])
            other.execute("COMMIT")
        for number in range(10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(db.get_system_logs(), 0.01)
            await log(db, f"new {number}")
            (newest,) = await db.list_recent_system_logs(1)
            assert newest["message"] == f"new {number}"


@pytest.mark.parametrize("kind", ["one", "bulk", "transaction"])
async def test_a_time_out_while_another_process_holds_the_lock_is_kept_and_nothing_is_written_later(
    path: Path, kind: str
) -> None:
    async def together(db: DatabaseManager) -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", "late")

    operations: dict[str, Callable[[DatabaseManager], Awaitable[Any]]] = {
        "one": lambda db: log(db, "late"),
        "bulk": bulk,
        "transaction": together,
    }
    async with DatabaseManager(path) as db:
        with foreign_lock(path):
            for _ in range(3):
                started = time.monotonic()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(operations[kind](db), 0.3)
                assert time.monotonic() - started < 0.8
            assert await seen(db) == []
        await log(db, "after")
        assert await seen(db) == ["after"]
        assert lock_is_free(path)


async def test_a_lock_beyond_lock_timeout_is_an_operation_error_and_then_all_is_well(path: Path) -> None:
    async with DatabaseManager(path, lock_timeout=0.4) as db:
        with foreign_lock(path):
            started = time.monotonic()

            async def together() -> None:
                async with db.transaction() as tx:
                    await log(tx, "together")  # type: ignore[arg-type]

            results = await asyncio.gather(log(db, "a"), bulk(db), together(), log(db, "b"), return_exceptions=True)
            # The four wait one behind the other for the connection, but all for the same 0.4 s.
            assert time.monotonic() - started < 2
            assert [type(result) for result in results] == [OperationError] * 4
            assert {result.code for result in results if isinstance(result, OperationError)} == {"SQLITE_BUSY"}
            assert "lock" in str(results[0])
            assert await seen(db) == []
        await log(db, "after")
        assert messages(path) == ["after"]


async def test_waiting_for_a_lock_does_not_stop_the_event_loop_or_the_readers(path: Path) -> None:
    async with DatabaseManager(path) as db:
        await log(db, "before")
        stalls: list[float] = []

        async def pulse() -> None:
            while True:
                started = time.monotonic()
                await asyncio.sleep(0.01)
                stalls.append(time.monotonic() - started - 0.01)

        beating = asyncio.create_task(pulse())
        with foreign_lock(path):
            waiting = asyncio.create_task(log(db, "waited"))
            started = time.monotonic()
            while time.monotonic() - started < 1.5:
                asked = time.monotonic()
                assert await seen(db) == ["before"]
                assert time.monotonic() - asked < 1
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)
        beating.cancel()
        assert max(stalls) < 0.5
        assert await seen(db) == ["before", "waited"]


async def test_in_memory_a_cancelled_task_disturbs_no_other_and_the_tables_stay() -> None:
    async with DatabaseManager(":memory:") as db:
        for number in range(10):
            tasks = [asyncio.create_task(log(db, f"{number}-{task}")) for task in range(40)]
            for task in random.sample(tasks, 15):
                asyncio.get_running_loop().call_later(random.random() * 0.002, task.cancel)
            results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
            assert {type(result) for result in results} <= {int, asyncio.CancelledError}
            acknowledged = {f"{number}-{task}" for task, result in enumerate(results) if isinstance(result, int)}
            assert acknowledged <= set(await seen(db))


async def swept(db: DatabaseManager, name: str) -> None:
    """An operation with many await points."""
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", f"{name} a")
        async with tx.transaction():
            await tx.create_system_log("INFO", "fault", f"{name} b")
        await tx.conn.execute(text("SELECT 1"))
        await tx.get_system_logs(limit=1)


@pytest.mark.parametrize("late", [False, True], ids=["before it waits", "when the answer is there"])
@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_cancellation_at_every_await_point_leaves_all_or_nothing_and_a_free_lock(
    path: Path, cancels: int, late: bool
) -> None:
    async with DatabaseManager(path) as db:
        counted = Stepped(swept(db, "whole"))
        await counted
        whole = counted.count
        assert whole > 5
        pairs = [(first,) if cancels == 1 else (first, second) for first in range(whole) for second in range(first, 20)]
        for points in sorted(set(pairs)):
            name = "-".join(map(str, points))

            async def run(name: str = name, points: tuple[int, ...] = points) -> None:
                await Stepped(swept(db, name), *points, late=late)

            task = asyncio.create_task(run())
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(task), 5)
            await until(task.done)
            assert lock_is_free(path), points
            assert len([line for line in messages(path) if line.startswith(f"{name} ")]) in (0, 2), points
        await asyncio.wait_for(log(db, "the last one"), 5)


async def test_a_cancellation_at_every_await_of_sqlalchemy_leaves_nothing_open(path: Path) -> None:
    with await_points() as points:
        async with DatabaseManager(path) as db:
            await swept(db, "whole")
    for number in range(1, points.count + 1):
        with await_points(cancel_at=(number,)):
            task = asyncio.create_task(self_contained(path, str(number)))
            with suppress(asyncio.CancelledError):
                await task
        assert lock_is_free(path)
        assert len([line for line in messages(path) if line.startswith(f"{number} ")]) in (0, 2)


async def self_contained(path: Path, name: str) -> None:
    async with DatabaseManager(path) as db:
        await swept(db, name)


async def test_with_a_lock_timeout_of_0_a_write_tries_once(path: Path) -> None:
    async with DatabaseManager(path, lock_timeout=0) as db:
        await log(db, "free")
        with foreign_lock(path), pytest.raises(OperationError):
            await asyncio.wait_for(log(db, "locked"), 1)
        await asyncio.gather(*(log(db, str(number)) for number in range(1000)))
        assert len(messages(path)) == 1001

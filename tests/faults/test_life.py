"""Closing, exiting, forking, and the wrong loop or thread: each ends soon, and with an error that says so."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, NotConnectedError, OperationError
from tests.conftest import Target
from tests.support.databases import OPERATIONS, call
from tests.support.faults import Child, assert_sound, lock_is_free, log, run_child, seen, until

WAYS = ["return", "global", "sys.exit", "exception", "in flight", "Ctrl-C", "open transaction"]


@pytest.mark.parametrize("way", WAYS)
def test_exit_without_close_ends_within_2_s_and_loses_nothing_acknowledged(target: Target, way: str) -> None:
    with Child("exiting", target.url, way) as child:
        said = []
        while True:
            line = child.line()
            if isinstance(line, dict):
                break
            said.append(line)
        child.process.wait(timeout=max(0.1, line["ended"] + 2 - time.time()))
        assert child.process.returncode == (way in ("exception", "Ctrl-C", "open transaction"))
    assert len(said) >= 20

    async def look() -> list[str]:
        async with DatabaseManager(target.url) as db:
            return await seen(db)

    visible = asyncio.run(look())
    assert set(said) <= set(visible)
    assert "never" not in visible
    if target.engine == "sqlite":
        assert_sound(target.path)


def test_a_fork_of_a_connected_manager_is_refused_and_the_parent_does_not_notice(target: Target) -> None:
    (result,) = run_child("forking", target.url)
    assert result == {"child": 0, "lines": 51, "kept": True}


def test_sqlite_a_fork_leaves_the_database_in_memory_to_its_parent() -> None:
    (result,) = run_child("forking", ":memory:")
    assert result == {"child": 0, "lines": 51, "kept": True}


async def test_close_lets_running_operations_end_and_refuses_new_ones(target: Target) -> None:
    db = DatabaseManager(target.url)
    await db.connect()
    writes = [asyncio.create_task(log(db, str(number))) for number in range(200)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    late = await asyncio.gather(log(db, "late"), return_exceptions=True)
    await asyncio.wait_for(closing, 10)
    results = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 1)
    assert isinstance(late[0], NotConnectedError)
    assert {type(result) for result in results} <= {int, NotConnectedError}
    acknowledged = {str(number) for number, result in enumerate(results) if isinstance(result, int)}
    async with DatabaseManager(target.url) as again:
        assert set(await seen(again)) == acknowledged


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_sqlite_after_close_every_operation_is_refused_at_once(operation: str) -> None:
    db = DatabaseManager(":memory:")
    await db.connect()
    await db.close()
    started = time.monotonic()
    with pytest.raises(NotConnectedError):
        await call(db, operation, *OPERATIONS[operation])
    assert time.monotonic() - started < 1


async def test_close_twice_at_once_and_without_connect_is_fine(target: Target) -> None:
    db = DatabaseManager(target.url)
    await db.close()
    await db.connect()
    await asyncio.wait_for(asyncio.gather(db.close(), db.close(), db.close()), 5)
    await db.close()
    await db.connect()
    await log(db, "again")
    await db.close()


async def test_a_close_that_is_cancelled_still_closes(target: Target) -> None:
    threads = threading.active_count()
    db = DatabaseManager(target.url)
    await db.connect()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", "held")
            entered.set()
            await leave.wait()

    holding = asyncio.create_task(hold())
    await entered.wait()
    waiting = asyncio.create_task(log(db, "waiting")) if target.engine == "sqlite" else None
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(db.close(), 0.2)
    assert db.conn is None
    leave.set()
    (result,) = await asyncio.wait_for(asyncio.gather(holding, return_exceptions=True), 5)
    assert isinstance(result, NotConnectedError)  # it was undone: its connection has been closed
    if waiting is not None:
        with pytest.raises(NotConnectedError):
            await asyncio.wait_for(waiting, 1)
    await until(lambda: threading.active_count() <= threads)
    if target.engine == "sqlite":
        assert lock_is_free(target.path)
    async with DatabaseManager(target.url) as again:
        assert await seen(again) == (["held"] if result is None else [])


async def test_sqlite_a_connection_that_the_caller_closed_does_not_keep_the_manager_from_closing(
    target: Target,
) -> None:
    if target.engine != "sqlite":
        pytest.skip("one engine is enough")
    async with DatabaseManager(target.url) as db:
        assert db.conn is not None
        await db.conn.close()
        await log(db, "works")
        assert await seen(db) == ["works"]


async def test_sqlite_a_read_that_takes_long_is_stopped_by_close(path: Path) -> None:
    db = DatabaseManager(path)
    await db.connect()
    await db.create_system_logs({"log_level": "INFO", "component": "fault", "message": "x" * 1000} for _ in range(2000))
    reads = [asyncio.create_task(db.get_system_logs()) for _ in range(50)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    results = await asyncio.wait_for(asyncio.gather(*reads, return_exceptions=True), 2)
    assert {type(result) for result in results} <= {list, NotConnectedError, OperationError}


def _in_a_thread(coroutine: Coroutine[Any, Any, Any]) -> BaseException | None:
    """What running it in another thread, with a loop of its own, raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    return raised[0] if raised else None


async def test_another_thread_is_refused_and_disturbs_nothing(target: Target) -> None:
    async def transaction(db: DatabaseManager) -> None:
        async with db.transaction():
            pass

    async with DatabaseManager(target.url) as db:
        writes = asyncio.gather(*(log(db, str(number)) for number in range(100)))
        for coroutine in (log(db, "no"), db.get_system_logs(), transaction(db), db.connect()):
            refused = await asyncio.to_thread(_in_a_thread, coroutine)
            assert isinstance(refused, NotConnectedError)
            assert "loop" in str(refused)
        await writes
        assert len(await seen(db)) == 100


# The first loop closes on open sockets, which are warned of. Where that is an error, uvloop waits for them for ever.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_second_loop_is_refused_and_can_connect_after_close(target: Target) -> None:
    db = DatabaseManager(target.url)

    async def first() -> None:
        await db.connect()
        await log(db, "first")

    async def second() -> None:
        with pytest.raises(NotConnectedError, match="loop"):
            await log(db, "refused")
        await asyncio.wait_for(db.close(), 5)
        await db.connect()
        await log(db, "second")
        assert await seen(db) == ["first", "second"]
        await db.close()

    started = time.monotonic()
    asyncio.run(first())
    asyncio.run(second())
    assert time.monotonic() - started < 5
    gc.collect()  # the sockets of the first loop: their warnings belong to this test

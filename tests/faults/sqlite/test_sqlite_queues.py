"""SQLite: the races in the two queues, at the moments at which something changes hands."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, NotConnectedError, OperationError
from orchdb.sqlite.read_pool import ReadPool
from orchdb.sqlite.write_queue import MAX_WAITING, WriteQueue
from tests.support.faults import foreign_lock, lock_is_free, log, messages, opened, seen, until


@pytest.fixture
async def db(path: Path) -> AsyncIterator[DatabaseManager]:
    """A connected manager; afterwards its queues must be empty and idle."""
    async with DatabaseManager(path, lock_timeout=2) as manager:
        yield manager
        writer = writer_of(manager)
        await until(lambda: not writer._busy and not writer._waiting, 1)
        assert not writer._waiters
        sweeper: Any = writer._sweeper
        assert sweeper is None or sweeper.cancelled()
        assert lock_is_free(path)


def writer_of(db: DatabaseManager) -> WriteQueue:
    backend: Any = db._executor.backend
    assert isinstance(backend._write_queue, WriteQueue)
    return backend._write_queue


def readers_of(db: DatabaseManager) -> ReadPool:
    backend: Any = db._executor.backend
    assert isinstance(backend._read_pool, ReadPool)
    return backend._read_pool


async def hold(db: DatabaseManager, leave: asyncio.Event, name: str = "held") -> None:
    """A transaction that stays open until the event is set."""
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", name)
        await leave.wait()


@pytest.mark.parametrize("turns", range(6))
async def test_a_transaction_cancelled_while_the_connection_changes_hands_gives_it_on(
    db: DatabaseManager, turns: int
) -> None:
    leave = asyncio.Event()
    first = asyncio.create_task(hold(db, leave, "first"))
    await until(lambda: writer_of(db)._busy)
    second = asyncio.create_task(hold(db, leave, "second"))
    third = asyncio.create_task(log(db, "third"))
    await asyncio.sleep(0.02)
    leave.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait_for(asyncio.gather(first, second, third, return_exceptions=True), 2)
    lines = await seen(db)
    # Not their order: a time is taken when the call begins, and the third does not wait to call.
    assert sorted(line for line in lines if line != "second") == ["first", "third"]
    assert ("second" in lines) == (not second.cancelled())


async def test_everyone_in_the_queue_is_cancelled_while_a_retry_is_due(db: DatabaseManager, path: Path) -> None:
    with foreign_lock(path):
        tasks = [asyncio.create_task(log(db, str(number))) for number in range(200)]
        await asyncio.sleep(0.25)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(log(db, "alone"), 1)
    assert messages(path) == ["alone"]


async def test_who_waits_behind_a_transaction_is_timed_out_and_the_rest_goes_on(path: Path) -> None:
    async with DatabaseManager(path, lock_timeout=0.3) as db:
        leave = asyncio.Event()
        holding = asyncio.create_task(hold(db, leave))
        await until(lambda: writer_of(db)._busy)
        results = await asyncio.wait_for(asyncio.gather(log(db, "late"), hold(db, leave), return_exceptions=True), 1)
        assert [type(result) for result in results] == [OperationError] * 2
        waiting = asyncio.create_task(log(db, "in time"))
        await asyncio.sleep(0.1)
        leave.set()
        await asyncio.gather(holding, waiting)
        assert await seen(db) == ["held", "in time"]


async def test_more_writes_than_may_wait_are_all_written(db: DatabaseManager, path: Path) -> None:
    await asyncio.wait_for(asyncio.gather(*(log(db, str(number)) for number in range(MAX_WAITING * 2))), 300)
    assert len(messages(path)) == MAX_WAITING * 2


async def test_a_transaction_is_not_starved_by_writes_that_keep_coming(db: DatabaseManager) -> None:
    stop = False

    async def keep_coming() -> None:
        while not stop:
            await log(db, "x")

    tasks = [asyncio.create_task(keep_coming()) for _ in range(50)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1), db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "between")
    stop = True
    await asyncio.gather(*tasks)


async def test_a_rollback_that_fails_fails_its_callers_and_the_next_write_works(db: DatabaseManager) -> None:
    writer: Any = writer_of(db)
    connection: sqlite3.Connection = writer.conn._driver._conn
    # After a shared commit the next writes are a batch too; alone, a write is committed without a COMMIT to refuse.
    before = [f"before {number}" for number in range(3)]
    await asyncio.gather(*(log(db, message) for message in before))

    def deny(action: int, first: str | None, *_: object) -> int:
        refused = action == sqlite3.SQLITE_TRANSACTION and first in ("COMMIT", "ROLLBACK")
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    connection.set_authorizer(deny)
    results = await asyncio.wait_for(
        asyncio.gather(*(log(db, f"refused {number}") for number in range(20)), return_exceptions=True), 5
    )
    assert {type(result) for result in results} == {OperationError}
    connection.set_authorizer(None)
    await asyncio.wait_for(log(db, "after"), 5)
    assert await seen(db) == [*before, "after"]


async def test_a_writer_whose_thread_has_ended_fails_instead_of_waiting_for_ever(path: Path) -> None:
    async with DatabaseManager(path) as db:
        writer: Any = writer_of(db)
        await writer.conn._driver.close()
        for _ in range(2):
            with pytest.raises((NotConnectedError, OperationError)):
                await asyncio.wait_for(log(db, "nobody is there"), 2)


async def test_a_reader_cancelled_while_a_connection_is_handed_over_passes_it_on(db: DatabaseManager) -> None:
    readers = readers_of(db)
    for turns in range(12):
        tasks = [asyncio.create_task(db.get_system_logs()) for _ in range(40)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [result for result in results[1::2] if result != []] == []
        await until(lambda: len(readers._idle) == len(readers.conns) <= 4, 1)
        assert not [waiter for waiter in readers._waiters if not waiter.done()]


async def test_readers_that_cannot_be_opened_fail_everyone_in_line_and_come_back(db: DatabaseManager) -> None:
    readers = readers_of(db)
    real, failing = readers.open_connection, True

    async def sometimes() -> Any:
        await asyncio.sleep(0.01)
        if failing:
            raise sqlite3.OperationalError("unable to open database file")
        return await real()

    readers.open_connection = sometimes
    results = await asyncio.wait_for(asyncio.gather(*(seen(db) for _ in range(20)), return_exceptions=True), 2)
    assert {type(result) for result in results} == {OperationError}
    failing = False
    assert await asyncio.wait_for(asyncio.gather(*(seen(db) for _ in range(20))), 2) == [[]] * 20


async def test_a_read_that_fails_half_way_does_not_keep_its_snapshot(db: DatabaseManager, path: Path) -> None:
    await db.create_system_logs(
        {"log_level": "INFO", "component": "fault", "message": str(number)} for number in range(500)
    )
    connection = next(iter(readers_of(db).conns), None)
    if connection is None:
        await seen(db)
        (connection,) = readers_of(db).conns
    driver: Any = connection._driver
    calls = 0

    def stop() -> int:
        nonlocal calls
        calls += 1
        return calls == 3

    driver._conn.set_progress_handler(stop, 500)
    with pytest.raises(OperationError) as caught:
        await seen(db)
    assert caught.value.code == "SQLITE_INTERRUPT"
    driver._conn.set_progress_handler(None, 0)
    with opened(path) as other:
        other.execute("DELETE FROM system_logs")
    assert await seen(db) == []


async def test_a_transaction_that_the_caller_ended_by_hand_is_refused_and_the_next_one_works(
    db: DatabaseManager,
) -> None:
    async def ends_by_hand() -> None:
        async with db.transaction() as tx:
            await tx.conn.execute(text("COMMIT"))
            await tx.create_system_log("INFO", "fault", "outside")

    with pytest.raises(OperationError):
        await ends_by_hand()
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "inside")
    assert await seen(db) == ["inside"]


async def test_tasks_inside_one_transaction_take_turns(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        numbers = await asyncio.gather(*(tx.create_system_log("INFO", "fault", str(number)) for number in range(200)))
    assert len(set(numbers)) == len(await seen(db)) == 200


async def test_no_thread_is_left_however_often_a_manager_is_opened(path: Path) -> None:
    threads = threading.active_count()
    for _ in range(30):
        async with DatabaseManager(path) as db:
            await asyncio.gather(log(db, "x"), seen(db), seen(db))
    await until(lambda: threading.active_count() <= threads)

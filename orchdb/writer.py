"""The two queues in front of SQLite: one writer that shares its commits, and readers that never wait for it.

A hop to the thread that owns a connection costs more than the statement it carries. So all waiting writes go
together: one hop runs ``BEGIN IMMEDIATE``, each write, and ``COMMIT``; each caller's ``await`` returns after the commit
that holds its row. (A statement that waits alone is a transaction by itself.) A write that fails is undone alone, and
only its caller hears of it; if the transaction itself breaks, its writes are run again one by one, so that only the
guilty one fails.

What is waiting can be cancelled at once and then never runs. What has been handed to the thread runs to its end, even
if its caller is cancelled meanwhile: such a write may or may not have been applied. Nobody waits inside SQLite for a
lock that another process holds: the thread tries for a tenth of a second, then the queue sleeps a few random
milliseconds and tries again, until each write's own time-out has passed.

``acquire()`` hands the connection to one transaction of the caller's; the queue goes on when it is released.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.errors import NotConnectedError, OperationError, sqlite_code
from orchdb.shielding import to_the_end

NOT_RUN = object()
"""In place of a result: the lock was not to be had, and the work can be tried again."""

MAX_WAITING = 10_000
MAX_BATCH = 500
RETRY_SECONDS = (0.001, 0.020)
_SWEEP_SECONDS = 0.1


class Work(Protocol):
    """What runs in the connection's thread: one statement, or several that stand or fall together."""

    several: bool

    def __call__(self, connection: sqlite3.Connection) -> Any: ...


@dataclass(eq=False, repr=False, slots=True)
class Failure:
    """An exception on its way from the thread to the caller."""

    error: Exception


class Lane:
    """A connection of the engine's, and the thread that owns it."""

    def __init__(self, connection: AsyncConnection, driver: Any) -> None:
        self.connection = connection
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.running: asyncio.Future[Any] | None = None

    def post(self, function: Callable[[sqlite3.Connection], Any], done: Callable[[Any], None]) -> None:
        """Run the function in the thread; then ``done`` in the event loop, with its result or its ``Failure``."""

        def run() -> None:
            try:
                result = function(self._driver._conn)
            except Exception as error:
                result = Failure(error)
            self._loop.call_soon_threadsafe(done, result)

        if self._closed or not self._driver._running:  # its thread has ended, or will before it comes to this
            self._loop.call_soon(done, closed())
            return
        # aiosqlite's own queue: its public methods take a future and one more turn of the loop for each call.
        self._driver._tx.put_nowait((None, run))

    async def call(self, work: Work) -> Any:
        """The result of the work, waited for to the end."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.post(partial(attempt, work), future.set_result)
        return unwrapped(await to_the_end(future))

    def interrupt(self) -> None:
        """Stop the statement that is running, if one is."""
        with contextlib.suppress(ValueError, sqlite3.Error):  # the connection may just be closed
            self._driver._conn.interrupt()

    def close(self) -> None:
        """Take nothing more; what has been posted still runs. Whoever opened the connection closes it."""
        self._closed = True


def unwrapped(result: Any) -> Any:
    """The result, or the exception it carries raised."""
    if isinstance(result, Failure):
        try:
            raise result.error
        finally:
            del result  # the exception holds this frame: with the name it would be garbage in a cycle
    return result


def attempt(work: Work, connection: sqlite3.Connection, *, alone: bool = False) -> Any:
    """The result of the work or its failure; work of several statements is undone as a whole.

    Args:
        work: What to run.
        connection: Where to run it.
        alone: Whether work of several statements has a transaction for itself, which the caller rolls back.
    """
    try:
        if not work.several or alone:
            return work(connection)
        connection.execute("SAVEPOINT several")
        try:
            result = work(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO several")
                connection.execute("RELEASE several")
            raise
        connection.execute("RELEASE several")
    except Exception as error:
        return Failure(error)
    return result


@dataclass(eq=False, repr=False, slots=True)
class _Entry:
    work: Work | None  # None asks for the connection itself
    future: asyncio.Future[Any]
    deadline: float
    tried: bool = False


def run_batch(batch: Sequence[_Entry], guard: Callable[[], None], connection: sqlite3.Connection) -> list[Any]:
    """The results of the entries, all in one transaction; ``NOT_RUN`` for those that did not get the lock."""
    try:
        _undo(connection)  # what should have ended the last one has failed
        lone = batch[0].work if len(batch) == 1 and not batch[0].tried else None
        if lone is not None and not lone.several:
            return [_run_lone(lone, guard, connection)]
        connection.execute("BEGIN IMMEDIATE")
        results = _run_all(batch, guard, connection)
        if results is not None:
            return results
        _undo(connection)
    except (sqlite3.Error, OperationError) as error:
        _undo(connection)
        if sqlite_code(error) == "SQLITE_BUSY":
            return [NOT_RUN] * len(batch)
        if len(batch) == 1:
            return [Failure(error)]
    one_by_one: list[Any] = []
    for entry in batch:
        if one_by_one and one_by_one[-1] is NOT_RUN:
            one_by_one.append(NOT_RUN)
        else:
            one_by_one.extend(run_batch([entry], guard, connection))
    return one_by_one


def run_bulk(batch: Sequence[_Entry], guard: Callable[[], None], connection: sqlite3.Connection) -> list[Any]:
    """What ``run_batch`` gives, for one work of many rows.

    For each row SQLite keeps the pages as they were, in case that the row fails: in a temporary file from the first
    64 kB on, which was measured to take half the time of a bulk. In memory it is no more than what one row changes.
    Not for all writes: what one deletion takes along may be any number of pages.
    """
    _undo(connection)  # the setting cannot change inside a transaction
    connection.execute("PRAGMA temp_store = 2").close()
    try:
        return run_batch(batch, guard, connection)
    finally:
        with contextlib.suppress(sqlite3.Error):  # what was committed is committed
            connection.execute("PRAGMA temp_store = 0").close()


def _run_lone(work: Work, guard: Callable[[], None], connection: sqlite3.Connection) -> Any:
    """The result of one statement; ``NOT_RUN`` if it did not get the lock.

    By itself it is a transaction that SQLite begins and commits, which costs two calls less. At the first try only: who
    has waited for another process, and gave up, is asked for under the lock.
    """
    guard()
    result = attempt(work, connection)
    if isinstance(result, Failure) and sqlite_code(result.error) == "SQLITE_BUSY":
        return NOT_RUN
    return result


def _undo(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _run_all(batch: Sequence[_Entry], guard: Callable[[], None], connection: sqlite3.Connection) -> list[Any] | None:
    """The results, committed; ``None`` if the transaction broke and several entries were in it."""
    guard()
    results: list[Any] = []
    for entry in batch:
        # Who gave up while the thread was trying for the lock does not want it any more.
        if entry.work is None or entry.future.cancelled():
            results.append(None)
        else:
            results.append(attempt(entry.work, connection, alone=True))
        if not connection.in_transaction:  # a full disk, say, rolls the whole transaction back
            return results if len(batch) == 1 else None
    if len(batch) == 1 and isinstance(results[0], Failure):
        connection.execute("ROLLBACK")  # what it did before it failed goes too
    else:
        connection.execute("COMMIT")
    return results


def locked() -> Failure:
    """The failure of a write that waited for the lock longer than it may."""
    return Failure(OperationError("the database stayed locked for longer than lock_timeout", code="SQLITE_BUSY"))


def closed() -> Failure:
    """The failure of what was still waiting when the manager was closed."""
    return Failure(NotConnectedError("the manager was closed while this waited"))


@dataclass(eq=False, repr=False)
class Writer:
    """The queue in front of the one connection that writes."""

    lane: Lane
    lock_timeout: float
    guard: Callable[[], None] = lambda: None  # runs in the thread before each batch, and raises if none may be written
    _waiting: deque[_Entry] = field(default_factory=lambda: deque[_Entry]())
    _busy: bool = False  # a batch is in the thread, a lease is out, or a retry is due
    _scheduled: bool = False

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._sweeper: asyncio.TimerHandle | None = None

    async def run(self, work: Work) -> Any:
        """The result of the work, after the commit that holds it."""
        await self._room.acquire()  # not async with, which would take two coroutines more
        try:
            return unwrapped(await self._enqueue(work))
        finally:
            self._room.release()

    async def acquire(self) -> Lane:
        """The connection itself, for one transaction, until ``release``."""
        await self._room.acquire()
        future = self._enqueue(None)
        try:
            unwrapped(await future)
        except BaseException:
            if future.done() and not future.cancelled() and future.result() is None:
                self.release()
            else:
                self._room.release()
            raise
        return self.lane

    def release(self) -> None:
        """Let the queue go on."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._room.release()
        self._busy = False
        self._wake()

    def abandon(self) -> None:
        """Fail everything that still waits: the connection is about to be closed."""
        self.lane.close()
        for entry in self._waiting:
            if not entry.future.done():
                entry.future.set_result(closed())

    def _enqueue(self, work: Work | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Entry(work, future, self._loop.time() + self.lock_timeout))
        self._wake()
        return future

    def _wake(self) -> None:
        # At the end of this turn of the loop, so that every task that is ready to write joins the batch.
        if not self._busy and not self._scheduled and self._waiting:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        batch = self._next_batch()
        if batch:
            self._busy = True
            run = run_bulk if batch[0].work is not None and batch[0].work.several else run_batch
            self.lane.post(partial(run, batch, self.guard), partial(self._finished, batch))
        elif self._waiting:
            self._busy = True
            self._waiting.popleft().future.set_result(None)
            self._sweep()
        else:
            self._busy = False

    def _next_batch(self) -> list[_Entry]:
        """The writes at the head of the queue, up to one that asks for the connection itself.

        Also one whose time is over is among them: each write has at least one try.
        """
        batch: list[_Entry] = []
        while self._waiting and len(batch) < MAX_BATCH:
            entry = self._waiting[0]
            if entry.future.done():  # cancelled
                self._waiting.popleft()
                continue
            if entry.work is None or (batch and entry.work.several):
                break
            batch.append(self._waiting.popleft())
            if entry.work.several:  # alone, undone with its transaction: a savepoint would copy every page it touches
                break
        return batch

    def _finished(self, batch: list[_Entry], results: list[Any] | Failure) -> None:
        if isinstance(results, Failure):
            results = [results] * len(batch)
        again: list[_Entry] = []
        for entry, result in zip(batch, results, strict=True):
            if result is NOT_RUN:
                entry.tried = True
                again.append(entry)
            elif not entry.future.done():
                entry.future.set_result(result)
        if again:
            self._waiting.extendleft(reversed(again))
            self._drop_the_dead()
            self._loop.call_later(random.uniform(*RETRY_SECONDS), self._start)  # noqa: S311  # a pause, not a secret
            return
        self._busy = False
        self._wake()

    def _sweep(self) -> None:
        """While a lease is out nobody tries the lock, so the time-outs of those who wait are looked after here."""
        self._drop_the_dead()
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _drop_the_dead(self) -> None:
        now = self._loop.time()
        if not any(entry.future.done() or entry.deadline <= now for entry in self._waiting):
            return
        alive: deque[_Entry] = deque()
        for entry in self._waiting:
            if entry.future.done():
                continue
            if entry.deadline <= now:
                entry.future.set_result(locked())
            else:
                alive.append(entry)
        self._waiting = alive


@dataclass(eq=False, repr=False)
class Readers:
    """The connections that read: opened when first needed, at most ``limit``; who finds none free waits in line."""

    open_lane: Callable[[], Awaitable[Lane]]
    limit: int
    lanes: list[Lane] = field(default_factory=lambda: list[Lane]())
    _idle: list[Lane] = field(default_factory=lambda: list[Lane]())
    _line: deque[asyncio.Future[Lane]] = field(default_factory=lambda: deque[asyncio.Future[Lane]]())
    _opening: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def run(self, work: Work) -> Any:
        """The result of the work; one that is cancelled is interrupted."""
        lane = self._idle.pop() if self._idle else await self._another()
        future: asyncio.Future[Any] = self._loop.create_future()
        lane.running = future
        lane.post(partial(attempt, work), partial(self._finished, lane, future))
        try:
            return unwrapped(await future)
        except asyncio.CancelledError:
            if lane.running is future:
                lane.interrupt()
            raise

    def abandon(self) -> None:
        """Fail everyone who still stands in line, and stop who is running: the connections are about to be closed."""
        for lane in self.lanes:
            lane.close()
            lane.interrupt()
        for waiter in self._line:
            if not waiter.done():
                waiter.set_exception(closed().error)

    def _finished(self, lane: Lane, future: asyncio.Future[Any], result: Any) -> None:
        lane.running = None
        if not future.done():
            future.set_result(result)
        self._release(lane)

    def _release(self, lane: Lane) -> None:
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_result(lane)
                return
        self._idle.append(lane)

    async def _another(self) -> Lane:
        if len(self.lanes) + self._opening < self.limit:
            self._opening += 1
            await to_the_end(self._open())
        if self._idle:
            return self._idle.pop()
        waiter: asyncio.Future[Lane] = self._loop.create_future()
        self._line.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    async def _open(self) -> None:
        try:
            lane = await self.open_lane()
        except Exception as error:
            if not self.lanes:  # nobody would ever come to serve those who wait
                while self._line:
                    waiter = self._line.popleft()
                    if not waiter.done():
                        waiter.set_exception(error)
            raise
        finally:
            self._opening -= 1
        self.lanes.append(lane)
        self._release(lane)

"""The queue in front of SQLite's one connection that writes: waiting writes share a commit.

A hop to the thread that owns a connection costs more than the statement it carries. So all waiting writes go
together: one hop runs ``BEGIN IMMEDIATE``, the writes, and ``COMMIT``; each caller's ``await`` returns after the commit
that holds its row. (A statement that waits alone is a transaction by itself.) A write that fails is undone alone, and
only its caller hears of it: ``orchdb.sqlite.batches`` is what runs in the thread.

What is waiting can be cancelled at once and then never runs. What has been handed to the thread runs to its end, even
if its caller is cancelled meanwhile: such a write may or may not have been applied. Nobody waits inside SQLite for a
lock that another process holds: the thread tries for a tenth of a second, then the queue sleeps a few random
milliseconds and tries again, until each write's own time-out has passed.

``acquire()`` hands the connection to one transaction of the caller's; the queue goes on when it is released.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchdb.clocks import Timer, call_later, steady
from orchdb.concurrency import PAUSE_SECONDS, Waiters
from orchdb.driver_errors import own
from orchdb.errors import NotConnectedError, OperationError
from orchdb.sqlite.batches import NOT_RUN, Entry, adds_many, run_batch, run_bulk, with_checkpoints
from orchdb.sqlite.driver import CLOSED, DriverConnection, closed, set_result
from orchdb.sqlite.files import FileGuard
from orchdb.sqlite.foreign_triggers import SqliteConnection
from orchdb.sqlite.jobs import Failure, Job
from orchdb.sqlite.settings import CHECKPOINT_PAGES

MAX_WAITING = 10_000
MAX_BATCH = 500
_SHARED_BY = 16
_CHECKPOINT_PAGES_SHARED = 1000
"""A checkpoint holds up everyone whose commit it follows. If they are many it comes sooner and is shorter; for a few it
would only come more often. Sooner still, its syncs are dear where others use the disk too: after 250 pages a hundred
tasks were measured to take up to half as long again."""
_SWEEP_SECONDS = 0.1


def locked() -> OperationError:
    """The failure of a write that waited for the lock longer than it may."""
    return OperationError("the database stayed locked for longer than lock_timeout", code="SQLITE_BUSY")


@dataclass(eq=False, repr=False)
class WriteQueue:
    """The queue in front of the one connection that writes."""

    conn: DriverConnection
    lock_timeout: float
    guard: FileGuard  # looks at the file before each batch, in the thread
    _waiting: deque[Entry] = field(default_factory=lambda: deque[Entry]())
    _waiters: Waiters = field(default_factory=Waiters)
    _busy: bool = False  # a batch is in the thread, a lease is out, or a retry is due
    _scheduled: bool = False
    _alone: bool = True  # the last batch was one write
    _pages: int = CHECKPOINT_PAGES

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sweeper: Timer | None = None

    def run(self, job: Job) -> Awaitable[Any]:
        """The result of the job, after the commit that holds it."""
        # Not async itself: on the path of every write a coroutine more would cost.
        return self._run_in_turn(job) if self._full() else self._enqueue(job)

    async def acquire(self) -> DriverConnection:
        """The connection itself, for one transaction, until ``release``."""
        if self._full():
            await self._waiters.wait()
        future = self._enqueue(None)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()
            raise
        return self.conn

    def release(self) -> None:
        """Let the queue go on."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._busy = False
        self._wake()

    def fail_all(self) -> None:
        """Fail everything that still waits."""
        for entry in self._waiting:
            set_result(entry.future, Failure(closed()))
        self._waiters.fail_all(NotConnectedError, CLOSED)

    def abandon(self) -> None:
        """Take nothing more: the connection is about to be closed."""
        self.conn.close()
        self.fail_all()

    def _full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING or bool(self._waiters.turns)

    async def _run_in_turn(self, job: Job) -> Any:
        await self._waiters.wait()
        return await self._enqueue(job)

    def _enqueue(self, job: Job | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(Entry(job, future, steady() + self.lock_timeout))
        if self._alone and not self._busy and not self._scheduled:
            self._start()  # it is likely to stay alone: nobody is waited for
        else:
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
        if self._waiters.turns:
            self._waiters.wake(MAX_WAITING - len(self._waiting))
        self._busy = bool(batch or self._waiting)
        if batch:
            self._alone = len(batch) == 1
            self.conn.post(self._job(batch), partial(self._finished, batch))
        elif self._waiting:
            self._waiting.popleft().future.set_result(None)
            self._sweep()

    def _job(self, batch: list[Entry]) -> Callable[[SqliteConnection], Any]:
        """What the thread does."""
        job = partial(run_bulk if adds_many(batch) else run_batch, batch, self.guard.check)
        pages = CHECKPOINT_PAGES if len(batch) < _SHARED_BY else _CHECKPOINT_PAGES_SHARED
        if pages == self._pages:
            return job
        self._pages = pages
        return partial(with_checkpoints, pages, job)

    def _next_batch(self) -> list[Entry]:
        """The writes at the head of the queue, up to one that asks for the connection itself.

        Also one whose time is over is among them: each write has at least one try.
        """
        batch: list[Entry] = []
        while self._waiting and len(batch) < MAX_BATCH:
            entry = self._waiting[0]
            if entry.future.done():  # cancelled
                self._waiting.popleft()
                continue
            if entry.job is None or (batch and entry.job.is_bulk):
                break
            batch.append(self._waiting.popleft())
            if entry.job.is_bulk:  # alone, undone with its transaction: a savepoint would copy every page it touches
                break
        return batch

    def _finished(self, batch: list[Entry], results: list[Any] | Failure) -> None:
        if isinstance(results, Failure):
            results = [Failure(own(results.error)) for _ in batch]
        again: list[Entry] = []
        for entry, result in zip(batch, results, strict=True):
            if result is NOT_RUN:
                entry.tried = True
                again.append(entry)
                continue
            if isinstance(result, Failure):
                self.guard.note_error(result.error)
                set_result(entry.future, result)
            elif not entry.future.done():  # nearly every one: no call for it
                entry.future.set_result(result)
        if again:
            self._waiting.extendleft(reversed(again))
            self._drop_the_dead()
            call_later(self._loop, random.uniform(*PAUSE_SECONDS), self._start)  # noqa: S311  # a pause, not a secret
            return
        self._busy = False
        self._wake()

    def _sweep(self) -> None:
        """While a lease is out nobody tries the lock, so the time-outs of those who wait are looked after here."""
        self._drop_the_dead()
        self._sweeper = call_later(self._loop, _SWEEP_SECONDS, self._sweep)

    def _drop_the_dead(self) -> None:
        now = steady()
        if not any(entry.future.done() or entry.deadline <= now for entry in self._waiting):
            return
        alive: deque[Entry] = deque()
        for entry in self._waiting:
            if entry.future.done():
                continue
            if entry.deadline <= now:
                entry.future.set_exception(locked())
            else:
                alive.append(entry)
        self._waiting = alive
        self._waiters.wake(MAX_WAITING - len(alive))

"""The connections that read SQLite: they never wait for the writer, nor make it wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchdb.concurrency import shielded
from orchdb.sqlite.driver import DriverConnection, closed, set_result
from orchdb.sqlite.files import FileGuard
from orchdb.sqlite.jobs import Failure, Job


@dataclass(eq=False, repr=False)
class ReadPool:
    """The connections that read: opened when first needed, at most ``limit``; who finds none free waits."""

    open_connection: Callable[[], Awaitable[DriverConnection]]
    limit: int
    guard: FileGuard
    conns: list[DriverConnection] = field(default_factory=lambda: list[DriverConnection]())
    _idle: list[DriverConnection] = field(default_factory=lambda: list[DriverConnection]())
    _waiters: deque[asyncio.Future[DriverConnection]] = field(
        default_factory=lambda: deque[asyncio.Future[DriverConnection]]()
    )
    _opening: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def run(self, job: Job) -> Any:
        """The result of the job; one that is cancelled is interrupted."""
        conn = self._idle.pop() if self._idle else await self._another()
        future: asyncio.Future[Any] = self._loop.create_future()
        conn.running = future
        conn.post(job, partial(self._finished, conn, future))
        try:
            return await future
        except asyncio.CancelledError:
            if conn.running is future:
                conn.interrupt()
            raise

    def abandon(self) -> None:
        """Fail everyone who still waits, and stop who is running: the connections are about to be closed."""
        for conn in self.conns:
            conn.close()
            conn.interrupt()
        for waiter in self._waiters:
            set_result(waiter, Failure(closed()))

    def _finished(self, conn: DriverConnection, future: asyncio.Future[Any], result: Any) -> None:
        conn.running = None
        if isinstance(result, Failure):
            self.guard.note_error(result.error)
        set_result(future, result)
        self._release(conn)

    def _release(self, conn: DriverConnection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(conn)
                return
        self._idle.append(conn)

    async def _another(self) -> DriverConnection:
        if len(self.conns) + self._opening < self.limit:
            self._opening += 1
            await shielded(self._open())
        if self._idle:
            return self._idle.pop()
        waiter: asyncio.Future[DriverConnection] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    async def _open(self) -> None:
        try:
            conn = await self.open_connection()
        except Exception as error:
            if not self.conns:  # nobody would ever come to serve those who wait
                while self._waiters:
                    set_result(self._waiters.popleft(), Failure(error))
            raise
        finally:
            self._opening -= 1
        self.conns.append(conn)
        self._release(conn)

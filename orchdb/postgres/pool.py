"""The connections to a Postgres server: lent first come, first served, and given back when nobody needs them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from orchdb.clocks import done_within
from orchdb.concurrency import shielded
from orchdb.errors import NotConnectedError, OperationError
from orchdb.postgres.drivers import DriverConnection

PING_AFTER_SECONDS = 1.0
"""A connection that has been idle for longer is asked whether it still answers."""
GIVE_BACK_SECONDS = 30.0
"""Who has been idle for longer goes back to SQLAlchemy's pool."""


class ConnectionPool:
    """At most ``limit`` connections, opened when first needed.

    Args:
        open_connection: Opens one; it raises ``OperationError`` if the server cannot be reached.
        limit: The size of the pool.
        timeout: Seconds that a task waits for one.
    """

    def __init__(self, open_connection: Callable[[], Awaitable[DriverConnection]], limit: int, timeout: float) -> None:
        self._open_connection = open_connection
        self._slots = Slots(limit, timeout)
        self._free: list[DriverConnection] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def acquire(self) -> DriverConnection:
        """A connection that works, for the calling task alone until it releases it.

        Raises:
            OperationError: None became free in time, or the server cannot be reached.
            NotConnectedError: They are closed, or were closed meanwhile.
        """
        await self._slots.acquire()
        try:
            while self._free:
                conn = self._free.pop()
                works = False
                try:
                    works = await self._works(conn)
                finally:
                    if not works:  # also if the caller is cancelled meanwhile: nobody else holds it any more
                        await shielded(self._end(conn))
                if works:
                    return conn
        except BaseException:
            self._slots.release()
            raise
        opening = asyncio.ensure_future(self._open_connection())
        try:
            conn = await asyncio.shield(opening)
            self._slots.check()  # closed meanwhile
        except BaseException:
            self._later(self._keep(opening))
            raise
        return conn

    def all_taken(self) -> bool:
        """Whether the next one who asks has to wait."""
        return self._slots.all_taken()

    async def _keep(self, opening: asyncio.Future[DriverConnection]) -> None:
        """What a cancelled task began to open is for the next one; cut off in the middle it would leak."""
        try:
            conn = await opening
        except (Exception, asyncio.CancelledError):  # whoever asked for it has been told
            self._slots.release()
        else:
            self.release(conn)

    def release(self, conn: DriverConnection) -> None:
        """The calling task is done with the connection, whatever became of it."""
        if conn.stale or conn.closed() or not conn.idle() or self._closed:
            self._later(self._replaceable(conn))
            return
        if conn.cut_off:
            self._later(self._recover(conn))
            return
        conn.used = self._loop.time()
        self._free.append(conn)
        self._slots.release()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(GIVE_BACK_SECONDS, self._sweep)

    def doubt(self) -> None:
        """One connection broke: look at the others before they are used again."""
        for conn in self._free:
            conn.used = 0.0

    def fail_all(self) -> None:
        """Fail everyone who waits for one, or comes later."""
        self._closed = True
        self._slots.close()

    async def close(self) -> None:
        """Close every connection."""
        self.fail_all()
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._free:
            await self._end(self._free.pop())
        while self._endings:
            await asyncio.wait(self._endings)

    async def _works(self, conn: DriverConnection) -> bool:
        if conn.closed():
            return False
        if self._loop.time() - conn.used < PING_AFTER_SECONDS and conn.quiet():
            return True
        return await self._answers(conn)

    async def _answers(self, conn: DriverConnection) -> bool:
        try:
            await conn.script("SELECT 1")
        except Exception:  # whatever it is, another connection will do
            return False
        return True

    async def _recover(self, conn: DriverConnection) -> None:
        """Run something: asyncpg leaves a statement that was only prepared open, with its table locked, until then."""
        conn.cut_off, conn.stale = False, True
        try:
            conn.stale = not await self._answers(conn)
        finally:
            self.release(conn)

    async def _replaceable(self, conn: DriverConnection) -> None:
        try:
            await self._end(conn)
        finally:
            self._slots.release()

    async def _end(self, conn: DriverConnection) -> None:
        try:
            await conn.connection.invalidate()
        finally:
            await conn.connection.close()

    def _sweep(self) -> None:
        """Give those that nobody needed lately back to SQLAlchemy's pool, which checks and renews what it lends."""
        self._sweeper = None
        before = self._loop.time() - GIVE_BACK_SECONDS
        for conn in [conn for conn in self._free if conn.used < before]:
            self._free.remove(conn)
            self._later(self._give_back(conn))
        if self._free:
            self._sweeper = self._loop.call_later(GIVE_BACK_SECONDS, self._sweep)

    async def _give_back(self, conn: DriverConnection) -> None:
        await conn.connection.close()

    def _later(self, ending: Any) -> None:
        task = self._loop.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


class Slots:
    """The right to hold one of so many connections; who waits for it waits for a time, and not beyond the pool's end.

    Args:
        limit: How many there are.
        timeout: Seconds that a task waits for one.
    """

    def __init__(self, limit: int, timeout: float) -> None:
        self._free = limit
        self._timeout = timeout
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def all_taken(self) -> bool:
        """Whether the next one who asks has to wait."""
        return not self._free

    async def acquire(self) -> None:
        """Take one, until ``release``.

        Raises:
            OperationError: None became free in time.
            NotConnectedError: The pool is closed, or was closed meanwhile.
        """
        self.check()
        if self._free:
            self._free -= 1
            return
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await done_within(slot, self._timeout)
        except asyncio.CancelledError:
            if not slot.cancel() and slot.exception() is None:
                self.release()
            raise
        if slot.cancel():
            raise OperationError("no connection of the pool became free within pool_timeout")
        slot.result()

    def release(self) -> None:
        """Give it to the next one."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._free += 1

    def check(self) -> None:
        """Raise if the pool is closed."""
        if self._closed:
            raise NotConnectedError("the manager is closed")

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        for slot in self._waiting:
            if not slot.done():
                slot.set_exception(NotConnectedError("the manager was closed while this waited"))
        self._waiting.clear()

"""The pool of lanes to a Postgres server: who has one, who waits for one, and which are fit to be used again.

A lane is used by one task at a time. Who finds none free waits in line, and not for ever. A lane comes back only in a
state in which the next task can use it: one that is closed or still inside a transaction is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from orchdb.lanes import Lane
from orchdb.shielding import to_the_end
from orchdb.slots import Slots

PING_AFTER_SECONDS = 1.0
GIVE_BACK_SECONDS = 30.0


class Lanes:
    """At most ``limit`` lanes, opened when first needed.

    Args:
        open_lane: Opens one; it raises ``OperationError`` if the server cannot be reached.
        limit: The size of the pool.
        timeout: Seconds that a task waits for one.
    """

    def __init__(self, open_lane: Callable[[], Awaitable[Lane]], limit: int, timeout: float) -> None:
        self._open_lane = open_lane
        self._slots = Slots(limit, timeout)
        self._free: list[Lane] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def acquire(self) -> Lane:
        """A lane that works, for the calling task alone until it releases it.

        Raises:
            OperationError: None became free in time, or the server cannot be reached.
            NotConnectedError: They are closed, or were closed meanwhile.
        """
        await self._slots.acquire()
        try:
            while self._free:
                lane = self._free.pop()
                works = False
                try:
                    works = await self._works(lane)
                finally:
                    if not works:  # also if the caller is cancelled meanwhile: nobody else holds the lane any more
                        await to_the_end(self._end(lane))
                if works:
                    return lane
        except BaseException:
            self._slots.release()
            raise
        opening = asyncio.ensure_future(self._open_lane())
        try:
            lane = await asyncio.shield(opening)
            self._slots.check()  # closed meanwhile
        except BaseException:
            self._later(self._keep(opening))
            raise
        return lane

    def all_taken(self) -> bool:
        """Whether the next one who asks has to wait."""
        return self._slots.all_taken()

    async def _keep(self, opening: asyncio.Future[Lane]) -> None:
        """What a cancelled task began to open is for the next one; cut off in the middle it would leak."""
        try:
            lane = await opening
        except (Exception, asyncio.CancelledError):  # whoever asked for it has been told
            self._slots.release()
        else:
            self.release(lane)

    def release(self, lane: Lane) -> None:
        """The calling task is done with the lane, whatever became of it."""
        if lane.stale or lane.closed() or not lane.idle() or self._closed:
            self._later(self._replaceable(lane))
            return
        if lane.cut_off:
            self._later(self._settle(lane))
            return
        lane.used = self._loop.time()
        self._free.append(lane)
        self._slots.release()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(GIVE_BACK_SECONDS, self._sweep)

    def doubt(self) -> None:
        """One connection broke: look at the others before they are used again."""
        for lane in self._free:
            lane.used = 0.0

    def send_away(self) -> None:
        """Fail everyone who waits for one, or comes later."""
        self._closed = True
        self._slots.close()

    async def close(self) -> None:
        """Close every connection."""
        self.send_away()
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._free:
            await self._end(self._free.pop())
        while self._endings:
            await asyncio.wait(self._endings)

    async def _works(self, lane: Lane) -> bool:
        if lane.closed():
            return False
        if self._loop.time() - lane.used < PING_AFTER_SECONDS and lane.quiet():
            return True
        return await self._answers(lane)

    async def _answers(self, lane: Lane) -> bool:
        try:
            await lane.script("SELECT 1")
        except Exception:  # whatever it is, another connection will do
            return False
        return True

    async def _settle(self, lane: Lane) -> None:
        """Run something: asyncpg leaves a statement that was only prepared open, with its table locked, until then."""
        lane.cut_off, lane.stale = False, True
        try:
            lane.stale = not await self._answers(lane)
        finally:
            self.release(lane)

    async def _replaceable(self, lane: Lane) -> None:
        try:
            await self._end(lane)
        finally:
            self._slots.release()

    async def _end(self, lane: Lane) -> None:
        try:
            await lane.connection.invalidate()
        finally:
            await lane.connection.close()

    def _sweep(self) -> None:
        """Give those that nobody needed lately back to SQLAlchemy's pool, which checks and renews what it lends."""
        self._sweeper = None
        before = self._loop.time() - GIVE_BACK_SECONDS
        for lane in [lane for lane in self._free if lane.used < before]:
            self._free.remove(lane)
            self._later(self._give_back(lane))
        if self._free:
            self._sweeper = self._loop.call_later(GIVE_BACK_SECONDS, self._sweep)

    async def _give_back(self, lane: Lane) -> None:
        await lane.connection.close()

    def _later(self, ending: Any) -> None:
        task = self._loop.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

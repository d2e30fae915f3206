"""The connections that read SQLite: they never wait for the writer, nor make it wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchdb.files import Watch
from orchdb.shielding import to_the_end
from orchdb.work import Failure, Work
from orchdb.writer import Lane, closed, settle


@dataclass(eq=False, repr=False)
class Readers:
    """The connections that read: opened when first needed, at most ``limit``; who finds none free waits in line."""

    open_lane: Callable[[], Awaitable[Lane]]
    limit: int
    watch: Watch
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
        lane.post(work, partial(self._finished, lane, future))
        try:
            return await future
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
            settle(waiter, Failure(closed()))

    def _finished(self, lane: Lane, future: asyncio.Future[Any], result: Any) -> None:
        lane.running = None
        if isinstance(result, Failure):
            self.watch.saw(result.error)
        settle(future, result)
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
                    settle(self._line.popleft(), Failure(error))
            raise
        finally:
            self._opening -= 1
        self.lanes.append(lane)
        self._release(lane)

"""The places of a pool: first come, first served; who waits for one waits for a time, and not beyond the pool's end."""

from __future__ import annotations

import asyncio
from collections import deque

from orchdb.clocks import done_within
from orchdb.errors import NotConnectedError, OperationError


class Slots:
    """So many places.

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
        """Take a place, until ``release``.

        Raises:
            OperationError: None became free in time.
            NotConnectedError: The pool is closed, or was closed meanwhile.
        """
        self.check()
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await done_within(place, self._timeout)
        except asyncio.CancelledError:
            if not place.cancel() and place.exception() is None:
                self.release()
            raise
        if place.cancel():
            raise OperationError("no connection of the pool became free within pool_timeout")
        place.result()

    def release(self) -> None:
        """Give the place to the next one."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def check(self) -> None:
        """Raise if the pool is closed."""
        if self._closed:
            raise NotConnectedError("the manager is closed")

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        for place in self._waiting:
            if not place.done():
                place.set_exception(NotConnectedError("the manager was closed while this waited"))
        self._waiting.clear()

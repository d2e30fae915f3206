"""The line in front of a queue that is full: whoever stands in it joins in turn."""

from __future__ import annotations

import asyncio
from collections import deque

from orchdb.errors import OrchdbError


class Line:
    """Those who wait for room."""

    def __init__(self) -> None:
        self._turns: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    async def wait(self) -> None:
        """Return when there is room."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.let_in(1)  # whoever is cancelled at the last moment leaves the room to the next
            raise

    def let_in(self, room: int) -> None:
        """Let so many in, or all there are."""
        while self._turns and room > 0:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def send_away(self, error: type[OrchdbError], message: str) -> None:
        """Let the wait of everyone fail."""
        for turn in self._turns:
            if not turn.done():
                turn.set_exception(error(message))
        self._turns.clear()

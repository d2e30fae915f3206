"""The turns of those who use one block: one call at a time, in the order they came; an end goes before all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from orchdb.clocks import Timer, call_later
from orchdb.errors import NotConnectedError, OperationError

ENDED = "the transaction has ended"
_BLOCKED = "another part of the transaction stayed open for longer than lock_timeout"
_LEAST_WAIT = 0.05  # a wait of no time at all would leave the loop no turn for the others


class TurnScope(Protocol):
    """Where calls run: the block, or a part of it."""

    depth: int
    ended: bool

    def check(self) -> None:
        """Refuse what comes after its end."""


class Turn:
    """One call of the current task.

    Attributes:
        scope: Where it is to run.
        task: Who makes it.
        granted: Done when a call that had to wait may run.
        timer: Ends its wait.
        stopped: Whether the end of the block has broken it off.
        cancelled: Whether that was done by cancelling the task.
    """

    def __init__(self, scope: TurnScope) -> None:
        self.scope = scope
        self.task = asyncio.current_task()
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: Timer
        self.stopped = False
        self.cancelled = False
        # How often the task was cancelled before, and went on.
        self._cancellations = self.task.cancelling() if self.task is not None else 0

    def stop(self, *, cancel: bool) -> None:
        """Break the call off: the block is about to be undone."""
        self.stopped = True
        if cancel and self.task is not None and self.task.cancelling() == self._cancellations:
            self.cancelled = self.task.cancel()

    def broken_off(self) -> BaseException:
        """What the caller of a call that was stopped gets."""
        if self.cancelled and self.task is not None and self.task.uncancel() > self._cancellations:
            return asyncio.CancelledError()  # somebody else wants that too
        return NotConnectedError(ENDED)


class Turns:
    """Who runs and who waits.

    Args:
        may_run: Whether a call may run now, as far as the open parts are concerned.
        lock_timeout: Seconds that a call waits for a part that it does not belong to.
    """

    def __init__(self, may_run: Callable[[Turn], bool], lock_timeout: float) -> None:
        self._may_run = may_run
        self._patience = max(lock_timeout, _LEAST_WAIT)
        self._busy = False
        self._running: Turn | None = None  # none while the block or a part ends
        self._waiting: deque[Turn] = deque()
        self._ends: deque[asyncio.Future[None]] = deque()

    async def take(self, turn: Turn) -> None:
        """Return when the call may run.

        Raises:
            NotConnectedError: Its scope has ended.
            OperationError: A part that it does not belong to stayed open.
        """
        turn.scope.check()
        if self._busy or not self._may_run(turn):
            await self._wait(turn)
        self._busy, self._running = True, turn

    async def _wait(self, turn: Turn) -> None:
        self._waiting.append(turn)
        self._wait_no_longer_than(turn)
        try:
            await turn.granted
            turn.scope.check()  # it may have ended between the grant and this moment
        except BaseException:
            if turn.granted.cancelled():
                self._waiting.remove(turn)
            elif turn.granted.exception() is None:
                self.give()
            raise
        finally:
            turn.timer.cancel()

    def _wait_no_longer_than(self, turn: Turn) -> None:
        turn.timer = call_later(asyncio.get_running_loop(), self._patience, partial(self._is_late, turn))

    def _is_late(self, turn: Turn) -> None:
        if turn.granted.done():
            return
        if self._may_run(turn):  # it waits for calls, not for a part
            self._wait_no_longer_than(turn)
            return
        self._waiting.remove(turn)
        turn.granted.set_exception(OperationError(_BLOCKED))

    def give(self) -> None:
        """Give the turn to an end, or to the first call of those that wait and may run."""
        self._busy, self._running = False, None
        if self._ends:
            self._busy = True
            self._ends.popleft().set_result(None)
            return
        for turn in self._waiting:
            if not turn.granted.done() and self._may_run(turn):
                self._waiting.remove(turn)
                self._busy, self._running = True, turn
                turn.granted.set_result(None)
                return

    def for_the_end(self) -> asyncio.Future[None]:
        """Take the turn for the end of a part or the block: it is done when no call is under way any more."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._busy:
            self._ends.append(turn)
        else:
            self._busy = True
            turn.set_result(None)
        return turn

    def break_off(self, interrupt: Callable[[], bool]) -> None:
        """Stop the call that is under way, by interrupting it or, where that does nothing, by cancelling its task."""
        if self._running is not None:
            self._running.stop(cancel=not interrupt())

    def refuse_ended(self) -> None:
        """Let no call go on waiting whose scope has ended."""
        for turn in [turn for turn in self._waiting if turn.scope.ended and not turn.granted.done()]:
            self._waiting.remove(turn)
            turn.granted.set_exception(NotConnectedError(ENDED))

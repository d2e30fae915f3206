"""What asyncio lacks: waits that a cancellation cannot break off, a queue of waiters, tries with pauses in between."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from orchdb.clocks import pause, steady
from orchdb.errors import OrchdbError

Result = TypeVar("Result")
PAUSE_SECONDS = (0.001, 0.020)
"""From and to: between two tries, at random."""


async def shielded(awaitable: Awaitable[Result]) -> Result:
    """Wait until it is done, however often the caller is cancelled meanwhile; then raise the cancellation.

    A transaction that is left in the middle keeps the write lock until the garbage collector runs.
    """
    if isinstance(awaitable, asyncio.Future):
        task: asyncio.Future[Result] = awaitable
    else:
        task = begun(awaitable)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it as forgotten
        try:
            raise cancellation
        finally:
            del cancellation  # the exception holds this frame: with the name it would be garbage in a cycle
    return task.result()


def begun(awaitable: Awaitable[Result]) -> asyncio.Future[Result]:
    """A task that runs it to its end, whoever waits for it or does not."""
    return _Shielded(_waited_for(awaitable), loop=asyncio.get_running_loop())


def in_time(awaitable: Awaitable[Result]) -> asyncio.Future[Result]:
    """A task that runs to its end, or to that of the time-outs inside it, such as a driver's own for its connection."""
    return _InTime(_waited_for(awaitable), loop=asyncio.get_running_loop())


async def once_cancelled(function: Callable[[], Awaitable[Result]]) -> Result:
    """Call it and wait; a cancellation is passed on, and what comes after that waits until it has had its effect.

    SQLAlchemy closes a connection whose statement is cancelled; cancelled in that, it lets go of it at once, and the
    server works on.
    """
    task = _OnceCancelled(_called(function), loop=asyncio.get_running_loop())
    try:
        # The task itself, for asyncio.wait takes more turns of the loop: what cancels the caller cancels it once.
        result = await task
    except Exception:
        if not task.cancelling():
            raise
    else:
        if not task.cancelling():
            return result
    raise asyncio.CancelledError


def in_thread(function: Callable[[], Result]) -> asyncio.Future[Result]:
    """Call it in a thread of its own: asyncio's are few, are shared with the caller, and stay when they are idle."""
    pool = ThreadPoolExecutor(1, "orchdb")
    future = asyncio.get_running_loop().run_in_executor(pool, function)
    pool.shutdown(wait=False)
    return future


async def until_free(
    attempt: Callable[[], Awaitable[None]], seconds: float, taken: Callable[[Exception], bool]
) -> None:
    """Try again and again while the failure is that something is taken; once at least.

    Raises:
        Exception: What the attempt raises: at once, or when the time is over if something stayed taken.
    """
    deadline = steady() + seconds
    while True:
        try:
            await attempt()
            return
        except Exception as error:
            if not taken(error) or steady() >= deadline:
                raise
        await pause(random.uniform(*PAUSE_SECONDS))  # noqa: S311  # a pause, not a secret


class Waiters:
    """Those who wait for room, in the order they came.

    Attributes:
        turns: One for each: whoever looks for the first on every call looks here.
    """

    def __init__(self) -> None:
        self.turns: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self.turns)

    async def wait(self) -> None:
        """Return when there is room."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.wake(1)  # whoever is cancelled at the last moment leaves the room to the next
            raise

    def wake(self, room: int) -> None:
        """Let so many in, or all there are."""
        while self.turns and room > 0:
            turn = self.turns.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    def fail_all(self, error: type[OrchdbError], message: str) -> None:
        """Let the wait of everyone fail."""
        for turn in self.turns:
            if not turn.done():
                turn.set_exception(error(message))
        self.turns.clear()


async def _waited_for(awaitable: Awaitable[Result]) -> Result:
    return await awaitable


async def _called(function: Callable[[], Awaitable[Result]]) -> Result:
    return await function()


class _Shielded(asyncio.Task[Result]):
    """A task that cannot be cancelled: a shutdown that cancels every task of the loop would break it off half-way.

    So asyncio's time-outs, which cancel the task they are in, do nothing inside it.
    """

    def cancel(self, msg: object = None) -> bool:
        return False


class _InTime(asyncio.Task[Result]):
    """A task that only a time-out inside it can cancel: the event loop itself calls that, and no task or shutdown."""

    def cancel(self, msg: object = None) -> bool:
        loop = self.get_loop()
        by_the_loop = loop.is_running() and asyncio.current_task(loop) is None
        return super().cancel(msg) if by_the_loop else False


class _OnceCancelled(asyncio.Task[Result]):
    """A task that is cancelled once: a second time, or a shutdown, would break off what the first one set going."""

    def cancel(self, msg: object = None) -> bool:
        return super().cancel(msg) if not self.cancelling() else False

"""Cancellation: what has begun is brought to its end before the cancellation goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


class _Work(asyncio.Task[Result]):
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


async def _waited_for(awaitable: Awaitable[Result]) -> Result:
    return await awaitable


def begun(awaitable: Awaitable[Result]) -> asyncio.Future[Result]:
    """A task that runs it to its end, whoever waits for it or does not."""
    return _Work(_waited_for(awaitable), loop=asyncio.get_running_loop())


def in_time(awaitable: Awaitable[Result]) -> asyncio.Future[Result]:
    """A task that runs to its end, or to that of the time-outs inside it, such as a driver's own for its connection."""
    return _InTime(_waited_for(awaitable), loop=asyncio.get_running_loop())


async def _called(function: Callable[[], Awaitable[Result]]) -> Result:
    return await function()


async def once_cancelled(function: Callable[[], Awaitable[Result]]) -> Result:
    """Call it and wait; a cancellation is passed on, and what comes after that waits until it has had its effect.

    SQLAlchemy closes a connection whose statement is cancelled; cancelled in that, it lets go of it at once, and the
    server works on.
    """
    work = _OnceCancelled(_called(function), loop=asyncio.get_running_loop())
    try:
        await asyncio.wait((work,))
    except asyncio.CancelledError:
        work.cancel()
        await to_the_end(asyncio.wait((work,)))
        if not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not report it as forgotten
        raise
    return work.result()


async def to_the_end(awaitable: Awaitable[Result]) -> Result:
    """Wait until it is done, however often the caller is cancelled meanwhile; then raise the cancellation.

    A transaction that is left in the middle keeps the write lock until the garbage collector runs.
    """
    if isinstance(awaitable, asyncio.Future):
        work: asyncio.Future[Result] = awaitable
    else:
        work = begun(awaitable)
    cancellation: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        if not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not report it as forgotten
        try:
            raise cancellation
        finally:
            del cancellation  # the exception holds this frame: with the name it would be garbage in a cycle
    return work.result()

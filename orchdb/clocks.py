"""Time that passes whatever a test does to the clock: time-outs and pauses go by it.

A test that stops the clock (freezegun) stops the one of asyncio's event loop too: a timer of the loop then never fires,
and a deadline never comes. Rows take their times from the clock that the test has set.

Leases go by a clock that all processes of a machine share, for an SQLite file has none of its own: the machine's
uptime, which nobody can set.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any, Protocol

# Not the function itself: in every module freezegun puts its own in the place of that.
steady: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else partial(time.monotonic)
)
"""Seconds, of which only differences say something."""

_UPTIME = Path("/proc/uptime")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def uptime() -> float:
    """Seconds since the machine started, the same for each of its processes."""
    # From the file: libfaketime, which bends the clocks of one process, changes what the system's calls say.
    try:
        return float(_UPTIME.read_text("ascii").split()[0])
    except OSError:
        return steady()


@cache
def boot_id() -> str:
    """Which start of the machine ``uptime`` counts from; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


class Timer(Protocol):
    """What has been set to run later."""

    def cancel(self) -> None:
        """Do not run it."""


def call_later(loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], Any]) -> Timer:
    """Run the callback in the loop after so many seconds."""
    if isinstance(time.monotonic, BuiltinFunctionType):
        return loop.call_later(seconds, callback)
    timer = threading.Timer(seconds, _call, (loop, callback))
    timer.daemon = True
    timer.start()
    return timer


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
        loop.call_soon_threadsafe(callback)


async def done_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Whether the future is done, at the latest after so many seconds; it is not cancelled."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    timer = call_later(loop, seconds, over.cancel)  # which does nothing to one that is done
    try:
        await asyncio.wait((future, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        over.cancel()
    return future.done()


async def pause(seconds: float) -> None:
    """Wait so many seconds."""
    if isinstance(time.monotonic, BuiltinFunctionType):
        await asyncio.sleep(seconds)
        return
    over = asyncio.Event()
    timer = call_later(asyncio.get_running_loop(), seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()

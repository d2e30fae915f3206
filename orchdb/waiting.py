"""Waiting for what another process holds: short tries, and pauses in which the caller can be cancelled."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

PAUSE_SECONDS = (0.001, 0.020)


async def until_free(
    attempt: Callable[[], Awaitable[None]], seconds: float, taken: Callable[[Exception], bool]
) -> None:
    """Try again and again while the failure is that something is taken; once at least.

    Raises:
        Exception: What the attempt raises: at once, or when the time is over if something stayed taken.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            await attempt()
            return
        except Exception as error:
            if not taken(error) or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311  # a pause, not a secret

"""Waiting for what another process holds: short tries, and pauses in which the caller can be cancelled."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from orchdb.clocks import pause, steady

PAUSE_SECONDS = (0.001, 0.020)


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

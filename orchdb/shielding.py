"""Cancellation: what has begun is brought to its end before the cancellation goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def to_the_end(awaitable: Awaitable[Result]) -> Result:
    """Wait until it is done, however often the caller is cancelled meanwhile; then raise the cancellation.

    A transaction that is left in the middle keeps the write lock until the garbage collector runs.
    """
    work = asyncio.ensure_future(awaitable)
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

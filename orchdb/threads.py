"""Blocking work in a thread that ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def in_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Begin the work; asyncio's own threads are few, are shared with the caller, and stay when they are idle."""
    pool = ThreadPoolExecutor(1, "orchdb")
    future = asyncio.get_running_loop().run_in_executor(pool, work)
    pool.shutdown(wait=False)
    return future

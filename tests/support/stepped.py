"""Cancellation at a chosen await point."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any


class Stepped:
    """An awaitable that cancels its task at the given await points.

    Args:
        late: Not when the task begins to wait, but when what it waits for has just come, and it has not seen it yet.
    """

    def __init__(self, awaitable: Awaitable[Any], *points: int, late: bool = False) -> None:
        self.awaitable, self.points, self.late, self.count = awaitable, points, late, 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.awaitable.__await__()
        task = asyncio.current_task()
        assert task is not None
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                future = steps.throw(error) if error is not None else steps.send(value)
            except StopIteration as end:
                return end.value
            if self.count in self.points:
                if self.late and future is not None:
                    future.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            self.count += 1
            value = error = None
            try:
                value = yield future
            except BaseException as caught:
                error = caught

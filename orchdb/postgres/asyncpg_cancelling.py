"""asyncpg's connection, for which a statement whose task is cancelled ends on the server, too.

A request to cancel goes by a connection of its own and can come before the statement, which then runs on: asyncpg sends
it once, and the next statement on the connection waits. Here it is sent until it has worked.
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib import import_module
from typing import Any

from orchdb.clocks import done_within

asyncpg: Any = import_module("asyncpg")  # it has no types
connect_utils: Any = import_module("asyncpg.connect_utils")

AGAIN_SECONDS = 0.05


class CancellingConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that goes on asking for the end of a cancelled statement, and for nothing else."""

    __slots__ = ()
    _loop: asyncio.AbstractEventLoop
    _addr: Any
    _params: Any
    _protocol: Any

    async def _cancel(self, waiter: asyncio.Future[None], *acknowledged: asyncio.Future[None]) -> None:
        """Send the request: ``waiter`` is done when none is on its way, which could meet the next statement."""
        send: Any = super()._cancel  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not acknowledged:  # asyncpg before 0.32 does not say when the statement has ended
            await send(waiter)
            return
        sent: asyncio.Future[None] = self._loop.create_future()
        repeats = self._loop.create_task(self._repeat(sent, *acknowledged))
        try:
            await send(sent, *acknowledged)
            await asyncio.wait((repeats,))
        finally:
            repeats.cancel()
            if not waiter.done():
                waiter.set_result(None)

    async def _repeat(self, sent: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        await asyncio.wait((sent,))
        while not await done_within(ended, AGAIN_SECONDS):
            request: dict[str, Any] = {"loop": self._loop, "addr": self._addr, "params": self._params}
            with contextlib.suppress(Exception):
                await connect_utils._cancel(
                    **request, backend_pid=self._protocol.backend_pid, backend_secret=self._protocol.backend_secret
                )

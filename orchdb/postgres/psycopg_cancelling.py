"""psycopg's connection, for which a statement whose task is cancelled has ended on the server, too.

A request to cancel goes by a connection of its own and can come before the statement, which then runs on: psycopg sends
it once, and closes the connection after five seconds while the server works on. Here it is sent until it has worked.
Who is cancelled again meanwhile, or shut down, does not break that off.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.waiting import wait_async

from orchdb.clocks import done_within, steady
from orchdb.concurrency import begun, shielded
from orchdb.postgres.drivers import hang_up

AGAIN_SECONDS = 0.05
GIVE_UP_SECONDS = 5.0


class CancellingConnection(AsyncConnection[Any]):
    """A connection that goes on asking for the end of a cancelled statement, and for nothing else."""

    async def wait(self, gen: PQGen[Any], interval: float = 0.1, *limit: Any, **limits: Any) -> Any:
        """Run what waits for the server, as psycopg does."""
        try:
            return await wait_async(gen, self.pgconn.socket, interval, *limit, **limits)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await shielded(self._end(gen, interval))
            raise

    async def _end(self, gen: PQGen[Any], interval: float) -> None:
        ended = begun(wait_async(gen, self.pgconn.socket, interval))
        latest = steady() + GIVE_UP_SECONDS
        while not ended.done() and (left := latest - steady()) > 0:
            # Each request is waited for: one that is on its way could meet the next statement.
            with contextlib.suppress(Exception):
                await self.cancel_safe(timeout=left)
            await done_within(ended, AGAIN_SECONDS)
        if not ended.done():
            hang_up(self.pgconn.socket)
            await asyncio.wait((ended,))
        if ended.exception() is not None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.pgconn.finish()  # nobody knows what it is in the middle of

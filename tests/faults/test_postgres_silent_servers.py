"""A server that goes silent in the middle of a block: nobody waits for it beyond the time-outs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from orchdb import DatabaseManager, OperationError
from tests.faults.postgres_server import Proxy, Server, proxied, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own."""
    with running_server() as running:
        yield running


async def silent_in(db: DatabaseManager, proxy: Proxy, moment: str, ready: asyncio.Barrier) -> None:
    """A block in which the server answers no more."""
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "x", "gone")
        await ready.wait()
        proxy.speaks.clear()
        if moment == "a call":
            await tx.create_system_log("INFO", "x", "gone")
        elif moment == "a part":
            async with tx.transaction():
                pass
        elif moment == "the end of a block that is undone":
            raise OperationError(moment)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_block_on_a_server_that_goes_silent_ends_all_the_same(server: Server, driver: str) -> None:
    moments = ("a call", "a part", "the commit", "the end of a block that is undone")
    async with proxied(server) as (proxy, sockets):
        db = DatabaseManager(server.url(driver, sockets), statement_timeout=0.5, connect_timeout=1)
        await db.connect()
        ready = asyncio.Barrier(len(moments))
        blocks = [asyncio.create_task(silent_in(db, proxy, moment, ready)) for moment in moments]
        _, waiting = await asyncio.wait(blocks, timeout=30)  # of which psycopg takes five to give up a statement
        proxy.cut_all()
        results = await asyncio.gather(*blocks, return_exceptions=True)
        await db.close()
    assert not waiting
    assert [type(result) for result in results] == [OperationError] * len(moments)
    async with DatabaseManager(server.url(driver)) as again:
        assert await again.get_system_logs() == []

"""Postgres: a request to cancel that does nothing, for it came before the statement, is sent again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager
from tests.support.faults import log, seen, until
from tests.support.postgres_sessions import Watched, watched
from tests.support.stoppable_server import Server, proxied, running_server

CANCEL = re.compile(re.escape((80877102).to_bytes(4, "big")))  # the protocol's code for the request
DRIVERS = ("asyncpg", "psycopg")
# A line that says "slow" takes until it is cancelled.
SLOW = """
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_sleep(30); RETURN NEW; END$$;
    CREATE TRIGGER be_slow BEFORE INSERT ON system_logs FOR EACH ROW WHEN (NEW.message = 'slow')
    EXECUTE FUNCTION be_slow()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own, for a proxy to stand in front of."""
    with running_server() as running:
        yield running


@pytest.fixture
def view(server: Server) -> Iterator[Watched]:
    """What its administrator sees."""
    with watched(server.url("psycopg")) as found:
        yield found


async def alone(db: DatabaseManager) -> None:
    await log(db, "slow")


async def bulk(db: DatabaseManager) -> None:
    lines = [{"log_level": "INFO", "component": "fault", "message": "slow"}] * 30
    await db.create_system_logs(lines)  # type: ignore[arg-type]


async def in_a_block(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "undone")
        await tx.create_system_log("INFO", "fault", "slow")


async def own(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "undone")
        await tx.conn.execute(text("SELECT pg_sleep(30)"))


async def own_reading(db: DatabaseManager) -> None:
    await db.conn.execute(text("SELECT pg_sleep(30)"))


async def sibling_in_a_block(db: DatabaseManager) -> None:
    """The block is undone, which stops the call of another task."""
    async with db.transaction() as tx:
        sibling = asyncio.ensure_future(tx.create_system_log("INFO", "fault", "slow"))
        try:
            await asyncio.sleep(30)
        finally:
            sibling.add_done_callback(lambda task: task.exception())


Operation = Callable[[DatabaseManager], Awaitable[None]]
OPERATIONS: list[Operation] = [alone, bulk, in_a_block, own, own_reading, sibling_in_a_block]


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_request_to_cancel_that_is_lost_is_sent_again_and_no_statement_or_connection_is_left(
    server: Server, view: Watched, driver: str, operation: Operation, cancels: int
) -> None:
    async with (
        proxied(server) as (proxy, sockets),
        DatabaseManager(server.url(driver, sockets), pool_size=2) as db,
    ):
        view.ask(f"DROP FUNCTION IF EXISTS be_slow CASCADE; TRUNCATE system_logs; {SLOW}")
        for number in range(3):
            proxy.cut_at = CANCEL
            task = asyncio.ensure_future(operation(db))
            await until(view.sleeping)
            for _ in range(cancels):
                task.cancel()
                await asyncio.sleep(0.001)
            with suppress(asyncio.CancelledError):
                await task
            await until(lambda: not view.busy(), 4)
            assert proxy.cuts == number + 1
            await asyncio.gather(*(log(db, f"after {number}") for _ in range(4)))
        assert len(view.sessions()) <= 3  # those of the pool, and that of db.conn
        assert sorted(await seen(db)) == [f"after {number}" for number in range(3) for _ in range(4)]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_request_to_cancel_that_is_sent_again_reaches_no_later_statement(
    server: Server, view: Watched, driver: str
) -> None:
    async with (
        proxied(server) as (proxy, sockets),
        DatabaseManager(server.url(driver, sockets), pool_size=1) as db,
    ):
        view.ask(f"DROP FUNCTION IF EXISTS be_slow CASCADE; TRUNCATE system_logs; {SLOW}")
        for number in range(20):
            proxy.cut_at = CANCEL if number % 2 else None
            task = asyncio.ensure_future(alone(db))
            await until(view.sleeping)
            task.cancel()
            await asyncio.wait((task,))
            for each in range(3):  # on the same connection, for longer than a request takes to be sent again
                await log(db, f"{number} {each}")
            async with db.transaction() as tx:
                await tx.conn.execute(text("SELECT pg_sleep(0.02)"))
        assert len(await seen(db)) == 60

"""Postgres: runs whose connections are lost or taken: nobody stays executing, and nobody alive is ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from orchdb import ConnectionLostError, DatabaseManager
from tests.operations.test_runs import outcome
from tests.support.databases import run_elsewhere
from tests.support.faults import until
from tests.support.stoppable_server import Server, proxied, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a socket of its own, for a proxy to stand before it."""
    with running_server() as running:
        yield running


async def test_a_run_is_kept_alive_while_blocks_hold_every_connection(url: URL) -> None:
    text = url.render_as_string(hide_password=False)
    async with DatabaseManager(url, pool_size=1, pool_timeout=0.2) as db:
        async with db.agent_run("scout", "session-1", lease_seconds=1) as run, db.transaction() as tx:
            await tx.create_agent_log(run.id, "INFO", "milestone", "Thinks for long")
            first = run_elsewhere(text, "SELECT clock FROM leases")
            await until(lambda: run_elsewhere(text, "SELECT clock FROM leases") > first, 20)
        assert await outcome(db, run.id) == ("completed", None)


async def test_a_run_is_kept_alive_as_soon_as_it_can_be_where_the_server_has_no_connection_left(url: URL) -> None:
    text = url.render_as_string(hide_password=False)
    role = {"name": "crowded", "database": url.database}
    run_elsewhere(text, "DROP ROLE IF EXISTS {name}".format(**role), "CREATE ROLE {name} LOGIN".format(**role))
    try:
        async with DatabaseManager(url):
            pass
        run_elsewhere(
            text,
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}".format(**role),
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}".format(**role),
        )
        async with DatabaseManager(url.set(username="crowded"), pool_size=1, pool_timeout=0.2) as db:
            async with db.agent_run("scout", "session-1", lease_seconds=1) as run:
                async with db.transaction() as tx:
                    run_elsewhere(text, "ALTER ROLE {name} CONNECTION LIMIT 1".format(**role))
                    await tx.create_agent_log(run.id, "INFO", "milestone", "Thinks for long")
                first = run_elsewhere(text, "SELECT clock FROM leases")
                await until(lambda: run_elsewhere(text, "SELECT clock FROM leases") > first, 20)
            assert await outcome(db, run.id) == ("completed", None)
    finally:
        run_elsewhere(text, "DROP OWNED BY {name}".format(**role), "DROP ROLE {name}".format(**role))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_run_whose_connection_is_cut_as_it_begins_leaves_nobody_executing(server: Server, driver: str) -> None:
    async with proxied(server) as (proxy, sockets), DatabaseManager(server.url(driver, sockets)) as db:
        async with db.agent_run("scout", f"held by {driver}", lease_seconds=1) as held:
            proxy.cut_at, proxy.forward_first = re.compile(b"cut off"), True
            with pytest.raises(ConnectionLostError):
                async with db.agent_run("scout", f"cut off from {driver}", lease_seconds=1):
                    pytest.fail("it has begun")
            url = server.url("psycopg").set(drivername="postgresql").render_as_string(hide_password=False)
            look = f"SELECT status FROM agents WHERE session_id = 'cut off from {driver}'"
            await until(lambda: run_elsewhere(url, look) == [("cancelled",)], 20)
        assert await outcome(db, held.id) == ("completed", None)

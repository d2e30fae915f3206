"""Postgres: every connection of the pool has every setting, also the one that takes the place of another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb import DatabaseManager
from tests.support.faults import log, seen, until
from tests.support.postgres_sessions import Watched, watched

SIZE = 3
WRITING = {
    "application_name": "orchdb",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "1min",
    "jit": "off",
    "lock_timeout": "7s",
    "statement_timeout": "12s",
    "synchronous_commit": "on",
}
READING = WRITING | {"default_transaction_read_only": "on"}
QUERY = "SELECT pg_backend_pid(), " + ", ".join(f"current_setting('{name}')" for name in WRITING)


async def settings_of(connection: AsyncConnection) -> tuple[int, dict[str, str]]:
    """The server process behind the connection, and its settings."""
    process, *values = (await connection.execute(text(QUERY))).one()
    await connection.rollback()
    return process, dict(zip(WRITING, values, strict=True))


async def audit(db: DatabaseManager) -> set[int]:
    """Look at the settings of every connection; the processes behind them."""
    backend: Any = db._executor.backend
    processes: set[int] = set()
    for pool, settings in zip(backend._pools, (WRITING, READING), strict=True):
        taken = [await pool.acquire() for _ in range(SIZE)]
        try:
            for conn in taken:
                process, found = await settings_of(conn.connection)
                processes.add(process)
                assert found == settings
        finally:
            for conn in taken:
                pool.release(conn)
    assert db.conn is not None
    process, found = await settings_of(db.conn)
    assert found == READING
    return processes | {process}


async def ended(db: DatabaseManager, server: Watched) -> None:
    """The server ends every session."""
    del db
    server.end_all()
    await asyncio.to_thread(server.ask, "SELECT pg_sleep(0.1)")


async def cut_off(db: DatabaseManager, server: Watched) -> None:
    """Statements of the caller's are cancelled on every connection that the caller can have."""

    async def inside() -> None:
        async with db.transaction() as tx:
            await tx.conn.execute(text("SELECT pg_sleep(30)"))

    async def reading() -> None:
        assert db.conn is not None
        await db.conn.execute(text("SELECT pg_sleep(30)"))

    tasks = [asyncio.create_task(work()) for work in (*[inside] * SIZE, reading)]
    await until(lambda: server.sleeping() == SIZE + 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("fault", [ended, cut_off])
async def test_a_connection_that_takes_the_place_of_another_has_every_setting(url: URL, fault: Any) -> None:
    options: dict[str, Any] = {"lock_timeout": 7, "statement_timeout": 12, "durability": "full", "pool_size": SIZE}
    with watched(url) as server:
        async with DatabaseManager(url, read_url=url, **options) as db:
            known = await audit(db)
            for number in range(3):
                await fault(db, server)
                now = await audit(db)
                assert len(now) == 2 * SIZE + 1
                replaced = len(now - known)
                assert replaced == (len(now) if fault is ended else SIZE + 1)
                known |= now
                await log(db, f"{number}")
            assert await seen(db) == ["0", "1", "2"]

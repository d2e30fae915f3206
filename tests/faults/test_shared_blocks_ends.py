"""Blocks that end while others wait, or that stand in something of the caller's own."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from sqlalchemy import URL, Connection, insert, select, text
from sqlalchemy.exc import IntegrityError

from orchdb import DatabaseManager, NotConnectedError, OperationError, Transaction
from orchdb.schema.tables import system_logs
from tests.conftest import Target

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


class UndoneError(Exception):
    """What a test raises to leave a block."""


async def messages(db: DatabaseManager) -> list[str]:
    return [row["message"] for row in await db.get_system_logs()]


async def test_sqlite_an_undone_block_stops_a_statement_that_is_just_about_to_begin(
    db: DatabaseManager, target: Target
) -> None:
    if target.engine != "sqlite":
        pytest.skip("a driver's statement is stopped by cancelling its task")
    for turns in range(15):
        with pytest.raises(UndoneError):
            async with db.transaction() as tx:
                endless = asyncio.ensure_future(tx.conn.execute(text(ENDLESS)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                raise UndoneError
        with pytest.raises(NotConnectedError):
            await endless


async def test_the_options_of_an_own_connection_end_with_its_block(db: DatabaseManager) -> None:
    elsewhere: Any = {"schema_translate_map": {None: "elsewhere"}}

    async def read(tx: Transaction) -> list[Any]:
        return [*(await tx.conn.execute(select(system_logs.c.message))).scalars()]

    with contextlib.suppress(UndoneError):
        async with db.transaction() as tx, tx.transaction() as part:
            await part.conn.execution_options(**elsewhere)
            raise UndoneError
    async with db.transaction() as tx:
        await tx.conn.execution_options(**elsewhere)
        await tx.create_system_log("INFO", "x", "ours")
        async with tx.transaction() as part:
            assert part.conn.sync_connection is not None
    async with db.transaction() as tx:
        async with tx.transaction() as part:
            await part.conn.execution_options(**elsewhere)
        assert await read(tx) == ["ours"]


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_a_function_of_run_sync_cannot_end_the_block(db: DatabaseManager, end: str) -> None:
    def ends(connection: Connection) -> None:
        connection.execute(insert(system_logs).values(log_level="INFO", component="x", message="gone"))
        getattr(connection, end)()

    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "x", "gone")
            with pytest.raises(OperationError, match="begins and ends"):
                await tx.conn.run_sync(ends)
            raise UndoneError
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "x", "kept")
        with pytest.raises(OperationError, match="begins and ends"):
            await tx.conn.run_sync(ends)
    assert await messages(db) == ["kept"]


async def test_a_block_under_a_context_manager_of_the_callers_own_takes_others_as_its_parts(
    db: DatabaseManager,
) -> None:
    @contextlib.asynccontextmanager
    async def unit_of_work() -> AsyncGenerator[Transaction]:
        async with db.transaction() as tx:
            yield tx

    async def line(message: str) -> None:
        async with db.transaction() as part:
            await part.create_system_log("INFO", "x", message)
            if message == "undone alone":
                raise UndoneError

    async with unit_of_work():
        await line("inside")
        with contextlib.suppress(UndoneError):
            await line("undone alone")
    with contextlib.suppress(UndoneError):
        async with unit_of_work():
            await line("undone with it")
            raise UndoneError
    assert await messages(db) == ["inside"]


async def test_close_sends_away_who_waits_for_a_connection(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchdb.database._CLOSE_SECONDS", 0.1)
    db = DatabaseManager(url, lock_timeout=0, pool_size=1)
    await db.connect()
    opened, closed = asyncio.Event(), asyncio.Event()

    async def stays() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "x", "gone")
            opened.set()
            await closed.wait()

    async def waits() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "x", "gone")

    block = asyncio.create_task(stays())
    await opened.wait()
    calls = [waits(), db.create_system_log("INFO", "x", "gone"), db.get_system_logs(), waits()]
    waiting = [block, *map(asyncio.ensure_future, calls)]
    await asyncio.sleep(0)
    await db.close()
    closed.set()
    async with asyncio.timeout(10):  # pool_timeout is longer
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [NotConnectedError] * len(waiting)
    async with DatabaseManager(url) as again:
        assert await messages(again) == []


async def test_a_wait_for_a_part_or_a_connection_ends_though_the_clock_stands_still(target: Target) -> None:
    with freeze_time("2021-02-03 04:05:06.789"):
        async with DatabaseManager(target.url, lock_timeout=0.2, pool_size=1, pool_timeout=0.2) as db:
            async with db.transaction() as tx:
                async with tx.transaction() as part:
                    await part.create_system_log("INFO", "x", "part")
                    with pytest.raises(OperationError, match="another part"):
                        await asyncio.create_task(tx.create_system_log("INFO", "x", "outer"))
                with pytest.raises(OperationError, match=r"locked|pool"):
                    await asyncio.create_task(db.create_system_log("INFO", "x", "behind"))
            assert await messages(db) == ["part"]


async def test_what_own_statements_set_for_the_session_ends_with_the_block(url: URL) -> None:
    async with DatabaseManager(url, pool_size=1) as db, DatabaseManager(url, pool_size=1) as other:
        timeout = text("SHOW statement_timeout")
        for undone in (False, True):
            with contextlib.suppress(UndoneError):
                async with db.transaction() as tx:
                    before = (await tx.conn.execute(timeout)).scalar_one()
                    for statement in (
                        'PREPARE "Mine" AS SELECT 1',
                        "SELECT pg_advisory_lock(42)",
                        "CREATE TEMPORARY TABLE system_logs (id integer)",
                        "SET search_path = pg_catalog",
                        "SET statement_timeout = 54321",
                        "SET default_transaction_read_only = on",
                        "SET ROLE pg_read_all_data",
                    ):
                        await tx.conn.execute(text(statement))
                    if undone:
                        raise UndoneError
            await db.create_system_log("INFO", "x", f"after {undone}")
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "x", f"block after {undone}")
                assert (await tx.conn.execute(timeout)).scalar_one() == before != "54321ms"
            async with other.transaction() as tx:
                lock = await tx.conn.execute(text("SELECT pg_try_advisory_xact_lock(42)"))
                assert lock.scalar_one() is True
        assert await messages(db) == ["after False", "block after False", "after True", "block after True"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE system_logs AS SELECT * FROM system_logs",
        "CREATE TEMP TRIGGER swallows BEFORE INSERT ON main.system_logs BEGIN SELECT RAISE(IGNORE); END",
        "PRAGMA query_only = 1",
        "PRAGMA count_changes = 1",
        "PRAGMA ignore_check_constraints = 1",
        "PRAGMA locking_mode = EXCLUSIVE",
    ],
)
@pytest.mark.parametrize("undone", [False, True])
async def test_what_own_statements_set_for_sqlites_connection_ends_with_the_block(
    tmp_path: Path, statement: str, undone: bool
) -> None:
    wrong = text("INSERT INTO system_logs (log_level, component, message) VALUES ('wrong', 'x', 'x')")
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        with contextlib.suppress(UndoneError):
            async with db.transaction() as tx:
                await tx.conn.exec_driver_sql(statement)
                if undone:
                    raise UndoneError
        await db.create_system_log("INFO", "x", "alone")
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "x", "block")
            with pytest.raises(IntegrityError):
                await tx.conn.execute(wrong)
        assert await messages(db) == ["alone", "block"]

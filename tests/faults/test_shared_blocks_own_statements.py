"""Own statements in a block that would end its transaction: they are refused, however they come to the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchdb import DatabaseManager, MissingParentError, NotConnectedError, OperationError, Transaction
from tests.conftest import Target

ENDS = [
    "COMMIT",
    "commit work",
    " ;; Commit",
    "-- COMMIT\n  cOmMiT -- now",
    "/* and /* so */ on */ COMMIT AND CHAIN",
    "END",
    "END TRANSACTION",
    "ABORT",
    "ROLLBACK",
    "ROLLBACK TRANSACTION",
    "ROLLBACK AND CHAIN",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "START TRANSACTION",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "SAVEPOINT orchdb_1",
    'SAVEPOINT "orchdb_2"',
    "RELEASE orchdb_1",
    "RELEASE SAVEPOINT orchdb_begin",
    "ROLLBACK TO orchdb_1",
    "ROLLBACK WORK TO SAVEPOINT Orchdb_begin",
    'ROLLBACK TO U&"orchdb\\005fbegin"',
    "CLOSE ALL",
    "close orchdb_guard_1",
    "SELECT 1; COMMIT",
    "SELECT ';'; COMMIT; BEGIN",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END; COMMIT",
    "CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC END; COMMIT",
    "CREATE TRIGGER t INSERT ON system_logs WHEN new.end BEGIN SELECT new.end; END; COMMIT",
]
HARMLESS = [
    "SELECT 'it''s; COMMIT'",
    "SELECT 1 /* ; COMMIT */ -- ; ROLLBACK",
    'SELECT 1 AS "; COMMIT"',
    "SELECT CASE WHEN 1 = 1 THEN 1 END",
    "WITH commit_ AS (SELECT 1 AS release) SELECT * FROM commit_",
    "SAVEPOINT mine",
    "SAVEPOINT mine2",
    "ROLLBACK TRANSACTION TO SAVEPOINT mine2",
    "RELEASE mine2",
    "RELEASE SAVEPOINT mine",
]
HARMLESS_ON_SQLITE = [
    "SELECT 1 AS `; COMMIT`",
    "SAVEPOINT [mine]",
    "CREATE TEMP TRIGGER t INSERT ON system_logs BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; SELECT 3; END",
    "CREATE TABLE spans (start INTEGER, end INTEGER, length INTEGER)",
    "CREATE TRIGGER length INSERT ON spans WHEN new.end BEGIN UPDATE spans SET length = new.end - start; SELECT 1; END",
]
HARMLESS_ON_POSTGRES = [
    "SELECT $$; COMMIT$$, $a$ $$; END $a$",
    r"SELECT E'\'; COMMIT; --'",
    "DECLARE mine CURSOR FOR SELECT 1",
    "CLOSE mine",
    "PREPARE transactions AS SELECT 1",
    "DEALLOCATE transactions",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    'CREATE TABLE pg_temp.abort ("begin" int, "end" int)',
    "CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT s.end FROM (SELECT 1 AS end) s; SELECT 2; END",
    "CREATE PROCEDURE h() LANGUAGE sql BEGIN ATOMIC END",
    "SELECT (SELECT 1 /* a /* nested */ ; COMMIT */)",
]


class UndoneError(Exception):
    """What a test raises to leave a block."""


async def log(tx: Transaction | DatabaseManager, message: str) -> None:
    await tx.create_system_log("INFO", "x", message)


async def messages(db: DatabaseManager) -> list[str]:
    return [row["message"] for row in await db.get_system_logs()]


Way = Callable[[Transaction, str], Awaitable[Any]]


async def by_run_sync(tx: Transaction, statement: str) -> None:
    await tx.conn.run_sync(lambda connection: connection.exec_driver_sql(statement))


async def by_cursor_of_the_server(tx: Transaction, statement: str) -> None:
    await tx.conn.run_sync(lambda connection: _streamed(connection, statement))


def _streamed(connection: Connection, statement: str) -> None:
    connection.execute(text(statement).execution_options(stream_results=True)).close()


async def by_stream(tx: Transaction, statement: str) -> None:
    async with tx.conn.stream(text(statement)):
        pass


WAYS: dict[str, Way] = {
    "execute": lambda tx, statement: tx.conn.execute(text(statement)),
    "exec_driver_sql": lambda tx, statement: tx.conn.exec_driver_sql(statement),
    "run_sync": by_run_sync,
    "stream": by_stream,
    "cursor of the server": by_cursor_of_the_server,
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_would_end_a_block_is_refused_and_the_block_goes_on(db: DatabaseManager, way: str) -> None:
    for undone in (False, True):
        with contextlib.suppress(UndoneError):
            async with db.transaction() as tx:
                for statement in ENDS:
                    await log(tx, f"before {statement}")
                    with pytest.raises(OperationError, match=r"begins and ends .* Leave the block"):
                        await WAYS[way](tx, statement)
                    async with tx.transaction() as part:
                        with pytest.raises(OperationError, match="begins and ends"):
                            await WAYS[way](part, statement)
                        await log(part, f"after {statement}")
                if undone:
                    raise UndoneError
        assert await messages(db) == [f"{when} {statement}" for statement in ENDS for when in ("before", "after")]


async def test_what_only_looks_like_the_end_of_a_block_is_run(db: DatabaseManager, target: Target) -> None:
    more = HARMLESS_ON_SQLITE if target.engine == "sqlite" else HARMLESS_ON_POSTGRES
    async with db.transaction() as tx:
        for statement in HARMLESS + more:
            await tx.conn.exec_driver_sql(statement)
            await log(tx, statement)
        if target.engine == "psycopg":
            await tx.conn.exec_driver_sql("SAVEPOINT mine; SELECT 1; RELEASE mine")
        if target.engine != "sqlite":
            await tx.conn.exec_driver_sql("DROP ROUTINE f(), g(), h()")
    # What was logged behind "mine2" is undone to it.
    assert await messages(db) == [statement for statement in HARMLESS + more if statement != "SAVEPOINT mine2"]


async def by_the_driver(tx: Transaction, statement: str) -> None:
    driver: Any = (await tx.conn.get_raw_connection()).driver_connection
    for one in statement.split("; "):
        await driver.execute(one)


async def by_the_adapter(tx: Transaction, statement: str) -> None:
    def ends(connection: Connection) -> None:
        dbapi: Any = connection.connection
        (dbapi.commit if statement == "COMMIT" else dbapi.rollback)()

    await tx.conn.run_sync(ends)


async def by_a_cursor(tx: Transaction, statement: str) -> None:
    def ends(connection: Connection) -> None:
        for one in statement.split("; "):
            connection.connection.cursor().execute(one)

    await tx.conn.run_sync(ends)


async def by_their_transaction(tx: Transaction, statement: str) -> None:
    def ends(connection: Connection) -> None:
        transaction: Any = connection.get_transaction()
        (transaction.commit if statement == "COMMIT" else transaction.rollback)()

    await tx.conn.run_sync(ends)


async def by_a_session(tx: Transaction, statement: str) -> None:
    def ends(connection: Connection) -> None:
        with Session(connection, join_transaction_mode="control_fully") as session:
            session.execute(text("SELECT 1"))
            (session.commit if statement == "COMMIT" else session.rollback)()

    await tx.conn.run_sync(ends)


PAST_THE_TEXT: dict[str, Way] = {
    "driver": by_the_driver,
    "adapter": by_the_adapter,
    "cursor": by_a_cursor,
    "transaction": by_their_transaction,
    "session": by_a_session,
}


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "COMMIT; BEGIN"])
@pytest.mark.parametrize("way", PAST_THE_TEXT)
async def test_what_ends_a_transaction_past_the_text_keeps_all_or_nothing(
    db: DatabaseManager, way: str, statement: str
) -> None:
    await asyncio.gather(*(log(db, "outside") for _ in range(20)))  # the engine has run COMMIT on that connection
    outside = await messages(db)
    for undone in (True, False):
        kept = False
        with contextlib.suppress(UndoneError, OperationError):
            async with db.transaction() as tx:
                await log(tx, "inside")
                with contextlib.suppress(UndoneError):
                    async with tx.transaction() as part:  # what is undone must not take the guard along
                        await part.conn.execute(text("SELECT 1"))
                        raise UndoneError
                with pytest.raises(Exception, match="nonsense"):
                    await tx.conn.execute(text("SELECT nonsense"))
                error = (await asyncio.gather(PAST_THE_TEXT[way](tx, statement), return_exceptions=True))[0]
                if error is not None:  # the driver's, or that of the step after it
                    assert any(words in str(error) for words in ("begins and ends", "not authorized", "rolled back"))
                await log(tx, "inside")
                if undone:
                    raise UndoneError
            kept = True
        assert await messages(db) == outside + ["inside"] * 2 * kept
    async with db.transaction() as tx:
        await tx.conn.execute(text("SELECT 1"))
        await log(tx, "next")
    assert (await messages(db))[-1] == "next"


async def test_a_session_of_the_orm_leaves_the_block_alone(db: DatabaseManager) -> None:
    def work(connection: Connection, how: str, mode: Any = "conditional_savepoint") -> None:
        with Session(connection, join_transaction_mode=mode) as session:
            session.execute(text("SELECT 1"))
            getattr(session, how)()

    async with db.transaction() as tx:
        for how in ("commit", "rollback", "close"):
            await log(tx, how)
            await tx.conn.run_sync(work, how, "create_savepoint")
            if how == "rollback":  # without a savepoint it would be that of the block
                with pytest.raises(OperationError, match="begins and ends"):
                    await tx.conn.run_sync(work, how)
            else:
                await tx.conn.run_sync(work, how)
    assert await messages(db) == ["commit", "rollback", "close"]


async def test_what_an_async_session_wrote_stays_when_a_later_call_fails(db: DatabaseManager) -> None:
    async def fails(tx: Transaction) -> None:
        with pytest.raises(MissingParentError):
            await tx.create_agent("01890000-0000-7000-8000-000000000000", "session-1")

    line = "INSERT INTO system_logs (log_level, component, message) VALUES ('INFO', 'x', :message)"
    async with db.transaction() as tx:
        await fails(tx)
        async with AsyncSession(tx.conn) as session:
            await session.execute(text(line), {"message": "before a call"})
            await fails(tx)
            await session.execute(text(line), {"message": "before a part"})
            with contextlib.suppress(UndoneError):
                async with tx.transaction() as part:
                    await log(part, "undone")
                    raise UndoneError
            await session.commit()
        await log(tx, "last")
    assert sorted(await messages(db)) == ["before a call", "before a part", "last"]


async def test_tx_conn_is_refused_after_the_end(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        pass
    async with db.transaction() as other:
        with pytest.raises(NotConnectedError):
            await tx.conn.execute(text("SELECT 1"))
        await log(other, "other")
    assert await messages(db) == ["other"]


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
async def test_the_isolation_of_a_block_stays_what_it_is(db: DatabaseManager, level: str) -> None:
    async with db.transaction() as tx:
        await log(tx, "before")
        with pytest.raises(InvalidRequestError, match="isolation_level may not be altered"):
            await tx.conn.execution_options(isolation_level=level)
        with pytest.raises(InvalidRequestError, match="isolation_level may not be altered"):
            await tx.conn.run_sync(lambda connection: connection.execution_options(isolation_level=level))
        await log(tx, "after")
    with contextlib.suppress(UndoneError):
        async with db.transaction() as tx:
            await log(tx, "undone")
            raise UndoneError
    assert await messages(db) == ["before", "after"]


async def test_a_block_cannot_be_begun_on_its_own_connection(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await log(tx, "kept")
        with pytest.raises(OperationError, match="begins and ends"):
            async with tx.conn.begin():
                pass
        with pytest.raises(OperationError, match="begins and ends"):
            tx.conn.get_transaction()
    assert await messages(db) == ["kept"]

"""A transaction on a Postgres server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.backend import BackendTransaction, StatementResult
from orchdb.concurrency import shielded
from orchdb.connections import Step, part_of_transaction
from orchdb.errors import ConnectionLostError, OperationError
from orchdb.own_statements import SAVEPOINTS, free
from orchdb.postgres.drivers import DriverConnection
from orchdb.postgres.pool import ConnectionPool
from orchdb.postgres.sequences import catch_up, is_behind
from orchdb.statements import CompiledStatement, Parameters

# COMMIT runs the query of such a cursor to its end, and this one fails: then nothing is kept, whoever sent the COMMIT.
_GUARD = (
    f"DECLARE {SAVEPOINTS}guard_{{}} NO SCROLL CURSOR WITH HOLD FOR "
    "SELECT pg_catalog.current_setting('orchdb.db.transaction() begins and ends the transaction')"
)
_FORGET = (
    "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; "
    "DISCARD TEMP; "
    # Not DEALLOCATE ALL: the driver keeps some of its own.
    "DO $$ DECLARE one text; BEGIN FOR one IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql "
    "LOOP EXECUTE pg_catalog.format('DEALLOCATE %I', one); END LOOP; END $$"
)


class PostgresTransaction(BackendTransaction):
    """A transaction on a connection of its own.

    Postgres ends a transaction in which a statement failed, so each needs a savepoint to be undone to.
    """

    first_savepoint = f"{SAVEPOINTS}begin"

    def __init__(self, pool: ConnectionPool, conn: DriverConnection, engine: AsyncEngine) -> None:
        self._pool = pool
        self._conn = conn
        self._engine = engine
        self._over = False
        self._foreign = False  # whether the caller may have run statements of their own
        self._guards = 0
        self._guarded = False  # for certain: what is undone takes along what was declared since

    @classmethod
    async def begin(cls, pool: ConnectionPool, conn: DriverConnection, engine: AsyncEngine) -> Self:
        """Begin the transaction; if that fails, the connection is released."""
        transaction = cls(pool, conn, engine)
        try:
            await conn.set_autocommit(False)
            await conn.connection.begin()
            await conn.connection.exec_driver_sql(f"SAVEPOINT {cls.first_savepoint}")  # which sends BEGIN, too
        except BaseException:
            await transaction.rollback()
            raise
        return transaction

    def caller_connection(self, step: Step) -> AsyncConnection:
        self._foreign = True
        return part_of_transaction(self._engine, self._conn.connection, step, shielded=False)

    async def run(
        self, compiled: CompiledStatement, parameters: Parameters, before: Sequence[str] = ()
    ) -> StatementResult:
        await self._ready(before)
        return await self._conn.run(compiled, parameters)

    async def run_many(
        self, compiled: CompiledStatement, parameters: Sequence[Parameters], before: Sequence[str] = ()
    ) -> list[int]:
        await self._ready(before)
        return await self._conn.run_many(compiled, parameters)

    async def script(self, statements: Sequence[str]) -> None:
        await self._ready(statements)

    async def before_own(self, before: Sequence[str]) -> None:
        if self._guarded:
            await self.script(before)
            return
        self._guards += 1
        # Before the savepoint, so that it outlives a statement that fails.
        await self.script([_GUARD.format(self._guards), *before])
        self._guarded = True

    def ended(self) -> bool:
        return not self._conn.closed() and self._conn.idle()

    async def undo(self, savepoint: str | None) -> None:
        self._guarded = False
        await super().undo(savepoint)

    async def _ready(self, before: Sequence[str]) -> None:
        if self._conn.closed():
            raise ConnectionLostError("the connection to the server was lost")
        if self._conn.idle():  # psycopg would begin a new one by itself
            raise OperationError("the transaction was ended by an earlier failure or statement")
        if before:
            # To the end: a savepoint takes no time, and half of a script would leave the others wrong.
            await shielded(self._conn.script("; ".join(before)))

    def removal(self, compiled: CompiledStatement, error: Exception) -> Callable[[], Awaitable[None]] | None:
        return partial(catch_up, self._conn, compiled) if is_behind(compiled, error) else None

    def interrupt(self) -> bool:
        return False

    async def commit(self) -> None:
        free(self._conn.connection.sync_connection)
        try:
            # In a transaction that has failed COMMIT would roll back and say nothing; this fails there, and in another.
            await self.script([*["CLOSE ALL"] * bool(self._guards), f"RELEASE SAVEPOINT {self.first_savepoint}"])
            with self._conn.in_time():
                await self._conn.connection.commit()
        except BaseException:
            await self.rollback()
            raise
        await self._end()

    async def rollback(self) -> None:
        free(self._conn.connection.sync_connection)
        try:
            await shielded(self._rollback())
        finally:
            await self._end()

    async def _rollback(self) -> None:
        try:
            with self._conn.in_time():
                await self._conn.connection.rollback()
        except Exception:  # the server rolls back a connection that ends
            return

    async def _end(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            # One that could not be rolled back is thrown away: to set it anew would fail in place of what led here.
            if not self._conn.closed() and self._conn.idle():
                await shielded(self._conn.set_autocommit(True))
                if self._foreign:
                    await shielded(self._forget())
        finally:
            self._pool.release(self._conn)

    async def _forget(self) -> None:
        """Take back what statements of the caller's own have set for the session: the next one to use it is another."""
        try:
            await self._conn.script(_FORGET)
        except Exception:  # it is not used again, so that the end of the block does not fail by it
            self._conn.stale = True

"""Postgres: how statements reach the server, and what a lost connection, a deadlock or a cancellation does to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.backend import Backend, BackendTransaction, HighWatermark, StatementResult
from orchdb.clocks import pause
from orchdb.concurrency import shielded, until_free
from orchdb.connections import SharedConnection
from orchdb.driver_errors import CONFLICTS, sqlstate
from orchdb.errors import OperationError
from orchdb.postgres import high_watermarks
from orchdb.postgres.connecting import Endings, connect, open_driver_connection
from orchdb.postgres.drivers import DriverConnection
from orchdb.postgres.insert_queue import InsertQueue
from orchdb.postgres.pool import ConnectionPool
from orchdb.postgres.schema_lookup import look
from orchdb.postgres.sequences import catch_up, is_behind
from orchdb.postgres.settings import PostgresSettings
from orchdb.postgres.transaction import PostgresTransaction
from orchdb.schema import revisions
from orchdb.statements import CompiledStatement, Parameters

TRIES = 4
RETRY_SECONDS = (0.005, 0.05)
# Rolled back for certain: a plan or a prepared statement that the server no longer has.
_TRY_ON_ANOTHER = frozenset({"0A000", "26000"})


_beginnings: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, set[asyncio.Future[HighWatermark]]]]
_beginnings = WeakKeyDictionary()


def _beginnings_at(address: str) -> set[asyncio.Future[HighWatermark]]:
    """Those of every manager of this event loop that has the database open: what one writes, another may follow."""
    return _beginnings.setdefault(asyncio.get_running_loop(), {}).setdefault(address, set())


class PostgresBackend(Backend):
    """A Postgres server: a pool of connections for writing and transactions, the same or a replica's for reading."""

    def __init__(self, settings: PostgresSettings, read_settings: PostgresSettings | None = None) -> None:
        self._settings = settings
        self._read_settings = read_settings or settings
        self._upgrade = settings.options.upgrade is True
        self._read_only = settings.options.read_only
        self._make_engines()
        self._pools: list[ConnectionPool] = []
        self._endings: Endings = set()
        self._own_beginnings = set[asyncio.Future[HighWatermark]]()
        self._inserts: InsertQueue | None = None
        self._connection: AsyncConnection | None = None
        self.dialect = self._engine.dialect

    def _make_engines(self) -> None:
        size = self._settings.options.pool_size
        self._engine = self._read_engine = self._settings.engine(size, read_only=self._read_only)
        if self._read_settings is not self._settings:
            self._read_engine = self._read_settings.engine(size, read_only=True)
        self._caller_engine = self._read_settings.engine(1, read_only=True)

    async def open(self) -> None:
        try:
            await self._open()
        except BaseException:
            await shielded(self._disconnect())
            raise

    async def _open(self) -> None:
        self.beginnings = self._beginnings = _beginnings_at(self._settings.address)
        await until_free(self._prepare_schema, self._settings.options.lock_timeout, _is_busy)
        self._pool = self._read_pool = self._new_pool(self._settings, self._engine)
        self._inserts = InsertQueue(self._pool, self._write, self.begun)
        if self._read_engine is not self._engine:
            self._read_pool = self._new_pool(self._read_settings, self._read_engine)
        await self._open_connection()

    async def _open_connection(self) -> None:
        connection = await connect(self._read_settings, SharedConnection(self._caller_engine), self._endings)
        self._connection = connection
        if self._read_settings.pooler:
            # Read-only by the transaction that each statement gets, because a session is nobody's there.
            self.connection = await connection.execution_options(postgresql_readonly=True)
        else:
            self.connection = await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def _prepare_schema(self) -> None:
        schema = await self._prepare_tables()
        if schema is None:
            return
        await self._dispose()
        self._read_settings, was = self._read_settings.in_schema(schema), self._read_settings
        self._settings = self._read_settings if was is self._settings else self._settings.in_schema(schema)
        self._make_engines()
        await self._prepare_tables()

    async def _prepare_tables(self) -> str | None:
        """Make or upgrade the tables; or the schema to do so in, if without it they would be elsewhere or nowhere."""
        connection = await connect(self._settings, AsyncConnection(self._engine), self._endings)
        try:
            # One snapshot: between two looks another process may have made the tables.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            fixed = self._settings.schema is not None or self._settings.pooler
            found, schema = await look(connection, fixed=fixed)
            await connection.rollback()
            if schema is not None:
                return schema
            await connection.execution_options(isolation_level="READ COMMITTED")
            step = revisions.decide(found, upgrade=self._upgrade, read_only=self._read_only)
            if step is revisions.Step.UPGRADE:
                await revisions.upgrade(partial(self._settings.without_limit().engine, 1))
            elif step is revisions.Step.CREATE:
                await revisions.create(connection)
        finally:
            await connection.close()
        return None

    def _new_pool(self, settings: PostgresSettings, engine: AsyncEngine) -> ConnectionPool:
        options = settings.options
        pool = ConnectionPool(
            partial(open_driver_connection, settings, engine, self._endings), options.pool_size, options.pool_timeout
        )
        self._pools.append(pool)
        return pool

    def fail_all(self) -> None:
        for pool in self._pools:
            pool.fail_all()

    async def close(self) -> None:
        await self._disconnect()
        while self._endings:
            await asyncio.wait([*self._endings])

    async def _disconnect(self) -> None:
        for beginning in self._own_beginnings:
            beginning.cancel()
        if self._own_beginnings:
            await asyncio.wait([*self._own_beginnings])
        if self._inserts is not None:
            await self._inserts.close()
        for pool in self._pools:
            await pool.close()
        if self._connection is not None:
            await self._connection.close()
        await self._dispose()
        await asyncio.sleep(0)  # sockets whose server has gone are closed in the event loop's next turn

    async def _dispose(self) -> None:
        for engine in (self._caller_engine, self._read_engine, self._engine):
            await engine.dispose()

    # Not async themselves: on the path of every operation each coroutine more would cost.
    def read(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        if self._own_beginnings:
            return self._read_behind(compiled, parameters)
        return self._single(self._read_pool, compiled, parameters, reads=True)

    async def _read_behind(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        """Read when every tail that was called before has begun: what comes after this list is in the tail."""
        await asyncio.wait([*self._own_beginnings])
        return await self._single(self._read_pool, compiled, parameters, reads=True)

    def read_newest(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        return self._single(self._pool, compiled, parameters, reads=True)

    async def high_watermark(self, table: Table) -> HighWatermark:
        compiled = high_watermarks.high_watermark(table).compiled(self.dialect)
        return high_watermarks.found(await self.read_newest(compiled, compiled.parameters({})))[1]

    def beginning(self, table: Table) -> asyncio.Future[HighWatermark]:
        task = asyncio.ensure_future(self._beginning(table))
        self._own_beginnings.add(task)
        self._beginnings.add(task)
        task.add_done_callback(self._has_begun)
        return task

    def _has_begun(self, task: asyncio.Future[HighWatermark]) -> None:
        self._own_beginnings.discard(task)
        self._beginnings.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: a tail that nobody iterates over has no use for it

    async def _beginning(self, table: Table) -> HighWatermark:
        if not self._pool.all_taken():
            return await self._begin_on(self.read_newest, table)
        # Those who have them may be about to commit, and wait for this.
        async with self._beside() as conn:
            return await self._begin_on(conn.run, table)

    @asynccontextmanager
    async def _beside(self) -> AsyncGenerator[DriverConnection]:
        """A connection that is none of the pool's."""
        engine = self._settings.engine(1)
        try:
            conn = await open_driver_connection(self._settings, engine, self._endings)
            try:
                yield conn
            finally:
                await shielded(conn.connection.close())
        finally:
            await shielded(engine.dispose())

    async def _begin_on(
        self, run: Callable[[CompiledStatement, Parameters], Awaitable[StatementResult]], table: Table
    ) -> HighWatermark:
        compiled = high_watermarks.before_beginning(table).compiled(self.dialect)
        last, before = high_watermarks.found(await run(compiled, compiled.parameters({})))
        compiled = high_watermarks.beginning(table).compiled(self.dialect)
        # Only a transaction that was at work already may have taken any id; all others take those behind the last one.
        result = await run(compiled, compiled.parameters({"after_id": 0 if before.writers else last}))
        return high_watermarks.found(result)[1]

    async def filled(self, table: Table, gaps: Sequence[tuple[int, int]]) -> list[int]:
        compiled = high_watermarks.filled(table).compiled(self.dialect)
        result = await self.read_newest(compiled, compiled.parameters(high_watermarks.ranges(gaps)))
        return [row["id"] for row in result.rows]

    def write(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        if compiled.is_insert and self._inserts is not None:
            return self._inserts.run(compiled, parameters)
        return self._write(compiled, parameters)

    def _write(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        return self._single(self._pool, compiled, parameters, reads=False)

    async def _single(
        self, pool: ConnectionPool, compiled: CompiledStatement, parameters: Parameters, *, reads: bool
    ) -> StatementResult:
        """Run one statement that commits by itself; again, if it certainly was not applied or changes nothing."""
        if self.beginnings and not reads:
            await self.begun()
        tries = 1
        while True:
            conn = await pool.acquire()
            behind = False
            try:
                return await conn.run(compiled, parameters)
            except asyncio.CancelledError:
                conn.cut_off = True
                raise
            except Exception as error:
                if conn.closed():
                    pool.doubt()
                conn.stale = sqlstate(error) in _TRY_ON_ANOTHER
                behind = is_behind(compiled, error)
                if tries == TRIES or not (behind or _again(conn, error, reads=reads)):
                    raise
            finally:
                pool.release(conn)
            if behind:
                await self._catch_up(compiled)
            else:
                await pause(tries * random.uniform(*RETRY_SECONDS))  # noqa: S311  # a pause, not a secret
            tries += 1

    async def write_beside(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        if self._pool.all_taken():
            with suppress(OperationError):  # none is to be had: then in turn
                async with self._beside() as conn:
                    return await conn.run(compiled, parameters)
        return await self._write(compiled, parameters)

    async def _catch_up(self, compiled: CompiledStatement) -> None:
        conn = await self._pool.acquire()
        try:
            await catch_up(conn, compiled)
        finally:
            self._pool.release(conn)

    async def write_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        tries = 1
        while True:
            try:
                return await self._write_many(compiled, parameters)
            except Exception as error:
                behind = is_behind(compiled, error)
                if tries == TRIES or not (behind or sqlstate(error) in CONFLICTS):
                    raise
            if behind:
                await self._catch_up(compiled)
            tries += 1

    async def _write_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        transaction = await self.begin()
        try:
            numbers = await transaction.run_many(compiled, parameters)
            await self.begun()
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()
        return numbers

    async def back_up(self, target: Path) -> None:
        raise OperationError("the database is on a server: pg_dump makes a consistent copy of it")

    async def begin(self) -> BackendTransaction:
        tries = 1
        while True:
            conn = await self._pool.acquire()
            try:
                return await PostgresTransaction.begin(self._pool, conn, self._engine)
            except Exception:
                if tries == TRIES or not conn.closed():
                    raise
            self._pool.doubt()
            tries += 1


def _is_busy(error: Exception) -> bool:
    return isinstance(error, OperationError) and error.code == revisions.BUSY


def _again(conn: DriverConnection, error: Exception, *, reads: bool) -> bool:
    code = sqlstate(error)
    return code in CONFLICTS or code in _TRY_ON_ANOTHER or (reads and conn.closed())

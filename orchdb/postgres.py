"""Postgres: how statements reach the server, and what a lost connection, a deadlock or a cancellation does to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Boolean, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb import versions
from orchdb.appends import Appends
from orchdb.backend import Backend, Horizon, Outcome, Session
from orchdb.connections import SharedConnection, part_of_transaction
from orchdb.errors import OperationError, sqlstate
from orchdb.lanes import AsyncpgLane, Lane, Lanes, PsycopgLane
from orchdb.postgres_schema import look
from orchdb.postgres_settings import PostgresSettings
from orchdb.sequences import catch_up, is_behind
from orchdb.shielding import to_the_end
from orchdb.statements import Parameters, Prepared, Statement

Result = TypeVar("Result")

TRIES = 4
RETRY_SECONDS = (0.005, 0.05)
# Rolled back for certain: a conflict, a deadlock, and a plan or a prepared statement that the server no longer has.
_TRY_AGAIN = frozenset({"40001", "40P01"})
_TRY_ON_ANOTHER = frozenset({"0A000", "26000"})


class PostgresSession(Session):
    """A transaction on a lane of its own.

    Postgres ends a transaction in which a statement failed. So a savepoint is kept behind the last statement that
    changed something, and a statement that fails is undone back to it, as SQLite does by itself.
    """

    def __init__(self, lanes: Lanes, lane: Lane, face: AsyncConnection) -> None:
        self._lanes = lanes
        self._lane = lane
        self._face = face
        self._exposed = False  # the caller has the connection: what happened on it since is unknown
        self._broken = False
        self._changed = [False]  # for each part: whether something changed since its savepoint
        self._over = False

    @property
    def connection(self) -> AsyncConnection:  # type: ignore[override]  # an attribute that is noticed when it is read
        self._exposed = True
        return self._face

    @classmethod
    async def begin(cls, lanes: Lanes, lane: Lane, engine: AsyncEngine) -> PostgresSession:
        """Begin the transaction; if that fails, the lane is released."""
        session = cls(lanes, lane, part_of_transaction(engine, lane.connection, shielded=False))
        try:
            await lane.set_autocommit(False)
            await lane.connection.begin()
            await lane.connection.exec_driver_sql("SAVEPOINT step_0")
        except BaseException:
            await session.rollback()
            raise
        return session

    async def run(self, prepared: Prepared, parameters: Parameters) -> Outcome:
        return await self._step(lambda: self._lane.run(prepared, parameters), changes=not _reads(prepared))

    async def run_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        return await self._step(lambda: self._lane.run_many(prepared, parameters), changes=True)

    async def _step(self, work: Callable[[], Awaitable[Result]], *, changes: bool) -> Result:
        step = f"step_{len(self._changed) - 1}"
        async with self._lane.turn:
            self._check()
            if self._exposed:
                # Nothing is released: that would take the caller's own savepoints along.
                await self._script(f"SAVEPOINT {step}")
            elif self._changed[-1]:
                await self._script(f"RELEASE SAVEPOINT {step}; SAVEPOINT {step}")
            self._changed[-1] = False
            try:
                result = await work()
            except BaseException:
                await to_the_end(self._undo(f"ROLLBACK TO SAVEPOINT {step}"))
                raise
            self._changed[-1] = self._changed[-1] or changes
            return result

    async def begin_savepoint(self) -> None:
        part = len(self._changed)
        async with self._lane.turn:
            self._check()
            await self._script(f"SAVEPOINT part_{part}; SAVEPOINT step_{part}")
            self._changed.append(False)

    async def end_savepoint(self, *, commit: bool) -> None:
        async with self._lane.turn:
            self._changed.pop()
            part = f"part_{len(self._changed)}"
            undo = f"ROLLBACK TO SAVEPOINT {part}; RELEASE SAVEPOINT {part}"
            if not commit:
                await to_the_end(self._undo(undo))
                return
            self._check()
            try:
                await self._script(f"RELEASE SAVEPOINT {part}")
            except BaseException:
                await to_the_end(self._undo(undo))
                raise
            self._changed[-1] = True

    async def _script(self, sql: str) -> None:
        # To the end: a savepoint takes no time, and half of a script would leave the others wrong.
        await to_the_end(self._lane.script(sql))

    async def _undo(self, sql: str) -> None:
        try:
            await self._lane.script(sql)
        except Exception:  # the failure that led here is the one to tell; the transaction can only be rolled back now
            self._broken = True

    def _check(self) -> None:
        if self._broken or self._lane.closed():
            raise OperationError("an earlier failure has ended the transaction")

    async def commit(self) -> None:
        try:
            async with self._lane.turn:
                if self._broken:
                    raise OperationError("an earlier failure has ended the transaction")
                if self._exposed:
                    # A statement of the caller's may have failed: COMMIT would then roll back and say nothing.
                    await self._lane.script("RELEASE SAVEPOINT step_0")
                await self._lane.connection.commit()
        except BaseException:
            await self.rollback()
            raise
        await self._end()

    async def rollback(self) -> None:
        try:
            await to_the_end(self._rollback())
        finally:
            await self._end()

    async def _rollback(self) -> None:
        try:
            await self._lane.connection.rollback()
        except Exception:  # the server rolls back a connection that ends
            self._broken = True

    async def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._face.sync_connection = None  # whoever kept tx.conn must not reach the next user of the connection
        try:
            # One that could not be rolled back is thrown away: to set it anew would fail in place of what led here.
            if not self._lane.closed() and self._lane.idle():
                await to_the_end(self._lane.set_autocommit(True))
        finally:
            self._lanes.release(self._lane)


class PostgresBackend(Backend):
    """A Postgres server: a pool of connections for writing and transactions, the same or a replica's for reading."""

    def __init__(
        self,
        settings: PostgresSettings,
        *,
        read_settings: PostgresSettings | None = None,
        upgrade: bool | None = None,
        read_only: bool = False,
    ) -> None:
        self._settings = settings
        self._read_settings = read_settings or settings
        self._upgrade = upgrade is True
        self._read_only = read_only
        self._make_engines()
        self._pools: list[Lanes] = []
        self._appends: Appends | None = None
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
            await to_the_end(self.close())
            raise

    async def _open(self) -> None:
        await self._prepare_schema()
        self._lanes = self._read_lanes = self._pool(self._settings, self._engine)
        self._appends = Appends(self._lanes, self._write)
        if self._read_engine is not self._engine:
            self._read_lanes = self._pool(self._read_settings, self._read_engine)
        await self._open_connection()

    async def _open_connection(self) -> None:
        connection = await _connect(self._read_settings, SharedConnection(self._caller_engine))
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
        connection = await _connect(self._settings, AsyncConnection(self._engine))
        try:
            # One snapshot: between two looks another process may have made the tables.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            fixed = self._settings.schema is not None or self._settings.pooler
            found, schema = await look(connection, fixed=fixed)
            await connection.rollback()
            if schema is not None:
                return schema
            await connection.execution_options(isolation_level="READ COMMITTED")
            step = versions.decide(found, upgrade=self._upgrade, read_only=self._read_only)
            if step is versions.Step.UPGRADE:
                await versions.upgrade(partial(self._settings.without_limit().engine, 1))
            elif step is versions.Step.CREATE:
                await versions.create(connection)
        finally:
            await connection.close()
        return None

    def _pool(self, settings: PostgresSettings, engine: AsyncEngine) -> Lanes:
        options = settings.options
        lanes = Lanes(partial(_open_lane, settings, engine), options.pool_size, options.pool_timeout)
        self._pools.append(lanes)
        return lanes

    async def close(self) -> None:
        if self._appends is not None:
            await self._appends.close()
        for lanes in self._pools:
            await lanes.close()
        if self._connection is not None:
            await self._connection.close()
        await self._dispose()
        await asyncio.sleep(0)  # sockets whose server has gone are closed in the event loop's next turn

    async def _dispose(self) -> None:
        for engine in (self._caller_engine, self._read_engine, self._engine):
            await engine.dispose()

    # Not async themselves: on the path of every operation each coroutine more would cost.
    def read(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        return self._single(self._read_lanes, prepared, parameters, reads=True)

    def read_newest(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        return self._single(self._lanes, prepared, parameters, reads=True)

    async def horizon(self, table: Table) -> Horizon:
        prepared = _horizon(table).prepared(self.dialect)
        ((newest, writers, standby),) = (
            row.values() for row in (await self.read_newest(prepared, prepared.parameters({}))).rows
        )
        if standby:
            raise OperationError("the server is a standby: it does not know who is writing")
        return Horizon(newest, frozenset(writers.split()))

    def write(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        if prepared.is_insert and self._appends is not None:
            return self._appends.run(prepared, parameters)
        return self._write(prepared, parameters)

    def _write(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        return self._single(self._lanes, prepared, parameters, reads=False)

    async def _single(self, lanes: Lanes, prepared: Prepared, parameters: Parameters, *, reads: bool) -> Outcome:
        """Run one statement that commits by itself; again, if it certainly was not applied or changes nothing."""
        tries = 1
        while True:
            lane = await lanes.acquire()
            behind = False
            try:
                return await lane.run(prepared, parameters)
            except asyncio.CancelledError:
                lane.cut_off = True
                raise
            except Exception as error:
                if lane.closed():
                    lanes.doubt()
                lane.stale = sqlstate(error) in _TRY_ON_ANOTHER
                behind = is_behind(prepared, error)
                if tries == TRIES or not (behind or _again(lane, error, reads=reads)):
                    raise
            finally:
                lanes.release(lane)
            if behind:
                await self._catch_up(prepared)
            else:
                await asyncio.sleep(tries * random.uniform(*RETRY_SECONDS))  # noqa: S311  # a pause, not a secret
            tries += 1

    async def _catch_up(self, prepared: Prepared) -> None:
        lane = await self._lanes.acquire()
        try:
            await catch_up(lane, prepared)
        finally:
            self._lanes.release(lane)

    async def write_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        tries = 1
        while True:
            try:
                return await self._write_many(prepared, parameters)
            except Exception as error:
                if tries == TRIES or not is_behind(prepared, error):
                    raise
            await self._catch_up(prepared)
            tries += 1

    async def _write_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        session = await self.begin()
        try:
            numbers = await session.run_many(prepared, parameters)
        except BaseException:
            await session.rollback()
            raise
        await session.commit()
        return numbers

    async def back_up(self, target: Path) -> None:
        raise OperationError("the database is on a server: pg_dump makes a consistent copy of it")

    async def begin(self) -> Session:
        tries = 1
        while True:
            lane = await self._lanes.acquire()
            try:
                return await PostgresSession.begin(self._lanes, lane, self._engine)
            except Exception:
                if tries == TRIES or not lane.closed():
                    raise
            self._lanes.doubt()
            tries += 1


@cache
def _horizon(table: Table) -> Statement[Any]:
    # Whoever took an id below the newest one got this lock of the sequence's with it, and holds it until its row can be
    # seen. So if it is not among those who hold it after the newest id was read, its row is there. The same lock of the
    # table's is of those who write with an id of their own.
    core = text(f"""
        SELECT coalesce((SELECT max(id) FROM {table.name}), 0) AS newest,
            coalesce((SELECT string_agg(virtualtransaction, ' ') FROM pg_locks
                WHERE mode = 'RowExclusiveLock' AND relation IN
                    (CAST('{table.name}' AS regclass), CAST(pg_get_serial_sequence('{table.name}', 'id') AS regclass))
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())), '') AS writers,
            pg_is_in_recovery() AS standby
    """)  # noqa: S608  # the table's own name
    return Statement(table, core.columns(newest=BigInteger, writers=Text, standby=Boolean))


def _reads(prepared: Prepared) -> bool:
    return prepared.returns_rows and not prepared.is_insert


def _again(lane: Lane, error: Exception, *, reads: bool) -> bool:
    code = sqlstate(error)
    return code in _TRY_AGAIN or code in _TRY_ON_ANOTHER or (reads and lane.closed())


async def _open_lane(settings: PostgresSettings, engine: AsyncEngine) -> Lane:
    connection = await _connect(settings, AsyncConnection(engine))
    try:
        raw: Any = await connection.get_raw_connection()
        kind = AsyncpgLane if settings.asyncpg else PsycopgLane
        limit = settings.options.statement_timeout
        lane = kind(
            connection, raw.driver_connection, raw.dbapi_connection, limit + settings.timeout if limit else None
        )
        await lane.set_autocommit(True)
    except BaseException:
        await to_the_end(connection.close())
        raise
    return lane


async def _connect(settings: PostgresSettings, connection: AsyncConnection) -> AsyncConnection:
    """The connection, open.

    Raises:
        OperationError: The server cannot be reached or refuses; the message says where and why.
    """
    failure: OperationError
    try:
        # To the end, which connect_timeout bounds: a connection that is cut off while it is made would leak.
        return await to_the_end(connection.start())
    except asyncio.CancelledError:
        if connection.sync_connection is not None:
            await to_the_end(connection.close())
        raise
    except Exception as error:
        failure = settings.not_connected(error)
    raise failure

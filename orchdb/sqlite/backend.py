"""SQLite: the two engines, and how statements reach them.

No function here opens, reads or copies a database file that exists: closing any descriptor of it would drop the locks
of this whole process, and other processes would overwrite rows that were acknowledged. A file is known by ``stat`` and
by what SQLite says of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import BROKEN, Backend, BackendTransaction, HighWatermark, Options, StatementResult
from orchdb.concurrency import shielded, until_free
from orchdb.connections import ShieldedConnection
from orchdb.driver_errors import sqlite_code
from orchdb.errors import OperationError
from orchdb.location import MEMORY
from orchdb.raising import raised_as
from orchdb.schema import revisions
from orchdb.sqlite.backup import back_up, backed_up_beside
from orchdb.sqlite.driver import DriverConnection, driver_connection
from orchdb.sqlite.files import (
    FileGuard,
    Frozen,
    PrivateFolder,
    file_uri,
    make,
    named,
    on_read_only_medium,
    refuses_to_write,
    require,
    warn_about,
)
from orchdb.sqlite.free_space import give_back
from orchdb.sqlite.jobs import ManyRows, OneStatement, TwoStatements
from orchdb.sqlite.read_pool import ReadPool
from orchdb.sqlite.settings import TRY_MS, WAIT_MS, Pragma, configure_reader, configure_writer, engine, migration_engine
from orchdb.sqlite.transaction import SqliteTransaction
from orchdb.sqlite.write_queue import WriteQueue, locked
from orchdb.statements import CompiledStatement, Parameters, newest_id

READERS = 4


class SqliteBackend(Backend):
    """An SQLite file: one connection that writes, a few that read."""

    def __init__(self, url: URL, options: Options, schema_path: Path | None = None) -> None:
        self._lock_timeout = options.lock_timeout
        self._schema_path = schema_path
        self._upgrade = options.upgrade is not False
        self._read_only = read_only = options.read_only
        self._connections: list[AsyncConnection] = []
        self._queues: list[WriteQueue | ReadPool] = []
        self._process = os.getpid()
        self._folder: PrivateFolder | None = None
        if url.database == MEMORY:
            # A private file: reading and writing work as on any other.
            self._folder = PrivateFolder()
            url = url.set(database=str(self._folder.path / "memory.db"))
        # SQLite keeps the WAL beside the file that a link points to, so that file is the one to create and to guard.
        self.path = Path(os.path.realpath(url.database or ""))
        self._guard = FileGuard(self.path)
        self._frozen: Frozen | None = None
        self._write_engine = engine(file_uri(self.path, mode="rw"), 1, configure_writer(options.durability))
        event.listen(self._write_engine.sync_engine, "before_cursor_execute", _refuse_after_the_end)
        self._read_uri = file_uri(self.path, mode="ro" if read_only else "rw")
        self._read_engine = engine(self._read_uri, READERS + 1, configure_reader, "BEGIN")
        self.dialect = self._write_engine.dialect

    async def open(self) -> None:
        with raised_as((sqlite3.Error, DBAPIError), partial(named, self.path)):
            try:
                (require if self._read_only else make)(self.path)
                warn_about(self.path)
                await until_free(lambda: shielded(self._attempt()), self._lock_timeout, _is_locked)
            except BaseException:
                await shielded(self.close())
                raise

    async def _attempt(self) -> None:
        """Open everything or nothing, and wait no longer than a moment for a lock."""
        try:
            await self._open()
            return
        except BaseException as error:
            await self._disconnect()
            if not (self._read_only and self._frozen is None and refuses_to_write(error)):
                raise
            if not on_read_only_medium(self.path):
                raise
        self._frozen = Frozen(self.path)
        self._read_uri = file_uri(self.path, mode="ro", immutable="1")
        self._read_engine = engine(self._read_uri, READERS + 1, configure_reader, "BEGIN")
        await self._attempt()

    async def _open(self) -> None:
        # The reader comes first: a database that is not ours has to be refused before anything of it is changed.
        reader = await self._connect(ShieldedConnection(self._read_engine))
        self.connection = await reader.execution_options(isolation_level="AUTOCOMMIT")
        conn = await driver_connection(reader)
        await conn.call(Pragma("busy_timeout", TRY_MS))
        step = revisions.decide(await revisions.examine(reader), upgrade=self._upgrade, read_only=self._read_only)
        await reader.rollback()
        if step is revisions.Step.UPGRADE:
            await revisions.upgrade(
                partial(migration_engine, self.path, wal=True), partial(backed_up_beside, self.path)
            )
        if not self._read_only:
            await self._open_writer(create=step is revisions.Step.CREATE)
        self._read_pool = ReadPool(self._open_reader, READERS, self._guard)
        self._queues.append(self._read_pool)
        await conn.call(Pragma("busy_timeout", WAIT_MS))
        await conn.call(Pragma("schema_version"))  # it has to read once to know that the file is in WAL mode by now
        self._guard.begin()

    async def _open_writer(self, *, create: bool) -> None:
        connection = await self._connect(AsyncConnection(self._write_engine))
        if create:
            await revisions.create(connection, self._schema_path)
        self._write_queue = WriteQueue(await driver_connection(connection), self._lock_timeout, self._guard)
        self._queues.append(self._write_queue)

    async def back_up(self, target: Path) -> None:
        await back_up(self._read_uri, target)

    async def give_back(self) -> None:
        await give_back(self._read_pool.run, self._write_queue.run, self._write_queue.conn.call, self._lock_timeout)

    async def _open_reader(self) -> DriverConnection:
        return await driver_connection(await self._connect(AsyncConnection(self._read_engine)))

    async def _connect(self, connection: AsyncConnection) -> AsyncConnection:
        self._connections.append(await connection.start())
        return connection

    def fail_all(self) -> None:
        if not self._read_only:
            self._write_queue.fail_all()

    async def close(self) -> None:
        if os.getpid() != self._process:
            return  # the threads of the connections are the parent's, and so is what they hold
        await self._disconnect()
        if self._folder is not None:
            self._folder.remove()

    async def _disconnect(self) -> None:
        while self._queues:
            self._queues.pop().abandon()
        while self._connections:
            connection = self._connections.pop()
            if not connection.closed:  # the caller may have closed db.conn
                # Straight to the driver: handing a connection back to the pool would cost hops to reset it.
                await connection.invalidate()
        await self._read_engine.dispose()
        await self._write_engine.dispose()

    def read(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        if self._frozen is not None:
            return self._read_frozen(self._frozen, compiled, parameters)
        return self._read_pool.run(OneStatement(compiled, parameters))

    async def _read_frozen(
        self, frozen: Frozen, compiled: CompiledStatement, parameters: Parameters
    ) -> StatementResult:
        result: StatementResult = await self._read_pool.run(OneStatement(compiled, parameters))
        frozen.check()
        return result

    async def high_watermark(self, table: Table) -> HighWatermark:
        compiled = newest_id(table).compiled(self.dialect)
        ((newest,),) = (row.values() for row in (await self.read(compiled, compiled.parameters({}))).rows)
        return HighWatermark(newest)  # ids are given under the write lock: no lower one comes later

    def beginning(self, table: Table) -> asyncio.Future[HighWatermark]:
        # At once, in this thread: it takes less than a millisecond, and what is committed meanwhile would be missed.
        future: asyncio.Future[HighWatermark] = asyncio.get_running_loop().create_future()
        compiled = newest_id(table).compiled(self.dialect)
        try:
            with contextlib.closing(sqlite3.connect(self._read_uri, timeout=TRY_MS / 1000, uri=True)) as connection:
                (newest,) = connection.execute(compiled.sql, compiled.parameters({})).fetchone()
            future.set_result(HighWatermark(newest))
        except sqlite3.Error as error:
            future.set_exception(error)
            future.exception()  # retrieved: a tail that nobody iterates over has no use for it
        return future

    def write(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        kind = TwoStatements if compiled.is_pair else OneStatement
        return self._write_queue.run(kind(compiled, parameters))

    async def write_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        numbers: list[int] = await self._write_queue.run(ManyRows(compiled, parameters))
        return numbers

    async def begin(self) -> BackendTransaction:
        conn = await self._write_queue.acquire()
        try:
            self._guard.check()
            await self._begin(conn.connection)
        except BaseException:
            self._write_queue.release()
            raise
        return SqliteTransaction(self._write_queue, self._write_engine, self._guard)

    async def _begin(self, connection: AsyncConnection) -> None:
        """Take the write lock."""
        try:
            await until_free(lambda: _take_lock(connection), self._lock_timeout, _is_locked)
            return
        except DBAPIError as error:
            if not _is_locked(error):
                raise
        raise locked()


async def _take_lock(connection: AsyncConnection) -> None:
    try:
        await shielded(connection.begin())
    except asyncio.CancelledError:
        await shielded(connection.rollback())
        raise


def _is_locked(error: Exception) -> bool:
    return sqlite_code(error) == "SQLITE_BUSY"


def _refuse_after_the_end(connection: Connection, *_: object) -> None:
    """Without BEGIN a statement of the caller's would be committed by itself: a full disk, say, ends a transaction."""
    driver: Any = connection.connection.driver_connection
    if connection.in_transaction() and not driver.in_transaction:
        raise OperationError(BROKEN)

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

from orchdb import versions
from orchdb.backend import BROKEN, Backend, BackendTransaction, Durability, Horizon, Outcome
from orchdb.backup import back_up, backed_up_beside
from orchdb.connections import ShieldedConnection
from orchdb.errors import OperationError, sqlite_code
from orchdb.files import (
    Frozen,
    PrivateFolder,
    Watch,
    file_uri,
    make,
    named,
    on_read_only_medium,
    refuses_to_write,
    require,
    warn_about,
)
from orchdb.jobs import ManyRows, OneStatement
from orchdb.location import MEMORY
from orchdb.own_statements import refuse_ends
from orchdb.prepared import Parameters, Prepared
from orchdb.raising import raised_as
from orchdb.readers import Readers
from orchdb.shielding import to_the_end
from orchdb.space import give_back
from orchdb.sqlite_settings import (
    TRY_MS,
    WAIT_MS,
    Pragma,
    configure_reader,
    configure_writer,
    engine,
    migration_engine,
)
from orchdb.sqlite_transaction import SqliteTransaction
from orchdb.statements import newest_id
from orchdb.waiting import until_free
from orchdb.writer import Lane, Writer, locked

READERS = 4


class SqliteBackend(Backend):
    """An SQLite file: one connection that writes, a few that read."""

    def __init__(
        self,
        url: URL,
        *,
        durability: Durability = "normal",
        lock_timeout: float = 30.0,
        schema_path: Path | None = None,
        upgrade: bool | None = None,
        read_only: bool = False,
    ) -> None:
        self._lock_timeout = lock_timeout
        self._schema_path = schema_path
        self._upgrade = upgrade is not False
        self._read_only = read_only
        self._connections: list[AsyncConnection] = []
        self._queues: list[Writer | Readers] = []
        self._process = os.getpid()
        self._folder: PrivateFolder | None = None
        if url.database == MEMORY:
            # A private file: readers and writer work as on any other.
            self._folder = PrivateFolder()
            url = url.set(database=str(self._folder.path / "memory.db"))
        # SQLite keeps the WAL beside the file that a link points to, so that file is the one to create and to watch.
        self.path = Path(os.path.realpath(url.database or ""))
        self._watch = Watch(self.path)
        self._frozen: Frozen | None = None
        self._write_engine = engine(file_uri(self.path, mode="rw"), 1, configure_writer(durability))
        event.listen(self._write_engine.sync_engine, "before_cursor_execute", _refuse_after_the_end)
        event.listen(self._write_engine.sync_engine, "before_cursor_execute", refuse_ends)
        self._read_uri = file_uri(self.path, mode="ro" if read_only else "rw")
        self._read_engine = engine(self._read_uri, READERS + 1, configure_reader, "BEGIN")
        self.dialect = self._write_engine.dialect

    async def open(self) -> None:
        with raised_as((sqlite3.Error, DBAPIError), partial(named, self.path)):
            try:
                (require if self._read_only else make)(self.path)
                warn_about(self.path)
                await until_free(lambda: to_the_end(self._attempt()), self._lock_timeout, _is_locked)
            except BaseException:
                await to_the_end(self.close())
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
        lane = await _lane(reader)
        await lane.call(Pragma("busy_timeout", TRY_MS))
        step = versions.decide(await versions.examine(reader), upgrade=self._upgrade, read_only=self._read_only)
        await reader.rollback()
        if step is versions.Step.UPGRADE:
            await versions.upgrade(partial(migration_engine, self.path, wal=True), partial(backed_up_beside, self.path))
        if not self._read_only:
            await self._open_writer(create=step is versions.Step.CREATE)
        self._readers = Readers(self._open_reader, READERS, self._watch)
        self._queues.append(self._readers)
        await lane.call(Pragma("busy_timeout", WAIT_MS))
        await lane.call(Pragma("schema_version"))  # it has to read once to know that the file is in WAL mode by now
        self._watch.begin()

    async def _open_writer(self, *, create: bool) -> None:
        connection = await self._connect(AsyncConnection(self._write_engine))
        if create:
            await versions.create(connection, self._schema_path)
        self._writer = Writer(await _lane(connection), self._lock_timeout, self._watch)
        self._queues.append(self._writer)

    async def back_up(self, target: Path) -> None:
        await back_up(self._read_uri, target)

    async def give_back(self) -> None:
        await give_back(self._readers.run, self._writer.run, self._writer.lane.call, self._lock_timeout)

    async def _open_reader(self) -> Lane:
        return await _lane(await self._connect(AsyncConnection(self._read_engine)))

    async def _connect(self, connection: AsyncConnection) -> AsyncConnection:
        self._connections.append(await connection.start())
        return connection

    def send_away(self) -> None:
        if not self._read_only:
            self._writer.send_away()

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

    def read(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        if self._frozen is not None:
            return self._read_frozen(self._frozen, prepared, parameters)
        return self._readers.run(OneStatement(prepared, parameters))

    async def _read_frozen(self, frozen: Frozen, prepared: Prepared, parameters: Parameters) -> Outcome:
        outcome: Outcome = await self._readers.run(OneStatement(prepared, parameters))
        frozen.check()
        return outcome

    async def horizon(self, table: Table) -> Horizon:
        prepared = newest_id(table).prepared(self.dialect)
        ((newest,),) = (row.values() for row in (await self.read(prepared, prepared.parameters({}))).rows)
        return Horizon(newest)  # ids are given under the write lock: no lower one comes later

    def beginning(self, table: Table) -> asyncio.Future[Horizon]:
        # At once, in this thread: it takes less than a millisecond, and what is committed meanwhile would be missed.
        future: asyncio.Future[Horizon] = asyncio.get_running_loop().create_future()
        prepared = newest_id(table).prepared(self.dialect)
        try:
            with contextlib.closing(sqlite3.connect(self._read_uri, timeout=TRY_MS / 1000, uri=True)) as connection:
                (newest,) = connection.execute(prepared.sql, prepared.parameters({})).fetchone()
            future.set_result(Horizon(newest))
        except sqlite3.Error as error:
            future.set_exception(error)
            future.exception()  # retrieved: a tail that nobody iterates over has no use for it
        return future

    def write(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        return self._writer.run(OneStatement(prepared, parameters))

    async def write_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        numbers: list[int] = await self._writer.run(ManyRows(prepared, parameters))
        return numbers

    async def begin(self) -> BackendTransaction:
        lane = await self._writer.acquire()
        try:
            self._watch.check()
            await self._begin(lane.connection)
        except BaseException:
            self._writer.release()
            raise
        return SqliteTransaction(self._writer, self._write_engine, self._watch)

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
        await to_the_end(connection.begin())
    except asyncio.CancelledError:
        await to_the_end(connection.rollback())
        raise


async def _lane(connection: AsyncConnection) -> Lane:
    return Lane(connection, (await connection.get_raw_connection()).driver_connection)


def _is_locked(error: Exception) -> bool:
    return sqlite_code(error) == "SQLITE_BUSY"


def _refuse_after_the_end(connection: Connection, *_: object) -> None:
    """Without BEGIN a statement of the caller's would be committed by itself: a full disk, say, ends a transaction."""
    driver: Any = connection.connection.driver_connection
    if connection.in_transaction() and not driver.in_transaction:
        raise OperationError(BROKEN)

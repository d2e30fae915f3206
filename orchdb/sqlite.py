"""SQLite: the two engines, the settings of every connection, and how statements reach them.

Each setting answers a fault that was provoked: see the comments. No function here opens, reads or copies a database
file that exists: closing any descriptor of it would drop the locks of this whole process, and other processes would
overwrite rows that were acknowledged. A file is known by ``stat`` and by what SQLite says of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, Table, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine

from orchdb import versions
from orchdb.backend import Backend, Durability, Horizon, Outcome, Session
from orchdb.backup import back_up, backed_up_beside
from orchdb.connections import ShieldedConnection, part_of_transaction
from orchdb.errors import OperationError, sqlite_code
from orchdb.files import PrivateFolder, Watch, make, named, require, warn_about
from orchdb.instants import TIME_FUNCTION
from orchdb.location import MEMORY
from orchdb.readers import Readers
from orchdb.shielding import to_the_end
from orchdb.spellings import one_form, read_text, readable
from orchdb.statements import Parameters, Prepared, newest_id
from orchdb.writer import CHECKPOINT_PAGES, RETRY_SECONDS, Lane, Work, Writer, locked

READERS = 4
_ENDED = "the transaction was rolled back by an earlier failure"
_SETUP_TIMEOUT_MS = 10_000
_WRITER_TIMEOUT_MS = 100
_UPGRADE_TIMEOUT_MS = 600_000  # another process may be upgrading a large file


class OneStatement(Work):
    """One statement, and what it gave."""

    def __init__(self, prepared: Prepared, parameters: Parameters) -> None:
        self._prepared = prepared
        self._parameters = parameters
        self.alike = prepared if prepared.changes_one else None

    def __call__(self, connection: sqlite3.Connection) -> Outcome:
        try:
            return self._run(connection)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("Could not decode to UTF-8"):
                raise
        # What another program wrote as text is no UTF-8. Only now, because this costs a call for each text.
        connection.text_factory = read_text
        try:
            return self._run(connection)
        finally:
            connection.text_factory = str

    def _run(self, connection: sqlite3.Connection) -> Outcome:
        cursor = connection.execute(self._prepared.sql, self._parameters)
        try:
            if self._prepared.returns_rows:
                raws = cursor.fetchall()
                return Outcome(readable(self._prepared.rows(raws), raws), 0)
            return Outcome([], cursor.rowcount, cursor.lastrowid)
        finally:
            cursor.close()  # one with rows left would keep its snapshot: later reads would see the past

    def together(self, works: Sequence[OneStatement], connection: sqlite3.Connection) -> list[Outcome] | None:
        cursor = connection.executemany(self._prepared.sql, [work._parameters for work in works])
        if cursor.rowcount != len(works):  # one of them found no row, or a trigger of another program's skipped it
            return None
        return [Outcome([], 1, number) for number in _last_ids(len(works), connection)]


def _last_ids(count: int, connection: sqlite3.Connection) -> range:
    """The ids of the rows that were inserted last: under the write lock those of AUTOINCREMENT are consecutive."""
    (last,) = connection.execute("SELECT last_insert_rowid()").fetchone()
    return range(last - count + 1, last + 1)


class ManyRows(Work):
    """An insert of many rows, and the ids that the table's counter gave them."""

    several = True

    def __init__(self, prepared: Prepared, parameters: Sequence[Parameters]) -> None:
        self._prepared = prepared
        self._parameters = parameters

    def __call__(self, connection: sqlite3.Connection) -> list[int]:
        connection.executemany(self._prepared.sql, self._parameters)
        return list(_last_ids(len(self._parameters), connection))


class InTransaction(Work):
    """Work inside the caller's transaction: refused when an earlier failure has already ended it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.several = work.several

    def __call__(self, connection: sqlite3.Connection) -> Any:
        if not connection.in_transaction:
            raise OperationError(_ENDED)
        return self._work(connection)


class Check(Work):
    """The look at the file before it is written."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, connection: sqlite3.Connection) -> None:
        self._watch.check()


class SqliteSession(Session):
    """A transaction that holds the writer's connection."""

    def __init__(self, writer: Writer, face: AsyncConnection, watch: Watch) -> None:
        self._writer = writer
        self._lane = writer.lane
        self._watch = watch
        self._savepoints: list[AsyncTransaction] = []
        self.connection = face

    async def run(self, prepared: Prepared, parameters: Parameters) -> Outcome:
        outcome: Outcome = await self._call(OneStatement(prepared, parameters))
        return outcome

    async def run_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        numbers: list[int] = await self._call(ManyRows(prepared, parameters))
        return numbers

    async def _call(self, work: Work) -> Any:
        try:
            return await self._lane.call(InTransaction(work))
        except sqlite3.DatabaseError as error:
            self._watch.saw(error)
            raise

    async def begin_savepoint(self) -> None:
        await to_the_end(self._begin_savepoint())

    async def _begin_savepoint(self) -> None:
        self._savepoints.append(await self._lane.connection.begin_nested())

    async def end_savepoint(self, *, commit: bool) -> None:
        savepoint = self._savepoints.pop()
        if commit:
            await to_the_end(savepoint.commit())
            return
        with contextlib.suppress(OperationError):  # the whole transaction has been rolled back
            await to_the_end(savepoint.rollback())

    async def commit(self) -> None:
        try:
            # A failure such as a full disk may have ended the transaction: COMMIT would then say nothing.
            await self._call(Check(self._watch))
            await to_the_end(self._lane.connection.commit())
        except BaseException:
            await self.rollback()
            raise
        self._end()

    async def rollback(self) -> None:
        try:
            await to_the_end(self._lane.connection.rollback())
        finally:
            self._end()

    def _end(self) -> None:
        self.connection.sync_connection = None  # whoever kept tx.conn must not reach the writer's connection
        self._writer.release()


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
        self._write_engine = _engine(_address(self.path), 1, _configure_writer(durability), "BEGIN IMMEDIATE")
        event.listen(self._write_engine.sync_engine, "before_cursor_execute", _refuse_after_the_end)
        mode = "ro" if read_only else "rw"
        self._read_engine = _engine(_address(self.path, mode), READERS + 1, _configure_reader, "BEGIN")
        self.dialect = self._write_engine.dialect

    async def open(self) -> None:
        try:
            await to_the_end(self._open())
            return
        except BaseException as error:
            await to_the_end(self.close())
            if not isinstance(error, (sqlite3.Error, DBAPIError)):
                raise
            failure = named(self.path, error)
        raise failure

    async def _open(self) -> None:
        (require if self._read_only else make)(self.path)
        warn_about(self.path)
        # The reader comes first: a database that is not ours has to be refused before anything of it is changed.
        reader = await self._connect(ShieldedConnection(self._read_engine))
        self.connection = await reader.execution_options(isolation_level="AUTOCOMMIT")
        step = versions.decide(await versions.examine(reader), upgrade=self._upgrade, read_only=self._read_only)
        await reader.rollback()
        if step is versions.Step.UPGRADE:
            await versions.upgrade(partial(_migration_engine, self.path), partial(backed_up_beside, self.path))
        self._readers = Readers(self._open_reader, READERS, self._watch)
        self._queues.append(self._readers)
        if not self._read_only:
            await self._open_writer(create=step is versions.Step.CREATE)
        self._watch.begin()

    async def _open_writer(self, *, create: bool) -> None:
        connection = await self._connect(AsyncConnection(self._write_engine))
        if create:
            await versions.create(connection, self._schema_path)
        lane = await _lane(connection)
        # From here on the queue waits for locks, and the thread only for a moment.
        await lane.call(Pragma("busy_timeout", _WRITER_TIMEOUT_MS))
        self._writer = Writer(lane, self._lock_timeout, self._watch)
        self._queues.append(self._writer)

    async def back_up(self, target: Path) -> None:
        await back_up(self.path, target, read_only=self._read_only)

    async def _open_reader(self) -> Lane:
        return await _lane(await self._connect(AsyncConnection(self._read_engine)))

    async def _connect(self, connection: AsyncConnection) -> AsyncConnection:
        self._connections.append(await connection.start())
        return connection

    async def close(self) -> None:
        if os.getpid() != self._process:
            return  # the threads of the connections are the parent's, and so is what they hold
        for queue in self._queues:
            queue.abandon()
        while self._connections:
            connection = self._connections.pop()
            if not connection.closed:  # the caller may have closed db.conn
                # Straight to the driver: handing a connection back to the pool would cost hops to reset it.
                await connection.invalidate()
        await self._read_engine.dispose()
        await self._write_engine.dispose()
        if self._folder is not None:
            self._folder.remove()

    def read(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        return self._readers.run(OneStatement(prepared, parameters))

    async def horizon(self, table: Table) -> Horizon:
        prepared = newest_id(table).prepared(self.dialect)
        ((newest,),) = (row.values() for row in (await self.read(prepared, prepared.parameters({}))).rows)
        return Horizon(newest)  # ids are given under the write lock: no lower one comes later

    def write(self, prepared: Prepared, parameters: Parameters) -> Awaitable[Outcome]:
        return self._writer.run(OneStatement(prepared, parameters))

    async def write_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        numbers: list[int] = await self._writer.run(ManyRows(prepared, parameters))
        return numbers

    async def begin(self) -> Session:
        lane = await self._writer.acquire()
        try:
            self._watch.check()
            await self._begin(lane.connection)
        except BaseException:
            self._writer.release()
            raise
        face = part_of_transaction(self._write_engine, lane.connection, shielded=True)
        return SqliteSession(self._writer, face, self._watch)

    async def _begin(self, connection: AsyncConnection) -> None:
        """Take the write lock: short tries, with pauses in which the caller can be cancelled."""
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                await to_the_end(connection.begin())
                return
            except DBAPIError as error:
                if sqlite_code(error) != "SQLITE_BUSY":
                    raise
            except asyncio.CancelledError:
                await to_the_end(connection.rollback())
                raise
            if time.monotonic() >= deadline:
                raise locked()
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311  # a pause, not a secret


class Pragma(Work):
    """A setting of the connection: read, or written and read back."""

    def __init__(self, name: str, value: object = None) -> None:
        self._statement = f"PRAGMA {name}" if value is None else f"PRAGMA {name} = {value}"

    def __call__(self, connection: sqlite3.Connection) -> Any:
        cursor = connection.execute(self._statement)
        row = cursor.fetchone()
        cursor.close()  # an unread PRAGMA cursor holds a lock
        return row[0] if row else None


def _address(path: Path, mode: str = "rw") -> URL:
    # As a file: URI, because only that can say that a missing file is not to be made.
    return URL.create(
        "sqlite+aiosqlite", database=f"file:{quote(os.fsencode(path))}", query={"mode": mode, "uri": "true"}
    )


async def _lane(connection: AsyncConnection) -> Lane:
    return Lane(connection, (await connection.get_raw_connection()).driver_connection)


def _engine(url: URL, size: int, configure: Callable[[sqlite3.Connection], None], begin: str) -> AsyncEngine:
    """An engine whose connections are set up by ``configure`` and begin their transactions with ``begin``."""
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=_SETUP_TIMEOUT_MS / 1000,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, record: object) -> None:
        # One hop for all settings: each call through the adapter would be a hop of its own.
        def settings(driver: Any) -> Awaitable[None]:
            configured: Awaitable[None] = driver._execute(lambda: configure(driver._conn))
            return configured

        connection.run_async(settings)

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)

    return engine


def _refuse_after_the_end(connection: Connection, *_: object) -> None:
    """Without BEGIN a statement of the caller's would be committed by itself: a full disk, say, ends a transaction."""
    driver: Any = connection.connection.driver_connection
    if connection.in_transaction() and not driver.in_transaction:
        raise OperationError(_ENDED)


def _configure(connection: sqlite3.Connection, settings: dict[str, object]) -> None:
    """Apply the settings in their order and read each one back."""
    # The driver's own transaction control loses updates: BEGIN is ours alone.
    connection.isolation_level = None
    connection.create_function(TIME_FUNCTION, 1, one_form, deterministic=True)
    Pragma("busy_timeout", _SETUP_TIMEOUT_MS)(connection)
    for name, value in settings.items():
        Pragma(name, value)(connection)
        found = Pragma(name)(connection)
        if found != value:
            raise OperationError(f"SQLite did not take the setting {name}: it is {found}")


def _configure_reader(connection: sqlite3.Connection) -> None:
    _configure(
        connection,
        {
            "foreign_keys": 1,
            "trusted_schema": 0,  # the file is input: its schema may call nothing with side effects
            "query_only": 1,
            "wal_autocheckpoint": 0,  # only the writer checkpoints: two at once meet SQLite's WAL-reset bug
            "mmap_size": 0,  # an I/O error would be a SIGBUS
            "cell_size_check": 1,  # damage is noticed earlier
        },
    )


def _configure_writer(durability: Durability) -> Callable[[sqlite3.Connection], None]:
    def configure(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {_SETUP_TIMEOUT_MS}").close()
        _switch_to_wal(connection)
        _configure(connection, writer_settings(durability))

    return configure


def writer_settings(durability: Durability) -> dict[str, object]:
    """The settings of the connection that writes."""
    return {
        "synchronous": 2 if durability == "full" else 1,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "journal_size_limit": 64 * 1024 * 1024,  # a long reader lets the WAL grow; this trims it afterwards
        "wal_autocheckpoint": CHECKPOINT_PAGES,
        "cache_size": -16_000,
        "mmap_size": 0,
        "cell_size_check": 1,
    }


def _migration_engine(path: Path) -> AsyncEngine:
    """An engine for one upgrade, which rebuilds tables: with foreign keys on, that would delete every child row."""

    def configure(connection: sqlite3.Connection) -> None:
        _switch_to_wal(connection)  # so that the others, who wait for the upgrade, can read meanwhile
        _configure(connection, {"foreign_keys": 0, "trusted_schema": 0, "mmap_size": 0})
        Pragma("busy_timeout", _UPGRADE_TIMEOUT_MS)(connection)

    return _engine(_address(path), 1, configure, "BEGIN IMMEDIATE")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch a fresh file to WAL; that can be refused at once while another process does the same."""
    deadline = time.monotonic() + _SETUP_TIMEOUT_MS / 1000
    while Pragma("journal_mode")(connection) != "wal":
        try:
            if Pragma("page_count")(connection) == 0:
                Pragma("auto_vacuum", 2)(
                    connection
                )  # only a file without pages takes it: later deletions can give back
            Pragma("journal_mode", "wal")(connection)
        except sqlite3.OperationalError as error:
            if sqlite_code(error) != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311  # a pause, not a secret

"""What: ``DatabaseManager``, the one class that callers need; its operations are in ``orchdb.operations``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Column, MetaData, String, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import Durability, Options
from orchdb.database import Database
from orchdb.engines import backend_for
from orchdb.executor import TransactionExecutor
from orchdb.location import locate, path_of_file
from orchdb.operations import Operations
from orchdb.operations.leases import Leases
from orchdb.operations.runs import RunOperations
from orchdb.operations.tails import TailOperations
from orchdb.schema.revisions import VERSION_TABLE
from orchdb.statements import Statement

_VERSION = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))
_SCHEMA_VERSION: Statement[Any] = Statement(_VERSION, select(_VERSION.c.version_num))


class Transaction(Operations):
    """All operations, in one transaction: applied together at the end of the block, or not at all.

    If one of them fails and the caller goes on, the others still count; a failed operation leaves nothing behind.
    ``db.transaction()`` gives it; nobody else makes one.
    """

    def __init__(self, executor: TransactionExecutor) -> None:
        self._transaction_executor = executor

    @property
    def _executor(self) -> TransactionExecutor:
        return self._transaction_executor

    @property
    def conn(self) -> AsyncConnection:
        """The transaction's connection, for the caller's own statements, which take their turn like any other call.

        The block begins and ends the transaction, nothing else does: ``COMMIT``, ``ROLLBACK``, ``BEGIN`` and the like
        raise ``OperationError`` before they run, as SQL and as methods, and the block goes on. So do statements about
        savepoints and cursors whose names begin with ``orchdb_``, and ``CLOSE ALL``; others are the caller's. A commit
        past this, on the driver's own connection, fails: on SQLite it is refused; on Postgres it takes the whole block
        with it.

        Raises:
            NotConnectedError: The block or part has ended.
        """
        return self._executor.scope.connection

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a part of the transaction that is undone alone if its block raises: a savepoint.

        To it belongs what is done with what it gives, by whichever task, and what this task does with the outer ``tx``
        meanwhile. The rest waits until it has ended.

        Returns:
            A context manager for ``async with``, which gives a ``Transaction``.

        Raises:
            NotConnectedError: The transaction has ended; also at the end of the part, which is then undone.
            OperationError: A part of another task stayed open for longer than ``lock_timeout``.
        """
        return self._part()

    @asynccontextmanager
    async def _part(self) -> AsyncGenerator[Transaction]:
        async with self._executor.transaction() as executor:
            yield Transaction(executor)


class DatabaseManager(TailOperations, RunOperations):
    """The data layer of an orchestrator: five tables in an SQLite file, or in Postgres by another URL.

    ``async with DatabaseManager("data/orchestrator.db") as db: ...`` connects, prepares the schema and closes. Every
    write is committed when its ``await`` returns. One manager serves all tasks of its event loop.

    Besides what a method lists, each of them may raise ``NotConnectedError`` (before ``connect()``, after ``close()``,
    in another event loop or process), ``OperationError`` (locked for too long, disk full, read-only, no server) and
    ``ConnectionLostError`` (the write may have been applied or not).

    Args:
        db_path: A path, ``":memory:"`` or an SQLAlchemy URL. Without it ``ORCHESTRATOR_DB_URL``, then
            ``ORCHESTRATOR_DB_PATH``, then ``data/orchestrator.db`` is taken.
        durability: ``"normal"``: a committed row survives a crash of the process; after a power cut the last moments
            may be missing. ``"full"``: it survives a power cut too, on storage that honours fsync.
        lock_timeout: Seconds that a write, or ``connect()``, waits for a lock that another process holds.
        upgrade: Whether ``connect()`` may upgrade an older schema. By default it does so for an SQLite file, after a
            backup beside it, and refuses on a server, where others may be at work.
        read_only: Write nothing, not even a schema; every write raises ``OperationError``.
        schema_path: A schema file to make new SQLite databases from, instead of the one that comes with orchdb.
        pool_size: On Postgres, the most connections at a time; ``db.conn`` has one more.
        pool_timeout: On Postgres, seconds that an operation waits for one of them.
        connect_timeout: On Postgres, seconds for making a connection; ``connect_timeout`` in the URL wins.
        statement_timeout: On Postgres, seconds after which the server ends a statement; 0 for never.
        read_url: On Postgres, the URL of a replica for ``db.conn`` and for what reads outside a transaction. It may be
            a moment behind.

    Raises:
        InvalidValueError: ``db_path`` or an option is not usable; nothing has been opened yet.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] | URL | None = None,
        *,
        durability: Durability = "normal",
        lock_timeout: float = 30.0,
        upgrade: bool | None = None,
        read_only: bool = False,
        schema_path: str | os.PathLike[str] | None = None,
        pool_size: int = 10,
        pool_timeout: float = 30.0,
        connect_timeout: float = 10.0,
        statement_timeout: float = 60.0,
        read_url: str | URL | None = None,
    ) -> None:
        options = Options(
            durability, lock_timeout, upgrade, read_only, pool_size, pool_timeout, connect_timeout, statement_timeout
        )
        location = locate(db_path)
        self._url = location.url
        replica = None if read_url is None else locate(read_url, "read_url")
        schema = None if schema_path is None else Path(schema_path)
        make_backend = backend_for(location, options, replica=replica, schema_path=schema)
        self._database = Database(make_backend, lock_timeout=lock_timeout, read_only=read_only)
        self._leases = Leases(self._database)

    @property
    def _executor(self) -> Database:
        return self._database

    @property
    def conn(self) -> AsyncConnection | Any:
        """A connection for the caller's own reading; ``None`` before ``connect()`` and after ``close()``.

        Each statement sees the newest committed state. It is never the connection that the manager writes on; for
        writes of your own there is ``tx.conn``.

        Its type is ``AsyncConnection | Any``, where ``Any`` stands for ``None``: type checkers complete and check the
        connection's names, and ask for no ``assert`` where it is open.
        """
        return self._database.connection

    async def connect(self) -> None:
        """Open the database and prepare its schema; connecting twice is fine.

        What another process holds is waited for, up to ``lock_timeout``. It can be cancelled, but an upgrade that has
        begun goes to its end first.

        Raises:
            SchemaError: The schema file is missing or invalid, or the database is not one this version can use.
            SchemaOutOfDateError: The database has an older revision, and ``upgrade`` does not allow to change that.
            OperationError: The file or the server cannot be used.
        """
        await self._database.open()

    async def close(self) -> None:
        """Let running operations end, then close every connection; closing twice is fine.

        Runs that are still open become ``failed``: nobody would keep them alive.

        Raises:
            OperationError: This task is inside a block of ``db.transaction()``.
        """
        await self._database.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a block whose operations are applied together, or not at all if it raises or is cancelled.

        ``async with db.transaction() as tx``: ``tx`` has all operations and ``tx.conn``, for all tasks that hold it. At
        the end of the block, what returned is in the database and what raised is not. The end waits for the call that
        is under way, or stops it if the block is undone; what comes later raises ``NotConnectedError``. While the block
        is open, this task writes with ``tx``; ``db.transaction()`` inside it is a part of it, as ``tx.transaction()``.

        Returns:
            A context manager for ``async with``, which gives a ``Transaction``.

        Raises:
            OperationError: The write lock was not to be had in time; or at the end, the transaction was lost.
            NotConnectedError: The manager is not connected, or was closed before the block ended.
        """
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Transaction]:
        async with self._database.transaction() as executor:
            yield Transaction(executor)

    async def schema_version(self) -> str | None:
        """Get the schema revision that the database is stamped with.

        Returns:
            The revision, such as ``"0012"``; ``None`` if another program has removed the stamp.
        """
        version: str | None = await self._database.fetch_value("schema_version", _SCHEMA_VERSION, {})
        return version

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Make a consistent copy of the database while others go on writing: a new file, for its owner only.

        Args:
            path: Where the copy is to be; ``~`` is the user's folder.

        Raises:
            InvalidValueError: It is no path, or is meant as a URL.
            OperationError: The file exists already, or cannot be written; or the database is on a server, which has
                ``pg_dump`` for this.
        """
        await self._database.back_up(path_of_file(path))

    def __repr__(self) -> str:
        return f"DatabaseManager({self._url.render_as_string(hide_password=True)!r})"

"""Schema versions: which revision a database has, and what ``connect()`` does about it.

An empty database gets the head schema and its stamp. A current one passes at the price of one query. An older one is
upgraded by the revisions in ``migrations/``, with a connection and an event loop of their own; Alembic is imported only
then. Everything else is refused before anything is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.concurrency import in_thread, shielded
from orchdb.driver_errors import sqlite_code, sqlstate, translate
from orchdb.errors import OperationError, OrchdbError, SchemaError, SchemaOutOfDateError
from orchdb.raising import raised_as
from orchdb.schema.tables import metadata
from orchdb.schema.taken_names import refuse_taken

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012")
"""Those in ``migrations/versions``, oldest first."""

HEAD = REVISIONS[-1]
"""The revision that ``orchdb.schema.tables`` and the schema file describe."""

VERSION_TABLE = "orchdb_version"
_REVISION = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608

# "orchdb" in ASCII: any number would do, as long as every process takes the same.
_ADVISORY_LOCK = 0x6F7263686462
BUSY = "55P03"
"""The code of a failure to be tried again: another session of the server holds what a change of the schema needs."""
_TRY_MS = 200
"""How long an upgrade waits at a time for the tables of a server: in between the caller can be cancelled."""
# What tells an unversioned file of ours from another program's that happens to have a table of the same name.
_MARKS = {"orchestrator_agents": "agent_type", "agents": "orchestrator_agent_id", "prompts": "prompt_text"}

# SQLite's codes and Postgres's classes of what is wrong with a statement or a row, not with the disk or the server.
_STATEMENT_CODES = frozenset({"SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH"})
_STATEMENT_CLASSES = frozenset({"0A", "22", "23", "2B", "42", "P0"})

# Alembic keeps the migration that runs in module globals: one at a time in each process.
_one_migration = threading.Lock()

Before = Callable[[str | None], AbstractAsyncContextManager[None]]
"""Given the old revision, a block around the change: it is entered before anything is changed."""


class Step(Enum):
    """What has to be done before the database can be used."""

    NOTHING = auto()
    CREATE = auto()
    UPGRADE = auto()


@dataclass(frozen=True)
class Found:
    """What a database says of itself.

    Attributes:
        revision: The one it is stamped with.
        empty: It holds nothing but, perhaps, the table for a stamp.
        ours: It holds tables of orchdb's, of whichever revision.
    """

    revision: str | None
    empty: bool
    ours: bool


async def examine(connection: AsyncConnection) -> Found:
    """What the database holds, without writing to it; one query if it is current."""
    with contextlib.suppress(DBAPIError):  # there is no such table
        if (await connection.exec_driver_sql(_REVISION)).scalar() == HEAD:
            return Found(HEAD, empty=False, ours=True)
    await connection.rollback()  # on a server the failed query has ended the transaction
    return await connection.run_sync(_examine)


def decide(found: Found, *, upgrade: bool, read_only: bool) -> Step:
    """What has to be done.

    Args:
        found: What the database holds.
        upgrade: Whether an older schema may be upgraded.
        read_only: Whether nothing may be written at all.

    Raises:
        SchemaOutOfDateError: The schema is older, and may not be upgraded.
        SchemaError: The schema is newer than this version of orchdb, or the database is another program's.
    """
    if found.revision == HEAD:
        return Step.NOTHING
    if found.revision is not None and found.revision not in REVISIONS:
        raise SchemaError(
            f"the database has the schema revision {found.revision}, and this version of orchdb knows none newer than "
            f"{HEAD}: upgrade orchdb"
        )
    if found.empty and found.revision is None:
        if read_only:
            raise SchemaError("the database is empty, and read_only leaves it so")
        return Step.CREATE
    if not found.ours:
        raise SchemaError(_not_ours(found))
    if read_only or not upgrade:
        raise SchemaOutOfDateError(
            f"the database has the schema revision {found.revision or '0001 (unversioned)'}, this version of orchdb "
            f"needs {HEAD}: run `{upgrade_command()}`, or connect with upgrade=True"
        )
    return Step.UPGRADE


def _not_ours(found: Found) -> str:
    if found.revision is not None:
        return f"the database says that it has the schema revision {found.revision}, but the tables of it are missing"
    return (
        "the database holds other tables and none of orchdb's, so it is left alone: to add orchdb's tables to it, run "
        f"`{upgrade_command()}`"
    )


def upgrade_command() -> str:
    """The command that upgrades a database, wherever orchdb is installed."""
    return f"alembic -c {shlex.quote(str(shipped('alembic.ini')))} -x url=<the database> upgrade head"


async def create(connection: AsyncConnection, schema_path: Path | None = None) -> None:
    """Give an empty database the head schema; another process may be faster, then there is nothing to do.

    Raises:
        SchemaError: The schema file is missing or invalid.
        OperationError: Another process is changing the schema, with the code ``BUSY``; on SQLite that is the driver's
            error of a lock.
    """
    async with connection.begin():
        await connection.run_sync(_create, schema_path)


async def upgrade(make_engine: Callable[[], AsyncEngine], before: Before | None = None) -> None:
    """Bring an older database to the head revision, in one transaction that other processes wait for.

    It waits for a lock only for a moment. Once it has begun it goes to its end, also if the caller is cancelled.

    Args:
        make_engine: Makes the engine to use, in the thread and the event loop of the upgrade. Its transactions take the
            write lock as they begin, and foreign keys are not enforced.
        before: A block around the change, entered while the lock is held.

    Raises:
        SchemaError: A revision cannot be applied; the database is as it was.
        OperationError: Another process is changing the schema, with the code ``BUSY``; on SQLite that is the driver's
            error of a lock.
    """
    await shielded(in_thread(lambda: asyncio.run(_upgrade(make_engine, before))))


def lock(connection: Connection) -> None:
    """Let one Postgres session at a time change the schema, until its transaction ends.

    Another one's upgrade may take longer than ``lock_timeout``, which is there for the tables.
    """
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")


def _try_lock(connection: Connection) -> None:
    if not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_ADVISORY_LOCK})").scalar():
        raise OperationError("another process was changing the schema for longer than lock_timeout", code=BUSY)


def shipped(name: str) -> Path:
    """A folder or file that lies beside the package in a checkout and inside it when installed."""
    package = Path(str(files("orchdb")))
    inside = package / name
    return inside if inside.exists() else package.parent / name


def schema_file() -> Path:
    """The head schema as SQLite SQL."""
    return shipped("schema/schema_orchestrator.sql")


def statements_of(script: str) -> list[str]:
    """The statements of an SQL script, split where SQLite sees an end; triggers stay whole."""
    statements: list[str] = []
    current = ""
    *pieces, rest = script.split(";")
    for piece in pieces:
        current += f"{piece};"
        if sqlite3.complete_statement(current):
            statements.append(current.strip())
            current = ""
    rest = (current + rest).strip()
    return [*statements, rest] if rest else statements


def reason(error: DBAPIError) -> str:
    """What the database says, without what it quotes from rows."""
    known = translate(error, "upgrade", None)
    if known.code == "SQLITE_CONSTRAINT_TRIGGER" or sqlstate(error)[:2] in {"22", "P0"}:
        return known.message  # a malformed value would be quoted, and a trigger says what its author liked
    return str(error.orig).partition("\n")[0]  # the lines after it may quote rows


def _examine(connection: Connection) -> Found:
    inspector = inspect(connection)
    revision = None
    if inspector.has_table(VERSION_TABLE):
        revision = connection.exec_driver_sql(_REVISION).scalar()
    names = set(inspector.get_table_names())
    # A file of the first class whose first connect() was killed holds some of the tables; the revisions make the rest.
    ours = "orchestrator_agents" in names and all(
        any(column["name"] == mark for column in inspector.get_columns(table))
        for table, mark in _MARKS.items()
        if table in names
    )
    if connection.dialect.name == "sqlite":
        names.update(inspector.get_view_names())
        names.update(["an application_id"] if connection.exec_driver_sql("PRAGMA application_id").scalar() else [])
    return Found(revision, empty=names <= {VERSION_TABLE}, ours=ours)


def _create(connection: Connection, schema_path: Path | None) -> None:
    on_sqlite = connection.dialect.name == "sqlite"
    if not on_sqlite:
        _try_lock(connection)
    # An older program may have been faster: then its schema has to be upgraded first.
    if decide(_examine(connection), upgrade=False, read_only=False) is Step.NOTHING:
        return
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {VERSION_TABLE}")  # an empty one is left by a full downgrade
    if on_sqlite:
        _apply_file(connection, schema_path or schema_file())
        return
    metadata.create_all(connection)
    connection.exec_driver_sql(
        f"CREATE TABLE {VERSION_TABLE} "
        f"(version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{HEAD}')")  # noqa: S608


def _apply_file(connection: Connection, path: Path) -> None:
    with raised_as((OSError, UnicodeError), lambda _: SchemaError(f"the schema file {path} cannot be read")):
        script = path.read_text(encoding="utf-8")
    for statement in statements_of(script):
        with raised_as(DBAPIError, partial(_invalid, path, statement)):
            connection.exec_driver_sql(statement)
    if _examine(connection).revision != HEAD:
        raise SchemaError(f"the schema file {path} does not make the revision {HEAD}")


def _invalid(path: Path, statement: str, error: DBAPIError) -> SchemaError:
    return SchemaError(f"the schema file {path} is invalid: {error.orig}, in: {statement[:200]}")


async def _upgrade(make_engine: Callable[[], AsyncEngine], before: Before | None) -> None:
    engine = make_engine()
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(_examine_locked)
            if decide(found, upgrade=True, read_only=False) is Step.NOTHING:  # another process was faster
                return
            await connection.run_sync(refuse_taken)
            await connection.run_sync(_lock_tables)
            async with before(found.revision) if before else contextlib.nullcontext():
                await connection.run_sync(_run_revisions)
                await connection.commit()
    finally:
        await engine.dispose()


def _examine_locked(connection: Connection) -> Found:
    if connection.dialect.name != "sqlite":
        _try_lock(connection)
    return _examine(connection)


def _lock_tables(connection: Connection) -> None:
    """Have all tables of a server before anything is changed: a wait for one of them later could not be cancelled.

    SQLite locks the whole file as the transaction begins.
    """
    if connection.dialect.name == "sqlite":
        return
    found = {*inspect(connection).get_table_names()} & {VERSION_TABLE, *metadata.tables}
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_TRY_MS}")
    with raised_as(DBAPIError, _busy):
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(sorted(found))} IN ACCESS EXCLUSIVE MODE")
    connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")


def _busy(error: DBAPIError) -> Exception:
    if sqlstate(error) != BUSY:
        return error
    return OperationError("a table stayed locked by another session for longer than lock_timeout", code=BUSY)


def _run_revisions(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  # as dear as SQLAlchemy itself, and hardly ever needed
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(str(shipped("alembic.ini")))
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    with raised_as((CommandError, DBAPIError), _upgrade_failed), _one_migration:
        command.upgrade(config, "head")


def _upgrade_failed(error: Exception) -> Exception:
    if isinstance(error, OrchdbError):
        return error
    why = str(error)
    if isinstance(error, DBAPIError):
        if sqlite_code(error) not in _STATEMENT_CODES and sqlstate(error)[:2] not in _STATEMENT_CLASSES:
            return error
        why = reason(error)
    return SchemaError(f"the upgrade failed, and nothing was changed: {why}")

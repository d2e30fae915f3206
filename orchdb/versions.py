"""Schema versions: which revision a database has, and what ``connect()`` does about it.

An empty database gets the head schema and its stamp. A current one passes at the price of one query. An older one is
upgraded by the revisions in ``migrations/``, with a connection and an event loop of their own; Alembic is imported only
then. Everything else is refused before anything is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.errors import SchemaError, SchemaOutOfDateError
from orchdb.shielding import to_the_end
from orchdb.tables import metadata

HEAD = "0008"
"""The revision that ``orchdb.tables`` and the schema file describe."""

VERSION_TABLE = "orchdb_version"
_REVISION = "SELECT version_num FROM orchdb_version"

# "orchdb" in ASCII: any number would do, as long as every process takes the same.
_ADVISORY_LOCK = 0x6F7263686462
_COMMAND = "alembic -x url=<the database> upgrade head"
# What tells an unversioned file of ours from another program's that happens to have a table of the same name.
_MARKS = {"orchestrator_agents": "agent_type", "agents": "orchestrator_agent_id", "prompts": "prompt_text"}

# Alembic keeps the migration that runs in module globals: one at a time in each process.
_one_upgrade = threading.Lock()


class Step(Enum):
    """What has to be done before the database can be used."""

    NOTHING = auto()
    CREATE = auto()
    UPGRADE = auto()


@dataclass(frozen=True)
class Found:
    """What a database says of itself."""

    revision: str | None
    tables: frozenset[str]
    ours: bool


async def examine(connection: AsyncConnection) -> Found:
    """What the database holds, without writing to it; one query if it is current, or two on a server.

    Args:
        connection: On SQLite one in AUTOCOMMIT, so that a failed query ends no transaction.
    """
    # On a server it runs in a transaction, as a pooler needs it, and a failed query would end that.
    on_server = connection.dialect.name != "sqlite"
    if on_server and (await connection.exec_driver_sql("SELECT to_regclass('orchdb_version')")).scalar() is None:
        return await connection.run_sync(_examine)
    with contextlib.suppress(DBAPIError):  # there is no such table
        if (await connection.exec_driver_sql(_REVISION)).scalar() == HEAD:
            return Found(HEAD, frozenset(metadata.tables), ours=True)
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
    if found.revision is not None and found.revision > HEAD:
        raise SchemaError(
            f"the database has the schema revision {found.revision}, and this version of orchdb knows none newer than "
            f"{HEAD}: upgrade orchdb"
        )
    if not found.tables:
        if read_only:
            raise SchemaError("the database is empty, and read_only leaves it so")
        return Step.CREATE
    if not found.ours:
        raise SchemaError(
            "the database holds other tables and none of orchdb's, so it is left alone: to add orchdb's tables to it, "
            f"run {_COMMAND}"
        )
    if read_only or not upgrade:
        raise SchemaOutOfDateError(
            f"the database has the schema revision {found.revision or '0001 (unversioned)'}, this version of orchdb "
            f"needs {HEAD}: run {_COMMAND}, or connect with upgrade=True"
        )
    return Step.UPGRADE


async def create(connection: AsyncConnection, schema_path: Path | None = None) -> None:
    """Give an empty database the head schema; another process may be faster, then there is nothing to do.

    Raises:
        SchemaError: The schema file is missing or invalid.
    """
    async with connection.begin():
        await connection.run_sync(_create, schema_path)


async def upgrade(
    make_engine: Callable[[], AsyncEngine], before: Callable[[str | None], Awaitable[None]] | None = None
) -> None:
    """Bring an older database to the head revision, in one transaction that other processes wait for.

    Args:
        make_engine: Makes the engine to use, in the thread and the event loop of the upgrade. Its transactions take the
            write lock as they begin, and foreign keys are not enforced.
        before: Called with the old revision while the lock is held, before anything is changed.
    """

    def work() -> None:
        with _one_upgrade:
            asyncio.run(_upgrade(make_engine, before))

    await to_the_end(asyncio.to_thread(work))


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
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current.strip())
            current = ""
    rest = "\n".join(line for line in current.splitlines() if not line.strip().startswith("--")).strip()
    return [*statements, rest] if rest else statements


def _examine(connection: Connection) -> Found:
    inspector = inspect(connection)
    revision = None
    if inspector.has_table(VERSION_TABLE):
        revision = connection.exec_driver_sql(_REVISION).scalar()
    tables = frozenset(inspector.get_table_names())
    ours = tables >= set(metadata.tables) and all(
        any(column["name"] == mark for column in inspector.get_columns(table)) for table, mark in _MARKS.items()
    )
    return Found(revision, tables - {VERSION_TABLE}, ours)


def _create(connection: Connection, schema_path: Path | None) -> None:
    if connection.dialect.name == "sqlite":
        found = _examine(connection)
        if decide(found, upgrade=True, read_only=False) is Step.CREATE:
            _apply_file(connection, schema_path or schema_file())
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    if decide(_examine(connection), upgrade=True, read_only=False) is Step.CREATE:
        metadata.create_all(connection)
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS orchdb_version "
            "(version_num VARCHAR(32) NOT NULL, CONSTRAINT orchdb_version_pkc PRIMARY KEY (version_num))"
        )
        connection.exec_driver_sql(f"INSERT INTO orchdb_version (version_num) VALUES ('{HEAD}')")  # noqa: S608


def _apply_file(connection: Connection, path: Path) -> None:
    script = None
    with contextlib.suppress(OSError, UnicodeError):
        script = path.read_text(encoding="utf-8")
    if script is None:
        raise SchemaError(f"the schema file {path} cannot be read")
    for statement in statements_of(script):
        failure = None
        try:
            connection.exec_driver_sql(statement)
        except DBAPIError as error:
            failure = str(error.orig)
        if failure is not None:
            raise SchemaError(f"the schema file {path} is invalid: {failure}, in: {statement[:200]}")
    if _examine(connection).revision != HEAD:
        raise SchemaError(f"the schema file {path} does not make the revision {HEAD}")


async def _upgrade(
    make_engine: Callable[[], AsyncEngine], before: Callable[[str | None], Awaitable[None]] | None
) -> None:
    engine = make_engine()
    try:
        async with engine.connect() as connection, connection.begin():
            found = await connection.run_sync(_examine_locked)
            if found.revision == HEAD:  # another process was faster
                return
            if before is not None:
                await before(found.revision)
            await connection.run_sync(_run_revisions)
    finally:
        await engine.dispose()


def _examine_locked(connection: Connection) -> Found:
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    return _examine(connection)


def _run_revisions(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  # as dear as SQLAlchemy itself, and hardly ever needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config(str(shipped("alembic.ini")))
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

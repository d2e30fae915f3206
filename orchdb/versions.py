"""Schema versions: which revision a database has, and what ``connect()`` does about it."""

from __future__ import annotations

import contextlib
import sqlite3
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.errors import SchemaError
from orchdb.tables import metadata

VERSION_TABLE = "orchdb_version"


def shipped(name: str) -> Path:
    """A folder or file that lies beside the package in a checkout and inside it when installed."""
    inside = Path(str(files("orchdb"))) / name
    return inside if inside.exists() else inside.parents[len(Path(name).parts)] / name


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


HEAD = "0008"
"""The revision that ``orchdb.tables`` and the schema file describe."""

BEGIN_OPTION = "orchdb_begin"
"""The execution option that says how a transaction begins where the engine knows several ways."""


async def prepare(connection: AsyncConnection, schema_path: Path | None = None) -> None:
    """Give an empty database the head schema; let a current one pass at the price of one query.

    Raises:
        SchemaError: The schema file is missing or invalid, or the database is not one this version can use.
    """
    await connection.execution_options(**{BEGIN_OPTION: "DEFERRED"})
    revision = await connection.run_sync(_revision)
    await connection.rollback()
    await connection.execution_options(**{BEGIN_OPTION: "IMMEDIATE"})
    if revision == HEAD:
        return
    async with connection.begin():
        await connection.run_sync(_create, schema_path)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM orchdb_version").scalar()
    return revision


def _create(connection: Connection, schema_path: Path | None) -> None:
    """Make the head schema; another process may have been faster while this one waited for the lock."""
    revision = _revision(connection)
    if revision == HEAD:
        return
    if inspect(connection).get_table_names():
        raise SchemaError(f"the database has the schema revision {revision}, this version of orchdb needs {HEAD}")
    if connection.dialect.name == "sqlite":
        _apply_file(connection, schema_path or schema_file())
    else:
        metadata.create_all(connection)


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
    if _revision(connection) != HEAD:
        raise SchemaError(f"the schema file {path} does not make the revision {HEAD}")

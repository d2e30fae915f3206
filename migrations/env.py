"""How the revisions reach a database: one way for SQLite and Postgres, one transaction for the whole upgrade.

From the command line the database is that of ``-x url=``, of the environment, or the default path, as for
``DatabaseManager``. A program hands over a synchronous connection as ``config.attributes["connection"]``; its
transaction is the program's to commit, and on SQLite its foreign keys have to be off.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from logging.config import fileConfig
from pathlib import Path
from typing import Any

from alembic import context
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Identity
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from orchdb.backend import Options
from orchdb.driver_errors import why_not_connected
from orchdb.errors import InvalidValueError, OperationError, SchemaError
from orchdb.location import MEMORY, Source, resolve
from orchdb.postgres.settings import PostgresSettings
from orchdb.schema import rebuilding, revisions
from orchdb.schema.tables import metadata
from orchdb.schema.taken_names import refuse_taken
from orchdb.sqlite.files import make, require
from orchdb.sqlite.settings import migration_engine

LOCK_TIMEOUT_MS = 60_000


def is_ours(name: str | None, kind: str, _parents: Mapping[str, Any]) -> bool:
    """Whether autogenerate looks at it: the tables of other programs in the same database are none of its business."""
    return kind != "table" or name in metadata.tables


def compare_default(*compared: Any) -> bool | None:
    """Nothing to compare where SQLite counts the rows of a log itself; for the rest, Alembic's own comparison."""
    column = compared[2]
    return False if isinstance(column.server_default, Identity) else None


def options(dialect: str) -> dict[str, Any]:
    return {
        "target_metadata": metadata,
        "version_table": revisions.VERSION_TABLE,
        "include_name": is_ours,
        "compare_type": True,
        "compare_server_default": compare_default if dialect == "sqlite" else True,
        "transactional_ddl": True,
        "render_as_batch": dialect == "sqlite",
    }


def target() -> URL:
    given = context.get_x_argument(as_dictionary=True)
    unknown = sorted(given.keys() - {"url"})
    if unknown:  # misspelt, it would be the default database that is changed
        raise CommandError(f"-x {unknown[0]}: there is only -x url=")
    try:
        return resolve(given["url"], "-x url") if given.get("url") else resolve()
    except InvalidValueError as error:
        raise CommandError(error.message) from None


def migrate(connection: Connection) -> None:
    """Run what the command asks for, in the caller's transaction or in one of its own."""
    context.configure(connection=connection, **options(connection.dialect.name))
    with context.begin_transaction():
        if connection.dialect.name == "sqlite":
            with rebuilding.checked(connection, list(metadata.tables)):
                run()
        else:
            revisions.lock(connection)
            run()


def run() -> None:
    scripts = ScriptDirectory.from_config(context.config)
    known = {script.revision for script in scripts.walk_revisions()}
    unknown = sorted(set(context.get_context().get_current_heads()) - known)
    if unknown:
        raise rebuilding.MigrationError(
            f"the database has the revision {', '.join(unknown)}, and this version of orchdb knows none newer than "
            f"{', '.join(scripts.get_heads())}: a newer version made it, so upgrade orchdb"
        )
    if builds_tables():
        refuse_taken(context.get_bind())
    context.run_migrations()


def builds_tables() -> bool:
    """Whether the command may begin with a database that is not there: a question never makes one."""
    command = getattr(context.config.cmd_opts, "cmd", None)
    if command is not None:
        return command[0].__name__ in ("upgrade", "stamp")
    try:
        return context.get_revision_argument() is not None
    except KeyError:  # the command has no revision to go to
        return False


def sqlite_engine(url: URL) -> AsyncEngine:
    """An engine for one migration of the file."""
    if url.database == MEMORY:
        raise CommandError("a database in memory would end with the command: name a file")
    path = Path(os.path.realpath(str(url.database)))
    if builds_tables():
        make(path)
    else:
        require(path, "only an upgrade makes it")
    return migration_engine(path, wal=False, wait_ms=LOCK_TIMEOUT_MS)


async def migrate_url(url: URL) -> None:
    if url.get_backend_name() == "sqlite":
        engine = sqlite_engine(url)
    else:
        engine = PostgresSettings.of(url, Options(statement_timeout=0), Source("-x url").refuse).engine(1)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def run_from_command_line() -> None:
    failure = None
    try:
        asyncio.run(migrate_url(target()))
    except DBAPIError as error:
        failure = f"nothing was changed: {revisions.reason(error)}"
    except OSError as error:
        failure = f"nothing was changed, there is no connection: {why_not_connected(error)}"
    except (InvalidValueError, OperationError, SchemaError) as error:
        failure = error.message
    if failure is not None:
        raise CommandError(failure)


def print_sql() -> None:
    url = target()
    if url.get_backend_name() == "sqlite":
        raise CommandError(
            "on SQLite the revisions look at the file they change, so there is no SQL to print; "
            "schema/schema_orchestrator.sql has that of a new file"
        )
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options("postgresql"))
    with context.begin_transaction():
        context.run_migrations()


handed_over: Connection | None = context.config.attributes.get("connection")
if context.config.cmd_opts is not None and context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    print_sql()
elif handed_over is not None:
    migrate(handed_over)
else:
    run_from_command_line()

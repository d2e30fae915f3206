"""SQLite: how a connection is made, and the settings of each kind of it.

Each setting answers a fault that was provoked: see the comments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchdb.backend import Durability
from orchdb.clocks import boot_id, uptime
from orchdb.errors import OperationError
from orchdb.schema.spellings import one_form
from orchdb.schema.sql_functions import BOOT_ID_FUNCTION, TIME_FUNCTION, UPTIME_FUNCTION
from orchdb.sqlite.driver import configured, connected
from orchdb.sqlite.files import file_uri, temp_store
from orchdb.sqlite.foreign_triggers import SqliteConnection, trust_known_modules
from orchdb.sqlite.jobs import Job

WAIT_MS = 10_000
"""How long a connection that reads waits for a lock."""
TRY_MS = 100
"""How long a thread waits for a lock where the caller tries again, and can be cancelled in between."""
CHECKPOINT_PAGES = 4000
"""Of the WAL, 16 MB, after which a commit is followed by a checkpoint.

Each checkpoint syncs the disk three times, and writes but once what changed again and again. After SQLite's own 1,000 a
task that appends alone was measured to spend a third of its time on them; after 4,000, up to a fifth less in all. More
would save little: 4,062 is what the first table of SQLite's index of the WAL holds, and a read looks into each."""


class Pragma(Job):
    """A setting of the connection: read, or written and read back."""

    def __init__(self, name: str, value: object = None) -> None:
        self._statement = f"PRAGMA {name}" if value is None else f"PRAGMA {name} = {value}"

    def __call__(self, connection: sqlite3.Connection) -> Any:
        cursor = connection.execute(self._statement)
        row = cursor.fetchone()
        cursor.close()  # an unread PRAGMA cursor holds a lock
        return row[0] if row else None


def engine(uri: str, size: int, configure: Callable[[Any], None], begin: str = "BEGIN IMMEDIATE") -> AsyncEngine:
    """An engine whose connections are set up by ``configure`` and begin their transactions with ``begin``."""
    made = create_async_engine(
        URL.create("sqlite+aiosqlite", database=uri, query={"uri": "true"}),
        connect_args={"async_creator_fn": connected, "factory": SqliteConnection},
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=WAIT_MS / 1000,
        hide_parameters=True,
    )

    @event.listens_for(made.sync_engine, "connect")
    def on_connect(connection: Any, record: object) -> None:
        connection.run_async(partial(configured, configure))

    @event.listens_for(made.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)

    return made


def configure(connection: sqlite3.Connection, settings: dict[str, object]) -> None:
    """Apply the settings in their order and read each one back."""
    # The driver's own transaction control loses updates: BEGIN is ours alone.
    connection.isolation_level = None
    connection.create_function(TIME_FUNCTION, 1, one_form, deterministic=True)
    connection.create_function(UPTIME_FUNCTION, 0, uptime)
    connection.create_function(BOOT_ID_FUNCTION, 0, boot_id)
    for name, value in settings.items():
        Pragma(name, value)(connection)
        found = Pragma(name)(connection)
        if found != value:
            raise OperationError(f"SQLite did not take the setting {name}: it is {found}")


def configure_reader(connection: sqlite3.Connection) -> None:
    """Set up a connection that reads."""
    configure(
        connection,
        {
            "busy_timeout": WAIT_MS,
            "foreign_keys": 1,
            "trusted_schema": 0,  # the file is input: its schema may call nothing with side effects
            "query_only": 1,
            "wal_autocheckpoint": 0,  # only the writer checkpoints: two at once meet SQLite's WAL-reset bug
            "mmap_size": 0,  # an I/O error would be a SIGBUS
            "cell_size_check": 1,  # damage is noticed earlier
            "temp_store": temp_store(),
        },
    )


def configure_writer(durability: Durability) -> Callable[[SqliteConnection], None]:
    """How a connection that writes is set up."""

    def set_up(connection: SqliteConnection) -> None:
        switch_to_wal(connection)
        configure(connection, writer_settings(durability))
        trust_known_modules(connection)
        connection.look_out()

    return set_up


def writer_settings(durability: Durability) -> dict[str, object]:
    """The settings of the connection that writes."""
    return {
        "busy_timeout": TRY_MS,  # the queue waits for locks, and the thread only for a moment
        "synchronous": 2 if durability == "full" else 1,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "journal_size_limit": 64 * 1024 * 1024,  # a long reader lets the WAL grow; this trims it afterwards
        "wal_autocheckpoint": CHECKPOINT_PAGES,
        "cache_size": -16_000,
        "mmap_size": 0,
        "cell_size_check": 1,
        "temp_store": temp_store(),
    }


def migration_engine(path: Path, *, wal: bool, wait_ms: int = TRY_MS) -> AsyncEngine:
    """An engine for one migration, which rebuilds tables: with foreign keys on, that would delete every child row.

    Args:
        path: The file.
        wal: Whether to switch it to WAL, so that others can read during the migration.
        wait_ms: How long to wait for a lock.
    """

    def set_up(connection: sqlite3.Connection) -> None:
        if wal:
            switch_to_wal(connection)
        else:
            _let_give_back(connection)
        settings: dict[str, object] = {"busy_timeout": wait_ms, "foreign_keys": 0, "trusted_schema": 0, "mmap_size": 0}
        # Rebuilding tables and indexes sorts them and keeps old pages, up to about the size of the file.
        configure(connection, settings | {"temp_store": temp_store(path.stat().st_size)})

    return engine(file_uri(path, mode="rw"), 1, set_up)


def switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch a file to WAL; that can be refused at once while another process does the same."""
    Pragma("busy_timeout", TRY_MS)(connection)
    if Pragma("journal_mode")(connection) != "wal":
        _let_give_back(connection)
        Pragma("journal_mode", "wal")(connection)


def _let_give_back(connection: sqlite3.Connection) -> None:
    if Pragma("page_count")(connection) == 0:  # heeded only then; a file with pages would be written to for nothing
        Pragma("auto_vacuum", 2)(connection)

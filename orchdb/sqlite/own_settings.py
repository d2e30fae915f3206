"""What statements of a caller's own set for the connection that writes: it must not outlast their block."""

from __future__ import annotations

import contextlib
import sqlite3

from orchdb.sqlite.foreign_triggers import SqliteConnection
from orchdb.sqlite.jobs import Job
from orchdb.sqlite.settings import TRY_MS, Pragma

# Those that would stop or change what others write, and can be changed in a transaction.
_SETTINGS: dict[str, object] = {
    "query_only": 0,
    "ignore_check_constraints": 0,
    "count_changes": 0,
    "recursive_triggers": 0,
    "locking_mode": "normal",
    "busy_timeout": TRY_MS,
}
_THEIRS = "SELECT type, name FROM temp.sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_'"


class Forget(Job):
    """Take it back: what the connection has of its own, such as a table that stands before the file's, goes too."""

    def __call__(self, connection: SqliteConnection) -> None:
        connection.row_factory, connection.text_factory = None, str
        for name, value in _SETTINGS.items():
            # Read first: to set one makes SQLite compile every statement anew.
            if Pragma(name)(connection) != value:
                Pragma(name, value)(connection)
        for kind, name in connection.ask(_THEIRS):
            quoted = name.replace('"', '""')
            with contextlib.suppress(sqlite3.Error):  # a cursor that the caller has left open: the block has ended well
                connection.ask(f'DROP {kind} IF EXISTS temp."{quoted}"')

"""Triggers of other programs in an SQLite file: noticed before one of them runs beside a write of ours.

A trigger can do what our statements never do: insert into the same log, skip a row, or fail and keep what was done so
far. Whoever knows of it takes care; to ask the file before each write would cost every write something. But SQLite asks
the authorizer of a connection whenever it compiles a statement, and compiles it anew when the schema has changed. So a
trigger that is not known yet is refused once, before anything has run, and from then on the connection knows it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any

from orchdb.own_statements import SAVEPOINTS
from orchdb.schema.sql_functions import BOOT_ID_FUNCTION, TIME_FUNCTION, UPTIME_FUNCTION
from orchdb.schema.tables import TRIGGERS

_KNOWN_MODULES = frozenset(
    ("fts3", "fts3tokenize", "fts4", "fts4aux", "fts5", "fts5vocab", "geopoly", "rtree", "rtree_i32")
)
"""Virtual tables that come with SQLite and touch nothing but the file. Later versions of SQLite say so themselves."""
_KNOWN_FUNCTIONS = frozenset(
    (
        *("bm25", "fts5", "fts5_get_locale", "fts5_insttoken", "fts5_locale", "fts5_source_id", "highlight", "match"),
        *("matchinfo", "offsets", "optimize", "snippet", "rtreecheck", "rtreedepth", "rtreenode"),
        *("floor", "regexp", TIME_FUNCTION, UPTIME_FUNCTION, BOOT_ID_FUNCTION),
    )
)
"""The functions that those modules, SQLAlchemy and orchdb bring along without saying that they are harmless."""
_INNOCUOUS_OR_DIRECT_ONLY = 0x280000
_VIRTUAL = re.compile(
    r"""CREATE\ VIRTUAL\ TABLE\s+("(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^]]*\]|[^\W\d][\w$]*)"""
    r"""\s+USING\s+["'`[]?([\w$]+)""",
    re.IGNORECASE | re.VERBOSE,
)


# Not what a caller would write: a statement that is compiled already is run without asking the authorizer.
COMMIT = "COMMIT -- of orchdb"
ROLLBACK = "ROLLBACK -- of orchdb"


class ForeignTriggers:
    """The triggers of other programs that statements on one connection have met.

    Attributes:
        found: Their names.
        ours: Whether the statement that runs is one of orchdb's: one of the caller's own is never refused.
        met: Whether a statement of ours has been refused because of one that was not known yet.
        held: Whether the transaction is a block's: what would end it is refused, and so are the block's savepoints.
    """

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.ours = False
        self.met = False
        self.held = False

    def authorize(self, action: int, _first: Any, second: Any, _database: Any, trigger: str | None) -> int:
        """What SQLite asks for each part of a statement that it compiles, and of the triggers that go with it."""
        if self.held and (
            action == sqlite3.SQLITE_TRANSACTION
            or (action == sqlite3.SQLITE_SAVEPOINT and second.lower().startswith(SAVEPOINTS))
        ):
            return sqlite3.SQLITE_DENY
        if trigger is None or trigger in TRIGGERS or trigger in self.found:
            return sqlite3.SQLITE_OK
        self.found.add(trigger)
        if not self.ours:
            return sqlite3.SQLITE_OK
        self.met = True
        return sqlite3.SQLITE_DENY


class SqliteConnection(sqlite3.Connection):
    """A connection that knows of the triggers of other programs, once it ``looks_out`` for them.

    Attributes:
        undoes_in_memory: Whether what SQLite keeps for the undoing of a statement needs no file, whatever its size.
    """

    undoes_in_memory = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.foreign_triggers = ForeignTriggers()

    def look_out(self) -> None:
        """Notice the triggers that statements meet from here on."""
        self.set_authorizer(self.foreign_triggers.authorize)

    def ask(self, question: str, *values: Any) -> list[Any]:
        """The rows of a statement; a cursor that is not closed holds a lock."""
        cursor = self.execute(question, values)
        try:
            return cursor.fetchall()
        finally:
            cursor.close()


def trust_known_modules(connection: SqliteConnection) -> bool:
    """Let triggers use the file's full-text and R*Tree indexes; whether that was not allowed until now.

    What else an untrusted schema may not do there is not to be had on the connection anyway: if it is, nothing changes.
    """
    if connection.ask("PRAGMA trusted_schema") != [(0,)] or not _needs_only_known_modules(connection.ask):
        return False
    connection.ask("PRAGMA trusted_schema = 1")
    return True


def _needs_only_known_modules(ask: Callable[[str], list[Any]]) -> bool:
    tables = ask("SELECT sql FROM sqlite_master WHERE type = 'table' AND rootpage = 0")
    if not tables:
        return False
    matches = [_VIRTUAL.match(sql or "") for (sql,) in tables]
    modules = {match[2].lower() if match else "" for match in matches}
    here = {name.lower() for (name,) in ask("SELECT name FROM pragma_module_list")}
    functions = {
        name.lower()
        for name, flags in ask("SELECT name, flags FROM pragma_function_list WHERE NOT builtin")
        if not flags & _INNOCUOUS_OR_DIRECT_ONLY
    }
    # A module that this connection does not have cannot run, so it does no harm.
    strange = {module for module in modules if module in here or not module} - _KNOWN_MODULES
    return bool(modules & _KNOWN_MODULES) and not strange and functions <= _KNOWN_FUNCTIONS

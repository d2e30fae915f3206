"""Why SQLite refused a write: which row is missing or still refers to it, which trigger stands in the way.

Postgres tells most of it with its error; SQLite has to be asked afterwards, in the same thread and transaction. What
is told are names of the schema and never a value.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchdb.driver_errors import sqlite_errorname
from orchdb.errors import ConstraintError, InvalidValueError, MissingParentError, OperationError, OrchdbError
from orchdb.schema.tables import TRIGGERS, metadata
from orchdb.sqlite.foreign_triggers import SqliteConnection
from orchdb.statements import CompiledStatement, Parameters

_OURS = TRIGGERS | {*metadata.tables} | {index.name for table in metadata.tables.values() for index in table.indexes}
_NAMES = re.compile(r'"([^"]+)"')


def explained(
    error: Exception, compiled: CompiledStatement, rows: Sequence[Parameters], connection: SqliteConnection
) -> Exception:
    """The error that says what of the file's schema refused the write; SQLite's own where that says it."""
    name = sqlite_errorname(error)
    if compiled.table is None or name not in _EXPLANATIONS:
        return error
    found: OrchdbError | None = None
    try:
        found = _EXPLANATIONS[name](_Refused(compiled, compiled.table, rows, connection), str(error))
    except sqlite3.Error:  # the first failure is the one to tell
        return error
    if found is None:
        return error
    found.code = name
    return found


def skipped(compiled: CompiledStatement, connection: SqliteConnection) -> ConstraintError:
    """The error for a row that is not there although nothing failed: ``RAISE(IGNORE)``."""
    refused = _Refused(compiled, compiled.table or "", (), connection)
    return ConstraintError(f"{refused.triggers('ignore')} skipped the row: it was not written")


@dataclass
class _ForeignKey:
    table: str
    parent: str
    columns: list[str] = field(default_factory=lambda: list[str]())
    keys: list[str] = field(default_factory=lambda: list[str]())
    on_update: str = ""
    on_delete: str = ""


class _Refused:
    """A statement that was refused, and the schema of its file."""

    def __init__(
        self, compiled: CompiledStatement, table: str, rows: Sequence[Parameters], connection: SqliteConnection
    ) -> None:
        self.compiled = compiled
        self.table = table
        self.rows = rows
        self._ask = connection.ask
        self._deletes = compiled.sql.startswith("DELETE")

    # -- foreign keys ------------------------------------------------------------------------------------------------

    def foreign_key(self, _message: str) -> OrchdbError | None:
        """Which parent is missing, or whose rows still refer to the one that is to go."""
        if not self._deletes:
            missing = self._missing_parents()
            if missing:
                columns = ", ".join(missing)
                return MissingParentError(f"there is no row with the id in {columns}", column=missing[0])
        if not self.compiled.is_insert:
            child = self._referring()
            if child is not None:
                columns = f"{child.table} ({', '.join(child.columns)})"
                return ConstraintError(f"other rows still refer to it: those of {columns}")
        kind = ConstraintError if self._deletes else MissingParentError
        return kind(f"a foreign key refuses what {self.triggers()} does") if self._foreign_triggers() else None

    def _missing_parents(self) -> list[str]:
        """The columns whose parents do not exist, in the first row where one is missing."""
        keys = self._foreign_keys("m.name = ? COLLATE NOCASE", self.table)
        present: set[tuple[Any, ...]] = set()
        for row in self.rows:
            given = self.compiled.given(row)
            missing: list[str] = []
            for number, key in enumerate(keys):
                values = [given.get(column) for column in key.columns]
                if None in values or (number, *values) in present:
                    continue
                condition = " AND ".join(f"{_quoted(name)} = ?" for name in key.keys)
                if self._ask(f"SELECT 1 FROM {_quoted(key.parent)} WHERE {condition} LIMIT 1", *values):  # noqa: S608
                    present.add((number, *values))
                else:
                    missing += key.columns
            if missing:
                return missing
        return []

    def _referring(self) -> _ForeignKey | None:
        """The foreign key that keeps rows which still have children, also those that a cascade would take along."""
        where = self.compiled.sql.partition(" WHERE ")[2]
        values = list(self.rows[0])[-where.count("?") :]
        waiting = [(self.table, f"{_quoted(self.table)} WHERE {where}")]
        seen: set[tuple[str, tuple[str, ...]]] = set()
        while waiting:
            parent, rows = waiting.pop(0)
            for key in self._foreign_keys('f."table" = ? COLLATE NOCASE', parent):
                action = key.on_delete if self._deletes else key.on_update
                if (key.table, tuple(key.columns)) in seen or action.startswith("SET"):
                    continue
                seen.add((key.table, tuple(key.columns)))
                columns = ", ".join(map(_quoted, key.columns))
                wanted = ", ".join(map(_quoted, key.keys))
                children = f"{_quoted(key.table)} WHERE ({columns}) IN (SELECT {wanted} FROM {rows})"  # noqa: S608
                if action == "CASCADE":
                    waiting.append((key.table, children))
                elif self._ask(f"SELECT 1 FROM {children} LIMIT 1", *values):  # noqa: S608
                    return key
        return None

    def _foreign_keys(self, condition: str, name: str) -> list[_ForeignKey]:
        """The foreign keys of a table, or those that refer to it, in the order of their declaration."""
        found: dict[tuple[str, int], _ForeignKey] = {}
        for table, number, parent, column, key, on_update, on_delete in self._ask(
            'SELECT m.name, f.id, f."table", f."from", f."to", f.on_update, f.on_delete '  # noqa: S608
            f"FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table' AND {condition} "
            "ORDER BY m.name, f.id DESC, f.seq",
            name,
        ):
            entry = found.setdefault((table, number), _ForeignKey(table, parent))
            entry.on_update, entry.on_delete = on_update, on_delete
            entry.columns.append(column)
            entry.keys.append(key or self._primary_key(parent)[len(entry.keys)])
        return list(found.values())

    def _primary_key(self, table: str) -> list[str]:
        return [name for (name,) in self._ask("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", table)]

    # -- triggers and other parts of the schema ----------------------------------------------------------------------

    def raised(self, message: str) -> OrchdbError | None:
        """What a trigger says with RAISE, if its statement holds the words: they could be made of values."""
        literal = f"'{message.replace(chr(39), chr(39) * 2)}'"
        for name, sql in self._foreign_triggers(everywhere=True):
            if literal in sql or f'"{message}"' in sql:
                return InvalidValueError(f"the trigger {name} refuses it: {message}", constraint=name)
        if message == "FOREIGN KEY constraint failed":  # ON DELETE RESTRICT is a trigger of SQLite's own
            return self.foreign_key(message)
        return InvalidValueError(f"{self.triggers('raise')} refuses it")

    def not_run(self, _message: str) -> OrchdbError | None:
        """What of the schema keeps the statement from running: it is compiled once more, alone."""
        try:
            self._ask(f"EXPLAIN {self.compiled.sql}", *self.rows[0])
        except sqlite3.Error as error:  # its text holds names: values come later
            reason = str(error)
        else:
            return OperationError(f"{self.triggers()} failed") if self._foreign_triggers(everywhere=True) else None
        names = _NAMES.findall(reason) or [reason.rpartition(": ")[2]]
        guilty = self._that_name([name.rpartition(".")[2].removesuffix("()").lower() for name in names])
        if not guilty:
            return OperationError(f"the schema of the file does not allow it: {reason}")
        return OperationError(
            f"{', '.join(guilty)} cannot be used here ({reason}): drop it, or mend it with the program that made it"
        )

    def index_damaged(self, _message: str) -> OrchdbError:
        """A full-text or R*Tree index that its triggers have let go wrong; the file itself is in order."""
        return OperationError(
            f"a full-text or R*Tree index that {self.triggers()} writes to is damaged: build it anew "
            "(the 'rebuild' command of FTS5)"
        )

    def triggers(self, word: str = "") -> str:
        """The triggers of other programs that run with the statement; if some of them hold the word, only those."""
        found = self._foreign_triggers() or self._foreign_triggers(everywhere=True)
        chosen = [name for name, sql in found if word in sql.lower()] or [name for name, _ in found]
        if not chosen:
            return "a trigger of another program"
        return f"the trigger {chosen[0]}" if len(chosen) == 1 else f"one of the triggers {', '.join(chosen)}"

    def _foreign_triggers(self, *, everywhere: bool = False) -> list[tuple[str, str]]:
        found = self._ask(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND (? OR tbl_name = ? COLLATE NOCASE)",
            everywhere,
            self.table,
        )
        return [(name, sql) for name, sql in found if name not in TRIGGERS]

    def _that_name(self, names: Sequence[str]) -> list[str]:
        """What of other programs has a statement with one of the names, or is a table of that name."""
        found = self._ask("SELECT type, name, lower(sql) FROM sqlite_master WHERE sql IS NOT NULL")
        word = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names))
        return [
            f"the {kind} {name}"
            for kind, name, sql in found
            if name not in _OURS and (name.lower() in names if kind == "table" else word.search(sql))
        ]


_EXPLANATIONS: dict[str, Callable[[_Refused, str], OrchdbError | None]] = {
    "SQLITE_CONSTRAINT_FOREIGNKEY": _Refused.foreign_key,
    "SQLITE_CONSTRAINT_TRIGGER": _Refused.raised,
    "SQLITE_ERROR": _Refused.not_run,
    "SQLITE_CORRUPT_VTAB": _Refused.index_damaged,
}


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'

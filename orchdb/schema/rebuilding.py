"""What the revisions in ``migrations/versions`` share: rebuilding a table of SQLite, and saying what will be lost.

SQLite changes constraints, defaults and nullability only by making the table anew. Alembic's batch mode does that from
what it can reflect, and so forgets triggers, the counter of AUTOINCREMENT, row numbers, collations and unnamed checks.
Here the stored ``CREATE TABLE`` text is edited instead: whatever another program added to it stays, word for word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from orchdb.raising import raised_as

logger = logging.getLogger("orchdb")

_TOKEN = re.compile(
    r"""(?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
      | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
      | \w+ | \s+ | .""",
    re.VERBOSE | re.DOTALL,
)
_CONSTRAINT_WORDS = frozenset({"CONSTRAINT", "CHECK", "FOREIGN", "PRIMARY", "UNIQUE"})
_GENERATED = (2, 3)
"""What ``PRAGMA table_xinfo`` says of generated columns: virtual and stored ones."""


class MigrationError(CommandError):
    """The migration cannot go on; its transaction is rolled back. ``connect()`` makes a ``SchemaError`` of it."""


@contextmanager
def checked(connection: Connection, tables: Sequence[str]) -> Generator[None]:
    """Check an SQLite file after what is done in this block; rows that had no parent before do not count against it.

    Raises:
        MigrationError: A row lost its parent, or a table is damaged.
    """
    before = _orphans(connection)
    changes = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
    yield
    if connection.exec_driver_sql("SELECT total_changes()").scalar_one() == changes:
        return
    orphans = _orphans(connection)
    new = orphans - before
    if new:
        table, number, parent = min(new, key=str)
        raise MigrationError(
            f"nothing was changed: {len(new)} rows would have lost their parent, such as row {number} of {table} "
            f"its row in {parent}"
        )
    if orphans:
        logger.warning("%d rows have had no parent row since before the migration; they are kept", len(orphans))
    for table in tables:
        if column_names(connection, table):
            found = connection.exec_driver_sql(f"PRAGMA quick_check({quoted(table)})").scalar_one()
            if found != "ok":
                raise MigrationError(f"nothing was changed: the table {table} is damaged: {found}")


def _orphans(connection: Connection) -> set[tuple[str, int | None, str]]:
    with raised_as(DBAPIError, _not_checked):
        rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return {(row[0], row[1], row[2]) for row in rows}


def _not_checked(error: DBAPIError) -> MigrationError:
    return MigrationError(f"nothing was changed: the foreign keys cannot be checked: {error.orig}")


def announce(connection: Connection, query: str, message: str) -> None:
    """Warn with ``message`` and the number of rows concerned, before they are changed; be silent where there are none.

    Args:
        connection: The connection of the migration.
        query: What follows ``SELECT count(*) FROM``.
        message: The text of the warning, with ``%d`` for the number.
    """
    if context.is_offline_mode():
        return
    count = connection.exec_driver_sql(f"SELECT count(*) FROM {query}").scalar_one()  # noqa: S608  # a revision's own text
    if count:
        logger.warning(message, count)


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def add_function(connection: Connection, name: str, function: Callable[[Any], Any]) -> None:
    """Give the SQLite connection an SQL function of one argument."""
    driver: Any = connection.connection.dbapi_connection
    driver.create_function(name, 1, function)


def column_names(connection: Connection, table: str) -> list[str]:
    """The columns of an SQLite table, in lower case and in their order; none if there is no such table."""
    rows = connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(table)})")
    return [row.name.lower() for row in rows]


@dataclass
class TableDefinition:
    """The parts of a ``CREATE TABLE`` statement, each as it was written."""

    columns: dict[str, str] = field(default_factory=dict[str, str])
    constraints: list[str] = field(default_factory=list[str])
    options: str = ""

    @classmethod
    def parse(cls, sql: str) -> TableDefinition:
        """Take the statement apart; comments are left out."""
        parts, options = _split(sql)
        definition = cls(options=options)
        for part in parts:
            first = _words(part)[0]
            if first.upper() in _CONSTRAINT_WORDS:
                definition.constraints.append(part)
            else:
                definition.columns[_name(first)] = part
        return definition

    def carry_over(self, stored: TableDefinition) -> None:
        """Add the columns that only the stored table has, and the constraints that speak of them."""
        added = {name: text for name, text in stored.columns.items() if name not in self.columns}
        self.columns.update(added)
        for constraint in stored.constraints:
            if not added.keys().isdisjoint(_name(word) for word in _words(constraint)):
                self.constraints.append(constraint)

    def change_columns(self, changes: Mapping[str, str | None]) -> None:
        """Replace or add columns, given as the text after their name; ``None`` drops one."""
        for name, text in changes.items():
            if text is None:
                self.columns.pop(name, None)
            else:
                self.columns[name] = f"{name} {text}"

    def change_constraints(self, changes: Mapping[str, str | None]) -> None:
        """Replace or add named constraints, given as the text after their name; ``None`` drops one."""
        self.constraints = [text for text in self.constraints if _constraint_name(text) not in changes]
        self.constraints += [f"CONSTRAINT {name} {text}" for name, text in changes.items() if text is not None]

    def create(self, name: str) -> str:
        """The statement that makes a table of this definition."""
        body = ",\n    ".join([*self.columns.values(), *self.constraints])
        return f"CREATE TABLE {quoted(name)} (\n    {body}\n) {self.options}".strip()


def rebuild(
    connection: Connection,
    table: str,
    *,
    definition: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    constraints: Mapping[str, str | None] | None = None,
    values: Mapping[str, str] | None = None,
) -> None:
    """Make an SQLite table anew and keep its rows, row numbers, counter, indexes, triggers and foreign columns.

    Args:
        connection: A connection inside a transaction, with foreign keys switched off.
        table: The table.
        definition: The new ``CREATE TABLE`` statement; without it the stored one is edited.
        columns: The columns to replace or add, as the text after the name; ``None`` drops one.
        constraints: The named constraints to replace or add, as the text after the name; ``None`` drops one.
        values: The SQL expressions that fill columns; without one a column keeps its value.

    Raises:
        MigrationError: Foreign keys are on, and dropping the old table would delete every child row.
    """
    if connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise MigrationError(f"{table} cannot be rebuilt while foreign keys are on: its child rows would be deleted")
    stored = TableDefinition.parse(_stored_sql(connection, "table", table)[table])
    new = TableDefinition.parse(definition) if definition else stored
    if definition:
        new.carry_over(stored)
    new.change_columns(columns or {})
    new.change_constraints(constraints or {})
    attached = {**_stored_sql(connection, "index", table), **_stored_sql(connection, "trigger", table)}
    counter = _counter(connection, table)

    temporary = f"_orchdb_new_{table}"
    connection.exec_driver_sql(new.create(temporary))
    connection.exec_driver_sql(_copy(connection, table, temporary, values or {}))
    connection.exec_driver_sql(f"DROP TABLE {quoted(table)}")
    _rename(connection, temporary, table)
    _set_counter(connection, table, counter)
    for name, sql in attached.items():
        _attach(connection, name, sql)


def _copy(connection: Connection, table: str, temporary: str, values: Mapping[str, str]) -> str:
    # One loop over the new table's columns, so that generated ones and dropped ones fall out by themselves.
    old = set(column_names(connection, table))
    rows = connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(temporary)})").all()
    pairs = {
        quoted(row.name): values.get(row.name.lower(), quoted(row.name))
        for row in rows
        if row.hidden not in _GENERATED and (row.name.lower() in old or row.name.lower() in values)
    }
    numbered = any(row.pk and row.type.upper() == "INTEGER" for row in rows)
    if not numbered and "rowid" not in old:
        # A full-text index of another program may point at the row numbers.
        pairs["rowid"] = "rowid"
    return (
        f"INSERT INTO {quoted(temporary)} ({', '.join(pairs)}) SELECT {', '.join(pairs.values())} FROM {quoted(table)}"  # noqa: S608
    )


def _rename(connection: Connection, old: str, new: str) -> None:
    # The modern rename looks into every view and trigger of the file and fails on those that name the dropped table.
    before = connection.exec_driver_sql("PRAGMA legacy_alter_table").scalar()
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    connection.exec_driver_sql(f"ALTER TABLE {quoted(old)} RENAME TO {quoted(new)}")
    connection.exec_driver_sql(f"PRAGMA legacy_alter_table = {before}")


def _attach(connection: Connection, name: str, sql: str) -> None:
    try:
        connection.exec_driver_sql(sql)
    except OperationalError as error:
        logger.warning("%s no longer fits its table (%s) and is left out; it was: %s", name, str(error.orig), sql)


def _stored_sql(connection: Connection, kind: str, table: str) -> dict[str, str]:
    """The statements in the file's schema, by name; indexes that belong to a constraint have none."""
    rows = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = ? AND tbl_name = ? AND sql IS NOT NULL ORDER BY rowid",
        (kind, table),
    )
    return {row.name: row.sql for row in rows}


@contextmanager
def without_triggers(connection: Connection, table: str) -> Generator[None]:
    """Change rows of an SQLite table in this block without running any trigger on it."""
    attached = _stored_sql(connection, "trigger", table)
    for name in attached:
        connection.exec_driver_sql(f"DROP TRIGGER {quoted(name)}")
    yield
    for name, sql in attached.items():
        _attach(connection, name, sql)


def drop_triggers(connection: Connection, table: str, pattern: re.Pattern[str]) -> None:
    """Drop the triggers on the table whose whole statement the pattern matches."""
    for name, sql in _stored_sql(connection, "trigger", table).items():
        if pattern.search(sql):
            logger.info("the trigger %s gives way to one of the revision", name)
            connection.exec_driver_sql(f"DROP TRIGGER {quoted(name)}")


def _counter(connection: Connection, table: str) -> int | None:
    if not column_names(connection, "sqlite_sequence"):
        return None
    row = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).first()
    return row.seq if row else None


def _set_counter(connection: Connection, table: str, counter: int | None) -> None:
    """Copying leaves the largest id as the counter; ids of rows that were deleted must not come again."""
    if counter is not None and _counter(connection, table) != counter:
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, counter))


def _split(sql: str) -> tuple[list[str], str]:
    """What stands between the commas of the outermost parentheses, and what follows them."""
    parts = [""]
    options = ""
    depth = 0
    closed = False
    for match in _TOKEN.finditer(sql):
        piece = " " if match["comment"] else match[0]
        if closed:
            options += piece
            continue
        depth -= piece == ")"
        closed = piece == ")" and depth == 0
        if depth == 1 and piece == ",":
            parts.append("")
        elif depth > 0:
            parts[-1] += piece
        depth += piece == "("
    return [part.strip() for part in parts], options.strip()


def _words(text: str) -> list[str]:
    return [match[0] for match in _TOKEN.finditer(text) if not match[0].isspace()]


def _name(word: str) -> str:
    """The identifier that the word writes, in the one case in which SQLite compares it."""
    if word[0] in "\"`'[" and len(word) > 1:
        inner = word[1:-1]
        word = inner if word[0] == "[" else inner.replace(word[0] * 2, word[0])
    return word.lower()


def _constraint_name(text: str) -> str | None:
    words = _words(text)
    return _name(words[1]) if words[0].upper() == "CONSTRAINT" else None

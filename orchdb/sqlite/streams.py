"""Whole tables of an SQLite file: read in one transaction, written without indexes and triggers.

They work on connections of the driver's own, each in a thread at a time: nothing else needs them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Table

from orchdb.concurrency import in_thread, shielded
from orchdb.driver_errors import translate
from orchdb.errors import OrchdbError
from orchdb.raising import raised_as
from orchdb.schema.spellings import decode_text
from orchdb.sqlite.files import file_uri, on_read_only_medium, temp_store
from orchdb.sqlite.settings import configure, configure_reader, writer_settings
from orchdb.streams import STATE, STATE_TABLE, Columns, Portion, Position, RowSource, RowTarget

_BUSY_MS = 30_000
_PUT_AWAY = "made again "
"""How the names in the state begin under which what was put away is kept."""
_THEIRS = """
    SELECT type, name, sql FROM sqlite_schema
    WHERE type IN ('index', 'trigger') AND tbl_name = ? AND sql IS NOT NULL ORDER BY type, name
"""
Result = TypeVar("Result")


class _File:
    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.place = str(path)
        self._connection = connection

    async def _run(self, operation: str, function: Callable[[], Result]) -> Result:
        """Call it in a thread and wait for its end, whoever gives up meanwhile."""
        with raised_as(sqlite3.Error, partial(_translated, operation)):
            return await shielded(in_thread(function))

    async def close(self) -> None:
        await shielded(in_thread(self._connection.close))


class FileSource(_File, RowSource):
    """An SQLite file as it was at the first look."""

    strict = False

    async def count(self, table: Table) -> int:
        return await self._value(f"SELECT count(*) FROM {table.name}")  # noqa: S608  # our own names

    async def last_number(self, table: Table) -> int:
        return await self._value(
            f"SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'), 0), "  # noqa: S608
            f"coalesce((SELECT max(id) FROM {table.name}), 0))"
        )

    async def read(self, table: Table, after: Position | None, limit: int) -> Portion | None:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        # In the order in which the rows lie there, which is theirs whatever stands in their ids.
        where = "" if after is None else "WHERE rowid > ?"
        sql = f"SELECT {names}, rowid FROM {table.name} {where} ORDER BY rowid LIMIT {limit}"  # noqa: S608
        values = () if after is None else (int(after),)
        rows = await self._run("copy", partial(self._rows, sql, values))
        if not rows:
            return None
        *columns, rowids = zip(*rows, strict=True)
        return Portion(columns, rowids)

    async def strangers(self, table: Table, column: str, parent: Table) -> set[Any]:
        sql = (
            f"SELECT DISTINCT {column} FROM {table.name} WHERE {column} IS NOT NULL "  # noqa: S608
            f"AND {column} NOT IN (SELECT id FROM {parent.name} WHERE id IS NOT NULL)"
        )
        return {row[0] for row in await self._run("copy", partial(self._rows, sql, ()))}

    async def _value(self, sql: str) -> int:
        value: int = (await self._run("copy", partial(self._rows, sql, ())))[0][0]
        return value

    def _rows(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        with contextlib.suppress(sqlite3.OperationalError):  # text that is no UTF-8, or what fails again below
            return self._connection.execute(sql, values).fetchall()
        self._connection.text_factory = decode_text
        try:
            return self._connection.execute(sql, values).fetchall()
        finally:
            self._connection.text_factory = str


class FileTarget(_File, RowTarget):
    """An SQLite file that is filled."""

    strict = False

    async def is_empty(self, table: Table) -> bool:
        sql = f"SELECT NOT EXISTS (SELECT 1 FROM {table.name})"  # noqa: S608
        return bool(await self._run("copy", lambda: self._connection.execute(sql).fetchone()[0]))

    async def state(self) -> dict[str, str]:
        return await self._run("copy", self._state)

    def _state(self) -> dict[str, str]:
        found = self._connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (STATE_TABLE,)).fetchone()
        if found is None:
            return {}
        return dict(self._connection.execute(f"SELECT name, value FROM {STATE_TABLE}").fetchall())  # noqa: S608

    async def prepare(self, tables: Sequence[Table], state: Mapping[str, str]) -> None:
        await self._run("copy", partial(self._at_once, partial(self._put_away, tables), state))

    def _put_away(self, tables: Sequence[Table]) -> None:
        self._connection.execute(STATE)
        for table in tables:
            for kind, name, sql in self._connection.execute(_THEIRS, (table.name,)).fetchall():
                self._keep({f"{_PUT_AWAY}{kind} {name}": sql})
                quoted = name.replace('"', '""')
                self._connection.execute(f'DROP {kind} "{quoted}"')

    async def write(self, table: Table, columns: Columns, count: int, state: Mapping[str, str]) -> None:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        places = ", ".join("?" * len(table.columns))
        sql = f"INSERT INTO {table.name} ({names}) VALUES ({places})"  # noqa: S608
        insert = partial(self._connection.executemany, sql, zip(*columns, strict=True))
        await self._run("copy", partial(self._at_once, insert, state))

    async def clear(self, table: Table, state: Mapping[str, str]) -> None:
        delete = partial(self._connection.execute, f"DELETE FROM {table.name}")  # noqa: S608
        await self._run("copy", partial(self._at_once, delete, state))

    async def finish(self, tables: Sequence[Table], numbers: Mapping[str, int]) -> None:
        for name, sql in sorted((await self.state()).items()):  # the indexes first: a trigger may need them
            if name.startswith(_PUT_AWAY):
                await self._run("copy", partial(self._at_once, partial(self._make_again, name, sql), {}))
        await self._run("copy", partial(self._at_once, partial(self._end, numbers), {}))
        await self._run("copy", partial(self._connection.execute, "PRAGMA wal_checkpoint(TRUNCATE)"))

    def _make_again(self, name: str, sql: str) -> None:
        self._connection.execute(sql)
        self._connection.execute(f"DELETE FROM {STATE_TABLE} WHERE name = ?", (name,))  # noqa: S608

    def _end(self, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            changed = self._connection.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, name)
            )
            if not changed.rowcount and number:
                self._connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))
        self._connection.execute(f"DROP TABLE {STATE_TABLE}")

    def _keep(self, state: Mapping[str, str]) -> None:
        sql = f"INSERT OR REPLACE INTO {STATE_TABLE} (name, value) VALUES (?, ?)"  # noqa: S608
        self._connection.executemany(sql, state.items())

    def _at_once(self, change: Callable[[], object], state: Mapping[str, str]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            change()
            if state:
                self._keep(state)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


async def open_source(url: URL) -> RowSource:
    """Open a file that is there, to read it as it is now.

    Raises:
        OperationError: It cannot be read.
    """
    path = _path_of(url)
    options = {"immutable": "1"} if on_read_only_medium(path) else {}

    def connect() -> sqlite3.Connection:
        connection = _connected(file_uri(path, mode="ro", **options), configure_reader)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # until then there is no snapshot
        return connection

    with raised_as(sqlite3.Error, partial(_translated, "copy")):
        return FileSource(path, await shielded(in_thread(connect)))


async def open_target(url: URL) -> RowTarget:
    """Open a file that is there, to fill it.

    Raises:
        OperationError: It cannot be written.
    """
    path = _path_of(url)

    def set_up(connection: sqlite3.Connection) -> None:
        # Parents come before their children, but for agents among each other; the source has had them all.
        room = {"foreign_keys": 0, "busy_timeout": _BUSY_MS, "cache_size": -32_000, "temp_store": temp_store(1 << 30)}
        configure(connection, writer_settings("normal") | room)

    with raised_as(sqlite3.Error, partial(_translated, "copy")):
        return FileTarget(path, await shielded(in_thread(partial(_connected, file_uri(path, mode="rw"), set_up))))


def _connected(uri: str, set_up: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=0)
    try:
        set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _path_of(url: URL) -> Path:
    return Path(os.path.realpath(url.database or ""))


def _translated(operation: str, error: BaseException) -> OrchdbError:
    return translate(error, operation, None)

"""Reading whole tables in the form in which they are compared, a portion ahead of whoever takes them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Table

from orchdb.concurrency import begun
from orchdb.schema.tables import metadata
from orchdb.streams import ROWS_AT_A_TIME, Columns, Portion, Position, RowSource
from orchdb.transfer.portable import Change, portable, returned, without
from orchdb.transfer.report import HASH_BYTES, TableSum

_BYTES_AT_A_TIME = 8 * 1024 * 1024
_FIRST_ROWS = 256

TABLES: tuple[Table, ...] = tuple(metadata.sorted_tables)
"""Parents before their children."""


class Part(NamedTuple):
    """Some rows on their way.

    Attributes:
        columns: What the target gets.
        shown: What is compared.
        rows: How many they are.
        position: Behind which the next ones begin.
        changes: The values that the target gets otherwise.
        left_out: The ids of the rows that it does not get.
        ids: Those of the rows that it gets, as the source has them.
        read: How many rows the source had.
    """

    columns: Columns
    shown: Columns
    rows: int
    position: Position
    changes: Sequence[Change]
    left_out: Sequence[Any]
    ids: Sequence[Any]
    read: int


class Reader:
    """A source whose rows are wanted as a target can hold them.

    Args:
        source: The database.
        strict: Whether the target takes only what the types of the schema say.
    """

    def __init__(self, source: RowSource, *, strict: bool) -> None:
        self.source = source
        self._strict = strict
        self._verbatim = not strict and not source.strict
        self._strangers: dict[str, dict[str, set[Any]]] = {}
        self._gone: dict[str, set[Any]] = {}

    async def look_for_strangers(self) -> None:
        """Find what has no parent, before anything is read: a strict target would refuse it."""
        if not self._strict or self.source.strict:
            return
        for table in TABLES:
            found = self._strangers[table.name] = {}
            for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
                column, parent = key.parent.name, key.column.table
                strange = await self.source.strangers(table, column, parent) | self._gone.get(parent.name, set())
                if strange:
                    found[column] = strange
            required = {column for column in found if not table.c[column].nullable}
            if required and table.name in {key.column.table.name for each in TABLES for key in each.foreign_keys}:
                self._gone[table.name] = await self._ids_of_orphans(table, {name: found[name] for name in required})
                for key in table.foreign_keys:  # agents whose parent goes
                    if key.column.table is table:
                        found.setdefault(key.parent.name, set()).update(self._gone[table.name])

    async def _ids_of_orphans(self, table: Table, found: dict[str, set[Any]]) -> set[Any]:
        places = {name: index for index, name in enumerate(table.columns.keys())}
        gone = set[Any]()
        async for portion in self._portions(table, None):
            for name, strange in found.items():
                column = portion.columns[places[name]]
                ids = portion.columns[places["id"]]
                gone.update(id_ for id_, value in zip(ids, column, strict=True) if value in strange)
        return gone

    async def parts(self, table: Table, after: Position | None = None) -> AsyncGenerator[Part]:
        """The rows of a table behind a position, while the next ones are being read.

        Args:
            table: The table.
            after: The position; ``None`` for all rows.
        """
        async with aclosing(self._portions(table, after)) as portions:
            async for portion in portions:
                yield self._part(table, portion)

    async def _portions(self, table: Table, after: Position | None) -> AsyncGenerator[Portion]:
        limit = _FIRST_ROWS
        coming = begun(self.source.read(table, after, limit))
        try:
            while (portion := await coming) is not None:
                limit = _next_limit(portion)
                coming = begun(self.source.read(table, portion.positions[-1], limit))
                yield portion
        finally:
            await asyncio.wait((coming,))  # nobody else may read meanwhile
            if not coming.cancelled():
                coming.exception()

    def _part(self, table: Table, portion: Portion) -> Part:
        columns, left_out, changes = portion.columns, list[Any](), list[Change]()
        raw_ids = columns[table.columns.keys().index("id")]
        if self._strangers.get(table.name):
            columns, left_out = self._with_parents(table, columns, changes)
        ids = columns[table.columns.keys().index("id")] if left_out else raw_ids
        shown: Columns = returned(table, columns, strict=self.source.strict)
        if self._strict and not self.source.strict:
            shown = portable(table, shown, changes)
        given = columns if self._verbatim else shown
        read = len(portion.positions)
        return Part(given, shown, read - len(left_out), portion.positions[-1], changes, left_out, ids, read)

    def _with_parents(self, table: Table, columns: Columns, changes: list[Change]) -> tuple[Columns, list[Any]]:
        """The rows whose parents there are, and the ids of the others."""
        names = table.columns.keys()
        orphans = set[int]()
        for name, strange in self._strangers[table.name].items():
            if not table.c[name].nullable:
                column = columns[names.index(name)]
                orphans.update(row for row, value in enumerate(column) if value in strange)
        left_out = [columns[names.index("id")][row] for row in sorted(orphans)]
        kept: list[Sequence[Any]] = [*(without(columns, orphans) if orphans else columns)]
        for name, strange in self._strangers[table.name].items():
            if table.c[name].nullable:
                place = names.index(name)
                changes += [
                    Change(row, name, "parent", value) for row, value in enumerate(kept[place]) if value in strange
                ]
                kept[place] = [None if value in strange else value for value in kept[place]]
        return kept, left_out

    async def sum_of(
        self, table: Table, until: Position | None = None, told: Callable[[int], None] | None = None
    ) -> TableSum:
        """What a table holds.

        Args:
            table: The table.
            until: The position of the last row that counts; ``None`` for all rows.
            told: Is called with how many rows were read, again and again.
        """
        total = TableSum()
        async with aclosing(self._portions(table, None)) as portions:
            async for portion in portions:
                within = portion if until is None else _up_to(portion, until)
                if within.positions:
                    part = self._part(table, within)
                    total = total.plus(part.rows, hashes(part.shown))
                    if told is not None:
                        told(part.read)
                if within is not portion:
                    break
        return total


def _up_to(portion: Portion, until: Any) -> Portion:
    """The rows of a portion up to a position: the portion itself, if that lies behind it."""
    number = bisect_right(portion.positions, until)
    if number == len(portion.positions):
        return portion
    return Portion([column[:number] for column in portion.columns], portion.positions[:number])


def hashes(shown: Columns) -> int:
    """The sum of the hashes of rows."""
    # Each row pays this: there is no shorter way in Python.
    packed = map(orjson.dumps, zip(*shown, strict=True))
    return sum(map(int.from_bytes, [blake2b(row, digest_size=HASH_BYTES).digest() for row in packed]))


def _next_limit(portion: Portion) -> int:
    size = 1
    for column in portion.columns:
        with suppress(TypeError):  # numbers, which are short
            present: Iterator[Any] = filter(None, column)
            size += sum(map(len, present))
    count = len(portion.positions)
    return max(1, min(_BYTES_AT_A_TIME * count // size, ROWS_AT_A_TIME, count * 4))

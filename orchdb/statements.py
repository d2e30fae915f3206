"""Statements that are compiled once for each dialect: how values go into them, and how rows come out, in portions."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from operator import itemgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import Delete, Dialect, Executable, Insert, Table, Update, func, select
from sqlalchemy.sql.compiler import SQLCompiler

from orchdb.errors import InvalidValueError
from orchdb.schema.column_types import Identifier
from orchdb.schema.spellings import readable

Row = TypeVar("Row")
ROWS_AT_A_TIME = 500
"""Of a long list: between two portions the event loop, or the lock of Python's interpreter, is free for others."""
ROWS_AT_ONCE = 25
"""Of an insert of many rows, on SQLite: 10 to 50 take the same time for each, within the noise."""
Parameters = Sequence[Any] | Mapping[str, Any]
_FROZEN_BY_PYTHON = 1000
"""Objects at most: 3.12 starts with some hundreds. A program that freezes has many times as many."""


class Statement(Generic[Row]):
    """A Core statement on one table whose rows are ``Row``; an insert ``if_new`` may find that its row is there."""

    def __init__(
        self,
        table: Table,
        core: Executable,
        column_keys: Sequence[str] | None = None,
        *,
        changes_one: bool = False,
        if_new: bool = False,
    ) -> None:
        self.table = table.name
        self._core = core
        self._column_keys = column_keys
        self._changes_one = changes_one
        self._if_new = if_new
        self._numbered: Insert | None = None
        if isinstance(core, Insert) and not isinstance(table.c.id.type, Identifier):
            # At once: SQLAlchemy keeps what an insert returns with it from the first look, also in its copies.
            self._numbered = core.returning(table.c.id)
        self._compiled: dict[str, CompiledStatement] = {}

    def compiled(self, dialect: Dialect) -> CompiledStatement:
        """The statement for this dialect, compiled at the first call."""
        compiled = self._compiled.get(dialect.driver)
        if compiled is None:
            compiled = self._compiled[dialect.driver] = self._compile(dialect)
        return compiled

    def _compile(self, dialect: Dialect) -> CompiledStatement:
        tells_number = getattr(dialect, "postfetch_lastrowid", False)
        core: Any = self._core if tells_number or self._numbered is None else self._numbered
        if self._if_new:  # SQLAlchemy has that in a class of each dialect
            kind: Any = import_module(f"sqlalchemy.dialects.{dialect.name}")
            new = kind.insert(core.table).on_conflict_do_nothing()
            core = new if core is self._core else new.returning(core.table.c.id)
        return CompiledStatement(
            core,
            dialect,
            self._column_keys,
            changes_one=self._changes_one,
            may_skip=self._if_new,
            numbered=self._numbered is not None,
        )


class CompiledStatement:
    """A statement compiled for one dialect: its text, how values go in, and how rows come out."""

    is_pair = False
    is_sum = False
    """Whether its rows are sums: dear to find, fewer than what they are made of, and to be fetched at once."""

    def __init__(
        self,
        statement: Executable,
        dialect: Dialect,
        column_keys: Sequence[str] | None,
        *,
        changes_one: bool = False,
        may_skip: bool = False,
        numbered: bool = False,
        writes: bool = False,
    ) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=column_keys)  # type: ignore[attr-defined]
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self.is_insert = isinstance(statement, Insert)
        self.changes_one = changes_one
        self.adds_one = self.is_insert and changes_one and not may_skip
        self.numbered = numbered
        """Whether the database gives the row its id."""
        self.table = str(statement.table) if isinstance(statement, (Insert, Update, Delete)) else None
        """The table that it writes to."""
        positions = compiled.positiontup
        bound: list[str] = list(compiled.binds) if positions is None else list(positions)
        names = list(dict.fromkeys(bound))
        self.bound = bound
        """The names of the values, as the driver counts them."""
        # A value that is bound more than once is encoded once.
        self._positions = [names.index(name) for name in bound] if len(bound) > len(names) else None
        binds: list[Any] = [compiled.binds[name] for name in names]
        self._names = names
        self._named = positions is None
        self.encoders = [(name, _encoder(bind, dialect)) for name, bind in zip(names, binds, strict=True)]
        self._constants = {name: bind.value for name, bind in zip(names, binds, strict=True) if not bind.required}
        self._required: list[str] = [
            bind.type.column if getattr(bind.type, "required", False) else "" for bind in binds
        ]
        types = _columns(statement)
        self.returns_rows = bool(types)
        self.writes = writes or self.is_insert or not self.returns_rows
        self.sql_of_rows = _of_rows(self.sql) if numbered and not may_skip and not self.returns_rows else None
        """The same for ``ROWS_AT_ONCE`` rows, whose values come one row behind the other; not where ids come back."""
        self._keys = list(types)
        decoders = [(key, decode) for key, kind in types.items() if (decode := _decoder(kind, dialect)) is not None]
        plain: dict[str, Any] = {key: getattr(kind, "plain", None) for key, kind in types.items()}
        self._numbers = [(key, *plain[key], decode) for key, decode in decoders if plain[key]]
        self._decoders = [(key, decode) for key, decode in decoders if not plain[key]]

    def parameters(self, values: Mapping[str, Any]) -> Parameters:
        """The values as the driver takes them, each checked by its column's type."""
        if self._constants:
            values = {**self._constants, **values}
        # On every write's path: no call for what can be looked up, and one test for all that must not be NULL.
        encoded = [values[name] if encode is None else encode(values[name]) for name, encode in self.encoders]
        if None in encoded:
            self._refuse_missing(encoded)
        if self._positions is not None:
            return [encoded[position] for position in self._positions]
        return dict(zip(self._names, encoded, strict=True)) if self._named else encoded

    def many(self, rows: Sequence[Mapping[str, Any]]) -> list[Parameters]:
        """What ``parameters`` makes of each row, a column at a time."""
        columns = [
            [row[name] for row in rows] if encode is None else [encode(row[name]) for row in rows]
            for name, encode in self.encoders
        ]
        for column, required in zip(columns, self._required, strict=True):
            if required and None in column:
                raise InvalidValueError(f"{required}: must not be NULL", column=required.rpartition(".")[2])
        parameters = zip(*columns, strict=True)
        return [dict(zip(self._names, row, strict=True)) for row in parameters] if self._named else list(parameters)

    def _refuse_missing(self, encoded: Sequence[Any]) -> None:
        for value, required in zip(encoded, self._required, strict=True):
            if value is None and required:
                raise InvalidValueError(f"{required}: must not be NULL", column=required.rpartition(".")[2])

    def given(self, parameters: Parameters) -> dict[str, Any]:
        """The values that a row's columns get, of what ``parameters`` gave."""
        named = parameters
        if not isinstance(named, Mapping):
            names = self._names if self._positions is None else [self._names[each] for each in self._positions]
            named = dict(zip(names, named, strict=True))
        prefix = "" if self.is_insert else "new_"
        return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

    def rows(self, raws: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
        """Rows as callers see them."""
        keys = self._keys
        rows = [dict(zip(keys, raw)) for raw in raws]  # noqa: B905  # which costs a fifth more, and the driver counts
        for key, decode in self._decoders:
            for row in rows:
                value = row[key]
                if value is not None:
                    row[key] = decode(value)
        for key, kind, least, most, decode in self._numbers:  # nearly every one is just a number: no call for it
            for row in rows:
                value = row[key]
                if value is not None and (type(value) is not kind or not least <= value <= most):
                    row[key] = decode(value)
        return rows


class CompiledPair(CompiledStatement):
    """A statement on one row, ``row_id``, with one that has to run before it in the same transaction.

    Attributes:
        first: What runs before it.
        row: Where among its own parameters the id of the row is.
    """

    is_pair = True

    def __init__(self, first: CompiledStatement, statement: Executable, dialect: Dialect) -> None:
        super().__init__(statement, dialect, None)
        self.first = first
        self.row = self._names.index("row_id")
        assert self._positions is None
        # What both have is encoded once.
        self._more = [(name, encode) for name, encode in first.encoders if name not in self._names]
        names = [*self._names, *(name for name, _ in self._more)]
        self._of_first = itemgetter(*map(names.index, first.bound))

    def parameters(self, values: Mapping[str, Any]) -> Parameters:
        """Those of the first, and its own."""
        own = super().parameters(values)
        more = [values[name] if encode is None else encode(values[name]) for name, encode in self._more]
        return [self._of_first([*own, *more]), own]


@lru_cache(maxsize=8)
def newest_id(table: Table) -> Statement[Any]:
    """The highest id of a log."""
    return Statement(table, select(func.coalesce(func.max(table.c.id), 0)))


def all_rows(compiled: CompiledStatement, fetch: Callable[[int], list[Any]]) -> list[Any]:
    """The rows, of which ``fetch`` gives so many at a time: in a thread, beside which the loop goes on."""
    records = fetch(ROWS_AT_A_TIME)
    rows = readable(compiled.rows(records), records)
    if len(rows) < ROWS_AT_A_TIME:
        return rows
    make_old = set_aside()
    while records := fetch(ROWS_AT_A_TIME):
        rows += readable(compiled.rows(records), records)
        make_old()
    return rows


async def in_portions(compiled: CompiledStatement, records: list[Any]) -> list[Any]:
    """The rows, in the place of the driver's own, which go a few at a time too."""
    make_old = set_aside()
    for start in range(0, len(records), ROWS_AT_A_TIME):
        end = start + ROWS_AT_A_TIME
        records[start:end] = compiled.rows(records[start:end])
        make_old()
        await asyncio.sleep(0)
    return records


def set_aside() -> Callable[[], None]:
    """What to call after each portion of a list: the rows are then out of the way of Python's collector of cycles.

    It stops every thread to look at all objects that may be part of a cycle, again each time that they have grown by a
    quarter: 300,000 rows, which are part of none, cost a tenth of a second at a time and half of the time in all. To
    freeze all objects and thaw them makes them old without a look at them. A program that has frozen objects of its own
    keeps them frozen.
    """
    return _nothing if gc.get_freeze_count() > _FROZEN_BY_PYTHON else _make_old


def _of_rows(insert: str) -> str:
    beginning, values, row = insert.rpartition(" VALUES ")
    return beginning + values + ", ".join([row] * ROWS_AT_ONCE)


def _columns(statement: Any) -> dict[str, Any]:
    """The columns of the rows that a statement returns, by their names, with their types.

    The names are text: SQLAlchemy's own kind of it is no key for orjson.
    """
    columns: Any = getattr(statement, "exported_columns", None)
    return {} if columns is None else {str(name): column.type for name, column in columns.items()}


def _encoder(bind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    """The check of a bound value."""
    kind: Any = bind.type
    encoder: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return encoder


def _decoder(kind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    """What makes of the driver's value what callers see; ``None`` where that is the same."""
    decoder: Callable[[Any], Any] | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return decoder


def _make_old() -> None:
    try:
        gc.freeze()
    finally:
        gc.unfreeze()


def _nothing() -> None:
    pass

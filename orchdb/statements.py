"""Statements that are compiled once for each dialect: how values go into them, and how rows come out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Generic, TypeVar

from sqlalchemy import Delete, Dialect, Executable, Insert, Table, Update, func, select
from sqlalchemy.sql.compiler import SQLCompiler

from orchdb.errors import InvalidValueError
from orchdb.schema.column_types import Identifier
from orchdb.schema.spellings import readable

Row = TypeVar("Row")
ROWS_AT_A_TIME = 500
"""Of a long list: between two portions the event loop, or the lock of Python's interpreter, is free for others."""
Parameters = Sequence[Any] | Mapping[str, Any]


class CompiledStatement:
    """A statement compiled for one dialect: its text, how values go in, and how rows come out."""

    is_pair = False

    def __init__(
        self,
        statement: Executable,
        dialect: Dialect,
        column_keys: Sequence[str] | None,
        *,
        changes_one: bool = False,
        may_skip: bool = False,
        numbered: bool = False,
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
        places: list[str] = list(compiled.binds) if positions is None else list(positions)
        names = list(dict.fromkeys(places))
        # Where a value is bound in several places it is encoded once.
        self._places = [names.index(name) for name in places] if len(places) > len(names) else None
        binds: list[Any] = [compiled.binds[name] for name in names]
        self._names = names
        self._named = positions is None
        self._encoders = [(name, _encoder(bind, dialect)) for name, bind in zip(names, binds, strict=True)]
        self._constants = {name: bind.value for name, bind in zip(names, binds, strict=True) if not bind.required}
        self._required: list[str] = [
            bind.type.column if getattr(bind.type, "required", False) else "" for bind in binds
        ]
        columns: Sequence[Any] = compiled._result_columns  # pyright: ignore[reportPrivateUsage]
        self.returns_rows = bool(columns)
        self._keys = [str(column.keyname) for column in columns]  # SQLAlchemy's own kind of text is no key for orjson
        processors = [(str(column.keyname), _decoder(column.type, dialect)) for column in columns]
        decoders = [(key, decode) for key, decode in processors if decode is not None]
        plain: dict[str, Any] = {str(column.keyname): getattr(column.type, "plain", None) for column in columns}
        self._numbers = [(key, *plain[key], decode) for key, decode in decoders if plain[key]]
        self._decoders = [(key, decode) for key, decode in decoders if not plain[key]]

    def parameters(self, values: Mapping[str, Any]) -> Parameters:
        """The values as the driver takes them, each checked by its column's type."""
        if self._constants:
            values = {**self._constants, **values}
        # On every write's path: no call for what can be looked up, and one test for all that must not be NULL.
        encoded = [values[name] if encode is None else encode(values[name]) for name, encode in self._encoders]
        if None in encoded:
            self._refuse_missing(encoded)
        if self._places is not None:
            return [encoded[place] for place in self._places]
        return dict(zip(self._names, encoded, strict=True)) if self._named else encoded

    def many(self, rows: Sequence[Mapping[str, Any]]) -> list[Parameters]:
        """What ``parameters`` makes of each row, a column at a time."""
        columns = [
            [row[name] for row in rows] if encode is None else [encode(row[name]) for row in rows]
            for name, encode in self._encoders
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
            names = self._names if self._places is None else [self._names[place] for place in self._places]
            named = dict(zip(names, named, strict=True))
        prefix = "" if self.is_insert else "new_"
        return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

    def rows(self, raws: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
        """Rows as callers see them."""
        keys = self._keys
        rows = [dict(zip(keys, raw, strict=True)) for raw in raws]
        for key, decode in self._decoders:
            for row in rows:
                if row[key] is not None:
                    row[key] = decode(row[key])
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
        assert self._places is None

    def parameters(self, values: Mapping[str, Any]) -> Parameters:
        """Those of the first, and its own."""
        return [self.first.parameters(values), super().parameters(values)]


def _encoder(bind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    """The check of a bound value."""
    kind: Any = bind.type
    encoder: Callable[[Any], Any] | None = kind._cached_bind_processor(dialect)
    return encoder


def _decoder(kind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    decoder: Callable[[Any], Any] | None = kind._cached_result_processor(dialect, None)
    return decoder


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
        self._number = table.c.id if isinstance(core, Insert) and not isinstance(table.c.id.type, Identifier) else None
        self._prepared: dict[str, CompiledStatement] = {}

    def compiled(self, dialect: Dialect) -> CompiledStatement:
        """The statement for this dialect, compiled at the first call."""
        compiled = self._prepared.get(dialect.driver)
        if compiled is None:
            compiled = self._prepared[dialect.driver] = self._compile(dialect)
        return compiled

    def _compile(self, dialect: Dialect) -> CompiledStatement:
        core = self._core
        if isinstance(core, Insert):
            if self._if_new:  # SQLAlchemy has that in a class of each dialect
                kind: Any = import_module(f"sqlalchemy.dialects.{dialect.name}")
                core = kind.insert(core.table).on_conflict_do_nothing()
            if self._number is not None and not getattr(dialect, "postfetch_lastrowid", False):
                core = core.returning(self._number)
        return CompiledStatement(
            core,
            dialect,
            self._column_keys,
            changes_one=self._changes_one,
            may_skip=self._if_new,
            numbered=self._number is not None,
        )


_FROZEN_BY_PYTHON = 1000
"""Objects at most: 3.12 starts with some hundreds. A program that freezes has many times as many."""


def set_aside() -> Callable[[], None]:
    """What to call after each portion of a list: the rows are then out of the way of Python's collector of cycles.

    It stops every thread to look at all objects that may be part of a cycle, again each time that they have grown by a
    quarter: 300,000 rows, which are part of none, cost a tenth of a second at a time and half of the time in all. To
    freeze all objects and thaw them makes them old without a look at them. A program that has frozen objects of its own
    keeps them frozen.
    """
    return _nothing if gc.get_freeze_count() > _FROZEN_BY_PYTHON else _make_old


def _make_old() -> None:
    try:
        gc.freeze()
    finally:
        gc.unfreeze()


def _nothing() -> None:
    pass


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


@lru_cache(maxsize=8)
def newest_id(table: Table) -> Statement[Any]:
    """The highest id of a log."""
    return Statement(table, select(func.coalesce(func.max(table.c.id), 0)))

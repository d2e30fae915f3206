"""SQL for sums: money in whole nano-dollars, and the stretch of time that a row falls into."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from orchdb.schema.column_types import Timestamp

Width = Literal["day", "hour", "quarter"]
_MOST = "4e9"
"""Dollars: no prompt has cost more, and as nano-dollars they are well within 64 bits."""
_INTERVALS = {"day": "1 day", "hour": "1 hour", "quarter": "15 minutes"}
_STARTS = {
    "day": "substr({0}, 1, 10)",
    "hour": "substr({0}, 1, 13)",
    "quarter": "(substr({0}, 1, 14) || (substr({0}, 15, 2) / 15))",
}


class nano_dollars(FunctionElement[int]):  # noqa: N801  # an SQL function
    """A cost as a whole number of nano-dollars, whose sum is exact in any order; NULL for what is no sum of money."""

    inherit_cache = True
    type: TypeEngine[int] = BigInteger()


class stretch_of(FunctionElement[Any]):  # noqa: N801
    """The day, the hour or the quarter of an hour, in UTC, that a time is in.

    Every zone of today is whole quarters of an hour away from UTC: its days and hours are made of these.

    Args:
        column: The time.
        width: How long the stretch is.
    """

    inherit_cache = False
    type: TypeEngine[Any] = Text()

    def __init__(self, column: ColumnElement[Any], width: Width) -> None:
        super().__init__(column)
        self.width = width
        self.type = Timestamp()


class unordered(FunctionElement[Any]):  # noqa: N801
    """A column to group by, but not by way of an index that has its order and lacks the figures.

    SQLite would take that, and then look up each row: that costs more than to sort what a wider index has.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(unordered)
def _as_it_is(element: unordered, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **options))


@compiles(unordered, "sqlite")
def _of_no_index(element: unordered, compiler: SQLCompiler, **options: Any) -> str:
    return f"+{compiler.process(next(iter(element.clauses)), **options)}"


@compiles(nano_dollars)
def _in_bigint(element: nano_dollars, compiler: SQLCompiler, **options: Any) -> str:
    (cost,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CASE WHEN abs({cost}) < {_MOST} THEN CAST(round({cost} * 1e9) AS bigint) END"


@compiles(nano_dollars, "sqlite")
def _in_integer(element: nano_dollars, compiler: SQLCompiler, **options: Any) -> str:
    (cost,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CASE WHEN abs({cost}) < {_MOST} THEN CAST(round({cost} * 1e9) AS INTEGER) END"


@compiles(stretch_of)
def _by_interval(element: stretch_of, compiler: SQLCompiler, **options: Any) -> str:
    (time,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"date_bin('{_INTERVALS[element.width]}', {time}, TIMESTAMPTZ '2000-01-01 00:00:00+00')"


@compiles(stretch_of, "sqlite")
def _by_text(element: stretch_of, compiler: SQLCompiler, **options: Any) -> str:
    (time,) = (compiler.process(clause, **options) for clause in element.clauses)
    return _STARTS[element.width].format(time)

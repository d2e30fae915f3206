"""SQL for sums: money in whole nano-dollars, and the stretch of time that a row falls into."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import BigInteger, Boolean, ColumnElement, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from orchdb.schema.column_types import Timestamp

Width = Literal["day", "hour", "quarter", "second"]
_MOST = "4e9"
"""Dollars: what costs more counts as that, which as nano-dollars is well within 64 bits."""
_WHOLE = "4194304.0"
"""Dollars: up to here SQLite adds whole numbers. A float among them makes the sum one, which has no overflow."""
_MOST_TOGETHER = "4.6e18"
"""What a larger sum counts as: the difference to a cost is within 64 bits, too."""
_LARGEST = "1.7976931348623157e308"
_INTERVALS = {"day": "1 day", "hour": "1 hour", "quarter": "15 minutes", "second": "1 second"}
_STARTS = {
    "day": "substr({0}, 1, 10)",
    "hour": "substr({0}, 1, 13)",
    "quarter": "(substr({0}, 1, 14) || (substr({0}, 15, 2) / 15))",
    "second": "substr({0}, 1, 19)",
}


class nano_dollars(FunctionElement[int]):  # noqa: N801  # an SQL function
    """A cost as a whole number of nano-dollars, whose sum is exact in any order; NULL for what is no number."""

    inherit_cache = True
    type: TypeEngine[int] = BigInteger()


class is_number(FunctionElement[bool]):  # noqa: N801
    """Whether a cost is a number: neither NULL nor another program's text, NaN or infinity."""

    inherit_cache = True
    type: TypeEngine[bool] = Boolean()


class sum_of(FunctionElement[int]):  # noqa: N801
    """The sum of whole numbers, which for those of another program is never too large to be told."""

    inherit_cache = True
    type: TypeEngine[int] = BigInteger()


class sum_of_nanos(sum_of):  # noqa: N801
    """The sum of nano-dollars."""

    inherit_cache = True


class stretch_of(FunctionElement[Any]):  # noqa: N801
    """The day, the hour, the quarter of an hour or the second, in UTC, that a time is in.

    Every zone of today is whole quarters of an hour away from UTC: its days and hours are made of these. Some once were
    not, or set their clocks within one.

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
    # Not round(), which takes a half to the even number, as another program's half a nano-dollar on SQLite is not.
    nanos = f"CAST(floor({cost} * 1e9 + 0.49999999999999994) AS bigint)"
    most = f"CAST(sign({cost}) * {_MOST} * 1e9 AS bigint)"
    return f"CASE WHEN abs({cost}) < {_MOST} THEN {nanos} WHEN {_is_finite(cost)} THEN {most} END"


@compiles(nano_dollars, "sqlite")
def _in_integer(element: nano_dollars, compiler: SQLCompiler, **options: Any) -> str:
    (cost,) = (compiler.process(clause, **options) for clause in element.clauses)
    # Compared, and not by its abs(), text is larger than any number.
    nanos = f"CAST(round({cost} * 1e9) AS INTEGER)"
    most = f"max(min({cost}, {_MOST}), -{_MOST}) * 1e9"
    return f"CASE WHEN {cost} > -{_WHOLE} AND {cost} < {_WHOLE} THEN {nanos} WHEN {_is_finite(cost)} THEN {most} END"


@compiles(is_number)
def _number(element: is_number, compiler: SQLCompiler, **options: Any) -> str:
    (cost,) = (compiler.process(clause, **options) for clause in element.clauses)
    return _is_finite(cost)


def _is_finite(cost: str) -> str:
    return f"{cost} BETWEEN -{_LARGEST} AND {_LARGEST}"


@compiles(sum_of)
def _within_bigint(element: sum_of, compiler: SQLCompiler, **options: Any) -> str:
    (number,) = (compiler.process(clause, **options) for clause in element.clauses)
    # Postgres sums up in numeric. What is least is none of the NULLs.
    total = f"coalesce(sum({number}), 0)"
    return f"CAST(least(greatest({total}, -{_MOST_TOGETHER}), {_MOST_TOGETHER}) AS bigint)"


@compiles(sum_of, "sqlite")
def _by_total(element: sum_of, compiler: SQLCompiler, **options: Any) -> str:
    (number,) = (compiler.process(clause, **options) for clause in element.clauses)
    # Exact up to 2**53. sum() fails beyond 64 bits, and other programs may have stored a fraction.
    return f"CAST(max(min(total({number}), {_MOST_TOGETHER}), -{_MOST_TOGETHER}) AS INTEGER)"


@compiles(sum_of_nanos, "sqlite")
def _by_sum(element: sum_of_nanos, compiler: SQLCompiler, **options: Any) -> str:
    (number,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"max(min(sum({number}), {_MOST_TOGETHER}), -{_MOST_TOGETHER})"


@compiles(stretch_of)
def _by_interval(element: stretch_of, compiler: SQLCompiler, **options: Any) -> str:
    (time,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"date_bin('{_INTERVALS[element.width]}', {time}, TIMESTAMPTZ '2000-01-01 00:00:00+00')"


@compiles(stretch_of, "sqlite")
def _by_text(element: stretch_of, compiler: SQLCompiler, **options: Any) -> str:
    (time,) = (compiler.process(clause, **options) for clause in element.clauses)
    return _STARTS[element.width].format(time)

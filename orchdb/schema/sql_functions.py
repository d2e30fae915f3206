"""SQL for times that another program may have spelled in its own way: what they mean, and where their rows stand.

Only SQLite keeps a time as it was written; on Postgres each of these is the plain thing. The SQL function
``orchdb_time``, which each connection of orchdb's to SQLite has, is ``spellings.one_form``. The order and the position
of rows are those of what is stored, so that an index has them; what a time means decides what is too old and what a
list of some hours shows.

And the clock that leases go by: the server's own, or on SQLite, whose processes share a machine, that machine's uptime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Dialect, Double, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

TIME_FUNCTION = "orchdb_time"
UPTIME_FUNCTION = "orchdb_uptime"
BOOT_ID_FUNCTION = "orchdb_boot_id"
_ONE_FORM = "'????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'"
# The function's arguments have to be UTF-8, and only ASCII can be a time.
_ASCII = "{0} NOT GLOB '*[^ -~]*' AND instr({0}, char(0)) = 0"
_MEANING = f"CASE WHEN {{0}} GLOB {_ONE_FORM}{{1}} THEN {{0}} WHEN {_ASCII} THEN {TIME_FUNCTION}({{0}}) END"
# With a modifier, because only then SQLite looks at whether the month has such a day.
_IS_A_TIME = " AND strftime('%Y-%m-%dT%H:%M:%S', substr({0}, 1, 19), '+0 days') || substr({0}, 20) = {0}"
_IN_UTF8 = "CASE WHEN length(CAST('a' AS BLOB)) = 1 THEN CAST({0} AS TEXT) END"
# What a cursor holds is what was shown. Its row counts only as long as it still shows that, so that nobody who changes
# the row moves the page.
_STORED = f"""(
    SELECT kept.created_at FROM {{table}} AS kept
    WHERE kept.id = {{key}} AND kept.created_at NOT GLOB {_ONE_FORM} AND CASE
        WHEN typeof(kept.created_at) = 'blob'
        THEN coalesce({TIME_FUNCTION}(kept.created_at) = {{shown}},
            {{shown}} NOT GLOB {_ONE_FORM} OR CAST({{shown}} AS BLOB) = kept.created_at)
        WHEN {_ASCII.format("kept.created_at")}
        THEN coalesce({TIME_FUNCTION}(kept.created_at), CAST(kept.created_at AS TEXT)) = {{shown}}
        ELSE {{shown}} GLOB '*[^ -~]*'
    END
)"""  # noqa: S608  # the names are the tables' own


class is_understood(FunctionElement[bool]):  # noqa: N801  # an SQL function
    """Whether a time means one that compares so; beside the comparison of the column itself, which an index serves.

    Args:
        column: The column.
        operator: The comparison.
        bound: What it is compared with.
        strictly: Whether text in the one form, such as ``2026-02-31T00:00:00.000000``, is looked at closely too.
    """

    inherit_cache = False
    type = Boolean()

    def __init__(
        self, column: ColumnElement[Any], operator: str, bound: ColumnElement[Any], *, strictly: bool = False
    ) -> None:
        super().__init__(column, bound)
        self.operator = operator
        self.strictly = strictly


class all_understood(FunctionElement[bool]):  # noqa: N801
    """Whether a time in another form means one that compares so with all bounds; in the one form it is true.

    It stands beside the comparisons of the column itself, which say all of the one form: so the form of each row is
    looked at once, however many bounds there are. That look costs a fifth of what a sum of a week does.

    Args:
        column: The column.
        comparisons: The operators, each with what is compared with.
    """

    inherit_cache = False
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], comparisons: Sequence[tuple[str, ColumnElement[Any]]]) -> None:
        super().__init__(column, *(bound for _, bound in comparisons))
        self.operators = [operator for operator, _ in comparisons]


class is_another_spelling(FunctionElement[bool]):  # noqa: N801
    """Whether a column's time is not in the one form."""

    inherit_cache = True
    type = Boolean()


class stored_time(FunctionElement[Any]):  # noqa: N801
    """The time of a position: what is given, or what the row with the id holds.

    Args:
        column: The time's column.
        key: The id, as ``stored_id`` or bound.
        given: The time exactly as it is stored; NULL if that cannot be bound.
        text: Instead, the bytes that its text has in UTF-8; they say nothing in a file in UTF-16.
        shown: Where only that is known: the time as it is shown, which is the position if there is no such row any
            more.
    """

    inherit_cache = True


class stored_id(FunctionElement[Any]):  # noqa: N801
    """The id of a position: the id, or if it is no UTF-8, text of these bytes."""

    inherit_cache = True


class size_in_bytes(FunctionElement[int]):  # noqa: N801
    """How many bytes a text has in UTF-8."""

    inherit_cache = True
    type = BigInteger()


def writes_in_parts(dialect: Dialect) -> bool:
    """Whether one statement can write to several tables."""
    return dialect.name != "sqlite"


@compiles(size_in_bytes)
def _octets(element: size_in_bytes, compiler: SQLCompiler, **options: Any) -> str:
    return f"octet_length({''.join(_processed(element, compiler, options))})"


@compiles(size_in_bytes, "sqlite")
def _size_of_blob(element: size_in_bytes, compiler: SQLCompiler, **options: Any) -> str:
    return f"length(CAST({''.join(_processed(element, compiler, options))} AS BLOB))"


class database_clock(FunctionElement[float]):  # noqa: N801
    """Seconds by a clock that everyone who has the database open shares; only differences say something."""

    inherit_cache = True
    type: TypeEngine[float] = Double()


class database_clock_id(FunctionElement[str]):  # noqa: N801
    """Which clock that is: another one, after a restart of the machine, cannot be compared with it."""

    inherit_cache = True
    type = Text()


@compiles(is_understood)
def _nothing_to_ask(element: is_understood, compiler: SQLCompiler, **options: Any) -> str:
    return "true"


@compiles(is_understood, "sqlite")
def _is_understood(element: is_understood, compiler: SQLCompiler, **options: Any) -> str:
    column, bound = _processed(element, compiler, options)
    meaning = _MEANING.format(column, _IS_A_TIME.format(column) if element.strictly else "")
    return f"{meaning} {element.operator} {bound}"


@compiles(all_understood)
def _nothing_to_ask_of_any(element: all_understood, compiler: SQLCompiler, **options: Any) -> str:
    return "true"


@compiles(all_understood, "sqlite")
def _all_understood(element: all_understood, compiler: SQLCompiler, **options: Any) -> str:
    column, *bounds = _processed(element, compiler, options)
    meaning = f"{TIME_FUNCTION}({column})"
    compared = " AND ".join(
        f"{meaning} {operator} {bound}" for operator, bound in zip(element.operators, bounds, strict=True)
    )
    return f"CASE WHEN {column} GLOB {_ONE_FORM} THEN 1 WHEN {_ASCII.format(column)} THEN {compared} END"


@compiles(is_another_spelling)
def _never(element: is_another_spelling, compiler: SQLCompiler, **options: Any) -> str:
    return "false"


@compiles(is_another_spelling, "sqlite")
def _is_another_spelling(element: is_another_spelling, compiler: SQLCompiler, **options: Any) -> str:
    (column,) = _processed(element, compiler, options)
    return f"{column} NOT GLOB {_ONE_FORM}"


@compiles(stored_time)
def _as_given(element: stored_time, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(list(element.clauses)[-1], **options))


@compiles(stored_time, "sqlite")
def _stored_time(element: stored_time, compiler: SQLCompiler, **options: Any) -> str:
    table = next(iter(element.clauses)).table.name
    _, key, given, *shown = _processed(element, compiler, options)
    if shown:
        text, time = shown
        return f"coalesce({given}, {_IN_UTF8.format(text)}, {_STORED.format(table=table, key=key, shown=time)}, {time})"
    return f"coalesce({given}, (SELECT kept.created_at FROM {table} AS kept WHERE kept.id = {key}))"  # noqa: S608


@compiles(stored_id)
def _plain_id(element: stored_id, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **options))


@compiles(stored_id, "sqlite")
def _stored_id(element: stored_id, compiler: SQLCompiler, **options: Any) -> str:
    key, text = _processed(element, compiler, options)
    return f"coalesce(CAST({text} AS TEXT), {key})"


@compiles(database_clock)
def _server_clock(element: database_clock, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(database_clock, "sqlite")
def _uptime(element: database_clock, compiler: SQLCompiler, **options: Any) -> str:
    return f"{UPTIME_FUNCTION}()"


@compiles(database_clock_id)
def _one_clock(element: database_clock_id, compiler: SQLCompiler, **options: Any) -> str:
    return "''"  # the server goes on by the same one after its restart


@compiles(database_clock_id, "sqlite")
def _boot_id(element: database_clock_id, compiler: SQLCompiler, **options: Any) -> str:
    return f"{BOOT_ID_FUNCTION}()"


def _processed(element: FunctionElement[Any], compiler: SQLCompiler, options: dict[str, Any]) -> list[str]:
    return [str(compiler.process(clause, **options)) for clause in element.clauses]

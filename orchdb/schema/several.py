"""Several values that a column is compared with: how they are bound, and the SQL that compares.

Each comes with its place among those that the caller gave, so that an error can name it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import ARRAY, ColumnElement, CompoundSelect, Dialect, Select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from orchdb.errors import InvalidValueError
from orchdb.schema.column_types import CheckedType, LookedUpIdentifier, Processor, is_sqlite
from orchdb.schema.values import NoSuchRowError, looked_up_id, looked_up_uuid

Order = Callable[[Any], Sequence[ColumnElement[Any]]]
"""The order of a list, of the columns it is given."""
Placed = tuple[int, Any]
"""A place, from 0, and the value there."""


class OneOfSeveral(CheckedType):
    """One value with its place. A malformed id is the id of no row, and the other ones still are."""

    def __init__(self, kind: CheckedType, column: str) -> None:
        super().__init__()
        self.kind = kind
        self.column = column

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return self.kind.load_dialect_impl(dialect)

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        check, column = _check(self.kind, dialect), self.column

        def process(value: Placed) -> Any:
            place, given = value
            if given is None:
                raise InvalidValueError(f"{column}[{place}]: must not be None", column=column.rpartition(".")[2])
            return check(given, f"{column}[{place}]")

        return process


class Several(OneOfSeveral):
    """All of them: a JSON array on SQLite, an array on Postgres, so that a statement serves any number."""

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind = super().load_dialect_impl(dialect)
        return kind if is_sqlite(dialect) else ARRAY(kind)

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        one = super().bind_processor(dialect)
        assert one is not None

        def process(value: Sequence[Placed]) -> Any:
            checked = [one(placed) for placed in value]
            return orjson.dumps(checked).decode() if is_sqlite(dialect) else checked

        return process


def _check(kind: CheckedType, dialect: Dialect) -> Callable[[Any, str], Any]:
    if not isinstance(kind, LookedUpIdentifier):
        return kind.check(dialect)

    look_up = looked_up_id if is_sqlite(dialect) else looked_up_uuid

    def check(value: Any, column: str) -> str:
        try:
            return look_up(value)
        except NoSuchRowError:
            return str(uuid4())

    return check


def merged(
    branches: Sequence[Select[Any]],
    order: Order,
    most: ColumnElement[int] | None,
    dialect: Dialect,
) -> Select[Any] | CompoundSelect[Any]:
    """The rows of all branches in one order, which an index has for each of them: nobody has to sort.

    Args:
        branches: Selections of the same columns.
        order: Their order.
        most: How many rows are wanted, as far as that is known.
        dialect: Whom it is for. SQLite merges by itself, and takes no order of a branch; Postgres merges only what is
            in order, and knows of the limit only where it is told.
    """
    if len(branches) == 1:
        return branches[0].order_by(*order(branches[0].selected_columns))
    if not is_sqlite(dialect):
        branches = [branch.order_by(*order(branch.selected_columns)).limit(most) for branch in branches]
    union = union_all(*branches)
    return union.order_by(*order(union.selected_columns))


class is_among(FunctionElement[bool]):  # noqa: N801  # an SQL function
    """Whether a column has one of several values, bound as ``Several``."""

    inherit_cache = True  # and no boolean type: where there is none, SQLAlchemy adds a comparison, which hides indexes

    def __init__(self, column: ColumnElement[Any], values: ColumnElement[Any]) -> None:
        super().__init__(column, values)


class is_word(FunctionElement[bool]):  # noqa: N801
    """Whether a column has this word, one of the few that a partial index has.

    As a value it could be any word, and an engine would not see that the index has its rows. SQLite has to be told in
    the index's own words; Postgres sees it by itself, and would take the two for independent of each other.

    Args:
        column: The column.
        word: The word, of orchdb's own vocabulary.
        condition: What the index says of its rows.
    """

    inherit_cache = False

    def __init__(self, column: ColumnElement[Any], word: str, condition: str) -> None:
        super().__init__(column)
        self.word = word
        self.condition = condition


class is_selected(FunctionElement[bool]):  # noqa: N801
    """Whether a column has one of the values of a scalar subquery, which is run before the column is looked for."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], selected: ColumnElement[Any]) -> None:
        super().__init__(column, selected)


@compiles(is_among)
def _is_any(element: is_among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} = ANY ({values}))"


@compiles(is_among, "sqlite")
def _is_in_json(element: is_among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({values})))"  # noqa: S608  # the names are the tables' own


@compiles(is_word)
def _is_word(element: is_word, compiler: SQLCompiler, **options: Any) -> str:
    (column,) = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = '{element.word}'"


@compiles(is_word, "sqlite")
def _is_word_of_index(element: is_word, compiler: SQLCompiler, **options: Any) -> str:
    return f"{_is_word(element, compiler, **options)} AND {element.condition}"


@compiles(is_selected)
def _is_in_array(element: is_selected, compiler: SQLCompiler, **options: Any) -> str:
    column, selected = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} = ANY (ARRAY{selected}))"


@compiles(is_selected, "sqlite")
def _is_in_list(element: is_selected, compiler: SQLCompiler, **options: Any) -> str:
    column, selected = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} IN {selected})"

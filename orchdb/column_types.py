"""The column types: what a value is in Python, in SQLite and in Postgres, and which check it passes on its way in.

Each type checks with a function of ``orchdb.values`` and knows the column it stands in, so that an error names it. They
work in any SQLAlchemy statement on orchdb's tables, the caller's own included.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, Protocol

from sqlalchemy import TIMESTAMP, UUID, BigInteger, ColumnElement, Dialect, Double, Integer, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import REAL, TypeDecorator, TypeEngine

from orchdb import postgres_times, values


class Processor(Protocol):
    """SQLAlchemy's own form of a function from value to value."""

    def __call__(self, value: Any) -> Any: ...


def _is_sqlite(dialect: Dialect) -> bool:
    return dialect.name == "sqlite"


class CheckedType(TypeDecorator[Any]):
    """A column type whose values pass a check that can name the column, ``table.column``."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    place = "value"
    required = False
    on_sqlite: TypeEngine[Any] = Text()
    on_postgres: TypeEngine[Any] = Text()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.cache_ok = True  # SQLAlchemy looks for it in each class itself, and warns where it is only inherited

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return self.on_sqlite if _is_sqlite(dialect) else self.on_postgres

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return partial(self.check(dialect), place=self.place)

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return None

    def when_required(self) -> CheckedType:
        """The same type for a value that must not be NULL, whatever the column allows."""
        required = copy(self)
        required.required = True
        return required

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        """The function ``(value, place) -> stored value``."""
        raise NotImplementedError


class FreeText(CheckedType):
    """Text in which what is not portable is replaced."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.text


class Name(CheckedType):
    """Text that identifies something: what is not portable is refused."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.name


class Label(CheckedType):
    """A word of an open vocabulary."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.label


class Choice(CheckedType):
    """A word of a closed vocabulary."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        self.allowed = allowed

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.choice(self.allowed)


class Identifier(CheckedType):
    """The id of a row, as a key or a foreign key; text of any kind on SQLite, where adopted files may hold such."""

    on_postgres = UUID(as_uuid=False)

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return partial(values.foreign_key, only_uuid=not _is_sqlite(dialect))

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return None if _is_sqlite(dialect) else values.read_id


class LookedUpIdentifier(Identifier):
    """An id in a WHERE clause: a malformed one means that there is no such row."""

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return partial(values.looked_up_id, only_uuid=not _is_sqlite(dialect))


class RowNumber(CheckedType):
    """The integer id of a log row."""

    impl = BigInteger
    on_sqlite = Integer()
    on_postgres = BigInteger()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.count


class Timestamp(CheckedType):
    """A time: UTC; text of 26 characters on SQLite and in every row that comes back."""

    on_postgres = TIMESTAMP(timezone=True)

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.stored_time if _is_sqlite(dialect) else values.moment

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return values.read_time


class StoredTime(Timestamp):
    """A time as it is stored, for a position that was read and is given back."""

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return None

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return None


class CursorTime(Timestamp):
    """The time in a cursor; on Postgres also one of another program's that no ``datetime`` can be."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.stored_time if _is_sqlite(dialect) else postgres_times.position


class JsonDocument(CheckedType):
    """Any JSON value; ``None`` is NULL."""

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if _is_sqlite(dialect):
            return self.on_sqlite
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415  # an SQLite program needs no other dialect

        return JSONB()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.json_text

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        # The Postgres drivers decode jsonb themselves; decoding a JSON string a second time would be wrong.
        return values.read_json if _is_sqlite(dialect) else None


class JsonObjectDocument(JsonDocument):
    """A JSON object, given as a mapping or as its text."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.json_object


class Cost(CheckedType):
    """US dollars."""

    impl = Double
    on_sqlite = REAL()
    on_postgres = Double()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.cost


class Count(CheckedType):
    """A whole number from 0."""

    impl = BigInteger
    on_sqlite = Integer()
    on_postgres = BigInteger()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.count


class total(FunctionElement[Any]):  # noqa: N801  # an SQL function
    """A column plus a value, where NULL counts as 0; costs stay rounded to 1e-9."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> None:
        super().__init__(column, value)
        self.type = column.type


@compiles(total)
def _total(element: total, compiler: SQLCompiler, **options: Any) -> str:
    column, value = (compiler.process(clause, **options) for clause in element.clauses)
    added = f"coalesce({column}, 0) + {value}"
    if not isinstance(element.type, Cost):
        return added
    # From 2**23 on there is nothing left to round.
    if _is_sqlite(compiler.dialect):
        # SQLite rounds by way of text, not to the last digit.
        return f"CASE WHEN abs({added}) < 8388608.0 THEN round({added}, 9) ELSE {added} END"
    # Postgres can only round a numeric so, and what it makes of a double depends on extra_float_digits.
    return f"CASE WHEN abs({added}) < 8388608.0 THEN round(({added}) * 1e9) / 1e9 ELSE {added} END"

"""The column types: what a value is in Python, in SQLite and in Postgres, and which check it passes on its way in.

Each type checks with a function of ``orchdb.schema.values`` and knows the column it stands in, so that an error names
it. They work in any SQLAlchemy statement on orchdb's tables, the caller's own included.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Protocol

from sqlalchemy import TIMESTAMP, UUID, BigInteger, ColumnElement, Dialect, Double, Integer, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import REAL, TypeDecorator, TypeEngine

from orchdb.schema import json_values, postgres_times, spellings, values


class Processor(Protocol):
    """SQLAlchemy's own form of a function from value to value."""

    def __call__(self, value: Any) -> Any: ...


def is_sqlite(dialect: Dialect) -> bool:
    return dialect.name == "sqlite"


class CheckedType(TypeDecorator[Any]):
    """A column type whose values pass a check that can name the column, ``table.column``.

    Attributes:
        plain: The type and the range of stored values that need no result processor.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    column = "value"
    required = False
    plain: tuple[type, float, float] | None = None
    on_sqlite: TypeEngine[Any] = Text()
    on_postgres: TypeEngine[Any] = Text()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.cache_ok = True  # SQLAlchemy looks for it in each class itself, and warns where it is only inherited

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return self.on_sqlite if is_sqlite(dialect) else self.on_postgres

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        check, column = self.check(dialect), self.column

        def checked(value: Any) -> Any:
            return check(value, column)

        return checked  # a partial with a keyword takes twice the time, 0.1 µs more, and a row has six values

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return None

    def when_required(self) -> CheckedType:
        """The same type for a value that must not be NULL, whatever the column allows."""
        required = copy(self)
        required.required = True
        return required

    def of_parameter(self, name: str) -> CheckedType:
        """The same type for a parameter that is not called as the column is: an error names what the caller gave."""
        named = copy(self)
        named.column = name
        return named

    def looked_up(self) -> CheckedType:
        """The type of a value that is only compared with the column."""
        return self

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        """The function ``(value, column) -> stored value``."""
        raise NotImplementedError


class FreeText(CheckedType):
    """Text in which what is not portable is replaced."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.text


class Name(CheckedType):
    """Text that identifies something: what is not portable is refused."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.name


class Word(Name):
    """A name that is indexed: a long one is refused. It can be looked up, because an adopted file may have one."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.word

    def looked_up(self) -> CheckedType:
        return self._also(Name())

    def _also(self, kind: CheckedType) -> CheckedType:
        kind.column, kind.required = self.column, self.required
        return kind


class Label(Word):
    """A word of an open vocabulary."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.label

    def looked_up(self) -> CheckedType:
        return self._also(LookedUpLabel())


class LookedUpLabel(Label):
    """A label in a WHERE clause."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.looked_up_label


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
        return values.foreign_key if is_sqlite(dialect) else values.foreign_uuid

    def looked_up(self) -> CheckedType:
        return LookedUpIdentifier()

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return None if is_sqlite(dialect) else values.decode_id


class LookedUpIdentifier(Identifier):
    """An id in a WHERE clause: a malformed one means that there is no such row."""

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return values.looked_up_id if is_sqlite(dialect) else values.looked_up_uuid


class RowNumber(CheckedType):
    """The integer id of a log row."""

    impl = BigInteger
    on_sqlite = Integer()
    on_postgres = BigInteger()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.count


class ReadNumber(RowNumber):
    """The id of a log row that was read, whatever another program has made it."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        def unchanged(value: Any, column: str) -> Any:
            return value

        return unchanged


class Timestamp(CheckedType):
    """A time: UTC; text of 26 characters on SQLite and in every row that comes back."""

    on_postgres = TIMESTAMP(timezone=True)

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.encode_time if is_sqlite(dialect) else values.moment

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return spellings.decode_time


class StoredTime(Timestamp):
    """A time as it is stored, for a position that was read and is given back; NULL if that cannot be exact."""

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return spellings.exactly if is_sqlite(dialect) else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return None


class CursorTime(Timestamp):
    """The time in a cursor, which may be any that another program wrote.

    On SQLite any text, and on Postgres also one that no ``datetime`` can be.
    """

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return None if is_sqlite(dialect) else super().bind_processor(dialect)

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return postgres_times.position


class CursorIdentifier(LookedUpIdentifier):
    """The id in a cursor; on SQLite also a BLOB."""

    def bind_processor(self, dialect: Dialect) -> Processor | None:
        return None if is_sqlite(dialect) else super().bind_processor(dialect)


class JsonDocument(CheckedType):
    """Any JSON value; ``None`` is NULL."""

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if is_sqlite(dialect):
            return self.on_sqlite
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415  # an SQLite program needs no other dialect

        return JSONB()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return json_values.encode_json

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        # The Postgres drivers decode jsonb themselves; decoding a JSON string a second time would be wrong.
        return spellings.decode_json if is_sqlite(dialect) else None


class JsonObjectDocument(JsonDocument):
    """A JSON object, given as a mapping or as its text."""

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return json_values.encode_json_object


class Cost(CheckedType):
    """US dollars."""

    plain = (float, -spellings.LARGEST, spellings.LARGEST)
    impl = Double
    on_sqlite = REAL()
    on_postgres = Double()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.cost

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return spellings.decode_cost


class Seconds(CheckedType):
    """A span of time, or how far a clock has come."""

    impl = Double
    on_sqlite = REAL()
    on_postgres = Double()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.cost  # a finite number, to the nanosecond


class Count(CheckedType):
    """A whole number from 0."""

    plain = (int, -values.MAX_INTEGER - 1, values.MAX_INTEGER)
    impl = BigInteger
    on_sqlite = Integer()
    on_postgres = BigInteger()

    def check(self, dialect: Dialect) -> Callable[..., Any]:
        return values.count

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        return spellings.decode_count if is_sqlite(dialect) else None


class total(FunctionElement[Any]):  # noqa: N801  # an SQL function
    """A column plus a value, where NULL counts as 0; costs stay rounded to 1e-9."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> None:
        super().__init__(column, value)
        self.type = column.type


class moved(FunctionElement[Any]):  # noqa: N801  # an SQL function
    """A cost plus a new cost less an old one, where NULL counts as 0: exactly, in whole nano-dollars, however often.

    It stays as it is where no column could hold it.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], new: ColumnElement[Any], old: ColumnElement[Any]) -> None:
        super().__init__(column, new, old)
        self.type = column.type


class later(FunctionElement[Any]):  # noqa: N801  # an SQL function
    """A time, and a microsecond after the column's own where the two are equal: on a clock that stands still.

    The triggers that serve other programs take a time that stays as it is for one that was forgotten.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], value: ColumnElement[Any]) -> None:
        super().__init__(column, value)
        self.type = column.type


@compiles(later)
def _later(element: later, compiler: SQLCompiler, **options: Any) -> str:
    column, value = (compiler.process(clause, **options) for clause in element.clauses)
    following = f"{column} + interval '1 microsecond'"
    if is_sqlite(compiler.dialect):
        following = f"substr({column}, 1, 20) || printf('%06d', (substr({column}, 21) + 1) % 1000000)"
    return f"coalesce(nullif({value}, {column}), {following})"


@compiles(moved)
def _moved(element: moved, compiler: SQLCompiler, **options: Any) -> str:
    column, new, old = (f"coalesce({compiler.process(clause, **options)}, 0)" for clause in element.clauses)
    # Up to 2**23 dollars a sum of whole nano-dollars is below 2**53, and has no error.
    return (
        f"CASE WHEN abs({column}) < 4194304.0 AND abs({new}) < 2097152.0 AND abs({old}) < 2097152.0 "
        f"THEN (round({column} * 1e9) + (round({new} * 1e9) - round({old} * 1e9))) / 1e9 "
        f"WHEN abs({column} * 0.5 + ({new} * 0.5 - {old} * 0.5)) < {values.HALF_OF_MOST} "
        f"THEN {column} + ({new} - {old}) ELSE {column} END"
    )


@compiles(total)
def _total(element: total, compiler: SQLCompiler, **options: Any) -> str:
    column, value = (compiler.process(clause, **options) for clause in element.clauses)
    added = f"coalesce({column}, 0) + {value}"
    if not isinstance(element.type, Cost):
        return added
    # From 2**23 on there is nothing left to round.
    if is_sqlite(compiler.dialect):
        # SQLite rounds by way of text, not to the last digit.
        return f"CASE WHEN abs({added}) < 8388608.0 THEN round({added}, 9) ELSE {added} END"
    # Postgres can only round a numeric so, and what it makes of a double depends on extra_float_digits.
    return f"CASE WHEN abs({added}) < 8388608.0 THEN round(({added}) * 1e9) / 1e9 ELSE {added} END"

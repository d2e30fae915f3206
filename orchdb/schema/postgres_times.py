"""Times as Postgres has them: further than a ``datetime`` goes, and the same whatever the session's settings are.

Both drivers give a time as the number that the server sends, which no DateStyle and no TimeZone changes. What no
``datetime`` can be (infinities, years before 1 and after 9999) comes as the text that the server would show, in UTC.
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, date, datetime, timedelta
from typing import Any

from orchdb.schema.values import moment

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITY, _MINUS_INFINITY = 2**63 - 1, -(2**63)
_DAY = 86_400_000_000
# The calendar repeats itself after 400 years.
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097
_FAR = re.compile(
    r"(?P<year>\d{4,6})-(?P<rest>\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)(?P<before> BC)?|(?P<sign>-?)infinity", re.ASCII
)
_unpack = struct.Struct("!q").unpack


def position(value: object, column: str) -> object:
    """The time in a cursor, which may be one that no ``datetime`` can be."""
    return value if isinstance(value, str) and _FAR.fullmatch(value) else moment(value, column)


def time_of(microseconds: int) -> datetime | str:
    """The time so many microseconds after 2000 began."""
    try:
        return _EPOCH + timedelta(0, 0, microseconds)
    except OverflowError:
        pass
    if microseconds in (_INFINITY, _MINUS_INFINITY):
        return "infinity" if microseconds > 0 else "-infinity"
    days, rest = divmod(microseconds, _DAY)
    cycles, days = divmod(days, _CYCLE_DAYS)
    near = _EPOCH + timedelta(days, 0, rest)
    year = near.year + cycles * _CYCLE_YEARS
    shown = f"{near:%m-%dT%H:%M:%S.%fZ}"
    return f"{year:04}-{shown}" if year > 0 else f"{1 - year:04}-{shown} BC"


def microseconds_of(value: object) -> int:
    """The inverse of ``time_of``; a naive time is one of this machine's zone, as the driver has it."""
    if isinstance(value, str):
        return _far(value)
    if not isinstance(value, datetime):
        if not isinstance(value, date):
            raise TypeError(f"expected a datetime, got {type(value).__name__}")
        value = datetime(value.year, value.month, value.day).astimezone()
    gone = (value if value.tzinfo is not None else value.astimezone(UTC)) - _EPOCH
    return (gone.days * 86400 + gone.seconds) * 1_000_000 + gone.microseconds


def _far(text: str) -> int:
    found = _FAR.fullmatch(text)
    if found is None:
        raise TypeError("expected a datetime, got text")
    if found["year"] is None:
        return _MINUS_INFINITY if found["sign"] else _INFINITY
    year = int(found["year"])
    cycles, year = divmod((1 - year if found["before"] else year) - 2000, _CYCLE_YEARS)
    near = datetime.strptime(f"{year + 2000}-{found['rest']}", "%Y-%m-%dT%H:%M:%S.%f%z")
    return microseconds_of(near) + cycles * _CYCLE_DAYS * _DAY


async def use_in_asyncpg(connection: Any) -> None:
    """Have a connection of asyncpg's read and write times so."""

    def encode(value: object) -> tuple[int]:
        return (microseconds_of(value),)

    def decode(value: tuple[int]) -> datetime | str:
        return time_of(value[0])

    await connection.set_type_codec("timestamptz", schema="pg_catalog", format="tuple", encoder=encode, decoder=decode)


def use_in_psycopg(connection: Any) -> None:
    """Have a connection of psycopg's read times so, where it asks for them in binary; it writes them as text."""
    from psycopg.adapt import Loader  # noqa: PLC0415  # only where it is used
    from psycopg.pq import Format  # noqa: PLC0415

    class TimeLoader(Loader):
        format = Format.BINARY

        def load(self, data: Any) -> datetime | str:
            return time_of(_unpack(data)[0])

    connection.adapters.register_loader("timestamptz", TimeLoader)

"""What other programs write where orchdb has one form: how it is understood, and how it is shown.

SQLite keeps what it is given: a time may be any text or a BLOB, a count may be a word. Nothing of that may break a
list. So a time is shown in the one form if it can be understood, and otherwise as it is; a BLOB, and text that is no
UTF-8, as text; a number that is none, or that JSON does not know, as NULL. What is shown remembers what is stored: that
alone says where the row stands in its list.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from orchdb.schema.json_values import MAX_JSON_DEPTH
from orchdb.schema.values import MAX_INTEGER, UNPORTABLE, time_text

_LONGEST = 64
LARGEST = 1.7976931348623157e308

# The last second that has ten digits is in 2286, the first in 2001. Other lengths could as well be something else:
# twelve digits are milliseconds of the last century, or 202601011200.
_UNIX = re.compile(r"([1-9][0-9]{9})((?:[0-9]{3}){0,3})(?:\.([0-9]*))?")
_JULIAN_DAY = re.compile(r"2[0-9]{6}\.[0-9]+")
_DIGITS = re.compile(r"([0-9]{8})([0-9]{6})([0-9]{3})?")
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}|[0-9]{4}-?W[0-9]{2}(?:-?[0-9])?)"  # also 20261125 and 2026-W48-3
    r"(?:[T ]([0-9][0-9:.,]*)"
    # Also +02, +0200 and, after a blank, what Go adds: +0000 UTC m=+0.001
    r"(?: ?(?:(Z|UTC|GMT)|([+-][0-9]{2}(?::?[0-9]{2})?)(?: [A-Z]{2,5}(?: M=[+-][0-9.]+)?)?))?)?"
)


class TextBytes(bytes):
    """Text of the database that is no UTF-8."""

    __slots__ = ()


class AsStored(str):
    """Text that is shown for something else, or for a time that nobody understands.

    Attributes:
        stored: What is stored: text, a BLOB, or text that is no UTF-8.
    """

    __slots__ = ("stored",)
    stored: str | bytes | None

    def __new__(cls, text: str, stored: str | bytes | None = None) -> AsStored:
        shown = super().__new__(cls, text)
        shown.stored = stored
        return shown


def has_the_one_form(text: str) -> bool:
    """Whether the text looks like a time as orchdb writes it; that it is one is not sure."""
    return len(text) == 26 and text[10] == "T" and text[20:].isdigit()


def understood(text: str) -> datetime | None:
    """The UTC time that a text means, in any spelling that means only one; a naive one is UTC.

    ISO 8601 in all its forms, seconds since 1970 and their thousandths, millionths and billionths, and julian days with
    a fraction. A text such as ``11/12/2026`` means two.
    """
    text = text.strip(" ").upper()
    if len(text) > _LONGEST or not text.isascii():
        return None
    try:
        return _moment(text)
    except (ValueError, OverflowError):
        return None


def _moment(text: str) -> datetime | None:
    if found := _UNIX.fullmatch(text):
        seconds, parts, fraction = found.groups()
        microseconds = int(f"{parts}{fraction or ''}000000"[:6])
        return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=microseconds)
    if _JULIAN_DAY.fullmatch(text):
        # In whole milliseconds, as SQLite counts them: a julian day holds no more.
        milliseconds = int(float(text) * 86_400_000 + 0.5) - 210_866_760_000_000
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    if found := _DIGITS.fullmatch(text):
        day, clock, fraction = found.groups()
        return datetime.fromisoformat(f"{day}T{clock}.{fraction or '000'}").replace(tzinfo=UTC)
    if not (found := _ISO.fullmatch(text)):
        return None
    day, clock, _, offset = found.groups()
    if clock is None:
        return datetime.fromisoformat(day).replace(tzinfo=UTC)
    return datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}").astimezone(UTC)


def one_form(value: Any) -> str | None:
    """The time in the one form; ``None`` for what is no time. What SQL on SQLite calls ``orchdb_time``."""
    moment = understood(_as_text(value)) if isinstance(value, (str, bytes)) else None
    return None if moment is None else time_text(moment)


def decode_time(value: Any) -> Any:
    """A stored time in the one form; what is no time comes back as it is."""
    if isinstance(value, str):
        if len(value) == 26 and value[10] == "T" and value[20:].isdigit():
            return value
        return AsStored(one_form(value) or value, _stored(value))
    if isinstance(value, datetime):
        try:
            return time_text(value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))
        except OverflowError:
            return value.isoformat()
    if isinstance(value, bytes):
        return AsStored(one_form(value) or _as_text(value), value)
    return value


def decode_cost(value: Any) -> float | None:
    """A stored number; ``None`` for what is none, and for an infinity, which JSON does not know."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def decode_count(value: Any) -> int | None:
    """A stored whole number; the nearest one to a fraction, and ``None`` for what is no number."""
    if type(value) is int:
        return value
    number = decode_cost(value)
    return round(number) if number is not None and abs(number) < MAX_INTEGER else None


def decode_json(value: Any) -> Any:
    """The value that JSON text holds; text that is not JSON, or is nested too deep, comes back as that text."""
    if type(value) is not str:
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, str):
            value = str(value)
        else:
            return value
    try:  # for every row: contextlib.suppress would cost more than the decoding
        found = orjson.loads(value)
    except ValueError:
        found = _read_loose_json(value)
    if len(value) > 2 * MAX_JSON_DEPTH and value.count("[") + value.count("{") > MAX_JSON_DEPTH and _is_too_deep(found):
        return value
    return found


def _read_loose_json(value: str) -> Any:
    """What Python's own json writes and JSON does not know: NaN and infinities become null, surrogates U+FFFD."""
    with contextlib.suppress(ValueError, RecursionError):
        found: object = json.loads(value, parse_constant=lambda _: None, parse_float=_finite)
        if isinstance(found, (dict, list)):
            return orjson.loads(UNPORTABLE.sub("\ufffd", json.dumps(found, ensure_ascii=False)))
    return value


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _is_too_deep(found: Any) -> bool:
    level: list[Any] = [found]
    for _ in range(MAX_JSON_DEPTH):
        inner: list[Any] = []
        for item in level:
            inner += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        level = inner
    return any(isinstance(item, (dict, list)) for item in level)


def decode_text(text: bytes) -> str:
    """Stored text; what is no UTF-8 becomes U+FFFD."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return AsStored(text.decode(errors="replace"), TextBytes(text))


def readable(rows: list[dict[str, Any]], raws: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows, with text in the place of BLOBs: JSON knows none, and no column of orchdb's is meant to hold one.

    Args:
        rows: The rows; they are changed.
        raws: The same as the driver gave them: to ask them all at once for a BLOB costs next to nothing.
    """
    if bytes in {type(cell) for raw in raws for cell in raw}:
        for row in rows:
            row.update({name: AsStored(_as_text(cell), cell) for name, cell in row.items() if type(cell) is bytes})
    return rows


def exactly(value: Any) -> str | bytes | None:
    """What stands in the database for what is shown, if it can be bound to a statement just as it is.

    Not text that is no UTF-8, and not for sure what is no ASCII: a file in UTF-16 may hold more than UTF-8 can say.
    """
    if isinstance(value, AsStored):
        value = value.stored
    return value if type(value) is bytes or (isinstance(value, str) and value.isascii()) else None


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _stored(value: str) -> str | bytes | None:
    return value.stored if isinstance(value, AsStored) else value

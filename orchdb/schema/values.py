"""What a value may be: the one form of times, ids, JSON and text that both engines store alike.

Portable by construction: what one engine would refuse never makes the two differ. In free text and JSON a NUL or a lone
surrogate becomes U+FFFD and NaN or an infinity becomes null, with a warning that names the column; in ids, names and
vocabulary it is an error.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson

from orchdb.errors import InvalidValueError, MissingParentError
from orchdb.schema.naive_times import warn_of_naive

logger = logging.getLogger("orchdb")

MAX_INTEGER = 2**63 - 1
MAX_BYTES = 64 * 2**20
HALF_OF_MOST = "8.988465674311579e307"
"""Half of the largest float."""
"""Of one text or JSON value."""
MAX_WORD = 500
"""Characters of a word that is indexed, and so at most 2,000 bytes: Postgres takes some 2,700 into an index."""
SURELY_FITS = MAX_BYTES // 4
"""Characters that are within ``MAX_BYTES`` whatever they are."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
UNPORTABLE = re.compile("[\0\ud800-\udfff]")


class NoSuchRowError(Exception):
    """A malformed id was looked up: no row can have it, so no statement needs to run."""


# -- ids -------------------------------------------------------------------------------------------------------------

_last_instant = [0]
_id_lock = threading.Lock()


def new_id() -> str:
    """A new UUIDv7: 36 characters that sort as text in the order of creation, also within one tick of the clock."""
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    # RFC 9562, section 6.2, method 3: the 12 bits after the version hold the fraction of the millisecond.
    instant = milliseconds << 12 | rest * 4096 // 1_000_000
    with _id_lock:
        instant = _last_instant[0] = max(instant, _last_instant[0] + 1)
    tail = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{(instant >> 12) << 80 | 7 << 76 | (instant & 0xFFF) << 64 | 2 << 62 | tail:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def canonical_id(value: object, column: str) -> str:
    """The one spelling of the UUID that a caller gives to a new row."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return str(uuid.UUID(value))
    raise InvalidValueError(f"{column}: must be a UUID", column=_bare(column))


def looked_up_id(value: object) -> str:
    """The id as the engine compares it, where an id may be any text.

    Raises:
        NoSuchRowError: No row can have such an id.
    """
    if type(value) is not str:
        value = str(value) if isinstance(value, (str, uuid.UUID)) else "\0"
    if (not value.isascii() or "\0" in value) and UNPORTABLE.search(value):
        raise NoSuchRowError
    return value


def looked_up_uuid(value: object) -> str:
    """The id as the engine compares it, where only a UUID can be bound.

    Raises:
        NoSuchRowError: No row can have such an id.
    """
    text = looked_up_id(value)
    # In the place of another text one that no row can have: as on SQLite, the statement then finds none.
    return text if _CANONICAL_UUID.fullmatch(text) else str(uuid.uuid4())


def decode_id(value: Any) -> Any:
    """A stored id as text."""
    return None if value is None else str(value)


def foreign_key(value: object, column: str) -> str | None:
    """The id of a parent row, where an id may be any text.

    Raises:
        InvalidValueError: The id holds a NUL or a lone surrogate.
        MissingParentError: No row can have such an id.
    """
    if type(value) is str and value.isascii() and "\0" not in value:
        return value
    return _parent(value, column, looked_up_id)


def foreign_uuid(value: object, column: str) -> str | None:
    """What ``foreign_key`` gives, where only a UUID can be bound."""
    if type(value) is str and _CANONICAL_UUID.fullmatch(value):
        return value
    return _parent(value, column, looked_up_uuid)


def _parent(value: object, column: str, looked_up: Callable[[object], str]) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        name(value, column)
    try:
        return looked_up(value)
    except NoSuchRowError:
        pass
    raise MissingParentError(f"{column}: there is no row with this id", column=_bare(column))


# -- text ------------------------------------------------------------------------------------------------------------


def text(value: object, column: str) -> str | None:
    """Free text: what is not portable is replaced visibly."""
    if value is None:
        return None
    if type(value) is not str:
        value = _as_text(value, column)
    if (not value.isascii() or "\0" in value) and UNPORTABLE.search(value):
        _warn(column, "a NUL or a lone surrogate was replaced by U+FFFD")
        value = UNPORTABLE.sub("\ufffd", value)
    return value if len(value) <= SURELY_FITS else within_size(value, column)


def name(value: object, column: str) -> str | None:
    """Text that identifies something: what is not portable is refused."""
    if value is None:
        return None
    if type(value) is not str:
        value = _as_text(value, column)
    if (not value.isascii() or "\0" in value) and UNPORTABLE.search(value):
        raise InvalidValueError(f"{column}: holds a NUL or a lone surrogate", column=_bare(column))
    return value if len(value) <= SURELY_FITS else within_size(value, column)


def word(value: object, column: str) -> str | None:
    """A name that is indexed, and therefore short."""
    if type(value) is str and value.isascii() and "\0" not in value and len(value) <= MAX_WORD:
        return value
    found = name(value, column)
    if found is not None and len(found) > MAX_WORD:
        raise InvalidValueError(f"{column}: is longer than {MAX_WORD} characters", column=_bare(column))
    return found


def label(value: object, column: str) -> str | None:
    """A word of an open vocabulary: any one but the empty one."""
    if type(value) is str and value.isascii() and "\0" not in value and 0 < len(value) <= MAX_WORD:
        return value
    return _not_empty(word(value, column), column)


def looked_up_label(value: object, column: str) -> str | None:
    """A label that is only compared with others: an adopted file may have a long one."""
    return _not_empty(name(value, column), column)


def _not_empty(found: str | None, column: str) -> str | None:
    if found == "":
        raise InvalidValueError(f"{column}: must not be empty", column=_bare(column))
    return found


def within_size(value: str, column: str) -> str:
    """The text, if it is no larger than a text may be."""
    size = len(value) if value.isascii() else len(value.encode())
    if size <= MAX_BYTES:
        return value
    raise InvalidValueError(f"{column}: is larger than {MAX_BYTES // 2**20} MiB", column=_bare(column))


def choice(allowed: tuple[str, ...]) -> Callable[[object, str], str | None]:
    """The check of a closed vocabulary."""
    known = {word: word for word in allowed}

    def check(value: object, column: str) -> str | None:
        if value is None:
            return None
        try:
            return known[value]  # type: ignore[index]  # anything hashable may be asked for; the rest is a TypeError
        except (KeyError, TypeError):
            pass
        raise InvalidValueError(f"{column}: must be one of {', '.join(allowed)}", column=_bare(column))

    return check


# -- times -----------------------------------------------------------------------------------------------------------


def now() -> datetime:
    """The present, UTC, in whole microseconds."""
    return datetime.now(UTC)


def time_text(moment: datetime) -> str:
    """The one form of a time: UTC, ``YYYY-MM-DDTHH:MM:SS.ffffff``, 26 characters that sort as text."""
    if moment.microsecond:
        try:
            # Without the quotes and the zone: a fifth of the time of isoformat.
            return orjson.dumps(moment)[1:27].decode()
        except TypeError:
            pass  # a subclass: of a library for dates, or of one that stops the clock
    return moment.isoformat(timespec="microseconds")[:26]


def moment(value: object, column: str) -> datetime | None:
    """The UTC time that a ``datetime`` or an ISO 8601 text gives; a naive one is UTC, as an object with a warning."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return _in_utc(datetime.fromisoformat(value.strip()))
        if isinstance(value, datetime):
            if value.tzinfo is not UTC and value.utcoffset() is None:
                warn_of_naive(column)
            return _in_utc(value)
    except (ValueError, OverflowError):
        pass
    raise InvalidValueError(f"{column}: must be a datetime or an ISO 8601 text", column=_bare(column))


def _in_utc(moment: datetime) -> datetime:
    # Not by its tzinfo: one that tells no offset would be taken for local time.
    return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)


def encode_time(value: object, column: str) -> str | None:
    """The text of the UTC time that a ``datetime`` or an ISO 8601 text gives."""
    if type(value) is datetime and value.tzinfo is UTC:  # from now(): nothing to check and nothing to convert
        return time_text(value)
    instant = moment(value, column)
    return None if instant is None else time_text(instant)


# -- numbers ---------------------------------------------------------------------------------------------------------


def cost(value: object, column: str) -> float | None:
    """US dollars, rounded to 1e-9."""
    if value is None:
        return None
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        try:
            dollars = round(float(value), 9)
        except (OverflowError, ValueError):
            dollars = math.inf
        if math.isfinite(dollars):
            return dollars + 0.0  # -0.0, which only Postgres would keep, becomes 0.0
    raise InvalidValueError(f"{column}: must be a finite number", column=_bare(column))


def count(value: object, column: str) -> int | None:
    """A whole number from 0 to 2**63 - 1."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER:
        return int(value)
    raise InvalidValueError(f"{column}: must be a whole number from 0 to 2**63 - 1", column=_bare(column))


# -- JSON ------------------------------------------------------------------------------------------------------------


# --------------------------------------------------------------------------------------------------------------------


def _as_text(value: object, column: str) -> str:
    if isinstance(value, str):
        return str(value.value) if isinstance(value, Enum) else str(value)
    raise InvalidValueError(f"{column}: must be text, not {type(value).__name__}", column=_bare(column))


def _bare(column: str) -> str:
    return column.rpartition(".")[2].partition("[")[0]  # without the place among several


def _warn(column: str, what: str) -> None:
    logger.warning("%s: %s", column, what)

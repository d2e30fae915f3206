"""What a value may be: the one form of times, ids, JSON and text that both engines store alike.

Portable by construction: what one engine would refuse never makes the two differ. In free text and JSON a NUL or a lone
surrogate becomes U+FFFD and NaN or an infinity becomes null, with a warning that names the column; in ids, names and
vocabulary it is an error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, cast

import orjson

from orchdb.errors import InvalidValueError, MissingParentError

logger = logging.getLogger("orchdb")

MAX_INTEGER = 2**63 - 1
MAX_JSON_DEPTH = 254
"""Containers inside containers; the depth up to which the JSON encoder works."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_UNPORTABLE = re.compile("[\0\ud800-\udfff]")
# What stands for text that is no UUID where only a UUID can be bound: as on SQLite, the statement then finds no row.
_NO_ROW = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_JSON_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


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


def looked_up_id(value: object, *, only_uuid: bool) -> str:
    """The id as the engine compares it.

    Raises:
        NoSuchRowError: No row can have such an id.
    """
    if type(value) is not str:
        value = str(value) if isinstance(value, (str, uuid.UUID)) else "\0"
    if only_uuid and _CANONICAL_UUID.fullmatch(value):
        return value
    if (not value.isascii() or "\0" in value) and _UNPORTABLE.search(value):
        raise NoSuchRowError
    return _NO_ROW if only_uuid else value


def read_id(value: Any) -> Any:
    """A stored id as text."""
    return None if value is None else str(value)


def foreign_key(value: object, place: str, *, only_uuid: bool) -> str | None:
    """The id of a parent row.

    Raises:
        InvalidValueError: The id holds a NUL or a lone surrogate.
        MissingParentError: No row can have such an id.
    """
    if value is None:
        return None
    if not only_uuid and type(value) is str and value.isascii() and "\0" not in value:
        return value
    if isinstance(value, str):
        name(value, place)
    try:
        return looked_up_id(value, only_uuid=only_uuid)
    except NoSuchRowError:
        pass
    raise MissingParentError(f"{place}: there is no row with this id", column=_column(place))


# -- text ------------------------------------------------------------------------------------------------------------


def text(value: object, place: str) -> str | None:
    """Free text: what is not portable is replaced visibly."""
    if value is None:
        return None
    if type(value) is not str:
        value = _as_text(value, place)
    if value.isascii():
        if "\0" not in value:
            return value
    elif not _UNPORTABLE.search(value):
        return value
    _warn(place, "a NUL or a lone surrogate was replaced by U+FFFD")
    return _UNPORTABLE.sub("\ufffd", value)


def name(value: object, place: str) -> str | None:
    """Text that identifies something: what is not portable is refused."""
    if value is None:
        return None
    if type(value) is not str:
        value = _as_text(value, place)
    if (not value.isascii() or "\0" in value) and _UNPORTABLE.search(value):
        raise InvalidValueError(f"{place}: holds a NUL or a lone surrogate", column=_column(place))
    return value


def label(value: object, place: str) -> str | None:
    """A word of an open vocabulary: any name but the empty one."""
    if type(value) is str and value.isascii() and value and "\0" not in value:
        return value
    word = name(value, place)
    if word == "":
        raise InvalidValueError(f"{place}: must not be empty", column=_column(place))
    return word


def choice(allowed: tuple[str, ...]) -> Callable[[object, str], str | None]:
    """The check of a closed vocabulary."""
    known = {word: word for word in allowed}

    def check(value: object, place: str) -> str | None:
        if value is None:
            return None
        try:
            return known[value]  # type: ignore[index]  # anything hashable may be asked for; the rest is a TypeError
        except (KeyError, TypeError):
            pass
        raise InvalidValueError(f"{place}: must be one of {', '.join(allowed)}", column=_column(place))

    return check


# -- times -----------------------------------------------------------------------------------------------------------


def now() -> datetime:
    """The present, UTC, in whole microseconds."""
    return datetime.now(UTC)


def time_text(moment: datetime) -> str:
    """The one form of a time: UTC, ``YYYY-MM-DDTHH:MM:SS.ffffff``, 26 characters that sort as text."""
    if moment.microsecond and type(moment) is datetime:
        return orjson.dumps(moment)[1:27].decode()  # without the quotes and the zone: a fifth of the time of isoformat
    return moment.isoformat(timespec="microseconds")[:26]


def moment(value: object, place: str) -> datetime | None:
    """The UTC time that a ``datetime`` or an ISO 8601 text gives; a naive one is UTC."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidValueError(f"{place}: must be a datetime or an ISO 8601 text", column=_column(place))


def stored_time(value: object, place: str) -> str | None:
    """The text of the UTC time that a ``datetime`` or an ISO 8601 text gives."""
    if type(value) is datetime and value.tzinfo is UTC:  # from now(): nothing to check and nothing to convert
        return time_text(value)
    instant = moment(value, place)
    return None if instant is None else time_text(instant)


# -- numbers ---------------------------------------------------------------------------------------------------------


def cost(value: object, place: str) -> float | None:
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
    raise InvalidValueError(f"{place}: must be a finite number", column=_column(place))


def count(value: object, place: str) -> int | None:
    """A whole number from 0 to 2**63 - 1."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER:
        return int(value)
    raise InvalidValueError(f"{place}: must be a whole number from 0 to 2**63 - 1", column=_column(place))


# -- JSON ------------------------------------------------------------------------------------------------------------


def json_text(value: object, place: str) -> str | None:
    """Any JSON value as JSON text, without ``\\u`` escapes; ``None`` is NULL."""
    if value is None:
        return None
    try:
        encoded = orjson.dumps(value, option=_JSON_OPTIONS).decode()
    except (TypeError, ValueError):
        encoded = None
    # The rest is rare: NaN comes out as null, NUL as an escape, and from jsonb 1e+16 would come back as an integer and
    # -0.0 without its sign. (Looked for in the text: in the bytes it takes twice the time.)
    if encoded is None or "null" in encoded or "\\u0000" in encoded or "e+" in encoded or "-0.0" in encoded:
        encoded = orjson.dumps(_portable(value, place, 1)).decode()
    return encoded


def json_object(value: Any, place: str) -> str | None:
    """A JSON object, given as a mapping or as the text of one, as JSON text."""
    if value is None:
        return None
    if isinstance(value, str):
        value = read_json(value)
    if isinstance(value, Mapping):
        return json_text(cast("object", value), place)
    raise InvalidValueError(f"{place}: must be a JSON object", column=_column(place))


def read_json(value: Any) -> Any:
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
            return orjson.loads(_UNPORTABLE.sub("\ufffd", json.dumps(found, ensure_ascii=False)))
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


def _portable(value: Any, place: str, depth: int) -> Any:
    """The value in JSON's own types, with what is not portable replaced."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, str, int, float, uuid.UUID)):
        return _portable_scalar(value, place)
    if not isinstance(value, (Mapping, list, tuple)):
        raise InvalidValueError(f"{place}: holds a {type(value).__name__}, which is not JSON", column=_column(place))
    if depth > MAX_JSON_DEPTH:
        raise InvalidValueError(f"{place}: is nested deeper than {MAX_JSON_DEPTH} levels", column=_column(place))
    if isinstance(value, Mapping):
        return _portable_object(value, place, depth)  # pyright: ignore[reportUnknownArgumentType]
    return [_portable(item, place, depth + 1) for item in cast("Sequence[Any]", value)]


def _portable_scalar(value: bool | str | float | uuid.UUID | None, place: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidValueError(f"{place}: holds an integer of more than 64 bits", column=_column(place))
        return int(value)
    if isinstance(value, float):
        return _portable_float(float(value), place)
    return text(str(value), place)


def _portable_object(value: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        word = text(key if isinstance(key, str) else _key_text(key, place), place) or ""
        if word in result:
            raise InvalidValueError(f"{place}: holds two keys that are the same in JSON", column=_column(place))
        result[word] = _portable(item, place, depth + 1)
    return result


def _key_text(key: object, place: str) -> str:
    """A key that is no text, as JSON writes it."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, (str, uuid.UUID)):
        return str(key)
    if key is None or isinstance(key, (bool, int, float)):
        return orjson.dumps(_portable(key, place, 1)).decode()
    raise InvalidValueError(f"{place}: holds a key that is a {type(key).__name__}", column=_column(place))


def _portable_float(value: float, place: str) -> Any:
    if not math.isfinite(value):
        _warn(place, "NaN or an infinity was replaced by null")
        return None
    if abs(value) < 1e16:
        return value + 0.0
    # jsonb keeps 1e+16 as the integer 10000000000000000; written out with its fraction it stays a float.
    return orjson.Fragment(f"{Decimal(repr(value)):f}.0".encode())


# --------------------------------------------------------------------------------------------------------------------


def _as_text(value: object, place: str) -> str:
    if isinstance(value, str):
        return str(value.value) if isinstance(value, Enum) else str(value)
    raise InvalidValueError(f"{place}: must be text, not {type(value).__name__}", column=_column(place))


def _column(place: str) -> str:
    return place.rpartition(".")[2]


def _warn(place: str, what: str) -> None:
    logger.warning("%s: %s", place, what)

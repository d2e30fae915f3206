"""What JSON may hold, and how it is written: one text that both engines store alike, and that reads back the same.

Python's own types go through the encoder as they are. Only what it does not take, or what the engines would keep
differently, is walked through: dates, numbers and ids become text, dataclasses and models their fields, and what is no
JSON at all is refused with the path to it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import sys
import uuid
from collections.abc import ItemsView, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any, cast

import orjson

from orchdb.errors import InvalidValueError
from orchdb.schema.values import SURELY_FITS, text, within_size

logger = logging.getLogger("orchdb")

MAX_JSON_DEPTH = 254
"""Containers inside containers; the depth up to which the JSON encoder works."""
MAX_JSON_VALUES = 10_000_000
"""Inside and beside one another. Postgres needs up to 16 bytes more for each, and has 256 MiB: so many always fit."""

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_WRITTEN_AS_TEXT = (str, uuid.UUID, Decimal, date, time)
_PLAIN = (*_WRITTEN_AS_TEXT, int, float, type(None), dict, list, tuple, Mapping)
_NONE = object()
_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
# Prompts are private, and a key can be part of one: a path shows only what looks like the name of a field.
_NAME = re.compile(r"[A-Za-z_]{1,40}")


def encode_json(value: object, column: str) -> str | None:
    """Any JSON value as JSON text, without ``\\u`` escapes; ``None`` is NULL."""
    if value is None:
        return None
    try:
        encoded = orjson.dumps(value, option=_OPTIONS).decode()
    except (TypeError, ValueError):
        encoded = None
    # The rest is rare: NaN comes out as null, NUL as an escape, and from jsonb 1e+16 would come back as an integer and
    # -0.0 without its sign. (Looked for in the text: in the bytes it takes twice the time.)
    if encoded is None or "null" in encoded or _holds_rare(encoded):
        encoded = _walked(value, column)
    if len(encoded) > SURELY_FITS:
        _check_size(encoded, column)
    return encoded


def _holds_rare(encoded: str) -> bool:
    # A single character is found in a quarter of the time that two take: 0.1 µs for 200 characters instead of 0.3.
    return (
        ("\\" in encoded and "\\u0000" in encoded)
        or ("+" in encoded and "e+" in encoded)
        or ("-" in encoded and "-0.0" in encoded)
    )


def encode_json_object(value: Any, column: str) -> str | None:
    """A JSON object, given as a mapping or as the text of one, as JSON text."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _parsed(value, column)
    elif not _is_plain(value):
        value = _fields(value)
    if isinstance(value, Mapping):
        return encode_json(cast("object", value), column)
    raise _unfit(column, "must be a JSON object")


def _walked(value: object, column: str) -> str:
    try:
        return orjson.dumps(_Walk(column).portable(value)).decode()
    except RecursionError:  # the caller has come close to Python's own limit
        pass
    raise _unfit(column, f"is nested deeper than {MAX_JSON_DEPTH} levels")


def _parsed(given: str, column: str) -> Any:
    """What the text holds, as Python's own objects would: the same is refused and replaced as in those."""
    failure = "must be a JSON object"
    try:
        # Not by orjson, for which a number of more than 64 bits is a float and the last of two equal keys the only one.
        return json.loads(given, parse_int=_whole, object_pairs_hook=_from_pairs)
    except RecursionError:
        failure = f"is nested deeper than {MAX_JSON_DEPTH} levels"
    except ValueError:
        pass
    raise _unfit(column, failure)


def _whole(digits: str) -> int:
    return int(digits[:40])  # more than 64 bits in any case; Python refuses to read some thousand digits


class _Doubled(Mapping[str, Any]):
    """An object with a key that is there twice, which no dictionary can show."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self._pairs = pairs

    def __getitem__(self, key: str) -> Any:
        return dict(self._pairs)[key]

    def __iter__(self) -> Any:
        return iter(key for key, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def items(self) -> ItemsView[str, Any]:
        return cast("ItemsView[str, Any]", self._pairs)


def _from_pairs(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(pairs)


class _Walk:
    """The way through one value: it knows where it is, for whoever is told of it.

    Args:
        column: The column, ``table.column``.
    """

    def __init__(self, column: str) -> None:
        self._place = column
        self._path: list[str] = []

    def portable(self, value: Any) -> Any:
        """The value in JSON's own types, with what is not portable replaced."""
        if isinstance(value, Enum) or not _is_plain(value):
            value = self._plain(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            return self._number(value)
        if isinstance(value, _WRITTEN_AS_TEXT):
            return text(_as_text(value), self._place)
        if len(self._path) >= MAX_JSON_DEPTH:
            raise _unfit(self._place, f"is nested deeper than {MAX_JSON_DEPTH} levels")
        if isinstance(value, Mapping):
            return self._object(value)  # pyright: ignore[reportUnknownArgumentType]
        return self._array(cast("Sequence[Any]", value))

    def _array(self, value: Sequence[Any]) -> list[Any]:
        result: list[Any] = []
        for number, item in enumerate(value):
            self._path.append(f"[{number}]")
            result.append(self.portable(item))
            self._path.pop()
        return result

    def _object(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for number, (key, item) in enumerate(value.items()):
            word = text(self._key(key), self._place) or ""
            if word in result:
                raise self._refused("holds two keys that are the same in JSON")
            self._path.append(f".{word}" if _NAME.fullmatch(word) else f".<key {number}>")
            result[word] = self.portable(item)
            self._path.pop()
        return result

    def _key(self, key: Any) -> str:
        """A key as JSON writes it."""
        while isinstance(key, Enum):
            key = key.value
        if isinstance(key, _WRITTEN_AS_TEXT):
            return _as_text(key)
        if key is None or isinstance(key, (bool, int, float)):
            return orjson.dumps(self.portable(key)).decode()
        raise self._refused(f"holds a key of the type {type(key).__name__}")

    def _number(self, value: float) -> Any:
        if isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise self._refused("holds an integer of more than 64 bits")
            return int(value)
        value = float(value)
        if not math.isfinite(value):
            logger.warning("%s: NaN or an infinity was replaced by null", self._place)
            return None
        return _float(value)

    def _plain(self, value: Any) -> Any:
        """What an ``Enum``, a dataclass or a model stands for."""
        while isinstance(value, Enum):
            value = value.value
        found = value if _is_plain(value) else _fields(value)
        if isinstance(found, Enum) or not _is_plain(found):
            raise self._refused(f"is of the type {type(value).__name__}, which is not JSON")
        return found

    def _refused(self, what: str) -> InvalidValueError:
        return _unfit(self._place, f"${''.join(self._path)} {what}")


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN)


def _as_text(value: Any) -> str:
    written: object = value.isoformat() if isinstance(value, (date, time)) else value
    return str(written)


def _fields(value: Any) -> Any:
    """What a dataclass or a Pydantic model holds; ``_NONE`` if it is neither, or does not give it."""
    pydantic = sys.modules.get("pydantic")  # whoever has a model has loaded it
    try:
        if pydantic is not None and isinstance(value, pydantic.BaseModel):
            return value.model_dump(warnings=False)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    except Exception:  # the caller's own code, whose failure may tell what the fields hold
        return _NONE
    return _NONE


def _check_size(encoded: str, column: str) -> None:
    within_size(encoded, column)
    # What is inside the strings counts only if it must: to take them out takes time.
    if _values(encoded) > MAX_JSON_VALUES and _values(_STRINGS.sub("", encoded)) > MAX_JSON_VALUES:
        raise _unfit(column, f"holds more than {MAX_JSON_VALUES:,} values")


def _values(encoded: str) -> int:
    """How many values there are at most."""
    return 1 + sum(encoded.count(mark) for mark in ",[{")


def _unfit(column: str, what: str) -> InvalidValueError:
    return InvalidValueError(f"{column}: {what}", column=column.rpartition(".")[2])


def canonical_json(value: object) -> str | None:
    """The text of a value that was read from a database: the same text for the same value, whichever engine had it.

    ``None`` is NULL, also where it was written as JSON's ``null``.
    """
    if value is None:
        return None
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    if ("+" in encoded and "e+" in encoded) or ("-" in encoded and "-0.0" in encoded):
        return orjson.dumps(_written_out(value), option=orjson.OPT_SORT_KEYS).decode()
    return encoded


def _written_out(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written_out(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_written_out(item) for item in cast("Sequence[Any]", value)]
    return _float(value) if isinstance(value, float) else value


def _float(value: float) -> Any:
    if abs(value) < 1e16:
        return value + 0.0
    # jsonb keeps 1e+16 as the integer 10000000000000000; written out with its fraction it stays a float.
    return orjson.Fragment(f"{Decimal(repr(value)):f}.0".encode())

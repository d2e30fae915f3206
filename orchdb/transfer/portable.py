"""What a row becomes on its way: as orchdb returns it, and where the target takes less than that, by a rule each.

Whole columns are judged at once, because nearly always there is nothing to do; what is not as orchdb writes it is then
looked at value by value.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Column, Table

from orchdb.schema import spellings, values
from orchdb.schema.column_types import (
    Cost,
    Count,
    Identifier,
    JsonDocument,
    RowNumber,
    Seconds,
    Timestamp,
    Word,
)
from orchdb.schema.json_values import canonical_json
from orchdb.schema.postgres_times import position
from orchdb.streams import Columns

RULES = {
    "id": "an id that is no UUID becomes one that is made from it, the same wherever it stands",
    "spelling": "an id in another spelling of a UUID becomes the one of 36 characters",
    "text": "a character that the target cannot hold becomes U+FFFD",
    "word": "a word that is too long for an index is cut, and ends in a hash of the whole",
    "time": "what is no time becomes NULL, or the beginning of 1970 where there has to be one",
    "parent": "a parent that there is not becomes NULL",
    "orphan": "a row whose parent there is not, and must be, is left out",
}
"""What happens to a value, or a row, that the target cannot hold."""
_MADE_FROM = uuid.UUID("8d0f3a52-6c0f-5c1b-9d0e-6f7263686462")
_NO_TIME = "1970-01-01T00:00:00.000000"
_MAX_INDEXED = 2000
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IDS = re.compile(f"(?:{_ID}\n)*", re.ASCII)
_TIMES = re.compile(r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\n)*", re.ASCII)
_CERTAIN = re.compile(
    r"(?:(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}\n)*", re.ASCII
)
_NUL_IN_JSON = re.compile(r"(\\\\)|\\u0000")
_NONE = type(None)


class Change(NamedTuple):
    """A value that the target gets otherwise than the source has it.

    Attributes:
        row: The number of the row in its portion.
        column: The name of the column.
        rule: Which of ``RULES``.
        value: What the source has.
    """

    row: int
    column: str
    rule: str
    value: Any


def returned(table: Table, columns: Columns, *, strict: bool) -> list[Sequence[Any]]:
    """The values as orchdb returns them, but for JSON, which is its text in one form.

    Args:
        table: The table.
        columns: The values, as a source gives them.
        strict: Whether the source holds nothing but what the types of the schema say.
    """
    shown = _shown_by_strict if strict else _shown_by_loose
    return [shown(column, given) for column, given in zip(table.columns, columns, strict=True)]


def portable(table: Table, columns: Columns, changes: list[Change]) -> list[Sequence[Any]]:
    """The values as a strict target can hold them.

    Args:
        table: The table.
        columns: The values, as ``returned`` gives them.
        changes: Where each value that becomes another one is told.
    """
    return [_fitted(column, given, changes) for column, given in zip(table.columns, columns, strict=True)]


def without(columns: Columns, rows: Iterable[int]) -> list[list[Any]]:
    """The values without those of some rows."""
    left_out = frozenset(rows)
    return [[value for row, value in enumerate(column) if row not in left_out] for column in columns]


# -- as orchdb returns them ------------------------------------------------------------------------------------------


def _shown_by_strict(column: Column[Any], given: Sequence[Any]) -> Sequence[Any]:
    if isinstance(column.type, JsonDocument):
        return _json(given)
    if isinstance(column.type, Cost):
        return _numbers(given, spellings.decode_cost, float)
    return given


def _shown_by_loose(column: Column[Any], given: Sequence[Any]) -> Sequence[Any]:
    kind = column.type
    if isinstance(kind, JsonDocument):
        return _json(given)
    if isinstance(kind, (Cost, Seconds)):
        return _numbers(given, spellings.decode_cost, float)
    if isinstance(kind, (Count, RowNumber)):
        return _numbers(given, spellings.decode_count, int)
    if isinstance(kind, Timestamp):
        if _all_match(_TIMES, given):
            return given
        given = [_plain(spellings.decode_time(value)) for value in given]
    return given if set(map(type, given)) <= {str, _NONE} else [_plain(value) for value in given]


def _json(given: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else canonical_json(spellings.decode_json(value)) for value in given]


def _numbers(given: Sequence[Any], decode: Callable[[Any], Any], kind: type) -> Sequence[Any]:
    kinds = set(map(type, given))
    if kinds <= {kind, _NONE} and (kind is int or all(map(math.isfinite, _present(given)))):
        return given
    return [None if value is None else decode(value) for value in given]


def _plain(value: Any) -> Any:
    """Text where a text column has something else."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)


# -- as a strict target holds them -----------------------------------------------------------------------------------


def _fitted(column: Column[Any], given: Sequence[Any], changes: list[Change]) -> Sequence[Any]:
    kind = column.type
    if isinstance(kind, (Cost, Seconds, Count, RowNumber)):
        return given
    if isinstance(kind, Identifier):
        return given if _all_match(_IDS, given) else _each(column, given, changes, _id)
    if isinstance(kind, Timestamp):
        if _all_match(_CERTAIN, given):
            return given
        return _each(column, given, changes, _time if column.nullable else _required_time)
    if isinstance(kind, JsonDocument):
        return _each(column, given, changes, _json_without_nul) if _any_has("\\u0000", given) else given
    if _any_has("\0", given):
        given = _each(column, given, changes, _text)
    if isinstance(kind, Word) and max(map(len, _present(given)), default=0) * 4 > _MAX_INDEXED:
        given = _each(column, given, changes, _word)
    return given


def _each(
    column: Column[Any], given: Sequence[Any], changes: list[Change], fit: Callable[[Any], tuple[Any, str]]
) -> Sequence[Any]:
    fitted = [*given]
    for row, value in enumerate(given):
        if value is not None:
            fitted[row], rule = fit(value)
            if rule:
                changes.append(Change(row, column.name, rule, value))
    return fitted


def _id(value: str) -> tuple[str, str]:
    try:
        found = str(uuid.UUID(value))
    except ValueError:
        return made_id(value), "id"
    return found, "" if found == value else "spelling"


def made_id(value: str) -> str:
    """The UUID that stands for an id that is none."""
    return str(uuid.uuid5(_MADE_FROM, value))


def _time(value: str) -> tuple[str | None, str]:
    if value in ("infinity", "-infinity"):
        return value, ""
    try:
        if len(value) == 26:
            datetime.fromisoformat(value)
            return value, ""
        if isinstance(position(value, ""), str):  # further than a datetime goes
            return value, ""
    except (ValueError, OverflowError):
        pass
    return None, "time"


def _required_time(value: str) -> tuple[str | None, str]:
    found, rule = _time(value)
    return found or _NO_TIME, rule


def _json_without_nul(value: str) -> tuple[str, str]:
    found = _NUL_IN_JSON.sub(lambda match: match[1] or "\ufffd", value)
    return found, "" if found == value else "text"


def _text(value: str) -> tuple[str, str]:
    found = values.UNPORTABLE.sub("\ufffd", value)
    return found, "" if found == value else "text"


def _word(value: str) -> tuple[str, str]:
    encoded = value.encode()
    if len(encoded) <= _MAX_INDEXED:
        return value, ""
    start = encoded[: _MAX_INDEXED - 40].decode(errors="ignore")
    return f"{start}...{blake2b(encoded, digest_size=16).hexdigest()}", "word"


def _all_match(pattern: re.Pattern[str], given: Sequence[Any]) -> bool:
    """Whether all texts are so; there may be some that are missing."""
    try:
        joined = "\n".join(given)
    except TypeError:
        given = [value for value in given if value is not None]
        if not given:
            return True
        if set(map(type, given)) != {str}:
            return False
        joined = "\n".join(given)
    # A text with a new line in it could pass for two.
    return pattern.fullmatch(f"{joined}\n") is not None and joined.count("\n") == len(given) - 1


def _any_has(mark: str, given: Sequence[Any]) -> bool:
    return mark in "".join(_present(given))


def _present(given: Sequence[Any]) -> Iterator[Any]:
    """The values but for those that are missing, empty or 0."""
    return filter(None, given)

"""Files of JSON lines, read from any place on: rows, what is damaged, and where the last whole row ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

LONGEST = 32 * 2**20
"""Bytes of a row; a longer one is not read, for it would have to be held in memory as a whole."""


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        value: The row; ``None`` if it is damaged.
        raw: Its text.
        offset: Where it begins.
        end: Where the next one begins.
        problem: What is the matter with it.
    """

    value: Mapping[str, Any] | None
    raw: bytes
    offset: int
    end: int
    problem: str = ""


def parsed(raw: bytes) -> Mapping[str, Any] | None:
    """Read the text of a row.

    Args:
        raw: The text.

    Returns:
        The object; ``None`` if it is none, or no JSON.
    """
    try:
        value: Any = orjson.loads(raw)
    except ValueError:  # it is strict about halves of characters, and about numbers
        try:
            value = json.loads(raw.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            return None
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


def rows_of(path: Path, offset: int) -> Iterator[Row]:
    """Read the rows of a file from a place on; half a row at its end is left for later.

    Args:
        path: The file.
        offset: Where a row begins.

    Yields:
        The rows; a damaged one too, as long as others follow it.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while raw := file.readline(LONGEST):
            begin, offset = offset, offset + len(raw)
            if not raw.endswith(b"\n"):
                if len(raw) == LONGEST:
                    offset = _skip(file, offset)
                    if offset < 0:
                        return
                    yield Row(None, b"", begin, offset, f"longer than {LONGEST // 2**20} MiB")
                    continue
                value = parsed(raw)
                if value is not None:  # all but its end of line is there
                    yield Row(value, raw, begin, offset)
                return
            if not raw.strip():
                continue
            value = parsed(raw)
            yield Row(value, raw, begin, offset, "" if value is not None else "no JSON object")


def _skip(file: Any, offset: int) -> int:
    """The end of a row that is too long; -1 if it is not there yet."""
    while raw := file.readline(2**20):
        offset += len(raw)
        if raw.endswith(b"\n"):
            return offset
    return -1


def head_of(path: Path, rows: int = 60, size: int = 2**18) -> list[Mapping[str, Any]]:
    """Read the first rows of a file.

    Args:
        path: The file.
        rows: The most rows.
        size: The most bytes.

    Returns:
        Those that are whole.
    """
    with path.open("rb") as file:
        found = [parsed(raw) for raw in file.read(size).splitlines()[:rows]]
    return [row for row in found if row is not None]


def tail_of(path: Path, size: int = 2**16) -> list[Mapping[str, Any]]:
    """Read the last rows of a file.

    Args:
        path: The file.
        size: The most bytes.

    Returns:
        Those that are whole.
    """
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - size, 0))
        found = [parsed(raw) for raw in file.read(size).splitlines()]
    return [row for row in found if row is not None]

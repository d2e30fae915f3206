"""Files of JSON lines, read from any place on: rows, what is damaged, and where the last whole row ends."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import orjson

from orchdb.transcripts.long_rows import Short, shortened

LONGEST = 2 * 2**20
"""Bytes of a row that is read as it is."""
_DOCUMENT = 4 * LONGEST
_PADDING = b" \t\r\n\0"
"""Around a row; a file that was not closed well may be filled up with NULs."""


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


def shown(path: Path) -> str:
    """Give the name of a file as text that can be stored and shown, whatever bytes it is made of.

    Args:
        path: The file.
    """
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def parsed(raw: bytes) -> Mapping[str, Any] | None:
    """Read the text of a row; what is no UTF-8 in it becomes U+FFFD.

    Args:
        raw: The text.

    Returns:
        The object; ``None`` if it is none, or no JSON.
    """
    text = raw.removeprefix(codecs.BOM_UTF8).strip(_PADDING)
    try:
        value: Any = orjson.loads(text)
    except ValueError:  # it is strict about halves of characters, about control characters and about numbers
        try:
            value = json.loads(text.decode("utf-8", "replace"), strict=False)
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
            if len(raw) == LONGEST and not raw.endswith(b"\n"):
                row = _long_row(file, begin)
                if row is None:
                    return
                offset = row.end
                yield row
            elif raw.strip():
                value = parsed(raw)
                if value is None and not raw.endswith(b"\n"):
                    return
                # A last row may have all but its end of line.
                yield Row(value, raw, begin, offset, "" if value is not None else "no JSON object")


def _long_row(file: BinaryIO, begin: int) -> Row | None:
    """A row that is too long, with its long texts cut; nothing if its end is not there yet."""
    short = shortened(file, begin, rows=True, longest=LONGEST)
    row = _cut_row(short, begin)
    if row.value is None and not short.whole:
        return None
    file.seek(short.end)
    return row


def _cut_row(short: Short, begin: int) -> Row:
    value = parsed(short.raw)
    size = f"{(short.end - begin) / 1e6:.1f} MB long"
    if value is None:
        return Row(None, b"", begin, short.end, f"{size}, and no JSON object" if short.raw else f"too long: {size}")
    return Row(value, b"", begin, short.end, f"{size}: its texts are cut to {short.most / 1e3:.1f} kB each")


def document_of(path: Path) -> Row:
    """Read a file that is one object, with long texts cut if it is too long.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        raw = file.read(_DOCUMENT)
        if len(raw) == _DOCUMENT:
            return _cut_row(shortened(file, 0, rows=False, longest=_DOCUMENT), 0)
    value = parsed(raw)
    return Row(value, b"", 0, len(raw), "" if value is not None else "no JSON object")


def head_of(path: Path, rows: int = 60, size: int = 2**18) -> Iterator[Mapping[str, Any]]:
    """Read the first rows of a file.

    Args:
        path: The file.
        rows: The most rows.
        size: The most bytes.

    Yields:
        Those that are whole.
    """
    with path.open("rb") as file:
        lines = file.read(size).splitlines()[:rows]
    for raw in lines:
        row = parsed(raw)
        if row is not None:
            yield row


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

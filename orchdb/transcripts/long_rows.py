"""Rows that are too long to be held in memory: read piece by piece, with their long texts cut.

What counts tokens in a row is short, whatever is attached to it; so a row of any length counts, and is kept in part.
"""

from __future__ import annotations

import re
from typing import BinaryIO, NamedTuple

_CUTS = (2**17, 2**14, 2**11, 2**8)
"""Bytes of each text that are left: fewer where the first are not enough."""
_PIECE = 2**18
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_WHOLE = re.compile(rb'(?:[^"\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+', re.DOTALL)


class Short(NamedTuple):
    """A row whose long texts were cut.

    Attributes:
        raw: Its text; nothing if it is too long all the same.
        end: Where the next row begins.
        whole: Whether its end is there.
        most: Bytes that each text was cut to.
    """

    raw: bytes
    end: int
    whole: bool
    most: int


def shortened(file: BinaryIO, begin: int, *, rows: bool, longest: int) -> Short:
    """Read a row in bounded memory.

    Args:
        file: The file.
        begin: Where it begins.
        rows: Whether it ends with its line; otherwise with the file.
        longest: Bytes that may be left of it.

    Returns:
        The row, as long as it may be.
    """
    short = Short(b"", begin, False, 0)
    for most in _CUTS:
        if not short.raw:
            short = _Cut(most, longest).read(file, begin, rows=rows)
    return short


class _Cut:
    """Copies JSON with each text cut.

    Args:
        most: Bytes of a text that are left.
        longest: Bytes that are left of all.
    """

    def __init__(self, most: int, longest: int) -> None:
        self._most = most
        self._longest = longest
        self._kept = bytearray()
        self._text: bytearray | None = None
        self._left = b""

    def read(self, file: BinaryIO, begin: int, *, rows: bool) -> Short:
        file.seek(begin)
        end, whole, fits = begin, not rows, True
        while piece := file.read(_PIECE):
            stop = piece.find(b"\n") + 1 if rows else 0
            piece = piece[:stop] if stop else piece
            end += len(piece)
            if fits:
                self._take(piece)
                fits = len(self._kept) < self._longest
            if stop:
                whole = True
                break
        return Short(bytes(self._kept) if fits else b"", end, whole, self._most)

    def _take(self, piece: bytes) -> None:
        data, place, self._left = self._left + piece, 0, b""
        while place < len(data):
            if self._text is None:
                stop = data.find(b'"', place) + 1
                self._kept += data[place : stop or len(data)]
                place, self._text = stop or len(data), bytearray() if stop else None
                continue
            stop = _end(_INSIDE, data, place)
            self._text += data[place : min(stop, place + self._most - len(self._text))]
            if data[stop : stop + 1] == b'"':
                text, self._text, stop = bytes(self._text), None, stop + 1
                self._kept += text[: _end(_WHOLE, text, 0)] + b'"'
            elif stop < len(data):  # the first half of an escape
                self._left = data[stop:]
                return
            place = stop


def _end(pattern: re.Pattern[bytes], data: bytes, place: int) -> int:
    """How far a pattern goes from a place on."""
    found = pattern.match(data, place)
    return place if found is None else found.end()

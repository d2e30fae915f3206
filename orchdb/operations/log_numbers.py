"""The numbers of log lines: which of them have been given to somebody, and in which ranges some of them lie.

A number never changes, whatever another program makes of the rest of its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

LINES_AT_A_TIME = 500


class Numbers:
    """A set of numbers that takes about a bit for each where they lie close together."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """Whether it was not there before."""
        block, bit = number >> 8, 1 << (number & 255)
        bits = self._bits.get(block, 0)
        self._bits[block] = bits | bit
        return not bits & bit

    def __contains__(self, number: int) -> bool:
        return bool(self._bits.get(number >> 8, 0) & 1 << (number & 255))


def runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each range of ascending numbers without a gap, of a bounded length."""
    start = 0
    for index, number in enumerate(numbers):
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1 or index + 1 - start == LINES_AT_A_TIME:
            yield numbers[start], number
            start = index + 1

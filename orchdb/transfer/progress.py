"""Telling how far a copy is."""

from __future__ import annotations

from collections.abc import Callable

from orchdb.clocks import steady
from orchdb.transfer.report import TransferProgress

Tell = Callable[[TransferProgress], object]


class Telling:
    """What is told to whoever wants to know.

    Args:
        tell: Is called with each step; ``None`` for nobody.
    """

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell
        self.begin("", 0)

    def begin(self, doing: str, total: int, done: int = 0) -> None:
        """Begin with something else.

        Args:
            doing: What it is.
            total: How many rows it is about.
            done: How many of them were done before.
        """
        self._doing, self._total = doing, total
        self._before = self._done = done
        self._began = steady()
        if self._tell is not None and doing:
            self._tell(TransferProgress(doing, "", done, total, 0.0, None))

    def of(self, table: str) -> Callable[[int], None]:
        """Give what tells of the rows of a table.

        Args:
            table: Its name.

        Returns:
            A function that takes how many more rows are done.
        """

        def tell(rows: int) -> None:
            self._done += rows
            if self._tell is None:
                return
            seconds = steady() - self._began
            rate = (self._done - self._before) / seconds if seconds else 0.0
            left = max(self._total - self._done, 0) / rate if rate else None
            self._tell(TransferProgress(self._doing, table, self._done, self._total, rate, left))

        return tell

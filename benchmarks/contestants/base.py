"""What a contestant can do. What it does not override it cannot do, and the table says n/a."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.workload import Change, Log

OPERATIONS = ("append", "update", "bulk", "get", "latest")


class Contestant:
    """One way to store rows.

    Attributes:
        title: How the table names it.
        needs: The distributions it is made of; without one of them it takes no part.
        same_table: Whether it works on orchdb's own tables, in a copy of the prepared database.
        fails: Whether a row that names a missing agent fails, as the tables say.
        share: The part of a full round that it does; the slow ones do less.
        how: What its operations map to, where that is not obvious.
    """

    title: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    same_table: ClassVar[bool] = True
    fails: ClassVar[bool] = True
    share: ClassVar[float] = 1.0
    how: ClassVar[str] = ""
    table: ClassVar[str] = "agent_logs"

    def __init__(self, place: str) -> None:
        self.place = place

    @classmethod
    def can(cls, operation: str) -> bool:
        """Whether it has an equivalent of the operation."""
        return getattr(cls, operation) is not getattr(Contestant, operation)

    async def open(self) -> None:
        """Connect."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Fill its own tables with as many rows as the prepared database has."""

    async def append(self, line: Log) -> None:
        """Append a line; it is committed when this returns."""
        raise NotImplementedError

    async def update(self, made: Change) -> None:
        """Change an agent; it is committed when this returns."""
        raise NotImplementedError

    async def bulk(self, lines: Sequence[Log]) -> None:
        """Append many lines at once."""
        raise NotImplementedError

    async def get(self, agent_id: str) -> dict[str, Any]:
        """The agent, its JSON decoded."""
        raise NotImplementedError

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        """The latest lines of an agent as dictionaries, their JSON decoded."""
        raise NotImplementedError

    async def count(self) -> int:
        """How many lines there are, seen by another connection."""
        connection = sqlite3.connect(self.place, timeout=30)
        try:
            return int(connection.execute(f"SELECT count(*) FROM {self.table}").fetchone()[0])
        finally:
            connection.close()


Places = Callable[[str, type[Contestant]], str]
"""How a contestant gets its place: a file or a URL, by its key and its class."""


def multiply(path: str | Path, table: str, key: str, times: int) -> None:
    """Copy every row of a peer's own table so many times, each under a new key: the untimed preparation."""
    connection = sqlite3.connect(path, timeout=30)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    chosen = ", ".join(f"{name} || '-' || copies.number" if name == key else name for name in columns)
    numbers = f"WITH RECURSIVE copies(number) AS (VALUES (1) UNION ALL SELECT number + 1 FROM copies LIMIT {times})"
    connection.execute(f"{numbers} INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table}, copies")
    connection.commit()
    connection.close()

"""Whole tables on their way from one database to another: how an engine gives its rows, and how it takes them.

Rows go in columns, as the engine has them: what they become on the way is told in ``orchdb.transfer``. An id is text, a
time its text in UTC, JSON the text of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Table

ROWS_AT_A_TIME = 5000
STATE_TABLE = "orchdb_copy"
"""What a copy that is not complete keeps in its target: where it is, and what it has to make again."""
STATE = "CREATE TABLE IF NOT EXISTS orchdb_copy (name VARCHAR(200) PRIMARY KEY, value TEXT NOT NULL)"

Position = int | str
"""Of a row, in the order in which a source reads a table."""
Columns = Sequence[Sequence[Any]]
"""Of each column of the table, in its order, the values of so many rows."""


class Portion(NamedTuple):
    """Some rows of a table.

    Attributes:
        columns: Their values.
        positions: Those of the rows, rising.
    """

    columns: Columns
    positions: Sequence[Position]


class RowSource(ABC):
    """A database that is read as it was when it was opened, whatever others write meanwhile.

    Attributes:
        place: Where it is; never a user or a password.
        strict: Whether its columns hold what the types of the schema say, and nothing else.
    """

    place: str
    strict: bool

    @abstractmethod
    async def count(self, table: Table) -> int:
        """How many rows a table has."""

    @abstractmethod
    async def read(self, table: Table, after: Position | None, limit: int) -> Portion | None:
        """The next rows behind a position; ``None`` if there are none."""

    @abstractmethod
    async def last_number(self, table: Table) -> int:
        """The highest id that was ever given to a row of a log; 0 for none."""

    async def strangers(self, table: Table, column: str, parent: Table) -> set[Any]:
        """What stands in a foreign key and is no id of the parent's, where the engine lets that happen."""
        return set()

    @abstractmethod
    async def close(self) -> None:
        """Let go of it."""


class RowTarget(ABC):
    """A database that is filled.

    Attributes:
        place: Where it is; never a user or a password.
        strict: Whether its columns take what the types of the schema say, and nothing else.
    """

    place: str
    strict: bool

    @abstractmethod
    async def is_empty(self, table: Table) -> bool:
        """Whether a table has no row."""

    @abstractmethod
    async def state(self) -> dict[str, str]:
        """What a copy that was broken off has kept; nothing if there was none."""

    @abstractmethod
    async def prepare(self, tables: Sequence[Table], state: Mapping[str, str]) -> None:
        """Put away what makes writing slow, and remember it with this state."""

    @abstractmethod
    async def write(self, table: Table, columns: Columns, count: int, state: Mapping[str, str]) -> None:
        """Add rows and this state to what there is: both, or after a failure neither."""

    @abstractmethod
    async def clear(self, table: Table, state: Mapping[str, str]) -> None:
        """Delete all rows of a table, with this state."""

    @abstractmethod
    async def finish(self, tables: Sequence[Table], numbers: Mapping[str, int]) -> None:
        """Make again what was put away, let ids go on behind these, and forget the state."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of it."""

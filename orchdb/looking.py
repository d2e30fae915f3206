"""What an engine can say of a database without using it: where it is, how large, and what is wrong with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

READ_ONLY = "25006"
"""The code of what was refused because it would write: an SQLSTATE, also where the engine has none."""

Gravity = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Facts:
    """What there is to say of any database.

    Attributes:
        place: Where it is: the path of the file, or host, port and name; never a user or a password.
        engine: Which program keeps it, with its version.
        size_bytes: What it takes on the disk.
        wal_bytes: Of an SQLite file what its WAL takes besides.
    """

    place: str
    engine: str
    size_bytes: int | None
    wal_bytes: int | None = None


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        check: What was looked at.
        gravity: ``ok``; a ``note`` that asks for nothing; a ``warning`` of what may go wrong; an ``error``, which does.
        message: What was found, in a line.
        advice: What to do about it, in a line; empty if there is nothing to do.
    """

    check: str
    gravity: Gravity
    message: str
    advice: str = ""


class Answer(NamedTuple):
    """What a statement gave.

    Attributes:
        names: Of its columns; two may be the same.
        rows: Its rows, with the values as the driver gives them.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Look(ABC):
    """A database that is looked at: nothing of it is made, changed or upgraded.

    Attributes:
        connection: Reads, and decides nothing about the schema.
    """

    connection: AsyncConnection

    @abstractmethod
    async def facts(self) -> Facts:
        """What there is to say of it."""

    @abstractmethod
    async def triggers(self) -> Collection[tuple[str, str]]:
        """The triggers on its tables: of each the table and the name."""

    @abstractmethod
    async def query(self, statement: str, limit: int | None = None) -> Answer:
        """Run one statement as it is, if it only reads.

        Args:
            statement: In the database's own SQL.
            limit: The most rows. By default all.

        Raises:
            OperationError: It would write, or do anything but read this database; with the code ``READ_ONLY``.
            DBAPIError: The database does not understand it, or could not run it.
        """

    @abstractmethod
    async def findings(self, *, quick: bool) -> list[Finding]:
        """What is wrong with it that only this engine has.

        Args:
            quick: Leave out what reads every page.
        """


def ok(check: str, message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, "ok", message)

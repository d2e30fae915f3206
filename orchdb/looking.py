"""What an engine can say of a database without using it: where it is, how large, and what is wrong with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection

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
    async def findings(self, *, quick: bool) -> list[Finding]:
        """What is wrong with it that only this engine has.

        Args:
            quick: Leave out what reads every page.
        """


def ok(check: str, message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, "ok", message)

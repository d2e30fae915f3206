"""What the two engines have in common: the interface that ``orchdb.executor`` runs on."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import Dialect, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.connections import Step
from orchdb.errors import InvalidValueError
from orchdb.statements import CompiledStatement, Parameters

Durability = Literal["normal", "full"]
BROKEN = "the transaction was rolled back by an earlier failure"


@dataclass(frozen=True)
class Options:
    """The options of ``DatabaseManager`` that are not about where the database is; times are seconds."""

    durability: Durability = "normal"
    lock_timeout: float = 30.0
    upgrade: bool | None = None
    read_only: bool = False
    pool_size: int = 10
    pool_timeout: float = 30.0
    connect_timeout: float = 10.0
    statement_timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.durability not in ("normal", "full"):
            raise InvalidValueError('durability: must be "normal" or "full"', column="durability")
        for name, value in (("read_only", self.read_only), ("upgrade", self.upgrade is not None and self.upgrade)):
            if not isinstance(value, bool):  # "no" would count as True
                raise InvalidValueError(f"{name}: must be True or False", column=name)
        if isinstance(self.pool_size, bool) or not isinstance(self.pool_size, int) or self.pool_size < 1:
            raise InvalidValueError("pool_size: must be a whole number from 1", column="pool_size")
        for name in ("pool_timeout", "connect_timeout", "statement_timeout", "lock_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise InvalidValueError(f"{name}: must be a number of seconds from 0", column=name)


class StatementResult(NamedTuple):
    """What a statement gave.

    Attributes:
        rows: The rows it returned.
        rowcount: How many rows it changed.
        lastrowid: The id that the database gave to a new row.
    """

    rows: list[Any]
    rowcount: int
    lastrowid: int | None = None


class HighWatermark(NamedTuple):
    """How far a log can be read now without missing a line that comes later.

    Attributes:
        newest: The highest id that there is; 0 if there is none.
        writers: The transactions that may still add a line with a lower one.
        gaps: Where a tail is to begin: the ranges of lower ids, first and last, that such a line may have.
    """

    newest: int
    writers: frozenset[str] = frozenset()
    gaps: tuple[tuple[int, int], ...] = ()


class BackendTransaction(ABC):
    """The engine's side of one open transaction, on a connection of its own.

    It does one thing at a time and knows nothing of tasks: ``orchdb.blocks`` owns it where several may use it.

    Attributes:
        first_savepoint: The one that is set as the transaction begins, where the engine does so.
    """

    first_savepoint: str | None = None

    @abstractmethod
    def caller_connection(self, step: Step) -> AsyncConnection:
        """The connection for a caller's own statements, each of which goes through ``step``."""

    @abstractmethod
    async def run(
        self, compiled: CompiledStatement, parameters: Parameters, before: Sequence[str] = ()
    ) -> StatementResult:
        """Run one statement, behind those of ``before``, which set a savepoint."""

    @abstractmethod
    async def run_many(
        self, compiled: CompiledStatement, parameters: Sequence[Parameters], before: Sequence[str] = ()
    ) -> list[int]:
        """Insert many rows, behind what ``before`` says; their ids where the database gives them.

        If it fails, some of the rows may be there.
        """

    @abstractmethod
    async def script(self, statements: Sequence[str]) -> None:
        """Run statements about savepoints, to the end if the caller is cancelled."""

    @abstractmethod
    async def before_own(self, before: Sequence[str]) -> None:
        """Run what sets a savepoint for a statement of the caller's own, which from here on cannot commit."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether the transaction has ended, whoever did that."""

    async def undo(self, savepoint: str | None) -> None:
        """Undo what has been done since the savepoint."""
        await self.script([f"ROLLBACK TO SAVEPOINT {savepoint}"])

    def removal(self, compiled: CompiledStatement, error: Exception) -> Callable[[], Awaitable[None]] | None:
        """What takes away the reason for which a statement failed, where that is possible: it can then be run again."""
        return None

    @abstractmethod
    def interrupt(self) -> bool:
        """Stop what is running, for the transaction is about to be undone.

        False if the engine's way to do so is to cancel the task that waits for it.
        """

    @abstractmethod
    async def commit(self) -> None:
        """End the transaction and give the connection back, also if the commit fails."""

    @abstractmethod
    async def rollback(self) -> None:
        """Undo the transaction and give the connection back; never raises but for a cancellation."""


class Backend(ABC):
    """One database: its engine, its connections, and how statements reach it."""

    dialect: Dialect
    connection: AsyncConnection
    """For the caller's own reading."""
    beginnings: Collection[asyncio.Future[HighWatermark]] = ()
    """Those that are not known yet: a commit waits for them with ``begun``, lest it is taken for an earlier one."""

    @abstractmethod
    async def open(self) -> None:
        """Connect and prepare the schema; nothing stays open if it fails."""

    def fail_all(self) -> None:
        """Fail what waits for a connection behind the blocks that are still open and about to be ended."""
        return

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    def read(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        """Run a statement that only reads."""

    def read_newest(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        """Run a statement that only reads where every committed row can be seen, also if there are replicas."""
        return self.read(compiled, parameters)

    @abstractmethod
    async def high_watermark(self, table: Table) -> HighWatermark:
        """How far the log can be read now without missing a line."""

    @abstractmethod
    def beginning(self, table: Table) -> asyncio.Future[HighWatermark]:
        """The high watermark at this call, with its gaps: what is committed later is behind it or in a gap.

        The future may go unawaited.
        """

    async def begun(self) -> None:
        """Wait until what a tail begins from is known."""
        while self.beginnings:
            await asyncio.wait([*self.beginnings])

    async def filled(self, table: Table, gaps: Sequence[tuple[int, int]]) -> list[int]:
        """The ids in the gaps that have a line by now, in order."""
        return []

    @abstractmethod
    def write(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        """Run one statement and commit it."""

    def write_beside(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        """Run one statement and commit it, also while blocks hold every connection, as far as the engine can do so."""
        return self.write(compiled, parameters)

    @abstractmethod
    async def write_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        """Insert many rows, all or none, and commit them; their ids where the database gives them."""

    @abstractmethod
    async def back_up(self, target: Path) -> None:
        """Make a consistent copy of the database as a new file."""

    async def give_back(self) -> None:
        """Give the space of deleted rows back to the file system, where that is the client's to do."""
        return

    @abstractmethod
    async def begin(self) -> BackendTransaction:
        """Begin a transaction on a connection that is its own until it ends."""

"""The connections to a Postgres server that are in use: SQLAlchemy's pool lends them, and statements go to the driver.

A statement of its own is one round trip: SQLAlchemy's connection would add BEGIN and COMMIT, two more. So the pool's
connections are kept in a ``DriverConnection`` while they are in use or have just been, and the compiled statement goes
straight to the driver's connection, which commits by itself. Here is what the drivers share; what each of them is alone
in stands in ``asyncpg_driver`` and ``psycopg_driver``, which are loaded for who uses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import StatementResult
from orchdb.driver_errors import skipped
from orchdb.statements import CompiledStatement, Parameters

COPY_FROM_ROWS = 25
# What COPY would refuse, leave out, or give another id than the one reserved for it.
_COPIES = """(
    SELECT relkind IN ('r', 'p') AND NOT relhasrules AND NOT row_security_active(oid)
        AND coalesce(has_sequence_privilege(pg_get_serial_sequence({0}, 'id'), 'USAGE, UPDATE'), true)
        AND NOT EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = pg_class.oid AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 7 = 7
        )
    FROM pg_class WHERE oid = CAST(CAST({0} AS text) AS regclass)
)"""
RESERVE = f"""
    SELECT CASE WHEN {_COPIES} THEN nextval(pg_get_serial_sequence({{0}}, 'id')) END FROM generate_series(1, {{1}})
"""  # noqa: S608  # places for parameters
"""Ids for so many rows of a table, reserved before they are copied, so that they are those of the rows by guarantee; or
none, if the rows cannot be copied. One round trip tells both."""
LOOK = f"SELECT {_COPIES}"
"""Whether rows can be copied into a table."""
FIELD_MARK = "\x1f"
"""What hardly any text holds."""
_POLL = getattr(select, "poll", None)


class DriverConnection(ABC):
    """A connection of the engine's, and the driver's connection inside it."""

    def __init__(self, connection: AsyncConnection, driver: Any, timeout: float | None) -> None:
        self.connection = connection
        self.driver = driver
        self.timeout = timeout
        self.stale = False
        """Whether the server's plans for it are out of date, and it is not to be used again."""
        self.cut_off = False
        """Whether its last statement was cancelled."""
        self.portals = True
        """Whether a statement can stay prepared from one round trip to the next."""
        self.used = self.opened = asyncio.get_running_loop().time()
        self._poll: Any = None
        if _POLL is not None:
            self._poll = _POLL()
            self._poll.register(self._socket(), select.POLLIN)

    @abstractmethod
    def closed(self) -> bool:
        """Whether the driver knows that the connection is gone."""

    @abstractmethod
    def idle(self) -> bool:
        """Whether the connection is outside a transaction."""

    @abstractmethod
    def _socket(self) -> int: ...

    @abstractmethod
    async def script(self, sql: str) -> None:
        """Run statements without parameters, in one round trip."""

    @abstractmethod
    async def run(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        """Run one statement."""

    @abstractmethod
    async def run_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        """Insert many rows, inside a transaction; the ids that the database gave them, in their order."""

    @abstractmethod
    async def fetch(self, sql: str) -> list[Any]:
        """The rows of a statement without parameters, as the driver has them."""

    @abstractmethod
    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """Add rows to a table, given as the text of COPY with ``FIELD_MARK`` between the fields."""

    @abstractmethod
    async def set_autocommit(self, on: bool) -> None:
        """Whether each statement commits by itself."""

    def in_time(self) -> AbstractContextManager[None]:
        """A block that fails if the server has gone silent, where the driver does not see to that itself."""
        return contextlib.nullcontext()

    def quiet(self) -> bool:
        """Whether the server has said nothing since: what it says unasked is mostly a good-bye."""
        return self._poll is None or not self._poll.poll(0)


def changed(compiled: CompiledStatement, count: int) -> StatementResult:
    """What a statement gave that returns no rows; a trigger or a rule may have left out the row of an insert."""
    if not count and compiled.adds_one:
        raise skipped()
    return StatementResult([], count)


def inserted(compiled: CompiledStatement, records: Sequence[Any]) -> StatementResult:
    """What an insert gave, by the record with the id; none if its row may be there already."""
    if records:
        return StatementResult([], len(records), records[0][0])
    if compiled.adds_one:
        raise skipped()
    return StatementResult([], 0)


def check_count(written: int, wanted: int) -> None:
    """Raise if some of the rows of an insert were left out."""
    if written != wanted:
        raise skipped()


@cache
def target(sql: str) -> tuple[str, tuple[str, ...]]:
    """The table and the columns of an INSERT of ours."""
    table, _, columns = sql.removeprefix("INSERT INTO ").partition(" VALUES ")[0].partition(" ")
    return table, tuple(columns.strip("()").split(", "))


def hang_up(descriptor: int) -> None:
    """End a connection from below, so that whoever waits for the server there gets an error."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)

"""The connections to a Postgres server that are in use: SQLAlchemy's pool lends them, and statements go to the driver.

A statement of its own is one round trip: SQLAlchemy's connection would add BEGIN and COMMIT, two more. So the pool's
connections are kept in a ``DriverConnection`` while they are in use or have just been, and the compiled statement goes
straight to the driver's connection, which commits by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from time import perf_counter
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import StatementResult
from orchdb.concurrency import shielded
from orchdb.driver_errors import skipped
from orchdb.statements import ROWS_AT_A_TIME, CompiledStatement, Parameters, in_portions, set_aside

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
# Ids are reserved before the rows are copied, so that they are those of the rows by guarantee: or none, if the rows
# cannot be copied. One round trip tells both.
_RESERVE = f"""
    SELECT CASE WHEN {_COPIES} THEN nextval(pg_get_serial_sequence({{0}}, 'id')) END FROM generate_series(1, {{1}})
"""  # noqa: S608  # places for parameters
_LOOK = f"SELECT {_COPIES}"
ROWS_OF_A_PORTAL = 5000
"""In one round trip, of a list that is longer than ``ROWS_AT_A_TIME``."""
FIRST_ROWS = 128
SECONDS_AT_A_TIME = 0.005
"""How long a portion may take; with large values it holds fewer rows."""
_POLL = getattr(select, "poll", None)


class DriverConnection(ABC):
    """A connection of the engine's, and the driver's connection inside it."""

    def __init__(self, connection: AsyncConnection, driver: Any, adapter: Any, timeout: float | None) -> None:
        self.connection = connection
        self.driver = driver
        self.turn: asyncio.Lock = adapter._execute_mutex
        """Held by each statement, those that the caller runs through SQLAlchemy included."""
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
    async def set_autocommit(self, on: bool) -> None:
        """Whether each statement commits by itself."""

    def in_time(self) -> AbstractContextManager[None]:
        """A block that fails if the server has gone silent, where the driver does not see to that itself."""
        return contextlib.nullcontext()

    def quiet(self) -> bool:
        """Whether the server has said nothing since: what it says unasked is mostly a good-bye."""
        return self._poll is None or not self._poll.poll(0)


class AsyncpgConnection(DriverConnection):
    """A connection of asyncpg."""

    def closed(self) -> bool:
        return bool(self.driver.is_closed())

    def idle(self) -> bool:
        return not self.driver.is_in_transaction()

    def _socket(self) -> int:
        descriptor: int = self.driver._transport.get_extra_info("socket").fileno()
        return descriptor

    async def set_autocommit(self, on: bool) -> None:
        pass  # the driver's connection does so by itself; only SQLAlchemy begins transactions on it

    async def script(self, sql: str) -> None:
        await self.driver.execute(sql)

    async def run(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        if not compiled.returns_rows:
            status: str = await self.driver.execute(compiled.sql, *parameters)
            return _changed(compiled, int(status.rpartition(" ")[2]))
        if compiled.is_insert:
            return _inserted(compiled, await self.driver.fetch(compiled.sql, *parameters))
        # What its fetch does, which has no parameter for the limit; the first rows of a long list are read twice.
        limit = ROWS_AT_A_TIME + 1 if self.portals else 0
        records = await self.driver._execute(compiled.sql, parameters, limit, None)
        if len(records) <= ROWS_AT_A_TIME:
            return StatementResult(compiled.rows(records), 0)
        if self.portals:
            return StatementResult(await self._by_portal(compiled, parameters), 0)
        return StatementResult(await in_portions(compiled, records), 0)

    async def _by_portal(self, compiled: CompiledStatement, parameters: Parameters) -> list[Any]:
        """The rows of a long list: all at once the driver would make an object of each, with nobody to set them aside.

        If it fails in a transaction of its own, the connection stays in it, and is not used again.
        """
        alone = self.idle()
        if alone:
            await self.script("BEGIN")
        portal = await self.driver.cursor(compiled.sql, *parameters)
        rows: list[Any] = []
        while records := await portal.fetch(ROWS_OF_A_PORTAL):
            rows += await in_portions(compiled, records)
        await portal._close_portal(None)
        if alone:
            await self.script("COMMIT")
        return rows

    async def run_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        if len(parameters) >= COPY_FROM_ROWS:
            table, columns = _target(compiled.sql)
            numbers = await self._reserve(table, len(parameters), numbered=compiled.numbered)
            if numbers is not None:
                records: Sequence[Any] = parameters
                if compiled.numbered:
                    columns = ("id", *columns)
                    records = [(number, *row) for number, row in zip(numbers, parameters, strict=True)]
                status: str = await self.driver.copy_records_to_table(table, records=records, columns=columns)
                _check_count(int(status.rpartition(" ")[2]), len(parameters))
                return numbers
        # The protocol answers each set of parameters in its turn, so that the ids are those of the rows by guarantee.
        sql = compiled.sql if compiled.returns_rows else f"{compiled.sql} RETURNING 1"
        found = await self.driver.fetchmany(sql, parameters)
        _check_count(len(found), len(parameters))
        return [record[0] for record in found] if compiled.returns_rows else []

    async def _reserve(self, table: str, count: int, *, numbered: bool) -> list[int] | None:
        if not numbered:
            return [] if await self.driver.fetchval(_LOOK.format("$1"), table) else None
        records = await self.driver.fetch(_RESERVE.format("$1", "$2"), table, count)
        return None if records[0][0] is None else [record[0] for record in records]


class PsycopgConnection(DriverConnection):
    """A connection of psycopg."""

    _hung_up = False

    def closed(self) -> bool:
        return bool(self.driver.closed)

    def idle(self) -> bool:
        return int(self.driver.pgconn.transaction_status) == 0

    def _socket(self) -> int:
        descriptor: int = self.driver.fileno()
        return descriptor

    @contextlib.contextmanager
    def in_time(self) -> Generator[None]:
        if self.timeout is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(self.timeout, self._hang_up)
        silent = False
        try:
            yield
        except Exception:
            if not self._hung_up:
                raise
            silent = True
        finally:
            timer.cancel()
        if silent:
            raise TimeoutError

    def _hang_up(self) -> None:
        # Not by cancelling the task, as asyncio.timeout does: where it is shielded that does nothing.
        self._hung_up = True
        hang_up(self._socket())

    async def set_autocommit(self, on: bool) -> None:
        await self.connection.execution_options(isolation_level="AUTOCOMMIT" if on else "READ COMMITTED")

    async def script(self, sql: str) -> None:
        with self.in_time():
            await self.driver.execute(sql)

    async def run(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        with self.in_time():
            # In binary no setting of the session has a say in what a value looks like.
            cursor = await self.driver.execute(compiled.sql, parameters, binary=True)
        if not compiled.returns_rows:
            return _changed(compiled, cursor.rowcount)
        if compiled.is_insert:
            return _inserted(compiled, await cursor.fetchall())
        return StatementResult(await self._fetched(compiled, cursor), 0)

    async def _fetched(self, compiled: CompiledStatement, cursor: Any) -> list[Any]:
        """The rows, which have all arrived; the driver makes Python's objects of as many as it is asked for."""
        size, make_old = FIRST_ROWS, set_aside()
        started = perf_counter()
        rows = compiled.rows(await cursor.fetchmany(size))
        while len(rows) < cursor.rowcount:
            quick = perf_counter() - started < SECONDS_AT_A_TIME
            size = min(size * 2, ROWS_AT_A_TIME) if quick else max(size // 2, 1)
            make_old()
            await asyncio.sleep(0)
            started = perf_counter()
            rows += compiled.rows(await cursor.fetchmany(size))
        return rows

    async def run_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        cursor = self.driver.cursor()
        if len(parameters) >= COPY_FROM_ROWS:
            table, columns = _target(compiled.sql)
            with self.in_time():
                reserved = await self._reserve(table, len(parameters), numbered=compiled.numbered)
                if reserved is not None:
                    await _copy(cursor, table, columns, parameters, reserved)
                    return reserved
        await cursor.executemany(compiled.sql, parameters, returning=compiled.returns_rows)
        if not compiled.returns_rows:
            _check_count(cursor.rowcount, len(parameters))
            return []
        numbers: list[int] = []
        more = True
        while more:  # one result for each set of parameters, in their order
            numbers.extend(record[0] for record in await cursor.fetchall())
            more = cursor.nextset()
        _check_count(len(numbers), len(parameters))
        return numbers

    async def _reserve(self, table: str, count: int, *, numbered: bool) -> list[int] | None:
        if numbered:
            cursor = await self.driver.execute(_RESERVE.format("%s", "%s"), (table, table, table, count))
        else:
            cursor = await self.driver.execute(_LOOK.format("%s"), (table, table))
        records = await cursor.fetchall()
        if not records[0][0]:
            return None
        return [record[0] for record in records] if numbered else []


def hang_up(descriptor: int) -> None:
    """End a connection from below, so that whoever waits for the server there gets an error."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)


async def _copy(
    cursor: Any, table: str, columns: tuple[str, ...], parameters: Sequence[Any], numbers: Sequence[int]
) -> None:
    names = ("id", *columns) if numbers else columns
    try:
        async with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
            for place, row in enumerate(parameters):
                await copy.write_row([*numbers[place : place + 1], *(row[column] for column in columns)])
    except BaseException:
        await shielded(_leave_copy(cursor.connection))
        raise
    _check_count(cursor.rowcount, len(parameters))


async def _leave_copy(connection: Any) -> None:
    """End a COPY whose task was cancelled as it began: psycopg leaves it open, and no statement could follow."""
    from psycopg import Error, generators  # noqa: PLC0415  # only where psycopg is the driver
    from psycopg.pq import TransactionStatus  # noqa: PLC0415

    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        with contextlib.suppress(Error):  # which is the answer to a COPY that is given up
            await connection.wait(generators.copy_end(connection.pgconn, b"given up"))


def _changed(compiled: CompiledStatement, count: int) -> StatementResult:
    if not count and compiled.adds_one:
        raise skipped()
    return StatementResult([], count)


def _inserted(compiled: CompiledStatement, records: Sequence[Any]) -> StatementResult:
    if records:
        return StatementResult([], len(records), records[0][0])
    if compiled.adds_one:
        raise skipped()
    return StatementResult([], 0)


def _check_count(written: int, wanted: int) -> None:
    if written != wanted:
        raise skipped()


@cache
def _target(sql: str) -> tuple[str, tuple[str, ...]]:
    """The table and the columns of an INSERT of ours."""
    table, _, columns = sql.removeprefix("INSERT INTO ").partition(" VALUES ")[0].partition(" ")
    return table, tuple(columns.strip("()").split(", "))

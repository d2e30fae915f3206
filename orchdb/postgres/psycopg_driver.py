"""psycopg: its connection, for which a statement whose task is cancelled has ended on the server, too.

A request to cancel goes by a connection of its own and can come before the statement, which then runs on: psycopg sends
it once, and closes the connection after five seconds while the server works on. Here it is sent until it has worked.
Who is cancelled again meanwhile, or shut down, does not break that off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Sequence
from time import perf_counter
from typing import Any

from psycopg import AsyncConnection, Error, generators
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.waiting import wait_async

from orchdb.backend import StatementResult
from orchdb.clocks import done_within, steady
from orchdb.concurrency import begun, shielded
from orchdb.postgres.drivers import (
    COPY_FROM_ROWS,
    FIELD_MARK,
    LOOK,
    RESERVE,
    DriverConnection,
    changed,
    check_count,
    hang_up,
    inserted,
    target,
)
from orchdb.statements import ROWS_AT_A_TIME, CompiledStatement, Parameters, set_aside

FIRST_ROWS = 128
SECONDS_AT_A_TIME = 0.005
"""How long a portion may take; with large values it holds fewer rows."""
COPY_BYTES = 256 * 1024
"""At a time."""
CANCEL_AGAIN_SECONDS = 0.05
GIVE_UP_SECONDS = 5.0


class PsycopgConnection(DriverConnection):
    """A connection of psycopg."""

    _hung_up = False

    def closed(self) -> bool:
        return bool(self.driver.closed)

    def idle(self) -> bool:
        return bool(self.driver.pgconn.transaction_status == TransactionStatus.IDLE)

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

    async def fetch(self, sql: str) -> list[Any]:
        with self.in_time():
            cursor = await self.driver.execute(sql, binary=True)
            rows: list[Any] = await cursor.fetchall()
        return rows

    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        sql = f"COPY {table} ({', '.join(columns)}) FROM STDIN (DELIMITER '{FIELD_MARK}', ENCODING 'utf8')"
        try:
            async with self.driver.cursor().copy(sql) as copy:
                for start in range(0, len(data), COPY_BYTES):
                    await copy.write(data[start : start + COPY_BYTES])
        except BaseException:
            await shielded(_leave_copy(self.driver))
            raise

    async def run(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        with self.in_time():
            # In binary no setting of the session has a say in what a value looks like.
            cursor = await self.driver.execute(compiled.sql, parameters, binary=True)
        if not compiled.returns_rows:
            return changed(compiled, cursor.rowcount)
        if compiled.is_insert:
            return inserted(compiled, await cursor.fetchall())
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
            table, columns = target(compiled.sql)
            with self.in_time():
                reserved = await self._reserve(table, len(parameters), numbered=compiled.numbered)
                if reserved is not None:
                    await _copy(cursor, table, columns, parameters, reserved)
                    return reserved
        await self._execute_many(cursor, compiled, parameters)
        if not compiled.returns_rows:
            check_count(cursor.rowcount, len(parameters))
            return []
        numbers: list[int] = []
        more = True
        while more:  # one result for each set of parameters, in their order
            numbers.extend(record[0] for record in await cursor.fetchall())
            more = cursor.nextset()
        check_count(len(numbers), len(parameters))
        return numbers

    async def _execute_many(self, cursor: Any, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> None:
        """Run the statement for each row, as a pipeline; what does not come out of it again cannot be used any more."""
        try:
            await cursor.executemany(compiled.sql, parameters, returning=compiled.returns_rows)
        except BaseException:
            if self.driver.pgconn.pipeline_status:
                self.driver.pgconn.finish()
            raise

    async def _reserve(self, table: str, count: int, *, numbered: bool) -> list[int] | None:
        if numbered:
            cursor = await self.driver.execute(RESERVE.format("%s", "%s"), (table, table, table, count))
        else:
            cursor = await self.driver.execute(LOOK.format("%s"), (table, table))
        records = await cursor.fetchall()
        if not records[0][0]:
            return None
        return [record[0] for record in records] if numbered else []


async def _copy(
    cursor: Any, table: str, columns: tuple[str, ...], parameters: Sequence[Any], numbers: Sequence[int]
) -> None:
    names = ("id", *columns) if numbers else columns
    try:
        async with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
            for index, row in enumerate(parameters):
                await copy.write_row([*numbers[index : index + 1], *(row[column] for column in columns)])
    except BaseException:
        await shielded(_leave_copy(cursor.connection))
        raise
    check_count(cursor.rowcount, len(parameters))


async def _leave_copy(connection: Any) -> None:
    """End a COPY whose task was cancelled as it began: psycopg leaves it open, and no statement could follow."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        with contextlib.suppress(Error):  # which is the answer to a COPY that is given up
            await connection.wait(generators.copy_end(connection.pgconn, b"given up"))


class CancellingConnection(AsyncConnection[Any]):
    """A connection that goes on asking for the end of a cancelled statement, and for nothing else."""

    async def wait(self, gen: PQGen[Any], interval: float = 0.1, *limit: Any, **limits: Any) -> Any:
        """Run what waits for the server, as psycopg does."""
        pipeline = self._pipeline
        level = pipeline.level if pipeline else 0
        try:
            return await wait_async(gen, self.pgconn.socket, interval, *limit, **limits)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await shielded(self._end(gen, interval))
            if pipeline and pipeline.level > level:
                # It has been entered, of which psycopg never hears: an assertion of its own would take the place of the
                # cancellation, and the connection would stay in the pipeline.
                pipeline._exit(None)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            raise

    async def _end(self, gen: PQGen[Any], interval: float) -> None:
        ended = begun(wait_async(gen, self.pgconn.socket, interval))
        latest = steady() + GIVE_UP_SECONDS
        while not ended.done() and (left := latest - steady()) > 0:
            # Each request is waited for: one that is on its way could meet the next statement.
            with contextlib.suppress(Exception):
                await self.cancel_safe(timeout=left)
            await done_within(ended, CANCEL_AGAIN_SECONDS)
        if not ended.done():
            hang_up(self.pgconn.socket)
            await asyncio.wait((ended,))
        if ended.exception() is not None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.pgconn.finish()  # nobody knows what it is in the middle of

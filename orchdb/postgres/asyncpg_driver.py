"""asyncpg: its connection, and the one place that knows private names of that driver.

A request to cancel goes by a connection of its own and can come before the statement, which then runs on: asyncpg sends
it once, and the next statement on the connection waits. Here it is sent until it has worked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from importlib import import_module
from typing import Any

from orchdb.backend import StatementResult
from orchdb.clocks import done_within
from orchdb.postgres.drivers import (
    COPY_FROM_ROWS,
    FIELD_MARK,
    LOOK,
    RESERVE,
    DriverConnection,
    changed,
    check_count,
    inserted,
    target,
)
from orchdb.statements import ROWS_AT_A_TIME, CompiledStatement, Parameters, in_portions

asyncpg: Any = import_module("asyncpg")  # it has no types
connect_utils: Any = import_module("asyncpg.connect_utils")

ROWS_OF_A_PORTAL = 5000
"""In one round trip, of a list that is longer than ``ROWS_AT_A_TIME``."""
CANCEL_AGAIN_SECONDS = 0.05


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

    async def fetch(self, sql: str) -> list[Any]:
        rows: list[Any] = await self.driver.fetch(sql)
        return rows

    async def copy_in(self, table: str, columns: Sequence[str], data: bytes) -> None:
        options: dict[str, Any] = {"format": "text", "delimiter": FIELD_MARK, "encoding": "utf8"}
        await self.driver.copy_to_table(table, source=_once(data), columns=columns, **options)

    async def run(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        if not compiled.returns_rows:
            status: str = await self.driver.execute(compiled.sql, *parameters)
            return changed(compiled, int(status.rpartition(" ")[2]))
        if compiled.is_insert:
            return inserted(compiled, await self.driver.fetch(compiled.sql, *parameters))
        # What its fetch does, which has no parameter for the limit; the first rows of a long list are read twice.
        # Sums are found once: that is what takes the time, and with a limit the server would do it in one process.
        in_parts = self.portals and not compiled.is_sum
        limit = ROWS_AT_A_TIME + 1 if in_parts else 0
        records = await self.driver._execute(compiled.sql, parameters, limit, None)
        if len(records) <= ROWS_AT_A_TIME:
            return StatementResult(compiled.rows(records), 0)
        if in_parts:
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
            table, columns = target(compiled.sql)
            numbers = await self._reserve(table, len(parameters), numbered=compiled.numbered)
            if numbers is not None:
                records: Sequence[Any] = parameters
                if compiled.numbered:
                    columns = ("id", *columns)
                    records = [(number, *row) for number, row in zip(numbers, parameters, strict=True)]
                status: str = await self.driver.copy_records_to_table(table, records=records, columns=columns)
                check_count(int(status.rpartition(" ")[2]), len(parameters))
                return numbers
        # The protocol answers each set of parameters in its turn, so that the ids are those of the rows by guarantee.
        sql = compiled.sql if compiled.returns_rows else f"{compiled.sql} RETURNING 1"
        found = await self.driver.fetchmany(sql, parameters)
        check_count(len(found), len(parameters))
        return [record[0] for record in found] if compiled.returns_rows else []

    async def _reserve(self, table: str, count: int, *, numbered: bool) -> list[int] | None:
        if not numbered:
            return [] if await self.driver.fetchval(LOOK.format("$1"), table) else None
        records = await self.driver.fetch(RESERVE.format("$1", "$2"), table, count)
        return None if records[0][0] is None else [record[0] for record in records]


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    yield data


class CancellingConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that goes on asking for the end of a cancelled statement, and for nothing else."""

    __slots__ = ()
    _loop: asyncio.AbstractEventLoop
    _addr: Any
    _params: Any
    _protocol: Any

    async def _cancel(self, waiter: asyncio.Future[None], *acknowledged: asyncio.Future[None]) -> None:
        """Send the request: ``waiter`` is done when none is on its way, which could meet the next statement."""
        send: Any = super()._cancel  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not acknowledged:  # asyncpg before 0.32 does not say when the statement has ended
            await send(waiter)
            return
        sent: asyncio.Future[None] = self._loop.create_future()
        repeats = self._loop.create_task(self._repeat(sent, *acknowledged))
        try:
            await send(sent, *acknowledged)
            await asyncio.wait((repeats,))
        finally:
            repeats.cancel()
            if not waiter.done():
                waiter.set_result(None)

    async def _repeat(self, sent: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        await asyncio.wait((sent,))
        while not await done_within(ended, CANCEL_AGAIN_SECONDS):
            request: dict[str, Any] = {"loop": self._loop, "addr": self._addr, "params": self._params}
            with contextlib.suppress(Exception):
                await connect_utils._cancel(
                    **request, backend_pid=self._protocol.backend_pid, backend_secret=self._protocol.backend_secret
                )

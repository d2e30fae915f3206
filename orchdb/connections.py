"""The ``AsyncConnection`` objects that callers get for their own SQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncResult
from sqlalchemy.ext.asyncio.base import asyncstartablecontext

from orchdb.errors import OperationError
from orchdb.shielding import to_the_end


class ShieldedConnection(AsyncConnection):
    """A connection whose statements run to their end when the caller is cancelled.

    SQLAlchemy closes a connection whose statement is cancelled, and a statement of ours that had rows left would then
    hold its lock until the garbage collector runs.
    """

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await to_the_end(super().execute(*args, **options))

    async def exec_driver_sql(self, *args: Any, **options: Any) -> Any:
        return await to_the_end(super().exec_driver_sql(*args, **options))

    async def run_sync(self, *args: Any, **options: Any) -> Any:
        return await to_the_end(super().run_sync(*args, **options))

    async def commit(self) -> None:
        await to_the_end(super().commit())

    async def rollback(self) -> None:
        await to_the_end(super().rollback())

    @asyncstartablecontext
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[AsyncResult[Any]]:
        """The rows, all fetched: a cancelled fetch of one that is still running would close the connection."""
        options["execution_options"] = {**(options.get("execution_options") or {}), "stream_results": False}
        result = AsyncResult(await self.execute(*args, **options))
        with contextlib.suppress(GeneratorExit):  # awaited, and not entered as a context
            yield result


def _refused() -> NoReturn:
    raise OperationError("db.transaction() begins and ends the transaction of tx.conn")


class _PartOfTransaction(AsyncConnection):
    """A connection that takes part in ``db.transaction()`` and cannot end it."""

    async def commit(self) -> None:
        _refused()

    async def rollback(self) -> None:
        _refused()

    async def close(self) -> None:
        _refused()

    async def invalidate(self, exception: BaseException | None = None) -> None:
        _refused()


class TransactionConnection(_PartOfTransaction):
    """``tx.conn`` where the driver handles a cancelled statement itself."""


class ShieldedTransactionConnection(_PartOfTransaction, ShieldedConnection):
    """``tx.conn`` where a cancelled statement has to run to its end."""

    def begin_nested(self) -> NoReturn:
        raise OperationError("tx.conn: a savepoint is async with tx.transaction()")


def part_of_transaction(engine: AsyncEngine, connection: AsyncConnection, *, shielded: bool) -> AsyncConnection:
    """A second face of the connection, for the caller."""
    face = ShieldedTransactionConnection if shielded else TransactionConnection
    synchronous = connection.sync_connection
    assert isinstance(synchronous, Connection)
    return face(engine, synchronous)

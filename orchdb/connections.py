"""The ``AsyncConnection`` objects that callers get for their own SQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncResult
from sqlalchemy.ext.asyncio.base import asyncstartablecontext

from orchdb.concurrency import begun, once_cancelled, shielded
from orchdb.errors import OperationError
from orchdb.own_statements import hold, refuse

Step = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What a caller's own statement in a transaction goes through."""


class _BufferedConnection(AsyncConnection):
    """A connection that keeps nothing open for a reader who pauses."""

    @asyncstartablecontext
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[AsyncResult[Any]]:
        """The rows, all fetched: a cancelled fetch of one that is still running would close the connection."""
        options["execution_options"] = {**(options.get("execution_options") or {}), "stream_results": False}
        result = AsyncResult(await self.execute(*args, **options))
        with contextlib.suppress(GeneratorExit):  # awaited, and not entered as a context
            yield result


class ShieldedConnection(_BufferedConnection):
    """A connection whose statements run to their end when the caller is cancelled.

    SQLAlchemy closes a connection whose statement is cancelled, and a statement of ours that had rows left would then
    hold its lock until the garbage collector runs.
    """

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await shielded(super().execute(*args, **options))

    async def exec_driver_sql(self, *args: Any, **options: Any) -> Any:
        return await shielded(super().exec_driver_sql(*args, **options))

    async def run_sync(self, *args: Any, **options: Any) -> Any:
        return await shielded(super().run_sync(*args, **options))

    async def commit(self) -> None:
        await shielded(super().commit())

    async def rollback(self) -> None:
        await shielded(super().rollback())


class _PatientConnection(_BufferedConnection):
    """A connection whose cancelled statements have ended when the cancellation goes on, however often it comes."""

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await once_cancelled(partial(super().execute, *args, **options))

    async def exec_driver_sql(self, *args: Any, **options: Any) -> Any:
        return await once_cancelled(partial(super().exec_driver_sql, *args, **options))

    async def run_sync(self, *args: Any, **options: Any) -> Any:
        return await once_cancelled(partial(super().run_sync, *args, **options))


class SharedConnection(_BufferedConnection):
    """A connection to a server that the caller's tasks share, for reading.

    A statement outside a transaction that the caller began stands for itself: it waits for the others, and it is run
    again on a new connection if the old one turns out to be gone.
    """

    def __init__(self, engine: AsyncEngine, connection: Connection | None = None) -> None:
        super().__init__(engine, connection)
        self._turn = asyncio.Lock()
        self._opening: asyncio.Future[None] | None = None

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await self._by_itself(partial(super().execute, *args, **options))

    async def exec_driver_sql(self, *args: Any, **options: Any) -> Any:
        return await self._by_itself(partial(super().exec_driver_sql, *args, **options))

    async def run_sync(self, *args: Any, **options: Any) -> Any:
        return await self._by_itself(partial(super().run_sync, *args, **options))

    async def close(self) -> None:
        if self._opening is not None:
            await shielded(asyncio.wait((self._opening,)))
        await super().close()

    async def _by_itself(self, run: Callable[[], Awaitable[Any]]) -> Any:
        async with self._turn:
            await self._open_again()
            if self.in_transaction():
                return await once_cancelled(run)
            try:
                return await self._once(run)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            await self._open_again()
            return await self._once(run)

    async def _open_again(self) -> None:
        """Open a new connection if the old one is gone; cut off in the middle it would leak, so the next waits on."""
        if self._opening is None:
            connection = self.sync_connection
            if connection is None or not connection.invalidated or connection.get_transaction() is not None:
                return
            self._opening = begun(AsyncConnection.run_sync(self, _open))
            self._opening.add_done_callback(self._has_opened)
        await asyncio.shield(self._opening)

    def _has_opened(self, opening: asyncio.Future[None]) -> None:
        self._opening = None
        opening.exception()  # retrieved: nobody may be waiting any more

    async def _once(self, run: Callable[[], Awaitable[Any]]) -> Any:
        try:
            result = await once_cancelled(run)
            await super().commit()
        except BaseException:
            await shielded(super().rollback())
            raise
        return result


def _open(connection: Connection) -> None:
    _ = connection.connection  # which SQLAlchemy makes if there is none


class _PartOfTransaction(_BufferedConnection):
    """A connection that takes part in ``db.transaction()`` and cannot end it; its statements take their turn."""

    def __init__(self, engine: AsyncEngine, connection: Connection, step: Step) -> None:
        super().__init__(engine, connection)
        self._step = step
        self.options = connection.get_execution_options()

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await self._step(partial(super().execute, *args, **options))

    async def exec_driver_sql(self, *args: Any, **options: Any) -> Any:
        return await self._step(partial(super().exec_driver_sql, *args, **options))

    async def run_sync(self, *args: Any, **options: Any) -> Any:
        return await self._step(partial(super().run_sync, *args, **options))

    async def get_raw_connection(self) -> Any:
        return await self._step(super().get_raw_connection)

    async def commit(self) -> None:
        refuse("commit()")

    async def rollback(self) -> None:
        refuse("rollback()")

    async def close(self) -> None:
        refuse("close()")

    async def invalidate(self, exception: BaseException | None = None) -> None:
        refuse("invalidate()")

    def begin(self) -> NoReturn:
        refuse("begin()")

    def get_transaction(self) -> NoReturn:
        refuse("get_transaction()")

    def begin_nested(self) -> NoReturn:
        raise OperationError("tx.conn: a savepoint is async with tx.transaction()")


class TransactionConnection(_PartOfTransaction, _PatientConnection):
    """``tx.conn`` where the driver handles a cancelled statement itself."""


class ShieldedTransactionConnection(_PartOfTransaction, ShieldedConnection):
    """``tx.conn`` where a cancelled statement has to run to its end."""


def part_of_transaction(
    engine: AsyncEngine, connection: AsyncConnection, step: Step, *, shielded: bool
) -> AsyncConnection:
    """A second ``AsyncConnection`` over the connection, for the caller, each of whose statements goes through ``step``.

    The connection cannot end its transaction any more, until it is ``orchdb.own_statements.free``.
    """
    caller_connection = ShieldedTransactionConnection if shielded else TransactionConnection
    synchronous = connection.sync_connection
    assert isinstance(synchronous, Connection)
    hold(synchronous)
    return caller_connection(engine, synchronous, step)


def let_go(caller_connection: AsyncConnection) -> None:
    """Take the connection away from the caller's, and the options that were set through it from the connection."""
    connection = caller_connection.sync_connection
    if isinstance(caller_connection, _PartOfTransaction) and connection is not None:
        # SQLAlchemy only ever adds options.
        connection._execution_options = caller_connection.options  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    caller_connection.sync_connection = None

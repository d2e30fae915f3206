"""A transaction on a Postgres server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.backend import BackendTransaction, Outcome, Step
from orchdb.connections import part_of_transaction
from orchdb.errors import ConnectionLostError, OperationError
from orchdb.lanes import Lane
from orchdb.own_statements import SAVEPOINTS, free
from orchdb.pool import Lanes
from orchdb.prepared import Parameters, Prepared
from orchdb.sequences import catch_up, is_behind
from orchdb.shielding import to_the_end

# COMMIT runs the query of such a cursor to its end, and this one fails: then nothing is kept, whoever sent the COMMIT.
_GUARD = (
    f"DECLARE {SAVEPOINTS}guard_{{}} NO SCROLL CURSOR WITH HOLD FOR "
    "SELECT pg_catalog.current_setting('orchdb.db.transaction() begins and ends the transaction')"
)
_FORGET = (
    "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; "
    "DISCARD TEMP"
)


class PostgresTransaction(BackendTransaction):
    """A transaction on a lane of its own.

    Postgres ends a transaction in which a statement failed, so each needs a savepoint to be undone to.
    """

    first_savepoint = f"{SAVEPOINTS}begin"

    def __init__(self, lanes: Lanes, lane: Lane, engine: AsyncEngine) -> None:
        self._lanes = lanes
        self._lane = lane
        self._engine = engine
        self._over = False
        self._foreign = False  # whether the caller may have run statements of their own
        self._guards = 0
        self._guarded = False  # for certain: what is undone takes along what was declared since

    @classmethod
    async def begin(cls, lanes: Lanes, lane: Lane, engine: AsyncEngine) -> Self:
        """Begin the transaction; if that fails, the lane is released."""
        transaction = cls(lanes, lane, engine)
        try:
            await lane.set_autocommit(False)
            await lane.connection.begin()
            await lane.connection.exec_driver_sql(f"SAVEPOINT {cls.first_savepoint}")  # which sends BEGIN, too
        except BaseException:
            await transaction.rollback()
            raise
        return transaction

    def caller_connection(self, step: Step) -> AsyncConnection:
        self._foreign = True
        return part_of_transaction(self._engine, self._lane.connection, step, shielded=False)

    async def run(self, prepared: Prepared, parameters: Parameters, before: Sequence[str] = ()) -> Outcome:
        await self._ready(before)
        return await self._lane.run(prepared, parameters)

    async def run_many(
        self, prepared: Prepared, parameters: Sequence[Parameters], before: Sequence[str] = ()
    ) -> list[int]:
        await self._ready(before)
        return await self._lane.run_many(prepared, parameters)

    async def script(self, statements: Sequence[str]) -> None:
        await self._ready(statements)

    async def before_own(self, before: Sequence[str]) -> None:
        if self._guarded:
            await self.script(before)
            return
        self._guards += 1
        # Before the savepoint, so that it outlives a statement that fails.
        await self.script([_GUARD.format(self._guards), *before])
        self._guarded = True

    def ended(self) -> bool:
        return not self._lane.closed() and self._lane.idle()

    async def undo(self, savepoint: str | None) -> None:
        self._guarded = False
        await super().undo(savepoint)

    async def _ready(self, before: Sequence[str]) -> None:
        if self._lane.closed():
            raise ConnectionLostError("the connection to the server was lost")
        if self._lane.idle():  # psycopg would begin a new one by itself
            raise OperationError("the transaction was ended by an earlier failure or statement")
        if before:
            # To the end: a savepoint takes no time, and half of a script would leave the others wrong.
            await to_the_end(self._lane.script("; ".join(before)))

    def removal(self, prepared: Prepared, error: Exception) -> Callable[[], Awaitable[None]] | None:
        return partial(catch_up, self._lane, prepared) if is_behind(prepared, error) else None

    def interrupt(self) -> bool:
        return False

    async def commit(self) -> None:
        free(self._lane.connection.sync_connection)
        try:
            # In a transaction that has failed COMMIT would roll back and say nothing; this fails there, and in another.
            await self.script([*["CLOSE ALL"] * bool(self._guards), f"RELEASE SAVEPOINT {self.first_savepoint}"])
            with self._lane.in_time():
                await self._lane.connection.commit()
        except BaseException:
            await self.rollback()
            raise
        await self._end()

    async def rollback(self) -> None:
        free(self._lane.connection.sync_connection)
        try:
            await to_the_end(self._rollback())
        finally:
            await self._end()

    async def _rollback(self) -> None:
        try:
            with self._lane.in_time():
                await self._lane.connection.rollback()
        except Exception:  # the server rolls back a connection that ends
            return

    async def _end(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            # One that could not be rolled back is thrown away: to set it anew would fail in place of what led here.
            if not self._lane.closed() and self._lane.idle():
                await to_the_end(self._lane.set_autocommit(True))
                if self._foreign:
                    await to_the_end(self._forget())
        finally:
            self._lanes.release(self._lane)

    async def _forget(self) -> None:
        """Take back what statements of the caller's own have set for the session: the next one to use it is another."""
        try:
            await self._lane.script(_FORGET)
        except Exception:  # it is not used again, so that the end of the block does not fail by it
            self._lane.stale = True

"""A transaction on SQLite's one connection that writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.backend import BROKEN, BackendTransaction, Outcome, Step
from orchdb.connections import part_of_transaction
from orchdb.errors import OperationError
from orchdb.files import Watch
from orchdb.foreign_triggers import Connection, ForeignTriggers
from orchdb.jobs import ManyRows, OneStatement
from orchdb.own_statements import free
from orchdb.prepared import Parameters, Prepared
from orchdb.shielding import to_the_end
from orchdb.work import Work
from orchdb.writer import Writer


class Script(Work):
    """Statements that give nothing back."""

    def __init__(self, statements: Sequence[str]) -> None:
        self._statements = statements

    def __call__(self, connection: Connection) -> None:
        for statement in self._statements:
            connection.execute(statement).close()


class InTransaction(Work):
    """Work inside the caller's transaction, behind its savepoint.

    It is refused when an earlier failure has ended the transaction: ``SAVEPOINT`` would begin a new one.
    """

    def __init__(self, work: Work, before: Sequence[str] = ()) -> None:
        self._work = work
        self._before = Script(before)

    def __call__(self, connection: Connection) -> Any:
        if not connection.in_transaction:
            raise OperationError(BROKEN)
        triggers = connection.foreign_triggers
        held, triggers.held = triggers.held, False
        try:
            self._before(connection)
            return self._work(connection)
        finally:
            triggers.held = held


class Hold(InTransaction):
    """From here on only works of orchdb's begin and end transactions on the connection, and touch its savepoints.

    Its statements are compiled anew, for SQLite to ask: it keeps those that have run, also ``COMMIT``.
    """

    def __init__(self, before: Sequence[str]) -> None:
        super().__init__(Script(before))
        self.triggers: ForeignTriggers | None = None

    def __call__(self, connection: Connection) -> None:
        super().__call__(connection)
        connection.look_out()
        self.triggers = connection.foreign_triggers
        self.triggers.held = True

    def let_go(self) -> None:
        """Let others begin and end them again; from the event loop, while nothing runs in the thread."""
        if self.triggers is not None:
            self.triggers.held = False


class Undo(Work):
    """The end of a transaction that SQLAlchemy holds for ended, because its COMMIT was sent: it can have failed."""

    def __call__(self, connection: Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK").close()


class Check(Work):
    """The look at the file before it is written."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, connection: Connection) -> None:
        self._watch.check()


class SqliteTransaction(BackendTransaction):
    """A transaction that holds the writer's connection."""

    def __init__(self, writer: Writer, engine: AsyncEngine, watch: Watch) -> None:
        self._writer = writer
        self._engine = engine
        self._lane = writer.lane
        self._watch = watch
        self._hold: Hold | None = None

    def caller_connection(self, step: Step) -> AsyncConnection:
        return part_of_transaction(self._engine, self._lane.connection, step, shielded=True)

    async def run(self, prepared: Prepared, parameters: Parameters, before: Sequence[str] = ()) -> Outcome:
        outcome: Outcome = await self._call(OneStatement(prepared, parameters), before)
        return outcome

    async def run_many(
        self, prepared: Prepared, parameters: Sequence[Parameters], before: Sequence[str] = ()
    ) -> list[int]:
        numbers: list[int] = await self._call(ManyRows(prepared, parameters), before)
        return numbers

    async def script(self, statements: Sequence[str]) -> None:
        if statements:
            await self._call(Script(statements))

    async def before_own(self, before: Sequence[str]) -> None:
        if self._hold is not None and self._hold.triggers is not None:
            await self.script(before)
            return
        self._hold = Hold(before)
        await self._in_thread(self._hold)

    def ended(self) -> bool:
        return not self._lane.in_transaction()

    def _let_go(self) -> None:
        free(self._lane.connection.sync_connection)
        if self._hold is not None:
            self._hold.let_go()

    async def _call(self, work: Work, before: Sequence[str] = ()) -> Any:
        return await self._in_thread(InTransaction(work, before))

    async def _in_thread(self, work: Work) -> Any:
        try:
            return await self._lane.call(work)
        except sqlite3.DatabaseError as error:
            self._watch.saw(error)
            raise

    def interrupt(self) -> bool:
        self._lane.interrupt()
        return True

    async def commit(self) -> None:
        self._let_go()
        try:
            # A failure such as a full disk may have ended the transaction: COMMIT would then say nothing.
            await self._call(Check(self._watch))
            await to_the_end(self._lane.connection.commit())
        except BaseException:
            await self.rollback()
            raise
        self._writer.release()

    async def rollback(self) -> None:
        self._let_go()
        try:
            await to_the_end(self._rollback())
        finally:
            self._writer.release()

    async def _rollback(self) -> None:
        try:
            await self._lane.connection.rollback()
        finally:
            await self._lane.call(Undo())

"""A transaction on SQLite's one connection that writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.backend import BROKEN, BackendTransaction, StatementResult
from orchdb.concurrency import shielded
from orchdb.connections import Step, part_of_transaction
from orchdb.errors import OperationError
from orchdb.own_statements import free
from orchdb.sqlite.files import FileGuard
from orchdb.sqlite.foreign_triggers import ROLLBACK, ForeignTriggers, SqliteConnection
from orchdb.sqlite.jobs import Job, ManyRows, OneStatement, TwoStatements
from orchdb.sqlite.own_settings import Forget
from orchdb.sqlite.write_queue import WriteQueue
from orchdb.statements import CompiledStatement, Parameters


class SqliteTransaction(BackendTransaction):
    """A transaction that holds the connection that writes."""

    def __init__(self, write_queue: WriteQueue, engine: AsyncEngine, guard: FileGuard) -> None:
        self._write_queue = write_queue
        self._engine = engine
        self.driver_connection = write_queue.conn
        self._guard = guard
        self._held: ForeignTriggers | None = None
        self._foreign = False  # whether the caller may have run statements of their own

    def caller_connection(self, step: Step) -> AsyncConnection:
        self._foreign = True
        return part_of_transaction(self._engine, self.driver_connection.connection, step, shielded=True)

    async def run(
        self, compiled: CompiledStatement, parameters: Parameters, before: Sequence[str] = ()
    ) -> StatementResult:
        kind = TwoStatements if compiled.is_pair else OneStatement
        result: StatementResult = await self._call(kind(compiled, parameters), before)
        return result

    async def run_many(
        self, compiled: CompiledStatement, parameters: Sequence[Parameters], before: Sequence[str] = ()
    ) -> list[int]:
        numbers: list[int] = await self._call(ManyRows(compiled, parameters), before)
        return numbers

    async def script(self, statements: Sequence[str]) -> None:
        if statements:
            await self._call(Script(statements))

    async def before_own(self, before: Sequence[str]) -> None:
        await self.script(before)
        self._held = self.driver_connection.driver.foreign_triggers
        self._held.held = True

    def ended(self) -> bool:
        return not self.driver_connection.driver.in_transaction

    def _let_go(self) -> None:
        free(self.driver_connection.connection.sync_connection)
        if self._held is not None:
            self._held.held = False

    async def _call(self, job: Job, before: Sequence[str] = ()) -> Any:
        try:
            return await self.driver_connection.call(InTransaction(job, before))
        except sqlite3.DatabaseError as error:
            self._guard.note_error(error)
            raise

    def interrupt(self) -> bool:
        self.driver_connection.interrupt()
        return True

    async def commit(self) -> None:
        self._let_go()
        try:
            # A failure such as a full disk may have ended the transaction: COMMIT would then say nothing.
            await self._call(Check(self._guard))
            await shielded(self.driver_connection.connection.commit())
        except BaseException:
            await self.rollback()
            raise
        await self._end()

    async def rollback(self) -> None:
        self._let_go()
        try:
            await shielded(self._rollback())
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            if self._foreign:
                await self.driver_connection.call(Forget())
        finally:
            self._write_queue.release()

    async def _rollback(self) -> None:
        try:
            await self.driver_connection.connection.rollback()
        finally:
            await self.driver_connection.call(Undo())


class Script(Job):
    """Statements that give nothing back."""

    def __init__(self, statements: Sequence[str]) -> None:
        self._statements = statements

    def __call__(self, connection: SqliteConnection) -> None:
        for statement in self._statements:
            connection.execute(statement).close()


class InTransaction(Job):
    """A job inside the caller's transaction, behind its savepoint.

    It is refused when an earlier failure has ended the transaction: ``SAVEPOINT`` would begin a new one.
    """

    def __init__(self, job: Job, before: Sequence[str] = ()) -> None:
        self._job = job
        self._before = Script(before)

    def __call__(self, connection: SqliteConnection) -> Any:
        if not connection.in_transaction:
            raise OperationError(BROKEN)
        triggers = connection.foreign_triggers
        held, triggers.held = triggers.held, False
        try:
            self._before(connection)
            return self._job(connection)
        finally:
            triggers.held = held


class Undo(Job):
    """The end of a transaction that SQLAlchemy holds for ended, because its COMMIT was sent: it can have failed."""

    def __call__(self, connection: SqliteConnection) -> None:
        if connection.in_transaction:
            connection.execute(ROLLBACK).close()


class Check(Job):
    """The look at the file before it is written."""

    def __init__(self, guard: FileGuard) -> None:
        self._guard = guard

    def __call__(self, connection: SqliteConnection) -> None:
        self._guard.check()

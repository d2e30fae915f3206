"""How an operation runs a statement: it is timed and logged, and its failures become orchdb's errors.

``Executor`` has the calls that are the only way to the database: ``TransactionExecutor`` runs them in one transaction,
and ``orchdb.database.Database`` each in one of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence, Sized
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Dialect

from orchdb.backend import StatementResult
from orchdb.blocks import Scope
from orchdb.driver_errors import translate
from orchdb.errors import OrchdbError
from orchdb.raising import raised_as
from orchdb.schema.naive_times import NaiveDatetimeWarning
from orchdb.schema.values import NoSuchRowError
from orchdb.statements import CompiledStatement, Parameters, Statement

Row = TypeVar("Row")
Result = TypeVar("Result")
Values = Mapping[str, Any]

logger = logging.getLogger("orchdb")

_CHECKED_AT_A_TIME = 500


class Executor(ABC):
    """What an operation can do with a statement. Each call names the public operation, for logs and errors.

    Attributes:
        dialect: What statements are compiled for.
    """

    dialect: Dialect
    # Attributes and no methods: on the path of every operation each call more would cost.
    _read: Callable[[CompiledStatement, Parameters], Awaitable[StatementResult]]
    _write: Callable[[CompiledStatement, Parameters], Awaitable[StatementResult]]
    _write_many: Callable[[CompiledStatement, Sequence[Parameters]], Awaitable[list[int]]]

    async def fetch_one(self, operation: str, statement: Statement[Row], values: Values) -> Row | None:
        """The row, or ``None``."""
        rows = (await self._run(operation, statement, values, write=False)).rows
        return rows[0] if rows else None

    async def fetch_all(self, operation: str, statement: Statement[Row], values: Values) -> list[Row]:
        """All rows, in the order of the statement."""
        return (await self._run(operation, statement, values, write=False)).rows

    async def fetch_value(self, operation: str, statement: Statement[Any], values: Values) -> Any:
        """The first column of the first row, or ``None``."""
        rows = (await self._run(operation, statement, values, write=False)).rows
        return next(iter(rows[0].values())) if rows else None

    async def execute(self, operation: str, statement: Statement[Any], values: Values) -> int:
        """How many rows were changed; of a statement that returns rows, how many those are."""
        result = await self._run(operation, statement, values, write=True)
        return result.rowcount or len(result.rows)

    async def insert(self, operation: str, statement: Statement[Any], values: Values) -> int:
        """The id that the database gave to the row; 0 where the row brought its own."""
        return (await self._run(operation, statement, values, write=True)).lastrowid or 0

    async def insert_many(self, operation: str, statement: Statement[Any], rows: Sequence[Values]) -> list[int]:
        """Insert all rows or none; the ids that the database gave, in the order of the rows."""

        async def run() -> list[int]:
            compiled = statement.compiled(self.dialect)
            parameters = await _all_checked(compiled, rows)
            return await self._write_many(compiled, parameters) if parameters else []

        return await self._observed(operation, statement.table, run)

    async def check_many(self, operation: str, statement: Statement[Any], rows: Sequence[Values]) -> None:
        """Raise what ``insert_many`` would raise before it writes anything."""
        await self._observed(operation, statement.table, lambda: _all_checked(statement.compiled(self.dialect), rows))

    @abstractmethod
    async def fetch_newest(self, operation: str, statement: Statement[Row], values: Values) -> list[Row]:
        """All rows, in the order of the statement, also those that a replica may not have yet."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Open a block that is applied as a whole or not at all."""

    def as_one(self) -> AbstractAsyncContextManager[Executor]:
        """Several statements in one transaction, without a part of its own where there is a transaction already."""
        return self.transaction()

    async def give_back(self, operation: str) -> None:
        """Give the space of deleted rows back to the file system; inside a transaction they are not gone yet."""
        return

    @abstractmethod
    def _enter(self, *, write: bool) -> None:
        """Count a call that begins; raise if nothing can be run now."""

    @abstractmethod
    def _leave(self) -> None:
        """Count a call that has ended."""

    def check(self, operation: str, statement: Statement[Any], values: Values) -> bool:
        """Raise what a write of the statement would raise before it runs; False if no row can have its id."""
        with failures_reported(operation, statement.table):
            self._enter(write=True)
            self._leave()
            try:
                statement.compiled(self.dialect).parameters(values)
            except NoSuchRowError:
                return False
        return True

    async def _run(self, operation: str, statement: Statement[Any], values: Values, *, write: bool) -> StatementResult:
        started = time.perf_counter()
        failure: OrchdbError
        try:
            self._enter(write=write)
            try:
                compiled = statement.compiled(self.dialect)
                parameters = compiled.parameters(values)
                result = await (self._write if write else self._read)(compiled, parameters)
            finally:
                self._leave()
        except NoSuchRowError:
            return StatementResult([], 0)
        except Exception as error:  # whatever the driver raises, the caller gets one tree
            failure = failed(error, operation, statement.table)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                _log(operation, statement.table, len(result.rows) or result.rowcount, started)
            return result
        # Outside the except block: inside it the driver's exception, which holds the values, would be the context.
        raise failure

    async def _observed(
        self, operation: str, table: str | None, run: Callable[[], Awaitable[Result]], *, write: bool = True
    ) -> Result:
        """What ``_run`` does, for anything that is not one statement."""
        started = time.perf_counter()
        with failures_translated(operation, table):
            self._enter(write=write)
            try:
                result = await run()
            finally:
                self._leave()
        if logger.isEnabledFor(logging.DEBUG):
            _log(operation, table, len(result) if isinstance(result, Sized) else 0, started)
        return result


async def _all_checked(compiled: CompiledStatement, rows: Sequence[Values]) -> list[Parameters]:
    parameters: list[Parameters] = []
    for start in range(0, len(rows), _CHECKED_AT_A_TIME):
        parameters += _checked(compiled, rows[start : start + _CHECKED_AT_A_TIME], start)
        await asyncio.sleep(0)  # a large batch leaves the event loop to others now and then
    return parameters


class TransactionExecutor(Executor):
    """Runs inside one transaction, or a part of one."""

    def __init__(self, scope: Scope, dialect: Dialect) -> None:
        self.scope = scope
        self.dialect = dialect
        self._read = self._write = scope.run
        self._write_many = scope.run_many

    async def fetch_newest(self, operation: str, statement: Statement[Row], values: Values) -> list[Row]:
        return await self.fetch_all(operation, statement, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[TransactionExecutor]:
        """A part that is undone alone if the block fails."""
        scope = await self._observed("transaction", None, self.scope.begin_part)
        try:
            yield TransactionExecutor(scope, self.dialect)
        except BaseException:
            await scope.end_part(keep=False)
            raise
        await self._observed("transaction", None, partial(scope.end_part, keep=True))

    def as_one(self) -> AbstractAsyncContextManager[Executor]:
        return nullcontext(self)

    def _enter(self, *, write: bool) -> None:
        self.scope.check()

    def _leave(self) -> None:
        pass


def _checked(compiled: CompiledStatement, rows: Sequence[Values], first: int) -> list[Parameters]:
    """The parameters of the rows; an error names the row that it is about, as the caller counts them."""
    with suppress(OrchdbError):
        return compiled.many(rows)
    # That goes by columns; in which row the first mistake is, is only looked for where there is one.
    parameters: list[Parameters] = []
    for number, row in enumerate(rows, first):
        try:
            parameters += compiled.many([row])
        except OrchdbError as error:
            error.message = f"item {number}: {error.message}"
            raise
    return parameters


def failures_reported(operation: str, table: str) -> raised_as[OrchdbError]:
    """Log a failure of this block, which checks what a caller gave before any statement, as one of the operation."""
    return raised_as(OrchdbError, lambda error: failed(error, operation, table))


def failures_translated(operation: str, table: str | None) -> raised_as[Exception]:
    """Raise whatever this block raises, a driver's exceptions among it, as a failure of the operation, and log it."""
    return raised_as(Exception, lambda error: failed(error, operation, table))


def failed(error: Exception, operation: str, table: str | None) -> OrchdbError:
    """The failure of the operation, logged; to be raised outside the ``except`` block."""
    if isinstance(error, NaiveDatetimeWarning):  # the caller has made it an error
        raise error
    failure = translate(error, operation, table)
    logger.error("%s", failure)
    return failure


def _log(operation: str, table: str | None, rows: int, started: float) -> None:
    milliseconds = (time.perf_counter() - started) * 1000
    logger.debug("%s on %s: %d rows in %.2f ms", operation, table or "the database", rows, milliseconds)

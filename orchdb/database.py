"""How: opens and closes the backend, runs a statement, times and logs it, and turns failures into orchdb's errors.

The verbs are the only way to the database. ``Verbs`` says what they do; ``Database`` runs them each in a transaction of
its own, ``TransactionVerbs`` all in one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence, Sized
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Dialect, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import Backend, Horizon, Outcome
from orchdb.blocks import Block, Scope
from orchdb.errors import NotConnectedError, OperationError, OrchdbError, translate
from orchdb.naive_times import NaiveDatetimeWarning
from orchdb.prepared import Parameters, Prepared, Statement
from orchdb.shielding import to_the_end
from orchdb.values import NoSuchRowError

Row = TypeVar("Row")
Result = TypeVar("Result")
Values = Mapping[str, Any]

logger = logging.getLogger("orchdb")

_NOTHING = Outcome([], 0)
_CHECKED_AT_A_TIME = 500
_CLOSE_SECONDS = 5  # what is running may wait for a lock, and then needs a moment
_LEFT_OPEN = (
    "this task has a db.transaction() open in an async generator that is paused, and a block in here would be a part "
    "of it: use the tx of that one, or close the generator first"
)
_forks = 0
"""How many forks this process is away from the one that loaded this module. ``os.getpid`` would ask the system for each
operation."""


def _forked() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if sys.platform != "win32":  # which has no forks
    os.register_at_fork(after_in_child=_forked)


class Verbs(ABC):
    """What an operation can do with a statement. Each call names the public operation, for logs and errors.

    Attributes:
        dialect: What statements are compiled for.
    """

    dialect: Dialect
    # Attributes and no methods: on the path of every operation each call more would cost.
    _read: Callable[[Prepared, Parameters], Awaitable[Outcome]]
    _write: Callable[[Prepared, Parameters], Awaitable[Outcome]]
    _write_many: Callable[[Prepared, Sequence[Parameters]], Awaitable[list[int]]]

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
        """How many rows were changed."""
        return (await self._run(operation, statement, values, write=True)).changed

    async def insert(self, operation: str, statement: Statement[Any], values: Values) -> int:
        """The id that the database gave to the row; 0 where the row brought its own."""
        return (await self._run(operation, statement, values, write=True)).number or 0

    async def insert_many(self, operation: str, statement: Statement[Any], rows: Sequence[Values]) -> list[int]:
        """Insert all rows or none; the ids that the database gave, in the order of the rows."""

        async def run() -> list[int]:
            prepared = statement.prepared(self.dialect)
            parameters: list[Parameters] = []
            for start in range(0, len(rows), _CHECKED_AT_A_TIME):
                parameters.extend(prepared.many(rows[start : start + _CHECKED_AT_A_TIME]))
                await asyncio.sleep(0)  # a large batch leaves the event loop to others now and then
            return await self._write_many(prepared, parameters) if parameters else []

        return await self._observed(operation, statement.table, run)

    async def give_back(self, operation: str) -> None:
        """Give the space of deleted rows back to the file system; inside a transaction they are not gone yet."""
        return

    @abstractmethod
    def _enter(self, *, write: bool) -> None:
        """Count a call that begins; raise if the verbs cannot be used now."""

    @abstractmethod
    def _leave(self) -> None:
        """Count a call that has ended."""

    def check(self, operation: str, statement: Statement[Any], values: Values) -> bool:
        """Raise what a write of the statement would raise before it runs; False if no row can have its id."""
        with failures_reported(operation, statement.table):
            self._enter(write=True)
            self._leave()
            try:
                statement.prepared(self.dialect).parameters(values)
            except NoSuchRowError:
                return False
        return True

    async def _run(self, operation: str, statement: Statement[Any], values: Values, *, write: bool) -> Outcome:
        started = time.perf_counter()
        failure: OrchdbError
        try:
            self._enter(write=write)
            try:
                prepared = statement.prepared(self.dialect)
                parameters = prepared.parameters(values)
                outcome = await (self._write if write else self._read)(prepared, parameters)
            finally:
                self._leave()
        except NoSuchRowError:
            return _NOTHING
        except Exception as error:  # whatever the driver raises, the caller gets one tree
            failure = _failed(error, operation, statement.table)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                _log(operation, statement.table, len(outcome.rows) or outcome.changed, started)
            return outcome
        # Outside the except block: inside it the driver's exception, which holds the values, would be the context.
        raise failure

    async def _observed(
        self, operation: str, table: str | None, run: Callable[[], Awaitable[Result]], *, write: bool = True
    ) -> Result:
        """What ``_run`` does, for anything that is not one statement."""
        started = time.perf_counter()
        failure: OrchdbError
        try:
            self._enter(write=write)
            try:
                result = await run()
            finally:
                self._leave()
        except Exception as error:
            failure = _failed(error, operation, table)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                _log(operation, table, len(result) if isinstance(result, Sized) else 0, started)
            return result
        raise failure


@contextmanager
def failures_reported(operation: str, table: str) -> Generator[None]:
    """Log a failure of this block, which checks what a caller gave before any statement, as one of the operation."""
    try:
        yield
    except OrchdbError as error:
        _failed(error, operation, table)
        raise


def _failed(error: Exception, operation: str, table: str | None) -> OrchdbError:
    if isinstance(error, NaiveDatetimeWarning):  # the caller has made it an error
        raise error
    failure = translate(error, operation, table)
    logger.error("%s", failure)
    return failure


def _log(operation: str, table: str | None, rows: int, started: float) -> None:
    milliseconds = (time.perf_counter() - started) * 1000
    logger.debug("%s on %s: %d rows in %.2f ms", operation, table or "the database", rows, milliseconds)


class TransactionVerbs(Verbs):
    """The verbs inside one transaction, or a part of one."""

    def __init__(self, scope: Scope, dialect: Dialect) -> None:
        self.scope = scope
        self.dialect = dialect
        self._read = self._write = scope.run
        self._write_many = scope.run_many

    @asynccontextmanager
    async def part(self) -> AsyncGenerator[TransactionVerbs]:
        """A part that is undone alone if the block fails."""
        scope = await self._observed("transaction", None, self.scope.begin_part)
        try:
            yield TransactionVerbs(scope, self.dialect)
        except BaseException:
            await scope.end_part(keep=False)
            raise
        await self._observed("transaction", None, partial(scope.end_part, keep=True))

    def _enter(self, *, write: bool) -> None:
        self.scope.check()

    def _leave(self) -> None:
        pass


class Database(Verbs):
    """A backend and its life: each verb runs in a transaction of its own."""

    def __init__(self, make_backend: Callable[[], Backend], *, lock_timeout: float, read_only: bool = False) -> None:
        self._make_backend = make_backend
        self._read_only = read_only
        self._lock_timeout = lock_timeout
        self._backend: Backend | None = None
        self._why_not = "connect() has not been called"
        self._lifecycle = asyncio.Lock()
        self._running = 0
        self._settled: asyncio.Event | None = None  # set when close() waits and the last call has ended
        self._blocks: dict[asyncio.Task[Any] | None, Block] = {}

    @property
    def backend(self) -> Backend:
        """The open backend."""
        if self._backend is None:
            raise NotConnectedError(self._why_not)
        return self._backend

    @property
    def connection(self) -> AsyncConnection | None:
        """For the caller's own reading, while it is open."""
        return None if self._backend is None else self._backend.connection

    async def open(self) -> None:
        """Connect and prepare the schema; an open database stays as it is."""
        async with self._lifecycle:
            if self._backend is not None:
                self._enter(write=False)
                self._leave()
                return
            failure: OrchdbError
            try:
                backend = self._make_backend()
                await backend.open()
            except Exception as error:
                failure = _failed(error, "connect", None)
            else:
                self._loop, self._forks = asyncio.get_running_loop(), _forks
                self._backend, self._settled = backend, None
                self.dialect = backend.dialect
                self._read, self._write, self._write_many = backend.read, backend.write, backend.write_many
                return
            raise failure

    async def close(self) -> None:
        """Let what is running end, then close every connection; closing twice is fine."""
        async with self._lifecycle:
            backend = self._backend
            if backend is None:
                return
            if asyncio.current_task() in self._blocks:
                raise OperationError("this task is inside db.transaction(): leave the block first", operation="close")
            self._settled = asyncio.Event()
            self._check_settled()
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._settled.wait(), self._lock_timeout + _CLOSE_SECONDS)
            finally:
                self._backend, self._why_not = None, "the manager is closed"
                await to_the_end(self._end_all(backend))

    async def _end_all(self, backend: Backend) -> None:
        for block in [*self._blocks.values()]:  # a connection must not be closed under a statement
            await block.roll_back()
        await backend.close()

    async def back_up(self, target: Path) -> None:
        """Make a consistent copy of the database as a new file."""
        await self._observed("backup", None, lambda: self.backend.back_up(target), write=False)

    async def give_back(self, operation: str) -> None:
        """Give the space of deleted rows back to the file system; a failure is logged, for the rows are gone."""
        with contextlib.suppress(OrchdbError):
            await self._observed(operation, None, lambda: self.backend.give_back())

    async def horizon(self, operation: str, table: Table) -> Horizon:
        """How far the log can be read now without missing a line that comes later."""
        return await self._observed(operation, table.name, lambda: self.backend.horizon(table), write=False)

    def beginning(self, operation: str, table: Table) -> Callable[[], Awaitable[Horizon]]:
        """The horizon at this call, which a tail begins from: what asks for it, or nobody does.

        Raises:
            NotConnectedError: The manager is not connected.
        """
        self._enter(write=False)
        self._leave()
        beginning = self.backend.beginning(table)

        async def result() -> Horizon:
            return await asyncio.shield(beginning)

        return lambda: self._observed(operation, table.name, result, write=False)

    async def filled(self, operation: str, table: Table, gaps: Sequence[tuple[int, int]]) -> list[int]:
        """The ids in the gaps of a beginning that have a line by now, in order."""
        return await self._observed(operation, table.name, lambda: self.backend.filled(table, gaps), write=False)

    def check_filters(self, statement: Statement[Any], values: Values) -> None:
        """Raise what reading with these values would raise before it runs."""
        self._enter(write=False)
        self._leave()
        with contextlib.suppress(NoSuchRowError):
            statement.prepared(self.dialect).parameters(values)

    async def fetch_newest(self, operation: str, statement: Statement[Row], values: Values) -> list[Row]:
        """All rows, in the order of the statement, also those that a replica may not have yet."""

        async def run() -> list[Row]:
            prepared = statement.prepared(self.dialect)
            try:
                outcome = await self.backend.read_newest(prepared, prepared.parameters(values))
            except NoSuchRowError:
                return []
            return outcome.rows

        return await self._observed(operation, statement.table, run, write=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[TransactionVerbs]:
        """A transaction of the current task; inside one of its own it is a part of that."""
        task = asyncio.current_task()
        outer = self._blocks.get(task)
        if outer is not None:
            if not outer.around_this_call():
                raise OperationError(_LEFT_OPEN, operation="transaction")
            async with TransactionVerbs(outer.scope, self.dialect).part() as part:
                yield part
            return
        transaction = await self._observed("transaction", None, lambda: self.backend.begin())
        backend = self.backend
        block = self._blocks[task] = Block(transaction, self._lock_timeout)
        try:
            try:
                yield TransactionVerbs(block.scope, self.dialect)
                await backend.begun()
            except BaseException:
                await block.roll_back()
                raise
            await self._finish(block)
        finally:
            del self._blocks[task]
            self._check_settled()

    async def _finish(self, block: Block) -> None:
        failure: OrchdbError
        try:
            await block.commit()
        except Exception as error:
            failure = _failed(error, "transaction", None)
        else:
            return
        raise failure

    def _enter(self, *, write: bool) -> None:
        if self._backend is None:
            raise NotConnectedError(self._why_not)
        if self._settled is not None:
            raise NotConnectedError("the manager is closing")
        if self._forks != _forks:
            raise NotConnectedError("the manager belongs to the process that connected it: connect in the child")
        if self._loop is not asyncio.get_running_loop():
            raise NotConnectedError("the manager belongs to the event loop that connected it")
        if write and self._read_only:
            raise OperationError("the manager was opened with read_only=True")
        if write and self._blocks and asyncio.current_task() in self._blocks:
            raise OperationError("this task is inside db.transaction() as tx: write with tx, db would wait for it")
        self._running += 1

    def _leave(self) -> None:
        self._running -= 1
        if self._settled is not None:
            self._check_settled()

    def _check_settled(self) -> None:
        if self._settled is not None and not self._running and not self._blocks:
            self._settled.set()

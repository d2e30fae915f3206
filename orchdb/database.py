"""A backend and its life: opened, used by one event loop of one process, closed when what runs has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import Backend, BackendTransaction, HighWatermark
from orchdb.blocks import Block
from orchdb.concurrency import shielded
from orchdb.errors import NotConnectedError, OperationError, OrchdbError
from orchdb.executor import Executor, Row, TransactionExecutor, Values, failures_translated
from orchdb.schema.values import NoSuchRowError
from orchdb.statements import Statement

_CLOSE_SECONDS = 5  # what is running may wait for a lock, and then needs a moment
_LEFT_OPEN = (
    "this task has a db.transaction() open in an async generator that is paused, and a block in here would be a part "
    "of it: use the tx of that one, or close the generator first"
)
_forks = 0
"""How many forks this process is away from the one that loaded this module. ``os.getpid`` would ask the system for each
operation."""
_of_the_parent: list[Backend] = []
"""What a forked child has closed for itself, and is kept, for to be collected closes it too."""


def _forked() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if sys.platform != "win32":  # which has no forks
    os.register_at_fork(after_in_child=_forked)


class Database(Executor):
    """A backend and its life: each call runs in a transaction of its own."""

    def __init__(self, make_backend: Callable[[], Backend], *, lock_timeout: float, read_only: bool = False) -> None:
        self._make_backend = make_backend
        self._read_only = read_only
        self._lock_timeout = lock_timeout
        self._close_timeout = lock_timeout + _CLOSE_SECONDS
        self._backend: Backend | None = None
        self._why_not = "connect() has not been called"
        self._lifecycle = asyncio.Lock()
        self._running = 0
        self._drained: asyncio.Event | None = None  # set when close() waits and the last call has ended
        self._blocks: dict[asyncio.Task[Any] | None, Block] = {}
        self.before_closing: Callable[..., Awaitable[None]] | None = None
        """What is to be done first, ``able`` to write or not; it is not waited for longer than for what is running."""

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
            with failures_translated("connect", None):
                backend = self._make_backend()
                await backend.open()
            self._loop, self._forks = asyncio.get_running_loop(), _forks
            self._backend, self._drained = backend, None
            self.dialect = backend.dialect
            self._read, self._write, self._write_many = backend.read, backend.write, backend.write_many

    async def close(self) -> None:
        """Let what is running end, then close every connection; closing twice is fine."""
        async with self._lifecycle:
            backend = self._backend
            if backend is None:
                return
            if asyncio.current_task() in self._blocks:
                raise OperationError("this task is inside db.transaction(): leave the block first", operation="close")
            if self._forks != _forks:
                # To close the parent's connections here would tell its server, or let go the locks of its file.
                self._backend, self._why_not = None, "the manager is closed"
                _of_the_parent.append(backend)
                return
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._close_timeout):
                        await self._drain()
            finally:
                self._backend, self._why_not = None, "the manager is closed"
                await shielded(self._end_all(backend))

    async def _drain(self) -> None:
        if self.before_closing is not None:
            await self.before_closing(able=self._loop is asyncio.get_running_loop())
        self._drained = asyncio.Event()
        self._check_drained()
        await self._drained.wait()

    async def _end_all(self, backend: Backend) -> None:
        backend.fail_all()
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

    async def high_watermark(self, operation: str, table: Table) -> HighWatermark:
        """How far the log can be read now without missing a line that comes later."""
        return await self._observed(operation, table.name, lambda: self.backend.high_watermark(table), write=False)

    def beginning(self, operation: str, table: Table) -> Callable[[], Awaitable[HighWatermark]]:
        """The high watermark at this call, which a tail begins from: what asks for it, or nobody does.

        Raises:
            NotConnectedError: The manager is not connected.
        """
        self._enter(write=False)
        self._leave()
        beginning = self.backend.beginning(table)

        async def result() -> HighWatermark:
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
            statement.compiled(self.dialect).parameters(values)

    async def fetch_newest(self, operation: str, statement: Statement[Row], values: Values) -> list[Row]:
        async def run() -> list[Row]:
            compiled = statement.compiled(self.dialect)
            try:
                result = await self.backend.read_newest(compiled, compiled.parameters(values))
            except NoSuchRowError:
                return []
            return result.rows

        return await self._observed(operation, statement.table, run, write=False)

    async def execute_beside(self, operation: str, statement: Statement[Any], values: Values) -> int:
        """How many rows were changed by what is not to wait for the blocks that are open."""

        async def run() -> int:
            compiled = statement.compiled(self.dialect)
            return (await self.backend.write_beside(compiled, compiled.parameters(values))).rowcount

        return await self._observed(operation, statement.table, run)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[TransactionExecutor]:
        """A transaction of the current task; inside one of its own it is a part of that."""
        task = asyncio.current_task()
        outer = self._blocks.get(task)
        if outer is not None:
            if not outer.around_this_call():
                raise OperationError(_LEFT_OPEN, operation="transaction")
            async with TransactionExecutor(outer.scope, self.dialect).transaction() as part:
                yield part
            return
        transaction = await self._observed("transaction", None, self._begin)
        backend = self.backend
        block = self._blocks[task] = Block(transaction, self._lock_timeout)
        try:
            try:
                yield TransactionExecutor(block.scope, self.dialect)
                await backend.begun()
            except BaseException:
                await block.roll_back()
                raise
            with failures_translated("transaction", None):
                await block.commit()
        finally:
            del self._blocks[task]
            self._check_drained()

    async def _begin(self) -> BackendTransaction:
        backend = self.backend
        transaction = await backend.begin()
        if self._backend is not backend:  # close() did not wait any longer
            await transaction.rollback()
            raise NotConnectedError(self._why_not)
        return transaction

    def _enter(self, *, write: bool) -> None:
        if self._backend is None:
            raise NotConnectedError(self._why_not)
        if self._drained is not None:
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
        if self._drained is not None:
            self._check_drained()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._running and not self._blocks:
            self._drained.set()

"""Inserts that share a commit: what many tasks insert into Postgres at the same moment goes to the server together.

A few inserts at a time each take a connection and one round trip, in the caller's own task. When more are waiting than
that, they become a group: one transaction, one stream of rows for each table, one commit; each caller's ``await``
returns after the commit that holds its row. While a group is under way the next one gathers, so that the busier it is,
the more rows share a commit.

A group that fails was rolled back as a whole, so its members are run again one by one, and only the guilty one fails.
A group waits for locks only for a moment, because one insert that waits for another transaction must not hold up the
rest: alone it then waits as long as it may. What is waiting can be cancelled at once and then never runs; a member of a
group that is under way may or may not have been applied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from orchdb.backend import StatementResult
from orchdb.concurrency import Waiters, shielded
from orchdb.driver_errors import own
from orchdb.errors import NotConnectedError
from orchdb.postgres.drivers import DriverConnection
from orchdb.postgres.pool import ConnectionPool
from orchdb.statements import CompiledStatement, Parameters

MAX_WAITING = 10_000
MAX_GROUP = 500
MIN_GROUP = 16
"""Fewer are quicker on connections of their own: a group costs three round trips more than a single insert."""
GROUPS = 2
"""While the server works on one, the rows of the other are made and its answers are handed out."""
ALONE = 8
_BEGIN = "BEGIN; SET LOCAL lock_timeout = 250"


@dataclass(eq=False, slots=True)
class _Entry:
    compiled: CompiledStatement
    parameters: Parameters
    turn: asyncio.Future[StatementResult | None]
    """Its result in a group, or ``None``: the caller may run it alone."""


class InsertQueue:
    """The queue of inserts in front of the pool.

    Args:
        pool: Where the groups get their connections.
        run_alone: Runs one insert that commits by itself.
        ready: Waits for what a group has to wait for, before it begins.
        alone: How many inserts run alone at a time.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        run_alone: Callable[[CompiledStatement, Parameters], Awaitable[StatementResult]],
        ready: Callable[[], Awaitable[None]],
        alone: int = ALONE,
    ) -> None:
        self._pool = pool
        self._ready = ready
        self._run_alone = run_alone
        self._alone_left = alone
        self._waiting: deque[_Entry] = deque()
        self._failed: deque[_Entry] = deque()  # members of a group that failed: they run alone, and before the others
        self._groups: dict[asyncio.Task[None], int] = {}
        self._waiters = Waiters()
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    def run(self, compiled: CompiledStatement, parameters: Parameters) -> Awaitable[StatementResult]:
        """The result of an insert, after the commit that holds it."""
        if self._alone_left and not self._groups and not self._waiting and not self._failed:
            self._alone_left -= 1
            return self._alone(compiled, parameters)
        return self._grouped(_Entry(compiled, parameters, self._loop.create_future()))

    async def _alone(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        try:
            return await self._run_alone(compiled, parameters)
        finally:
            self._alone_left += 1
            self._wake()

    async def _grouped(self, entry: _Entry) -> StatementResult:
        if self._waiters or len(self._waiting) >= MAX_WAITING:
            await self._waiters.wait()
        self._waiting.append(entry)
        self._wake()
        turn = entry.turn
        try:
            result = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None and turn.result() is None:
                self._alone_left += 1
                self._wake()
            raise
        return await self._alone(entry.compiled, entry.parameters) if result is None else result

    def _wake(self) -> None:
        # At the end of this turn of the loop, so that every task that is ready to insert joins the group.
        if not self._scheduled and (self._waiting or self._failed):
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        self._let_run_alone(self._failed)
        self._waiting = deque(entry for entry in self._waiting if not entry.turn.done())
        while len(self._groups) < GROUPS and len(self._waiting) >= self._worth_a_group():
            size = min(MAX_GROUP, max(MIN_GROUP, len(self._waiting) // (GROUPS - len(self._groups))))
            members = [self._waiting.popleft() for _ in range(size)]
            task = self._loop.create_task(self._run_group(members))
            self._groups[task] = size
            task.add_done_callback(self._group_ended)
        if not self._groups:
            self._let_run_alone(self._waiting)
        self._waiters.wake(MAX_WAITING - len(self._waiting))

    def _worth_a_group(self) -> int:
        # Beside a large group a small one would overtake it again and again, with a commit for a few rows each time.
        return max(MIN_GROUP, max(self._groups.values(), default=0) // 2)

    def _let_run_alone(self, entries: deque[_Entry]) -> None:
        while entries and self._alone_left:
            entry = entries.popleft()
            if not entry.turn.done():
                self._alone_left -= 1
                entry.turn.set_result(None)

    def _group_ended(self, task: asyncio.Task[None]) -> None:
        del self._groups[task]
        self._wake()

    async def _run_group(self, members: list[_Entry]) -> None:
        try:
            await self._ready()
            conn = await self._pool.acquire()
            try:
                await self._run_on(conn, members)
            finally:
                self._pool.release(conn)
        except Exception as error:
            _fail(members, error)
        except asyncio.CancelledError:
            _fail(members, NotConnectedError("the manager was closed: the row may or may not have been inserted"))
            raise

    async def _run_on(self, conn: DriverConnection, members: list[_Entry]) -> None:
        try:
            results = await _insert(conn, members)
        except Exception as error:
            if isinstance(error, TimeoutError) or conn.closed():
                raise  # nobody knows whether the commit arrived
            await shielded(_undo(conn))
            self._failed.extend(members)
            return
        for entry, result in zip(members, results, strict=True):
            if not entry.turn.done():
                entry.turn.set_result(result)

    async def close(self) -> None:
        """Let no insert wait any longer."""
        self._waiters.fail_all(NotConnectedError, "the manager is closed")
        _fail([*self._failed, *self._waiting], NotConnectedError("the manager is closed"))
        self._failed.clear()
        self._waiting.clear()
        for task in self._groups:
            task.cancel()
        if self._groups:
            await asyncio.wait(self._groups)


async def _insert(conn: DriverConnection, members: Sequence[_Entry]) -> list[StatementResult]:
    """The results of the members, after their commit."""
    tables: dict[CompiledStatement, list[int]] = {}
    for index, entry in enumerate(members):
        tables.setdefault(entry.compiled, []).append(index)
    results = [StatementResult([], 1)] * len(members)
    await conn.script(_BEGIN)
    for compiled, indexes in tables.items():
        numbers = await conn.run_many(compiled, [members[index].parameters for index in indexes])
        for index, number in zip(indexes, numbers, strict=False):  # none where the rows brought their own
            results[index] = StatementResult([], 1, number)
    await conn.script("COMMIT")
    return results


async def _undo(conn: DriverConnection) -> None:
    try:
        await conn.script("ROLLBACK")
    except Exception:  # a connection that is still in a transaction does not go back to the others
        return


def _fail(members: Sequence[_Entry], error: Exception) -> None:
    for entry in members:
        if not entry.turn.done():
            entry.turn.set_exception(own(error))

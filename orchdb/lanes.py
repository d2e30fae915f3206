"""The connections to a Postgres server that are in use: SQLAlchemy's pool lends them, and statements go to the driver.

A statement of its own is one round trip: SQLAlchemy's connection would add BEGIN and COMMIT, two more. So the pool's
connections are kept here, in lanes, while they are in use or have just been, and the compiled statement goes straight
to the driver's connection, which commits by itself.

A lane is used by one task at a time. Who finds none free waits in line, and not for ever. A lane comes back only in a
state in which the next task can use it: one that is closed or still inside a transaction is thrown away.
"""

from __future__ import annotations

import asyncio
import select
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import Outcome
from orchdb.errors import OperationError
from orchdb.shielding import to_the_end
from orchdb.statements import Parameters, Prepared

PING_AFTER_SECONDS = 1.0
GIVE_BACK_SECONDS = 30.0
COPY_FROM_ROWS = 25
# Ids are reserved before the rows are copied, so that they are those of the rows by guarantee.
_RESERVE = "SELECT nextval(pg_get_serial_sequence({}, 'id')) FROM generate_series(1, {})"
_POLL = getattr(select, "poll", None)


class Lane(ABC):
    """A connection of the engine's, and the driver's connection inside it."""

    def __init__(self, connection: AsyncConnection, driver: Any, adapter: Any, timeout: float | None) -> None:
        self.connection = connection
        self.driver = driver
        self.turn: asyncio.Lock = adapter._execute_mutex
        """Held by each statement, those that the caller runs through SQLAlchemy included."""
        self.timeout = timeout
        self.stale = False
        """Whether the server's plans for it are out of date, and it is not to be used again."""
        self.cut_off = False
        """Whether its last statement was cancelled."""
        self.used = self.opened = asyncio.get_running_loop().time()
        self._poll: Any = None
        if _POLL is not None:
            self._poll = _POLL()
            self._poll.register(self._socket(), select.POLLIN)

    @abstractmethod
    def closed(self) -> bool:
        """Whether the driver knows that the connection is gone."""

    @abstractmethod
    def idle(self) -> bool:
        """Whether the connection is outside a transaction."""

    @abstractmethod
    def _socket(self) -> int: ...

    @abstractmethod
    async def script(self, sql: str) -> None:
        """Run statements without parameters, in one round trip."""

    @abstractmethod
    async def run(self, prepared: Prepared, parameters: Parameters) -> Outcome:
        """Run one statement."""

    @abstractmethod
    async def run_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        """Insert many rows, inside a transaction; the ids that the database gave them, in their order."""

    @abstractmethod
    async def set_autocommit(self, on: bool) -> None:
        """Whether each statement commits by itself."""

    def quiet(self) -> bool:
        """Whether the server has said nothing since: what it says unasked is mostly a good-bye."""
        return self._poll is None or not self._poll.poll(0)


class AsyncpgLane(Lane):
    """A lane of asyncpg."""

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

    async def run(self, prepared: Prepared, parameters: Parameters) -> Outcome:
        if not prepared.returns_rows:
            status: str = await self.driver.execute(prepared.sql, *parameters)
            return Outcome([], int(status.rpartition(" ")[2]))
        records = await self.driver.fetch(prepared.sql, *parameters)
        if prepared.is_insert:
            return Outcome([], len(records), records[0][0])
        return Outcome(prepared.rows(records), 0)

    async def run_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        if len(parameters) >= COPY_FROM_ROWS:
            table, columns = _target(prepared.sql)
            if not prepared.returns_rows:
                await self.driver.copy_records_to_table(table, records=parameters, columns=columns)
                return []
            numbers = [
                record[0] for record in await self.driver.fetch(_RESERVE.format("$1", "$2"), table, len(parameters))
            ]
            records = [(number, *row) for number, row in zip(numbers, parameters, strict=True)]
            await self.driver.copy_records_to_table(table, records=records, columns=["id", *columns])
            return numbers
        # The protocol answers each set of parameters in its turn, so that the ids are those of the rows by guarantee.
        if prepared.returns_rows:
            return [record[0] for record in await self.driver.fetchmany(prepared.sql, parameters)]
        await self.driver.executemany(prepared.sql, parameters)
        return []


class PsycopgLane(Lane):
    """A lane of psycopg."""

    def closed(self) -> bool:
        return bool(self.driver.closed)

    def idle(self) -> bool:
        return int(self.driver.pgconn.transaction_status) == 0

    def _socket(self) -> int:
        descriptor: int = self.driver.fileno()
        return descriptor

    async def set_autocommit(self, on: bool) -> None:
        await self.connection.execution_options(isolation_level="AUTOCOMMIT" if on else "READ COMMITTED")

    async def script(self, sql: str) -> None:
        async with asyncio.timeout(self.timeout):
            await self.driver.execute(sql)

    async def run(self, prepared: Prepared, parameters: Parameters) -> Outcome:
        async with asyncio.timeout(self.timeout):
            # In binary no setting of the session has a say in what a value looks like.
            cursor = await self.driver.execute(prepared.sql, parameters, binary=True)
            if not prepared.returns_rows:
                return Outcome([], cursor.rowcount)
            records = await cursor.fetchall()
        if prepared.is_insert:
            return Outcome([], len(records), records[0][0])
        return Outcome(prepared.rows(records), 0)

    async def run_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        cursor = self.driver.cursor()
        if len(parameters) >= COPY_FROM_ROWS:
            return await _copy(cursor, prepared, parameters)
        await cursor.executemany(prepared.sql, parameters, returning=prepared.returns_rows)
        numbers: list[int] = []
        more = prepared.returns_rows
        while more:  # one result for each set of parameters, in their order
            numbers.append((await cursor.fetchone())[0])
            more = cursor.nextset()
        return numbers


async def _copy(cursor: Any, prepared: Prepared, parameters: Sequence[Any]) -> list[int]:
    table, columns = _target(prepared.sql)
    numbers: list[int] = []
    names = columns
    if prepared.returns_rows:
        await cursor.execute(_RESERVE.format("%s", "%s"), (table, len(parameters)))
        numbers = [record[0] for record in await cursor.fetchall()]
        names = ("id", *columns)
    async with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        for place, row in enumerate(parameters):
            await copy.write_row([*numbers[place : place + 1], *(row[column] for column in columns)])
    return numbers


@cache
def _target(sql: str) -> tuple[str, tuple[str, ...]]:
    """The table and the columns of an INSERT of ours."""
    table, _, columns = sql.removeprefix("INSERT INTO ").partition(" VALUES ")[0].partition(" ")
    return table, tuple(columns.strip("()").split(", "))


class Lanes:
    """At most ``limit`` lanes, opened when first needed.

    Args:
        open_lane: Opens one; it raises ``OperationError`` if the server cannot be reached.
        limit: The size of the pool.
        timeout: Seconds that a task waits for one.
    """

    def __init__(self, open_lane: Callable[[], Awaitable[Lane]], limit: int, timeout: float) -> None:
        self._open_lane = open_lane
        self._timeout = timeout
        self._slots = asyncio.Semaphore(limit)  # first come, first served
        self._free: list[Lane] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def acquire(self) -> Lane:
        """A lane that works, for the calling task alone until it releases it.

        Raises:
            OperationError: None became free in time, or the server cannot be reached.
        """
        if not self._slots.locked():
            await self._slots.acquire()
        else:
            await self._wait()
        try:
            while self._free:
                lane = self._free.pop()
                works = False
                try:
                    works = await self._works(lane)
                finally:
                    if not works:  # also if the caller is cancelled meanwhile: nobody else holds the lane any more
                        await to_the_end(self._end(lane))
                if works:
                    return lane
        except BaseException:
            self._slots.release()
            raise
        opening = asyncio.ensure_future(self._open_lane())
        try:
            return await asyncio.shield(opening)
        except BaseException:
            self._later(self._keep(opening))
            raise

    async def _keep(self, opening: asyncio.Future[Lane]) -> None:
        """What a cancelled task began to open is for the next one; cut off in the middle it would leak."""
        try:
            lane = await opening
        except (Exception, asyncio.CancelledError):  # whoever asked for it has been told
            self._slots.release()
        else:
            self.release(lane)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
                return
        except TimeoutError:
            pass
        raise OperationError("no connection of the pool became free within pool_timeout")

    def release(self, lane: Lane) -> None:
        """The calling task is done with the lane, whatever became of it."""
        if lane.stale or lane.closed() or not lane.idle() or self._closed:
            self._later(self._replaceable(lane))
            return
        if lane.cut_off:
            self._later(self._settle(lane))
            return
        lane.used = self._loop.time()
        self._free.append(lane)
        self._slots.release()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(GIVE_BACK_SECONDS, self._sweep)

    def doubt(self) -> None:
        """One connection broke: look at the others before they are used again."""
        for lane in self._free:
            lane.used = 0.0

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._free:
            await self._end(self._free.pop())
        while self._endings:
            await asyncio.wait(self._endings)

    async def _works(self, lane: Lane) -> bool:
        if lane.closed():
            return False
        if self._loop.time() - lane.used < PING_AFTER_SECONDS and lane.quiet():
            return True
        return await self._answers(lane)

    async def _answers(self, lane: Lane) -> bool:
        try:
            async with asyncio.timeout(lane.timeout):
                await lane.script("SELECT 1")
        except Exception:  # whatever it is, another connection will do
            return False
        return True

    async def _settle(self, lane: Lane) -> None:
        """Run something: asyncpg leaves a statement that was only prepared open, with its table locked, until then."""
        lane.cut_off, lane.stale = False, True
        try:
            lane.stale = not await self._answers(lane)
        finally:
            self.release(lane)

    async def _replaceable(self, lane: Lane) -> None:
        try:
            await self._end(lane)
        finally:
            self._slots.release()

    async def _end(self, lane: Lane) -> None:
        try:
            await lane.connection.invalidate()
        finally:
            await lane.connection.close()

    def _sweep(self) -> None:
        """Give those that nobody needed lately back to SQLAlchemy's pool, which checks and renews what it lends."""
        self._sweeper = None
        before = self._loop.time() - GIVE_BACK_SECONDS
        for lane in [lane for lane in self._free if lane.used < before]:
            self._free.remove(lane)
            self._later(self._give_back(lane))
        if self._free:
            self._sweeper = self._loop.call_later(GIVE_BACK_SECONDS, self._sweep)

    async def _give_back(self, lane: Lane) -> None:
        await lane.connection.close()

    def _later(self, ending: Any) -> None:
        task = self._loop.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

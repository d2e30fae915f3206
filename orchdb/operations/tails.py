"""Following a log while others write to it: every line once, in the order of ids, none missed.

Ids are given when a line is written and become visible when it is committed, so on a server a lower id can appear after
a higher one. Whoever asks for "id > the last one seen" then never sees it. Here a line is given only when no
transaction that began to write before it can still add one with a lower id. A tail that begins with what is new also
gives the lines whose ids were taken before, but which are committed after its call.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from orchdb.backend import HighWatermark
from orchdb.clocks import pause
from orchdb.database import Database
from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.operations.agent_logs import AGENT_LOGS
from orchdb.operations.arguments import checked_number
from orchdb.operations.filters import checked_filters, without_branches
from orchdb.operations.log_numbers import LINES_AT_A_TIME, runs
from orchdb.operations.system_logs import SYSTEM_LOGS
from orchdb.operations.table_operations import TableOperations
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import AgentLogRow, LogLevel, OneOrSeveral, SystemLogRow
from orchdb.statements import Statement

LogRow = TypeVar("LogRow", AgentLogRow, SystemLogRow)


class TailOperations(TableOperations):
    """Following a log, which only an open database does and a transaction does not."""

    @property
    @abstractmethod
    def _executor(self) -> Database:
        """The open database."""

    def tail_agent_logs(
        self,
        agent_id: OneOrSeveral[str] | None = None,
        log_level: OneOrSeveral[LogLevel] | None = None,
        log_type: OneOrSeveral[str] | None = None,
        *,
        session_id: OneOrSeveral[str] | None = None,
        min_level: LogLevel | None = None,
        after_id: int | None = None,
        poll_seconds: float = 0.2,
    ) -> AsyncIterator[AgentLogRow]:
        """Follow the agents' logs without end: the lines that are committed after this call, each once, none missed.

        A line comes when no earlier one can appear any more: on Postgres it waits for the transactions that were
        already writing to the table. They come by id; any gap between two ids is crossed at once. Nothing is held
        between two looks. A list that is asked for after this call is read when the tail has begun: a line that is in
        neither there is not.

        A filter takes one value, or several of which one must fit; of none, no line has one.

        Args:
            agent_id: Only lines of this agent. By default of all.
            log_level: Only lines of this level.
            log_type: Only lines of this type.
            session_id: Only lines of the agents that are in this session when the line is read.
            min_level: Only lines of this level and of the graver ones.
            after_id: Begin behind this line: 0 for the first one there is. By default with those that are new.
            poll_seconds: The pause between two looks, in seconds.

        Returns:
            An async iterator over the rows, by ``id``, which has no end.

        Raises:
            InvalidValueError: A filter, ``after_id`` or ``poll_seconds`` is not usable; at the call.
            NotConnectedError: The manager is not connected; at the call, or where it is closed meanwhile.
            OperationError: The server is a standby, which does not know who is writing; at the first line.
        """
        filters = {
            "agent_id": agent_id,
            "session_id": session_id,
            "log_level": log_level,
            "log_type": log_type,
            "min_level": min_level,
        }
        return _tail(self._executor, "tail_agent_logs", AGENT_LOGS, filters, after_id, poll_seconds)

    def tail_system_logs(
        self,
        log_level: OneOrSeveral[LogLevel] | None = None,
        component: OneOrSeveral[str] | None = None,
        *,
        min_level: LogLevel | None = None,
        after_id: int | None = None,
        poll_seconds: float = 0.2,
    ) -> AsyncIterator[SystemLogRow]:
        """Follow the system's log without end, as ``tail_agent_logs`` follows those of agents.

        Args:
            log_level: Only lines of this level.
            component: Only lines about this component.
            min_level: Only lines of this level and of the graver ones.
            after_id: Begin behind this line: 0 for the first one there is. By default with those that are new.
            poll_seconds: The pause between two looks, in seconds.

        Returns:
            An async iterator over the rows, by ``id``, which has no end.

        Raises:
            InvalidValueError: A filter, ``after_id`` or ``poll_seconds`` is not usable; at the call.
            NotConnectedError: The manager is not connected; at the call, or where it is closed meanwhile.
            OperationError: The server is a standby, which does not know who is writing; at the first line.
        """
        filters = {"log_level": log_level, "component": component, "min_level": min_level}
        return _tail(self._executor, "tail_system_logs", SYSTEM_LOGS, filters, after_id, poll_seconds)


def _tail(
    database: Database,
    operation: str,
    statements: TableStatements[LogRow],
    filters: Mapping[str, Any],
    after_id: int | None,
    poll_seconds: float,
) -> AsyncIterator[LogRow]:
    """The lines behind ``after_id`` that fit the filters, then those that are written, without end.

    Raises:
        InvalidValueError: ``after_id``, ``poll_seconds`` or a filter is not usable.
        NotConnectedError: The manager is not connected.
    """
    with failures_reported(operation, statements.table.name):
        checked_number("after_id", after_id)
        if not isinstance(poll_seconds, (int, float)) or not 0 < poll_seconds < math.inf:
            raise InvalidValueError("poll_seconds: must be a number of seconds above 0", column="poll_seconds")
        follower = _Follower(database, operation, statements, checked_filters(filters), poll_seconds)
        beginning = database.beginning(operation, statements.table) if after_id is None else None
    return follower.lines(after_id or 0, beginning)  # what is refused above is refused at the call


class _Follower(Generic[LogRow]):
    """Where the lines that fit the filters come from."""

    def __init__(
        self,
        database: Database,
        operation: str,
        statements: TableStatements[LogRow],
        filters: Mapping[str, Any],
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._operation = operation
        self._statements: TableStatements[LogRow] = statements
        shape, self._values = without_branches(filters)
        self._statement: Statement[LogRow] = statements.id_range(shape)
        self._poll_seconds = poll_seconds
        database.check_filters(self._statement, {**self._values, "after_id": 0, "up_to_id": 0})

    async def lines(self, last: int, beginning: Callable[[], Awaitable[HighWatermark]] | None) -> AsyncIterator[LogRow]:
        """The lines behind ``last``, or else behind the beginning and in its gaps, without end."""
        if beginning is not None:
            last, writers, gaps = await beginning()
            if gaps:
                await self._wait_for(writers)
                for first, end in runs(await self._database.filled(self._operation, self._statements.table, gaps)):
                    for row in await self._rows(first - 1, end):
                        yield row
        while True:
            newest, writers, _ = await self._look()
            if newest > last:
                await self._wait_for(writers)
            while last < newest:
                end = await self._end_of_id_range(last, newest)
                for row in await self._rows(last, end):
                    yield row
                last = end
            await pause(self._poll_seconds)

    async def _look(self) -> HighWatermark:
        return await self._database.high_watermark(self._operation, self._statements.table)

    async def _wait_for(self, writers: frozenset[str]) -> None:
        while writers:
            await pause(self._poll_seconds)
            writers &= (await self._look()).writers

    async def _end_of_id_range(self, last: int, newest: int) -> int:
        """How far to read: over so many lines and not ids, because any number of ids may be missing."""
        if newest - last <= LINES_AT_A_TIME:
            return newest
        id_range = {"after_id": last, "up_to_id": newest}
        rows = await self._database.fetch_newest(
            self._operation, self._statements.id_range_end(LINES_AT_A_TIME), id_range
        )
        return int(rows[0]["id"]) if rows else newest

    async def _rows(self, last: int, end: int) -> list[LogRow]:
        id_range = {**self._values, "after_id": last, "up_to_id": end}
        return await self._database.fetch_newest(self._operation, self._statement, id_range)

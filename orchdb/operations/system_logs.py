"""The operations on ``system_logs``: append-only, so there is no update and no delete by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from orchdb.operations.arguments import checked_items
from orchdb.operations.creation import CreationOperations, lines_of_items
from orchdb.operations.page import Page
from orchdb.operations.table_operations import DEFAULT_PAGE
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import JsonValue, LogLevel, NewSystemLog, OneOrSeveral, SystemLogRow, Time
from orchdb.schema.tables import system_logs
from orchdb.schema.values import now

SYSTEM_LOGS: TableStatements[SystemLogRow] = TableStatements(system_logs, ("component", "log_level"))
_NAMES = ("log_level", "component", "message", "details", "created_at")
_INSERT = SYSTEM_LOGS.insert(_NAMES)
_WITH_EVENT = (*_NAMES, "event_id")


class SystemLogOperations(CreationOperations):
    """What happened around the agents, line by line."""

    async def create_system_log(
        self,
        log_level: LogLevel,
        component: str,
        message: str,
        details: JsonValue = None,
        *,
        event_id: str | None = None,
        created_at: Time | None = None,
    ) -> int:
        """Write a line to the log of the system.

        Args:
            log_level: One of ``LOG_LEVELS``.
            component: What the line is about: at most 500 characters, which is what fits an index of Postgres.
            message: Free text.
            details: Any JSON value; text is stored as text.
            event_id: What the line is called by its writer: any non-empty text of at most 500 characters. If a line of
                this table has it already, nothing is written: so the call can be repeated after a time-out or a lost
                connection. By default none.
            created_at: When it happened: ISO 8601 text, or a ``datetime``; without a zone it is UTC. By default now.

        Returns:
            The id of the line, a whole number that grows; that of the first one with this ``event_id``.

        Raises:
            InvalidValueError: A value does not fit its column.
        """
        values = {
            "log_level": log_level,
            "component": component,
            "message": message,
            "details": details,
            "created_at": now() if created_at is None else created_at,
        }
        if event_id is None:
            return await self._executor.insert("create_system_log", _INSERT, values)
        return await self._insert_line("create_system_log", SYSTEM_LOGS, _WITH_EVENT, {**values, "event_id": event_id})

    async def create_system_logs(self, logs: Iterable[NewSystemLog]) -> list[int]:
        """Write many lines to the log of the system: all of them or none.

        Args:
            logs: Mappings with the parameters of ``create_system_log``, as in ``NewSystemLog``.

        Returns:
            The ids of the lines, in the order given; where an ``event_id`` is there already, also in an earlier item,
            that of the first line with it. An empty list for none.

        Raises:
            InvalidValueError: A value does not fit its column; the message says of which item.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewSystemLog.__required_keys__, NewSystemLog.__annotations__
        items = checked_items("create_system_logs", logs, required, allowed)
        rows = lines_of_items(items)
        if all(row["event_id"] is None for row in rows):
            return await self._executor.insert_many("create_system_logs", _INSERT, rows)
        return await self._insert_many_unless("create_system_logs", SYSTEM_LOGS, _WITH_EVENT, rows, "event_id")

    async def get_system_logs(
        self,
        log_level: OneOrSeveral[LogLevel] | None = None,
        component: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        min_level: LogLevel | None = None,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[SystemLogRow]:
        """List the log lines of the system, oldest first; of all filters that are given, each must fit.

        A filter takes one value, or several of which one must fit; of none, no line has one.

        Args:
            log_level: Only lines of this level.
            component: Only lines about this component.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            min_level: Only lines of this level and of the graver ones.
            limit: The most rows to return; 0 for none. By default all of them.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``; an empty list if none fits.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, ``limit`` or ``offset`` is no whole
                number from 0, or ``after`` is no cursor of this table.
        """
        page = Page(limit, offset, after, since, until)
        filters = {"log_level": log_level, "component": component, "min_level": min_level}
        return await self._list("get_system_logs", SYSTEM_LOGS, filters, page)

    def iter_system_logs(
        self,
        log_level: OneOrSeveral[LogLevel] | None = None,
        component: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        min_level: LogLevel | None = None,
        page_size: int = DEFAULT_PAGE,
    ) -> AsyncIterator[SystemLogRow]:
        """Iterate over the log lines of the system, oldest first, a page at a time.

        Lines that are written meanwhile are seen if they come after the ones already given. One that is there all the
        time comes once, whatever another program makes of its time meanwhile: if that moves it to where the pages have
        been already, it comes last. No transaction stays open while the caller works.

        A filter takes one value, or several of which one must fit; of none, no line has one.

        Args:
            log_level: Only lines of this level.
            component: Only lines about this component.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            min_level: Only lines of this level and of the graver ones.
            page_size: How many rows to read at a time, at least 1.

        Yields:
            The rows, by ``created_at`` and then ``id``; nothing if none fits.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, or ``page_size`` is no whole number
                from 1; at the first row.
        """
        return self._each(
            "iter_system_logs",
            SYSTEM_LOGS,
            {"log_level": log_level, "component": component, "min_level": min_level},
            since=since,
            until=until,
            page_size=page_size,
        )

    async def list_recent_system_logs(
        self,
        limit: int | None = 100,
        *,
        log_level: OneOrSeveral[LogLevel] | None = None,
        component: OneOrSeveral[str] | None = None,
        min_level: LogLevel | None = None,
        since: Time | None = None,
        until: Time | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[SystemLogRow]:
        """List the log lines of the system, newest first; of all filters that are given, each must fit.

        A filter takes one value, or several of which one must fit; of none, no line has one.

        Args:
            limit: The most rows to return; 0 for none, ``None`` for all of them.
            log_level: Only lines of this level.
            component: Only lines about this component.
            min_level: Only lines of this level and of the graver ones.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``, descending; an empty list if there are none.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, ``limit`` or ``offset`` is no whole
                number from 0, or ``after`` is no cursor of this table. Of several values the place, from 0, is told.
        """
        page = Page(limit, offset, after, since, until, newest_first=True)
        filters = {"log_level": log_level, "component": component, "min_level": min_level}
        return await self._list("list_recent_system_logs", SYSTEM_LOGS, filters, page)

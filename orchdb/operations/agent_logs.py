"""The operations on ``agent_logs``: append-only, so there is no update and no delete by id."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable

from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.operations.arguments import checked_items
from orchdb.operations.creation import CreationOperations, lines_of_items
from orchdb.operations.page import Page
from orchdb.operations.table_operations import DEFAULT_PAGE
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import LOG_LEVELS, AgentLogRow, JsonValue, LogLevel, NewAgentLog, OneOrSeveral, Time
from orchdb.schema.tables import GRAVE, agent_logs
from orchdb.schema.values import now

logger = logging.getLogger("orchdb")

AGENT_LOGS: TableStatements[AgentLogRow] = TableStatements(
    agent_logs,
    ("agent_id", "session_id", "log_type", "log_level"),
    partial={"log_level": ("WARNING", "ERROR", "CRITICAL")},
    conditions={"log_level": GRAVE},
)
_NAMES = ("agent_id", "log_level", "log_type", "message", "details", "created_at")
_INSERT = AGENT_LOGS.insert(_NAMES)
_WITH_EVENT = (*_NAMES, "event_id")


class AgentLogOperations(CreationOperations):
    """What agents did, line by line."""

    async def create_agent_log(
        self,
        agent_id: str,
        log_level: LogLevel,
        log_type: str,
        message: str,
        details: JsonValue = None,
        *,
        event_id: str | None = None,
        created_at: Time | None = None,
    ) -> int:
        """Write a line to the log of an agent.

        Args:
            agent_id: The agent that the line is about.
            log_level: One of ``LOG_LEVELS``.
            log_type: Any non-empty text of at most 500 characters, which is what fits an index of Postgres;
                ``KNOWN_LOG_TYPES`` holds the usual ones.
            message: Free text.
            details: Any JSON value; text is stored as text.
            event_id: What the line is called by its writer: any non-empty text of at most 500 characters. If a line of
                this table has it already, nothing is written: so the call can be repeated after a time-out or a lost
                connection. By default none.
            created_at: When it happened: ISO 8601 text, or a ``datetime``; without a zone it is UTC. By default now.

        Returns:
            The id of the line, a whole number that grows; that of the first one with this ``event_id``.

        Raises:
            MissingParentError: The agent does not exist.
            InvalidValueError: A value does not fit its column.
        """
        values = {
            "agent_id": agent_id,
            "log_level": log_level,
            "log_type": log_type,
            "message": message,
            "details": details,
            "created_at": now() if created_at is None else created_at,
        }
        if event_id is None:
            return await self._executor.insert("create_agent_log", _INSERT, values)
        return await self._insert_line("create_agent_log", AGENT_LOGS, _WITH_EVENT, {**values, "event_id": event_id})

    async def create_agent_logs(self, logs: Iterable[NewAgentLog]) -> list[int]:
        """Write many lines to the logs of agents: all of them or none.

        Args:
            logs: Mappings with the parameters of ``create_agent_log``, as in ``NewAgentLog``.

        Returns:
            The ids of the lines, in the order given; where an ``event_id`` is there already, also in an earlier item,
            that of the first line with it. An empty list for none.

        Raises:
            MissingParentError: An agent does not exist.
            InvalidValueError: A value does not fit its column; the message says of which item.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewAgentLog.__required_keys__, NewAgentLog.__annotations__
        items = checked_items("create_agent_logs", logs, required, allowed)
        rows = lines_of_items(items)
        if all(row["event_id"] is None for row in rows):
            return await self._executor.insert_many("create_agent_logs", _INSERT, rows)
        return await self._insert_many_unless("create_agent_logs", AGENT_LOGS, _WITH_EVENT, rows, "event_id")

    async def log_agent_event(
        self,
        agent_id: str,
        log_type: str,
        message: str,
        metadata: JsonValue = None,
        log_level: LogLevel = "INFO",
    ) -> int | None:
        """Write a line to the log of an agent, and never raise: a failure is logged.

        The order is not that of ``create_agent_log``; a ``log_type`` that is a level is refused as a mix-up of the two.

        Args:
            agent_id: The agent that the line is about.
            log_type: Any non-empty text that is no level.
            message: Free text.
            metadata: Any JSON value; the line is written without it, and the log says so, if it cannot be stored.
            log_level: One of ``LOG_LEVELS``.

        Returns:
            The id of the new line; ``None`` if it could not be written.
        """
        try:
            with failures_reported("log_agent_event", AGENT_LOGS.table.name):
                _refuse_a_level(log_type)
            try:
                return await self.create_agent_log(agent_id, log_level, log_type, message, metadata)
            except InvalidValueError as error:
                if error.column != "details":
                    return None
            logger.warning("log_agent_event on agent_logs: written without its metadata, which cannot be stored")
            return await self.create_agent_log(agent_id, log_level, log_type, message)
        except Exception:  # the promise of this method; the failure has been logged where it arose
            return None

    async def get_agent_logs(
        self,
        agent_id: OneOrSeveral[str],
        log_level: OneOrSeveral[LogLevel] | None = None,
        log_type: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        min_level: LogLevel | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[AgentLogRow]:
        """List the log lines of an agent, oldest first; of all filters that are given, each must fit.

        A filter takes one value, or several of which one must fit; of none, no line has one.

        Args:
            agent_id: The agent, also one that was deleted softly.
            log_level: Only lines of this level.
            log_type: Only lines of this type.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            min_level: Only lines of this level and of the graver ones.
            newest_first: The other way round: newest first.
            limit: The most rows to return; 0 for none. By default all of them.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``, descending with ``newest_first``; an empty list if none fits or
            there is no such agent.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, ``limit`` or ``offset`` is no whole
                number from 0, or ``after`` is no cursor of this table.
        """
        page = Page(limit, offset, after, since, until, newest_first=newest_first)
        return await self._list(
            "get_agent_logs",
            AGENT_LOGS,
            {"log_level": log_level, "log_type": log_type, "min_level": min_level},
            page,
            scope={"agent_id": agent_id},
        )

    def iter_agent_logs(
        self,
        agent_id: OneOrSeveral[str] | None = None,
        log_level: OneOrSeveral[LogLevel] | None = None,
        log_type: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        session_id: OneOrSeveral[str] | None = None,
        min_level: LogLevel | None = None,
        page_size: int = DEFAULT_PAGE,
    ) -> AsyncIterator[AgentLogRow]:
        """Iterate over the log lines of an agent, or of all, oldest first, a page at a time.

        Lines that are written meanwhile are seen if they come after the ones already given. One that is there all the
        time comes once, whatever another program makes of its time meanwhile: if that moves it to where the pages have
        been already, it comes last. No transaction stays open while the caller works.

        A filter takes one value, or several of which one must fit; of none, no line has one.

        Args:
            agent_id: The agent, also one that was deleted softly. By default all agents.
            log_level: Only lines of this level.
            log_type: Only lines of this type.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            session_id: Only lines of the agents that are in this session now, also of those that were deleted softly.
            min_level: Only lines of this level and of the graver ones.
            page_size: How many rows to read at a time, at least 1.

        Yields:
            The rows, by ``created_at`` and then ``id``; nothing if none fits or there is no such agent.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, or ``page_size`` is no whole number
                from 1; at the first row.
        """
        return self._each(
            "iter_agent_logs",
            AGENT_LOGS,
            {
                "agent_id": agent_id,
                "session_id": session_id,
                "log_level": log_level,
                "log_type": log_type,
                "min_level": min_level,
            },
            since=since,
            until=until,
            page_size=page_size,
        )

    async def get_agent_logs_by_type(
        self,
        agent_id: OneOrSeveral[str],
        log_type: OneOrSeveral[str],
        limit: int | None = 100,
        *,
        offset: int = 0,
        after: str | None = None,
    ) -> list[AgentLogRow]:
        """List the log lines of an agent that have one type, newest first.

        Args:
            agent_id: The agent, also one that was deleted softly; or several.
            log_type: The type, or several.
            limit: The most rows to return; 0 for none, ``None`` for all of them.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``, descending; an empty list if none fits or there is no such
            agent.

        Raises:
            InvalidValueError: ``log_type`` is empty or no text, ``limit`` or ``offset`` is no whole number from 0, or
                ``after`` is no cursor of this table.
        """
        page = Page(limit, offset, after, newest_first=True)
        return await self._list(
            "get_agent_logs_by_type", AGENT_LOGS, {}, page, scope={"agent_id": agent_id, "log_type": log_type}
        )

    async def get_logs_by_type(
        self, log_type: OneOrSeveral[str], limit: int | None = 100, *, offset: int = 0, after: str | None = None
    ) -> list[AgentLogRow]:
        """List the log lines of all agents that have one type, newest first.

        Args:
            log_type: The type, or several.
            limit: The most rows to return; 0 for none, ``None`` for all of them.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``, descending; an empty list if none fits.

        Raises:
            InvalidValueError: ``log_type`` is empty or no text, ``limit`` or ``offset`` is no whole number from 0, or
                ``after`` is no cursor of this table.
        """
        page = Page(limit, offset, after, newest_first=True)
        return await self._list("get_logs_by_type", AGENT_LOGS, {}, page, scope={"log_type": log_type})

    async def list_recent_agent_logs(
        self,
        limit: int | None = 100,
        *,
        session_id: OneOrSeveral[str] | None = None,
        agent_id: OneOrSeveral[str] | None = None,
        log_type: OneOrSeveral[str] | None = None,
        log_level: OneOrSeveral[LogLevel] | None = None,
        min_level: LogLevel | None = None,
        since: Time | None = None,
        until: Time | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[AgentLogRow]:
        """List the log lines of all agents, newest first; ``get_recent_logs`` is another name for it.

        Of all filters that are given, each must fit. A filter takes one value, or several of which one must fit; of
        none, no line has one.

        Args:
            limit: The most rows to return; 0 for none, ``None`` for all of them.
            session_id: Only lines of the agents that are in this session now, also of those that were deleted softly.
            agent_id: Only lines of this agent, also one that was deleted softly.
            log_type: Only lines of this type.
            log_level: Only lines of this level.
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
        filters = {
            "session_id": session_id,
            "agent_id": agent_id,
            "log_type": log_type,
            "log_level": log_level,
            "min_level": min_level,
        }
        return await self._list("list_recent_agent_logs", AGENT_LOGS, filters, page)

    get_recent_logs = list_recent_agent_logs


def _refuse_a_level(log_type: object) -> None:
    if isinstance(log_type, str) and log_type in LOG_LEVELS:
        raise InvalidValueError(
            "log_type: is a level: the order here is agent_id, log_type, message, metadata, log_level",
            column="log_type",
        )

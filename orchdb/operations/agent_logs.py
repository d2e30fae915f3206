"""The operations on ``agent_logs``: append-only, so there is no update and no delete by id."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

from orchdb.errors import InvalidValueError
from orchdb.operations.table_operations import DEFAULT_PAGE, TableOperations, checked_items
from orchdb.rows import LOG_LEVELS, AgentLogRow, JsonValue, LogLevel, NewAgentLog, Time
from orchdb.statements import TableStatements
from orchdb.tables import agent_logs
from orchdb.values import now
from orchdb.verbs import failures_reported

logger = logging.getLogger("orchdb")

AGENT_LOGS: TableStatements[AgentLogRow] = TableStatements(agent_logs)
_INSERT = AGENT_LOGS.insert(("agent_id", "log_level", "log_type", "message", "details", "created_at"))


class AgentLogOperations(TableOperations):
    """What agents did, line by line."""

    async def create_agent_log(
        self, agent_id: str, log_level: LogLevel, log_type: str, message: str, details: JsonValue = None
    ) -> int:
        """The id of a new line.

        Args:
            log_type: Any non-empty text; ``KNOWN_LOG_TYPES`` holds the usual ones.
            details: Any JSON value.

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
            "created_at": now(),
        }
        return await self._verbs.insert("create_agent_log", _INSERT, values)

    async def create_agent_logs(self, logs: Iterable[NewAgentLog]) -> list[int]:
        """The ids of new lines, in the order given; all are created or none.

        Raises:
            MissingParentError: An agent does not exist.
            InvalidValueError: A value does not fit its column.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewAgentLog.__required_keys__, NewAgentLog.__annotations__
        defaults: dict[str, Any] = {"details": None, "created_at": now()}
        rows = [{**defaults, **item} for item in checked_items("create_agent_logs", logs, required, allowed)]
        return await self._verbs.insert_many("create_agent_logs", _INSERT, rows)

    async def log_agent_event(
        self,
        agent_id: str,
        log_type: str,
        message: str,
        metadata: JsonValue = None,
        log_level: LogLevel = "INFO",
    ) -> int | None:
        """The id of a new line, or ``None`` if it could not be written; never raises, a failure is logged.

        The order is not that of ``create_agent_log``; a ``log_type`` that is a level is refused as a mix-up of the two.

        Args:
            metadata: Any JSON value; the line is written without it, and the log says so, if it cannot be stored.
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
        agent_id: str,
        log_level: LogLevel | None = None,
        log_type: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[AgentLogRow]:
        """The lines of an agent, oldest first.

        Args:
            since: Created at this time or later, as far as another program's spelling of it is understood.
            until: Created before this time.
            after: Continue after the row whose ``cursor_of`` this is.
        """
        return await self._list(
            "get_agent_logs",
            AGENT_LOGS,
            {"log_level": log_level, "log_type": log_type},
            scope={"agent_id": agent_id},
            newest_first=False,
            since=since,
            until=until,
            limit=limit,
            offset=offset,
            after=after,
        )

    def iter_agent_logs(
        self,
        agent_id: str,
        log_level: LogLevel | None = None,
        log_type: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        page_size: int = DEFAULT_PAGE,
    ) -> AsyncIterator[AgentLogRow]:
        """The lines of an agent, oldest first, a page at a time: no transaction stays open while the caller works.

        Lines that are written meanwhile are seen if they come after the ones already given. One that is there all the
        time comes once, whatever another program makes of its time meanwhile: if that moves it to where the pages have
        been already, it comes last.
        """
        return self._each(
            "iter_agent_logs",
            AGENT_LOGS,
            {"log_level": log_level, "log_type": log_type},
            scope={"agent_id": agent_id},
            since=since,
            until=until,
            page_size=page_size,
        )

    async def get_agent_logs_by_type(
        self, agent_id: str, log_type: str, limit: int | None = 100, *, offset: int = 0, after: str | None = None
    ) -> list[AgentLogRow]:
        """The lines of an agent that have this type, newest first."""
        return await self._list(
            "get_agent_logs_by_type",
            AGENT_LOGS,
            {},
            scope={"agent_id": agent_id, "log_type": log_type},
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def get_logs_by_type(
        self, log_type: str, limit: int | None = 100, *, offset: int = 0, after: str | None = None
    ) -> list[AgentLogRow]:
        """The lines of all agents that have this type, newest first."""
        return await self._list(
            "get_logs_by_type",
            AGENT_LOGS,
            {},
            scope={"log_type": log_type},
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def list_recent_agent_logs(
        self, limit: int | None = 100, *, offset: int = 0, after: str | None = None
    ) -> list[AgentLogRow]:
        """The lines of all agents, newest first."""
        return await self._list(
            "list_recent_agent_logs", AGENT_LOGS, {}, newest_first=True, limit=limit, offset=offset, after=after
        )

    get_recent_logs = list_recent_agent_logs


def _refuse_a_level(log_type: object) -> None:
    if isinstance(log_type, str) and log_type in LOG_LEVELS:
        raise InvalidValueError(
            "log_type: is a level: the order here is agent_id, log_type, message, metadata, log_level",
            column="log_type",
        )

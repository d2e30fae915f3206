"""The operations on ``system_logs``: append-only, so there is no update and no delete by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from orchdb.operations.table_operations import DEFAULT_PAGE, TableOperations, checked_items
from orchdb.rows import JsonValue, LogLevel, NewSystemLog, SystemLogRow, Time
from orchdb.statements import TableStatements
from orchdb.tables import system_logs
from orchdb.values import now

SYSTEM_LOGS: TableStatements[SystemLogRow] = TableStatements(system_logs)
_INSERT = SYSTEM_LOGS.insert(("log_level", "component", "message", "details", "created_at"))


class SystemLogOperations(TableOperations):
    """What happened around the agents, line by line."""

    async def create_system_log(
        self, log_level: LogLevel, component: str, message: str, details: JsonValue = None
    ) -> int:
        """The id of a new line.

        Args:
            details: Any JSON value.

        Raises:
            InvalidValueError: A value does not fit its column.
        """
        values = {
            "log_level": log_level,
            "component": component,
            "message": message,
            "details": details,
            "created_at": now(),
        }
        return await self._verbs.insert("create_system_log", _INSERT, values)

    async def create_system_logs(self, logs: Iterable[NewSystemLog]) -> list[int]:
        """The ids of new lines, in the order given; all are created or none.

        Raises:
            InvalidValueError: A value does not fit its column.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewSystemLog.__required_keys__, NewSystemLog.__annotations__
        defaults: dict[str, Any] = {"details": None, "created_at": now()}
        rows = [{**defaults, **item} for item in checked_items("create_system_logs", logs, required, allowed)]
        return await self._verbs.insert_many("create_system_logs", _INSERT, rows)

    async def get_system_logs(
        self,
        log_level: LogLevel | None = None,
        component: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[SystemLogRow]:
        """The lines, oldest first.

        Args:
            since: Created at this time or later, as far as another program's spelling of it is understood.
            until: Created before this time.
            after: Continue after the row whose ``cursor_of`` this is.
        """
        return await self._list(
            "get_system_logs",
            SYSTEM_LOGS,
            {"log_level": log_level, "component": component},
            newest_first=False,
            since=since,
            until=until,
            limit=limit,
            offset=offset,
            after=after,
        )

    def iter_system_logs(
        self,
        log_level: LogLevel | None = None,
        component: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        *,
        page_size: int = DEFAULT_PAGE,
    ) -> AsyncIterator[SystemLogRow]:
        """The lines, oldest first, a page at a time: no transaction stays open while the caller works.

        Lines that are written meanwhile are seen if they come after the ones already given. One that is there all the
        time comes once, whatever another program makes of its time meanwhile: if that moves it to where the pages have
        been already, it comes last.
        """
        return self._each(
            "iter_system_logs",
            SYSTEM_LOGS,
            {"log_level": log_level, "component": component},
            since=since,
            until=until,
            page_size=page_size,
        )

    async def list_recent_system_logs(
        self, limit: int | None = 100, *, offset: int = 0, after: str | None = None
    ) -> list[SystemLogRow]:
        """The lines, newest first."""
        return await self._list(
            "list_recent_system_logs", SYSTEM_LOGS, {}, newest_first=True, limit=limit, offset=offset, after=after
        )

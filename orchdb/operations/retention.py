"""The only ways out of the logs: by age, in batches that leave the writer free for others in between.

An SQLite file gives the space back then; on a server that is the server's own to do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.operations.agent_logs import AGENT_LOGS
from orchdb.operations.system_logs import SYSTEM_LOGS
from orchdb.operations.table_operations import TableOperations
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import LogLevel, Time
from orchdb.schema.values import moment as checked_time
from orchdb.schema.values import now

_ROWS_AT_A_TIME = 1000


class RetentionOperations(TableOperations):
    """Deleting old log lines."""

    async def cleanup_old_logs(self, days: float = 30) -> int:
        """Delete the lines of both log tables that are older than so many days.

        A line whose time another program spelled in its own way is judged by what it means, and kept if that is not
        certain. An SQLite file becomes as small as its rows, unless this is in a transaction.

        Args:
            days: The age in days, also a fraction; 0 for all that were written before now.

        Returns:
            How many lines were deleted, of both tables together.

        Raises:
            InvalidValueError: ``days`` is no number from 0.
        """
        with failures_reported("cleanup_old_logs", AGENT_LOGS.table.name):
            if isinstance(days, bool) or not isinstance(days, (int, float)) or not days >= 0:
                raise InvalidValueError("days: must be a number from 0", column="days")
        try:
            before = now() - timedelta(days=days)
        except OverflowError:  # before the first year
            before = datetime.min.replace(tzinfo=UTC)
        return await self._prune("cleanup_old_logs", before, None)

    async def prune(self, before: Time, *, log_level: LogLevel | None = None) -> int:
        """Delete the lines of both log tables that were created, for certain, before a time.

        An SQLite file becomes as small as its rows, unless this is in a transaction.

        Args:
            before: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
            log_level: Only lines of this level. By default of every level.

        Returns:
            How many lines were deleted, of both tables together.

        Raises:
            InvalidValueError: ``before`` is no time, or the level is unknown.
        """
        with failures_reported("prune", AGENT_LOGS.table.name):
            moment = checked_time(before, "before")
        return await self._prune("prune", moment, log_level)

    async def _prune(self, operation: str, before: datetime | None, log_level: LogLevel | None) -> int:
        values = {"before": before, "log_level": log_level, "offset": _ROWS_AT_A_TIME - 1, "limit": _ROWS_AT_A_TIME}
        equal = () if log_level is None else ("log_level",)
        tables: tuple[TableStatements[Any], ...] = (AGENT_LOGS, SYSTEM_LOGS)
        for table in tables:
            self._executor.check(operation, table.prune(equal, False, False), values)  # before anything is looked at
        deleted = sum([await self._prune_table(operation, table, equal, dict(values)) for table in tables])
        await self._executor.give_back(operation)
        return deleted

    async def _prune_table(
        self, operation: str, table: TableStatements[Any], equal: tuple[str, ...], values: dict[str, Any]
    ) -> int:
        """From the oldest on, so many rows at a time, whether or not they go: each is looked at once."""
        deleted, resume = 0, False
        while batch_end := await self._executor.fetch_one(operation, table.batch_end(resume), values):
            values |= {"edge_time": batch_end["edge_time"], "edge_id": batch_end["id"]}
            deleted += await self._executor.execute(operation, table.prune(equal, resume, True), values)
            values |= {"last_time": batch_end["edge_time"], "last_id": batch_end["id"]}
            resume = True
        deleted += await self._executor.execute(operation, table.prune(equal, resume, False), values)
        # What another program spelled in its own way may stand behind the time and yet mean an earlier one.
        while found := await self._executor.fetch_all(operation, table.misplaced(equal), values):
            chosen = values | {"ids": orjson.dumps([row["id"] for row in found]).decode()}
            gone = await self._executor.execute(operation, table.prune_chosen(equal), chosen)
            deleted += gone
            if not gone:  # another program keeps them
                break
        return deleted

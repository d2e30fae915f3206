"""The only ways out of the logs: by age, in batches that leave the writer free for others in between.

An SQLite file gives the space back then; on a server that is the server's own to do.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, overload

from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.location import path_of_file
from orchdb.operations.agent_logs import AGENT_LOGS
from orchdb.operations.archives import Archive
from orchdb.operations.system_logs import SYSTEM_LOGS
from orchdb.operations.table_operations import TableOperations
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import LogLevel, Time
from orchdb.schema.values import moment as checked_time
from orchdb.schema.values import now, time_text

_ROWS_AT_A_TIME = 1000
_BYTES_OF_A_ROW = 110
"""Besides its texts: ids, time, words, and what the engine adds."""
_TABLES: tuple[TableStatements[Any], ...] = (AGENT_LOGS, SYSTEM_LOGS)


class Prunable(NamedTuple):
    """What a prune would take from a table.

    Attributes:
        rows: How many lines.
        bytes: About how much they take, without indexes.
    """

    rows: int
    bytes: int


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

    @overload
    async def prune(
        self,
        before: Time,
        *,
        log_level: LogLevel | None = None,
        keep_errors: bool = False,
        dry_run: Literal[False] = False,
        archive: str | os.PathLike[str] | None = None,
    ) -> int: ...

    @overload
    async def prune(
        self, before: Time, *, log_level: LogLevel | None = None, keep_errors: bool = False, dry_run: Literal[True]
    ) -> dict[str, Prunable]: ...

    async def prune(
        self,
        before: Time,
        *,
        log_level: LogLevel | None = None,
        keep_errors: bool = False,
        dry_run: bool = False,
        archive: str | os.PathLike[str] | None = None,
    ) -> int | dict[str, Prunable]:
        """Delete the lines of both log tables that were created, for certain, before a time.

        An SQLite file becomes as small as its rows, unless this is in a transaction.

        Args:
            before: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
            log_level: Only lines of this level. By default of every level.
            keep_errors: Whether lines of the levels ``ERROR`` and ``CRITICAL`` stay.
            dry_run: Whether to delete nothing, and only say what would go.
            archive: A new file to write the lines to before they go: gzipped JSON Lines, for its owner only. The first
                line says what was asked for; then comes a line for each row, with its ``table``; the last one says how
                many there are. A line is deleted only when it is on the disk.

        Returns:
            How many lines were deleted, of both tables together; with ``dry_run`` for each table how many would be,
            and about how many bytes they take, without indexes.

        Raises:
            InvalidValueError: ``before`` is no time, the level is unknown, or ``archive`` is no path.
            OperationError: The archive exists already, or cannot be written.
        """
        with failures_reported("prune", AGENT_LOGS.table.name):
            moment = checked_time(before, "before")
            place = None if archive is None else path_of_file(archive)
        if dry_run:
            return await self._prunable(moment, log_level, spare=keep_errors)
        if place is None:
            return await self._prune("prune", moment, log_level, spare=keep_errors)
        asked = {"before": None if moment is None else time_text(moment), "log_level": log_level}
        for table in _TABLES:
            self._executor.check("prune", table.prune(_equal(log_level), False, False), _values(moment, log_level))
        with failures_reported("prune", AGENT_LOGS.table.name):
            kept = await Archive.begun(place, {"operation": "prune", **asked, "keep_errors": keep_errors})
        async with kept:
            return await self._prune("prune", moment, log_level, spare=keep_errors, archive=kept)

    async def _prunable(
        self, before: datetime | None, log_level: LogLevel | None, *, spare: bool
    ) -> dict[str, Prunable]:
        found = dict[str, Prunable]()
        for table in _TABLES:
            statement = table.prunable(_equal(log_level), spare)
            row = await self._executor.fetch_one("prune", statement, _values(before, log_level))
            rows, length = (int(row["rows"]), int(row["length"])) if row else (0, 0)
            found[str(table.table.name)] = Prunable(rows, length + rows * _BYTES_OF_A_ROW)
        return found

    async def _prune(
        self,
        operation: str,
        before: datetime | None,
        log_level: LogLevel | None,
        *,
        spare: bool = False,
        archive: Archive | None = None,
    ) -> int:
        values, equal = _values(before, log_level), _equal(log_level)
        for table in _TABLES:
            self._executor.check(operation, table.prune(equal, False, False), values)  # before anything is looked at
        deleted = sum(
            [await self._prune_table(operation, table, equal, dict(values), spare, archive) for table in _TABLES]
        )
        await self._executor.give_back(operation)
        return deleted

    async def _prune_table(
        self,
        operation: str,
        table: TableStatements[Any],
        equal: tuple[str, ...],
        values: dict[str, Any],
        spare: bool,
        archive: Archive | None,
    ) -> int:
        """From the oldest on, so many rows at a time, whether or not they go: each is looked at once."""

        async def delete(resume: bool, bounded: bool) -> int:
            if archive is None:
                return await self._executor.execute(operation, table.prune(equal, resume, bounded, spare), values)
            rows = await self._executor.fetch_all(operation, table.pruned(equal, resume, bounded, spare), values)
            return await self._delete_chosen(operation, table, equal, values, spare, archive, rows)

        deleted, resume = 0, False
        while batch_end := await self._executor.fetch_one(operation, table.batch_end(resume), values):
            values |= {"edge_time": batch_end["edge_time"], "edge_id": batch_end["id"]}
            deleted += await delete(resume, True)
            values |= {"last_time": batch_end["edge_time"], "last_id": batch_end["id"]}
            resume = True
        deleted += await delete(resume, False)
        # What another program spelled in its own way may stand behind the time and yet mean an earlier one.
        while found := await self._executor.fetch_all(operation, table.misplaced(equal, spare), values):
            gone = await self._delete_chosen(operation, table, equal, values, spare, archive, found)
            deleted += gone
            if not gone:  # another program keeps them
                break
        return deleted

    async def _delete_chosen(
        self,
        operation: str,
        table: TableStatements[Any],
        equal: tuple[str, ...],
        values: dict[str, Any],
        spare: bool,
        archive: Archive | None,
        rows: list[Any],
    ) -> int:
        """Delete rows that were read, when they are in the archive."""
        if not rows:
            return 0
        if archive is not None:
            with failures_reported(operation, table.table.name):
                await archive.add(str(table.table.name), rows)
        chosen = values | {"ids": list(enumerate(row["id"] for row in rows))}
        return await self._executor.execute(operation, table.prune_chosen(equal, spare), chosen)


def _equal(log_level: LogLevel | None) -> tuple[str, ...]:
    return () if log_level is None else ("log_level",)


def _values(before: datetime | None, log_level: LogLevel | None) -> dict[str, Any]:
    return {"before": before, "log_level": log_level, "offset": _ROWS_AT_A_TIME - 1, "limit": _ROWS_AT_A_TIME}

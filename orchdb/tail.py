"""Following a log while others write to it: every line once, in the order of ids, none missed.

Ids are given when a line is written and become visible when it is committed, so on a server a lower id can appear after
a higher one. Whoever asks for "id > the last one seen" then never sees it. Here a line is given only when no
transaction that began to write before it can still add one with a lower id.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from orchdb.backend import Horizon
from orchdb.clocks import pause
from orchdb.database import Database, failures_reported
from orchdb.errors import InvalidValueError
from orchdb.operations.table_operations import checked_number
from orchdb.rows import AgentLogRow, SystemLogRow
from orchdb.statements import TableStatements

LogRow = TypeVar("LogRow", AgentLogRow, SystemLogRow)
_IDS_AT_A_TIME = 500


def tail(
    database: Database,
    operation: str,
    statements: TableStatements[LogRow],
    filters: Mapping[str, Any],
    after_id: int | None,
    poll_seconds: float,
) -> AsyncIterator[LogRow]:
    """The lines behind ``after_id`` that fit the filters, then those that are written, without end.

    Raises:
        InvalidValueError: ``after_id`` or ``poll_seconds`` is not usable.
    """
    with failures_reported(operation, statements.table.name):
        checked_number("after_id", after_id)
        if not isinstance(poll_seconds, (int, float)) or not 0 < poll_seconds < math.inf:
            raise InvalidValueError("poll_seconds: must be a number of seconds above 0", column="poll_seconds")
    values = {name: value for name, value in filters.items() if value is not None}
    statement = statements.stretch(tuple(sorted(values)))

    async def look() -> Horizon:
        return await database.horizon(operation, statements.table)

    async def lines() -> AsyncIterator[LogRow]:  # what is refused above is refused at the call, not at the first line
        last = (await look()).newest if after_id is None else after_id
        while True:
            newest, writers = await look()
            while newest > last and writers:
                await pause(poll_seconds)
                writers &= (await look()).writers
            while last < newest:
                end = min(last + _IDS_AT_A_TIME, newest)
                stretch = {**values, "after_id": last, "up_to_id": end}
                for row in await database.fetch_newest(operation, statement, stretch):
                    yield row
                last = end
            await pause(poll_seconds)

    return lines()

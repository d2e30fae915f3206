"""Creation that can be repeated: a row that is there already is found by its id, its ``event_id`` or its name.

The row is inserted unless it would double one; then the one that is there is looked for. If there is none, something
else stands in the way, and an insert that insists tells what: another row's name, or a trigger that skips the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchdb.driver_errors import is_conflict
from orchdb.errors import DuplicateError, InvalidValueError, OperationError
from orchdb.executor import Executor, TransactionExecutor, failures_reported
from orchdb.operations.arguments import checked_flag
from orchdb.operations.in_turn import in_turn, not_for_long
from orchdb.operations.table_operations import TableOperations
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import Time
from orchdb.schema.values import canonical_id, moment, new_id, now

Values = Mapping[str, Any]
_KEYS_AT_A_TIME = 200
_TRIES = 5
"""Of a bulk that rows of others have come before, or that was in a deadlock with another one of the same rows."""


def new_row_id(operation: str, table: str, row_id: object) -> str:
    """Read the id that a caller gives to a new row, or make one.

    Args:
        operation: The public method, for the error.
        table: The table, for the error.
        row_id: A UUID in any spelling; ``None`` for a new one.

    Returns:
        The id in its one spelling.

    Raises:
        InvalidValueError: It is no UUID.
    """
    if row_id is None:
        return new_id()
    with failures_reported(operation, table):
        return canonical_id(row_id, f"{table}.id")


def time_of_creation(operation: str, table: str, created_at: Time | None) -> datetime:
    """Read the time that a caller gives to a new row, or take the present.

    Args:
        operation: The public method, for the error.
        table: The table, for the error.
        created_at: What a caller gave; ``None`` for now.

    Returns:
        The time, in UTC.

    Raises:
        InvalidValueError: It is no time.
    """
    if created_at is None:
        return now()
    with failures_reported(operation, table):
        return moment(created_at, f"{table}.created_at") or now()


def may_exist(operation: str, table: str, exist_ok: bool) -> bool:
    """Tell whether a row that is there is as good as a new one.

    Args:
        operation: The public method, for the error.
        table: The table, for the error.
        exist_ok: What a caller gave.

    Returns:
        The same.

    Raises:
        InvalidValueError: It is neither true nor false.
    """
    if exist_ok is True or exist_ok is False:
        return exist_ok
    with failures_reported(operation, table):
        checked_flag("exist_ok", exist_ok)
    return False


def rows_of_items(items: Iterable[Values], row_of: Callable[[Values], dict[str, Any]]) -> list[dict[str, Any]]:
    """Make the row of each item of a bulk.

    Args:
        items: The items.
        row_of: Makes the row of one.

    Returns:
        The rows, in the order of the items.

    Raises:
        InvalidValueError: An item cannot be a row; the message says which.
    """
    rows: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        try:
            rows.append(row_of(item))
        except InvalidValueError as error:
            error.message = f"item {number}: {error.message}"
            raise
    return rows


def lines_of_items(items: Iterable[Values]) -> list[dict[str, Any]]:
    """Make the line of each item of a bulk; all that say no time have the same.

    Args:
        items: The items.

    Returns:
        The lines, in the order of the items.
    """
    present = now()
    lines = [{"details": None, "event_id": None, "created_at": present, **item} for item in items]
    for line in lines:
        if line["created_at"] is None:
            line["created_at"] = present
    return lines


class CreationOperations(TableOperations):
    """The operations on a table whose rows have to be there once, however often they are created."""

    async def _insert_unless(
        self, operation: str, statements: TableStatements[Any], names: tuple[str, ...], values: Values, column: str
    ) -> Any:
        """Insert a row unless one has its value in a column without doubles; the id of the row that is there then.

        Args:
            operation: The public method.
            statements: Those of the table.
            names: The columns to insert.
            values: The row.
            column: What tells whether the row is there: ``id``, ``event_id`` or ``name``.
        """
        executor, insert = self._executor, statements.insert(names, if_new=True)
        if "id" in values:
            if await executor.execute(operation, insert, values):
                return values["id"]
        else:
            number = await executor.insert(operation, insert, values)
            if number:
                return number
        found = await executor.fetch_newest(operation, statements.ids(column), {"key_0": values[column]})
        if found:
            return found[0]["id"]
        return await executor.insert(operation, statements.insert(names), values) or values["id"]

    async def _insert_line(
        self, operation: str, statements: TableStatements[Any], names: tuple[str, ...], values: Values
    ) -> int:
        """Write a line of a log unless one has its ``event_id``; the number of the line that is there then."""
        # Once, because a naive one is warned of.
        created_at = time_of_creation(operation, statements.table.name, values["created_at"])
        line = {**values, "created_at": created_at}
        return int(await self._insert_unless(operation, statements, names, line, "event_id"))

    async def _insert_many_unless(
        self,
        operation: str,
        statements: TableStatements[Any],
        names: tuple[str, ...],
        rows: Sequence[Values],
        column: str,
    ) -> list[Any]:
        """Insert the rows, all or none, but for those whose value in ``column`` a row has, or an earlier one of them.

        Returns:
            For each row its id, or that of the row that was there.
        """
        await self._executor.check_many(operation, statements.insert(names), rows)
        rows = [{**row, column: _plain(row[column]), "created_at": _aware(row["created_at"])} for row in rows]
        # In a block it would hold the turn, and hurry, until that ends.
        alone = not isinstance(self._executor, TransactionExecutor)
        tries = 1
        while True:
            try:
                async with self._executor.transaction() as tx:
                    if alone:  # in turn not at once: most bulks have no row in common
                        order = not_for_long if tries == 1 else in_turn
                        await tx.execute(operation, order(statements.table), {})
                    return await _insert_missing(tx, operation, statements, names, rows, column)
            except (DuplicateError, OperationError) as error:
                again = error.column == column or (alone and is_conflict(error, waited=tries > 1))
                if tries == _TRIES or not again:
                    raise
            tries += 1


async def _insert_missing(
    executor: Executor,
    operation: str,
    statements: TableStatements[Any],
    names: tuple[str, ...],
    rows: Sequence[Values],
    column: str,
) -> list[Any]:
    ids: dict[Any, Any] = {}
    keys = [*dict.fromkeys(row[column] for row in rows if row[column] is not None)]
    for start in range(0, len(keys), _KEYS_AT_A_TIME):
        some = keys[start : start + _KEYS_AT_A_TIME]
        some += some[-1:] * (_KEYS_AT_A_TIME - len(some))  # one shape of the statement for all
        values = {f"key_{number}": key for number, key in enumerate(some)}
        found = await executor.fetch_newest(operation, statements.ids(column, _KEYS_AT_A_TIME), values)
        ids |= {row["key"]: row["id"] for row in found}
    missing: dict[Any, Values] = {}
    for number, row in enumerate(rows):
        if row[column] not in ids:
            missing.setdefault(number if row[column] is None else row[column], row)
    new = [*missing.values()]
    numbers = await executor.insert_many(operation, statements.insert(names), new) or [row["id"] for row in new]
    ids |= dict(zip(missing, numbers, strict=True))
    return [ids[number if row[column] is None else row[column]] for number, row in enumerate(rows)]


def _plain(key: Any) -> Any:
    """The text itself: a member of an Enum of texts is another key of a dictionary."""
    return None if key is None else str.__str__(key)


def _aware(value: Any) -> Any:
    """In UTC: of a naive one the caller has been warned."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.utcoffset() is None else value

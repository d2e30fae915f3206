"""What the operations of all tables share: changing one row, listing a page, going through a log."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeVar

from orchdb.cursors import AnyRow, cursor_behind, position
from orchdb.errors import InvalidValueError
from orchdb.executor import Executor, failures_reported
from orchdb.operations.arguments import checked_flag, checked_number
from orchdb.operations.filters import Shape, checked_filters, with_branches, without_branches
from orchdb.operations.in_turn import in_turn
from orchdb.operations.log_numbers import Numbers, runs
from orchdb.operations.page import Page
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import AgentLogRow, SystemLogRow, Time
from orchdb.schema.values import now
from orchdb.statements import Statement

Row = TypeVar("Row", bound=AnyRow)
LogRow = TypeVar("LogRow", AgentLogRow, SystemLogRow)
DEFAULT_PAGE = 500
_NUMBERS_AT_A_TIME = 50_000
"""Of many, after which the event loop is left to others for a moment."""


class TableOperations(ABC):
    """The operations on one table, as a manager or a transaction runs them."""

    @property
    @abstractmethod
    def _executor(self) -> Executor:
        """How the statements of the operations reach the database."""

    async def _change(
        self,
        operation: str,
        statements: TableStatements[Any],
        row_id: str,
        changes: Mapping[str, Any],
        *,
        fill_null: Mapping[str, Any] = MappingProxyType({}),
        if_status: str | None = None,
    ) -> bool:
        """Change one living row; ``fill_null`` values only fill what is NULL. False if there is no such row."""
        if_column = None if if_status is None else "status"
        if not changes:
            values = {"row_id": row_id, "if_status": if_status}
            return bool(await self._executor.fetch_value(operation, statements.present(if_column), values))
        statement, values = _update(statements, row_id, changes, fill_null, if_status)
        moves = values.get(f"new_{statements.parent}") is not None
        if "updated_at" not in changes or len(changes) == 1:
            if moves:
                return await _move(self._executor, operation, statements, statement, values, if_column)
            return await self._executor.execute(operation, statement, values) > 0
        # A time that is given is written alone: the trigger that serves other programs takes an unchanged updated_at,
        # beside other changes, for a forgotten one. What would be refused is refused before the transaction begins.
        if not self._executor.check(operation, statement, values):
            return False
        # From here on in UTC: a naive one has been warned of.
        changes = {name: _aware(value) for name, value in changes.items()}
        given = {"updated_at": changes.pop("updated_at")}
        async with self._executor.transaction() as executor:
            statement, values = _update(statements, row_id, changes, fill_null, if_status)
            if moves:
                changed = await _move(executor, operation, statements, statement, values, if_column)
            else:
                changed = await executor.execute(operation, statement, values) > 0
            return changed and await executor.execute(operation, *_update(statements, row_id, given)) > 0

    async def _add(
        self, operation: str, statements: TableStatements[Any], row_id: str, amounts: Mapping[str, Any]
    ) -> bool:
        """Add to columns of one living row, in one statement."""
        values = {"row_id": row_id, **{f"new_{name}": amount for name, amount in amounts.items()}}
        names: tuple[str, ...] = ()
        if "updated_at" in statements.columns:
            names, values["new_updated_at"] = ("updated_at",), now()
        added = tuple(sorted(amounts))
        if await self._executor.execute(operation, statements.update(names, added=added), values):
            return True
        if await self._executor.fetch_value(operation, statements.present(overflowing=added), values):
            with failures_reported(operation, statements.table.name):
                raise InvalidValueError("the sum would be larger than its column holds")
        return False

    async def _delete(self, operation: str, statements: TableStatements[Any], row_id: str, *, soft: bool) -> bool:
        if soft:
            return await self._change(operation, statements, row_id, {"deleted_at": now()})
        return await self._executor.execute(operation, statements.delete(), {"row_id": row_id}) > 0

    async def _restore(self, operation: str, statements: TableStatements[Any], row_id: str) -> bool:
        values: dict[str, Any] = {"row_id": row_id, "new_deleted_at": None, "new_updated_at": now()}
        names = ("deleted_at", "updated_at") if "updated_at" in statements.columns else ("deleted_at",)
        return await self._executor.execute(operation, statements.update(names, deleted=True), values) > 0

    async def _list(
        self,
        operation: str,
        statements: TableStatements[Row],
        filters: Mapping[str, Any],
        page: Page,
        *,
        scope: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """A page of a table; a filter that is ``None`` does not filter, a scope always does."""
        bounds = _given({"since": page.since, "until": page.until, "limit": page.limit, "offset": page.offset or None})
        with failures_reported(operation, statements.table.name):
            checked_number("limit", page.limit)
            checked_number("offset", page.offset)
            checked_flag("newest_first", page.newest_first)
            checked_flag("include_deleted", page.include_deleted)
            shape, values = _asked(statements, filters, scope)
            if page.after is not None:
                values |= position(page.after, statements.table.name)
                bounds["after"] = None
        statement = statements.page(shape, tuple(sorted(bounds)), page.newest_first, page.include_deleted)
        return await self._executor.fetch_all(operation, statement, values | bounds)

    async def _each(
        self,
        operation: str,
        statements: TableStatements[LogRow],
        filters: Mapping[str, Any],
        *,
        scope: Mapping[str, Any] | None = None,
        since: Time | None,
        until: Time | None,
        page_size: int,
    ) -> AsyncIterator[LogRow]:
        """The lines of a log, oldest first, and last those that were moved to where the pages had been already.

        Between two pages no connection and no read transaction is held.
        """
        with failures_reported(operation, statements.table.name):
            checked_number("page_size", page_size or 0, least=1)
            fitting = checked_filters(filters, scope)  # once: what gives several values may give them once
        given, after, more = Numbers(), None, True
        while more:
            bounds = Page(page_size, after=after, since=since, until=until)
            page = await self._list(operation, statements, {}, bounds, scope=fitting)
            for row in page:
                if given.add(row["id"]):  # else its time was changed, and so its place
                    yield row
            more = len(page) == page_size
            after = cursor_behind(page[-1]) if more else after
        if after is None:  # all in one page, which is of one moment
            return
        (shape, values), times = without_branches(fitting), _given({"since": since, "until": until})
        numbers = statements.numbers(shape, tuple(sorted(times)))
        for first, end in runs(await self._passed_over(operation, numbers, {**values, **times}, given)):
            id_range = {**values, "after_id": first - 1, "up_to_id": end}
            for row in await self._executor.fetch_all(operation, statements.id_range(shape), id_range):
                yield row

    async def _passed_over(
        self, operation: str, statement: Statement[Any], values: Mapping[str, Any], given: Numbers
    ) -> list[int]:
        """The numbers of the lines of a list that were not given, in order."""
        found: list[int] = []
        looked_at = 0
        for part in await self._executor.fetch_all(operation, statement, values):
            numbers = part["ids"].split(",")
            found += [number for number in map(int, numbers) if number not in given]
            looked_at += len(numbers)
            if looked_at > _NUMBERS_AT_A_TIME:
                looked_at = 0
                await asyncio.sleep(0)
        return sorted(found)


def _update(
    statements: TableStatements[Any],
    row_id: str,
    changes: Mapping[str, Any],
    fill_null: Mapping[str, Any] = MappingProxyType({}),
    if_status: str | None = None,
) -> tuple[Statement[Any], dict[str, Any]]:
    """The statement that changes one living row, and its values; ``updated_at`` is now if no other time is given."""
    values: dict[str, Any] = {"row_id": row_id, "if_status": if_status}
    for name, value in (*changes.items(), *fill_null.items()):
        values[f"new_{name}"] = value
    names = [*changes]
    if "updated_at" in statements.columns and "updated_at" not in changes:
        names.append("updated_at")
        values["new_updated_at"] = now()
    if_column = None if if_status is None else "status"
    return statements.update(tuple(sorted(names)), tuple(sorted(fill_null)), if_column), values


async def _move(
    executor: Executor,
    operation: str,
    statements: TableStatements[Any],
    statement: Statement[Any],
    values: Mapping[str, Any],
    if_column: str | None,
) -> bool:
    """Change the parent of one row, and what else the statement changes, but never in a circle.

    The statement looks at all ancestors, so everyone who changes a parent does so in turn: two of them at once would
    not see each other's change.
    """
    if not executor.check(operation, statement, values):
        return False
    async with executor.as_one() as tx:
        await tx.execute(operation, in_turn(statements.table), {})
        if await tx.execute(operation, statement, values):
            return True
        if not await tx.fetch_value(operation, statements.circle(if_column), values):
            return False
    with failures_reported(operation, statements.table.name):
        column = f"{statements.table.name}.{statements.parent}"
        raise InvalidValueError(f"{column}: no row can be its own ancestor", column=statements.parent)


def _asked(
    statements: TableStatements[Any], filters: Mapping[str, Any], scope: Mapping[str, Any] | None
) -> tuple[Shape, dict[str, Any]]:
    """The shape of a list, and the values of its filters."""
    given = _given(filters) | dict(scope or {})
    for value in given.values():
        if type(value) is not str:
            break
    else:  # most are so
        shape = statements.equal_only(tuple(sorted(given)))
        if shape is not None:
            return shape, given
    return with_branches(checked_filters(filters, scope), statements.columns, statements.order, statements.partial)


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.utcoffset() is None else value


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}

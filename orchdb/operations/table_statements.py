"""The statements: SQLAlchemy Core, built once for each shape and compiled once for each dialect.

What a caller gives becomes a bound value and never a part of the SQL text: the shape of a statement is chosen from the
tables' own columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Table,
    Text,
    Tuple,
    Update,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from orchdb.operations.list_statements import ListStatements
from orchdb.schema.column_types import (
    Count,
    FreeText,
    JsonDocument,
    ReadNumber,
    StoredTime,
    later,
    total,
)
from orchdb.schema.several import Several, is_among
from orchdb.schema.sql_functions import is_another_spelling, is_understood, stored_time
from orchdb.schema.values import HALF_OF_MOST, MAX_INTEGER
from orchdb.statements import Statement

Row = TypeVar("Row")
ERRORS = ("ERROR", "CRITICAL")
"""The levels of what is kept when errors are."""


class TableStatements(ListStatements[Row]):
    """The statements that the operations on one table run.

    Args:
        table: The table.
        order: As for ``ListStatements``, and so are the others.
        partial: Likewise.
        conditions: Likewise.
    """

    def __init__(
        self,
        table: Table,
        order: Sequence[str] = (),
        partial: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        conditions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(table, order, partial, conditions)
        # Each shape is built once; how many there are is bounded by the tables' columns, and the caches by their size.
        self.one = lru_cache(maxsize=8)(self._one)
        self.insert = lru_cache(maxsize=8)(self._insert)
        self.ids = lru_cache(maxsize=4)(self._ids)
        self.update = lru_cache(maxsize=1024)(self._update)
        self.delete = lru_cache(maxsize=8)(self._delete)
        self.batch_end = lru_cache(maxsize=8)(self._edge)
        self.prune = lru_cache(maxsize=8)(self._prune)
        self.pruned = lru_cache(maxsize=8)(self._pruned)
        self.prunable = lru_cache(maxsize=4)(self._prunable)
        self.misplaced = lru_cache(maxsize=8)(self._misplaced)
        self.prune_chosen = lru_cache(maxsize=8)(self._prune_chosen)
        self.present = lru_cache(maxsize=8)(self._present)
        self.circle = lru_cache(maxsize=8)(self._circle)

    def _one(self, include_deleted: bool = False) -> Statement[Row]:
        core = select(*self._shown).where(self._by_id(), *self._unless(include_deleted))
        return Statement(self.table, core)

    def _present(self, if_column: str | None = None, overflowing: tuple[str, ...] = ()) -> Statement[Row]:
        """Whether there is such a row, and with ``overflowing``, whether a ``new_<column>`` is too much for them."""
        not_deleted = exists().where(self._by_id(), *self._not_deleted, *self._if_column(if_column))
        if overflowing:
            amounts = {name: self._bind(f"new_{name}", name, required=True) for name in overflowing}
            not_deleted = not_deleted.where(or_(*(not_(self._fits(name, amount)) for name, amount in amounts.items())))
        return Statement(self.table, select(not_deleted))

    def _fits(self, name: str, amount: BindParameter[Any]) -> ColumnElement[bool]:
        """Whether the sum is within its column: SQLite would store an infinity, or a float in the place of a count."""
        column = func.coalesce(self.table.c[name], 0)
        if isinstance(self.table.c[name].type, Count):
            return column <= literal_column(str(MAX_INTEGER)) - amount
        # By halves, because neither a sum nor a difference may be infinite: Postgres raises.
        half: ColumnElement[float] = literal_column("0.5")
        return (column * half + amount * half).between(literal_column(f"-{HALF_OF_MOST}"), literal_column(HALF_OF_MOST))

    def _insert(self, names: tuple[str, ...], *, if_new: bool = False) -> Statement[Row]:
        """A new row; ``if_new``, none where it would double one that is there."""
        return Statement(self.table, insert(self.table), names, changes_one=True, if_new=if_new)

    def _ids(self, column: str, count: int = 1) -> Statement[Any]:
        """The ids of the rows that have one of ``count`` values in a column without doubles, and that value."""
        keys = [self._bind(f"key_{number}", column, lookup=True) for number in range(count)]
        where = self.table.c[column].in_(keys) if count > 1 else self.table.c[column] == keys[0]
        alive = self._not_deleted if column == "name" else []  # the others have no doubles among the deleted either
        return Statement(self.table, select(self.table.c.id, self.table.c[column].label("key")).where(where, *alive))

    def _update(
        self,
        names: tuple[str, ...],
        fill_null: tuple[str, ...] = (),
        if_column: str | None = None,
        *,
        added: tuple[str, ...] = (),
        deleted: bool = False,
    ) -> Statement[Row]:
        """A change of one row, with the values as ``new_<column>``; none that would make it its own ancestor.

        Args:
            names: Columns that take the value.
            fill_null: Columns that take the value only where they are NULL.
            if_column: A column that must still have the value ``if_<column>``.
            added: Columns that the value is added to.
            deleted: Change a deleted row instead of a living one.
        """
        core = self.changing(names, fill_null, if_column, added=added, deleted=deleted)
        return Statement(self.table, core, changes_one=if_column is None)  # with a guard it often finds none

    def changing(
        self,
        names: tuple[str, ...],
        fill_null: tuple[str, ...] = (),
        if_column: str | None = None,
        *,
        added: tuple[str, ...] = (),
        deleted: bool = False,
    ) -> Update:
        """What ``update`` runs."""
        columns = self.table.c
        changes: dict[str, ColumnElement[Any]] = {name: self._bind(f"new_{name}", name) for name in names}
        changes |= {name: func.coalesce(columns[name], self._bind(f"new_{name}", name)) for name in fill_null}
        amounts = {name: self._bind(f"new_{name}", name, required=True) for name in added}
        changes |= {name: total(columns[name], amount) for name, amount in amounts.items()}
        if "updated_at" in changes and len(changes) > 1:
            changes["updated_at"] = later(columns.updated_at, changes["updated_at"])
        fits = [self._fits(name, amount) for name, amount in amounts.items()]
        if self.parent in names:
            fits.append(not_(self._is_above(changes[self.parent])))
        not_deleted = [columns.deleted_at.is_not(None)] if deleted else self._not_deleted
        return update(self.table).where(self._by_id(), *not_deleted, *self._if_column(if_column), *fits).values(changes)

    def _circle(self, if_column: str | None = None) -> Statement[Row]:
        """Whether the row is there, and the new parent would make it its own ancestor."""
        above = self._is_above(self._bind(f"new_{self.parent}", self.parent))
        return Statement(
            self.table, select(exists().where(self._by_id(), *self._not_deleted, *self._if_column(if_column), above))
        )

    def _is_above(self, parent: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether the row is this parent or one of its ancestors, deleted ones included."""
        start, above = self.table.alias("start"), self.table.alias("above")
        # Nested: sqlite3 does not count the rows that a statement changes which begins with WITH.
        line = select(start.c.id).where(start.c.id == parent).cte("line", recursive=True, nesting=True)
        step = select(above.c[self.parent]).join(line, above.c.id == line.c.id)
        # UNION and not UNION ALL: another program may have made a circle, which would never end.
        line = line.union(step.where(above.c[self.parent].is_not(None)))
        return self.table.c.id.in_(select(line.c.id))

    def _edge(self, resume: bool) -> Statement[Any]:
        """The position, time and id, of the row before a time that ends the next ``offset`` rows; ``resume`` on."""
        core = select(type_coerce(self.table.c.created_at, StoredTime()).label("edge_time"), self.table.c.id)
        core = core.where(*self._old(resume)).order_by(self.table.c.created_at, self.table.c.id)
        return Statement(self.table, core.limit(literal_column("1")).offset(bindparam("offset", type_=BigInteger())))

    def _prune(self, equal: tuple[str, ...], resume: bool, bounded: bool, spare: bool = False) -> Statement[Row]:
        """Delete the rows before a time that are between two positions, as far as those are given."""
        return Statement(self.table, delete(self.table).where(*self._going(equal, resume, bounded, spare)))

    def _pruned(self, equal: tuple[str, ...], resume: bool, bounded: bool, spare: bool = False) -> Statement[Row]:
        """The rows that ``prune`` would delete."""
        return Statement(self.table, select(*self._shown).where(*self._going(equal, resume, bounded, spare)))

    def _going(self, equal: tuple[str, ...], resume: bool, bounded: bool, spare: bool) -> list[ColumnElement[bool]]:
        # Of two bounds at the top the engines search by the first: only the edge, which is before the time, is near.
        reached = [self._position() <= self._here("edge"), *self._resume(resume)] if bounded else self._old(resume)
        return [*reached, self._is_old(), *self._equal(equal), *self._spared(spare)]

    def _prunable(self, equal: tuple[str, ...], spare: bool) -> Statement[Any]:
        """How many rows before a time there are, and how long the texts in them."""
        texts = [column for column in self.table.columns if isinstance(column.type, (FreeText, JsonDocument))]
        lengths: ColumnElement[Any] = literal_column("0")
        for column in texts:
            lengths += func.coalesce(func.length(cast(column, Text)), 0)
        core = select(func.count().label("rows"), func.coalesce(func.sum(lengths), 0).label("length"))
        created = self.table.c.created_at
        old = or_(created < self._before(), is_another_spelling(created)), self._is_old()
        core = core.select_from(self.table).where(*old, *self._equal(equal), *self._spared(spare))
        return Statement(self.table, core)

    def _spared(self, spare: bool) -> list[ColumnElement[bool]]:
        return [self.table.c.log_level.not_in([literal_column(f"'{level}'") for level in ERRORS])] if spare else []

    def _misplaced(self, equal: tuple[str, ...], spare: bool = False) -> Statement[Any]:
        """Rows before a time whose spelling stands behind it: ``limit`` of them, in any order."""
        created = self.table.c.created_at
        behind = created >= self._before(), is_another_spelling(created)
        core = select(*self._shown).where(*behind, self._is_old(), *self._equal(equal), *self._spared(spare))
        return Statement(self.table, core.limit(bindparam("limit", type_=BigInteger())))

    def _prune_chosen(self, equal: tuple[str, ...], spare: bool = False) -> Statement[Row]:
        """Delete the rows with some ids that were read, as far as they are before a time."""
        chosen = is_among(self.table.c.id, bindparam("ids", type_=Several(ReadNumber(), "id")))
        core = delete(self.table).where(chosen, self._is_old(), *self._equal(equal))
        return Statement(self.table, core.where(*self._spared(spare)))

    def _old(self, resume: bool) -> list[ColumnElement[bool]]:
        return [self.table.c.created_at < self._before(), *self._resume(resume)]

    def _resume(self, resume: bool) -> list[ColumnElement[bool]]:
        return [self._position() > self._here("last")] if resume else []

    def _is_old(self) -> ColumnElement[bool]:
        return is_understood(self.table.c.created_at, "<", self._before(), strictly=True)

    def _before(self) -> BindParameter[Any]:
        return self._bind("before", "created_at", lookup=True)

    def _here(self, name: str) -> Tuple:
        """A position of the walk through the old lines: it stays where it was while they go."""
        key = bindparam(f"{name}_id", type_=BigInteger())
        return tuple_(stored_time(self.table.c.created_at, key, bindparam(f"{name}_time", type_=StoredTime())), key)

    def _delete(self) -> Statement[Row]:
        return Statement(self.table, delete(self.table).where(self._by_id()))

    def living(self) -> list[ColumnElement[bool]]:
        """Of the row with the id ``row_id``, unless it was deleted softly."""
        return [self._by_id(), *self._not_deleted]

    def _by_id(self) -> ColumnElement[bool]:
        return self.table.c.id == self._bind("row_id", "id", lookup=True)

    def _if_column(self, column: str | None) -> list[ColumnElement[bool]]:
        return [] if column is None else [self.table.c[column] == self._bind(f"if_{column}", column, lookup=True)]

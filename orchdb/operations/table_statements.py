"""The statements: SQLAlchemy Core, built once for each shape and compiled once for each dialect.

What a caller gives becomes a bound value and never a part of the SQL text: the shape of a statement is chosen from the
tables' own columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    GenerativeSelect,
    LargeBinary,
    Select,
    Table,
    Text,
    Tuple,
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
    true,
    tuple_,
    type_coerce,
    update,
)

from orchdb.operations.filters import Shape
from orchdb.rows import COLUMNS_OF
from orchdb.schema.column_types import (
    CheckedType,
    Count,
    CursorIdentifier,
    CursorTime,
    Identifier,
    StoredTime,
    later,
    total,
)
from orchdb.schema.several import OneOfSeveral, Several, is_among, is_selected, is_word, merged
from orchdb.schema.sql_functions import is_another_spelling, is_understood, stored_id, stored_time
from orchdb.schema.tables import agents
from orchdb.schema.values import MAX_INTEGER
from orchdb.statements import Statement

Row = TypeVar("Row")
Part = TypeVar("Part", bound=GenerativeSelect)
_HALF_OF_MOST = "8.988465674311579e307"
"""Half of the largest float."""
_PARAMETERS = frozenset({"since", "until", "before", "if_status"})
"""What callers give that is checked as a column is, and is not called like it."""


class TableStatements(Generic[Row]):
    """The statements that the operations on one table run.

    Attributes:
        order: The filters that have an index, in the order of preference.
        partial: The filters whose index has some of their values only, and those values.
        parent: The column that names another row of the table as the one above; empty if there is none.
    """

    def __init__(
        self,
        table: Table,
        order: Sequence[str] = (),
        partial: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        conditions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.table = table
        self.order = order
        self.partial = partial
        self._conditions = conditions
        self._not_deleted: list[ColumnElement[bool]] = [table.c.deleted_at.is_(None)] if "deleted_at" in table.c else []
        self.columns = frozenset(table.c.keys())
        self._shown = [column for column in table.c if column.name in COLUMNS_OF[table.name]]
        """What callers see of a row."""
        self.parent = next((key.parent.name for key in table.foreign_keys if key.column.table is table), "")
        # Each shape is built once; how many there are is bounded by the tables' columns, and the caches by their size.
        self.one = lru_cache(maxsize=8)(self._one)
        self.page = lru_cache(maxsize=512)(self._page)
        self.numbers = lru_cache(maxsize=64)(self._numbers)
        self.id_range = lru_cache(maxsize=16)(self._stretch)
        self.id_range_end = lru_cache(maxsize=1)(self._stretch_end)
        self.insert = lru_cache(maxsize=8)(self._insert)
        self.update = lru_cache(maxsize=1024)(self._update)
        self.delete = lru_cache(maxsize=8)(self._delete)
        self.batch_end = lru_cache(maxsize=8)(self._edge)
        self.prune = lru_cache(maxsize=8)(self._prune)
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
        return (column * half + amount * half).between(
            literal_column(f"-{_HALF_OF_MOST}"), literal_column(_HALF_OF_MOST)
        )

    def _page(
        self,
        shape: Shape,
        bounds: tuple[str, ...],
        newest_first: bool = False,
        include_deleted: bool = False,
    ) -> Statement[Row]:
        """A list: the filters, then ``bounds`` out of since, until, after, limit and offset."""
        if self._by_session(shape):
            return Statement(self.table, self._page_by_agent(shape, bounds, newest_first, include_deleted))
        fits = [*self._fitting(shape, bounds), *self._unless(include_deleted), *self._behind(bounds, newest_first)]
        core = select(*self._shown).where(*fits)
        order = partial(_in_order, newest_first=newest_first)
        if shape.branched:
            branches = [core.where(fit) for fit in self._branches(shape)]
            return Statement(self.table, lambda dialect: _part(merged(branches, order, _most(bounds), dialect), bounds))
        if self._leads("root", shape):
            # All NULL, but to Postgres that is no one value, and the index begins with it.
            parent = self.table.c[self.parent]
            core = core.order_by(parent.desc() if newest_first else parent)
        return Statement(self.table, _part(core.order_by(*order(self.table.c)), bounds))

    def _branches(self, shape: Shape) -> list[ColumnElement[bool]]:
        """A condition for each value of the filter that leads."""
        column = self.table.c[shape.branched]
        if shape.words:
            return [is_word(column, word, self._conditions[shape.branched]) for word in shape.words]
        one = OneOfSeveral(self._kind(shape.branched), str(column))
        return [column == bindparam(f"{shape.branched}_{number}", type_=one) for number in range(shape.branches)]

    def _page_by_agent(
        self, shape: Shape, bounds: tuple[str, ...], newest_first: bool, include_deleted: bool
    ) -> Select[Any]:
        """What the agents of sessions have: of each one no more rows are looked at than a part of the list can have."""
        # As conditions on each row: their own indexes have the rows of all other agents too, once for each agent.
        fits = [*map(_each, self._filters(shape)), *self._between(bounds), *self._unless(include_deleted)]
        key = self.table.c.id
        of_agent = select(key).where(self.table.c.agent_id == agents.c.id, *fits, *self._behind(bounds, newest_first))
        of_agent = of_agent.order_by(*_in_order(self.table.c, newest_first)).limit(_most(bounds))
        of_agent = of_agent.correlate(agents)
        row = self.table.alias("line")
        lines = agents.join(row, is_selected(row.c.id, of_agent.scalar_subquery()))
        core = select(*(row.c[column.name] for column in self._shown)).select_from(lines).where(*self._session(shape))
        return _part(core.order_by(*_in_order(row.c, newest_first)), bounds)

    def _behind(self, bounds: tuple[str, ...], newest_first: bool) -> list[ColumnElement[bool]]:
        """The position, if the list continues at a cursor."""
        if "after" not in bounds:
            return []
        there = self._cursor()
        return [self._position() < there if newest_first else self._position() > there]

    def _fitting(self, shape: Shape, bounds: tuple[str, ...]) -> list[ColumnElement[bool]]:
        """The filters of a list, without its position and its branches."""
        fits = self._filters(shape) + [literal_column(self._conditions[name]) for name in shape.flags]
        if session := self._session(shape):
            if self._by_session(shape):
                fits.append(self.table.c.agent_id.in_(select(agents.c.id).where(*session)))
            else:  # as a condition on each row, lest it is taken for the way to find them
                fits.append(_each(self._of_session(session)))
        return fits + self._between(bounds)

    def _between(self, bounds: tuple[str, ...]) -> list[ColumnElement[bool]]:
        """The times of a list."""
        created = self.table.c.created_at
        fits: list[ColumnElement[bool]] = []
        if "since" in bounds:
            since = self._bind("since", "created_at", lookup=True)
            fits += [created >= since, is_understood(created, ">=", since)]
        if "until" in bounds:
            until = self._bind("until", "created_at", lookup=True)
            fits += [created < until, is_understood(created, "<", until)]
        return fits

    def _filters(self, shape: Shape) -> list[ColumnElement[bool]]:
        """The filters on columns of the table itself."""
        fits = self._equal(tuple(name for name in shape.equal if name in self.columns))
        return fits + [self._among(self.table, name) for name in shape.among if name in self.columns]

    def _among(self, table: Table, name: str) -> ColumnElement[bool]:
        column = table.c[name]
        return is_among(column, bindparam(name, type_=Several(self._kind(name, table), str(column))))

    def _by_session(self, shape: Shape) -> bool:
        """Whether the rows are found by way of the agents of sessions."""
        return "session_id" not in self.columns and self._leads("session_id", shape)

    def _leads(self, name: str, shape: Shape) -> bool:
        """Whether it is this filter whose index the rows are found by."""
        names = {*shape.equal, *shape.among, shape.branched, *shape.flags}
        return next((other for other in self.order if other in names), None) == name

    def _session(self, shape: Shape) -> list[ColumnElement[bool]]:
        """What holds for the agents, if the filter for the session is about them and not about this table."""
        if "session_id" in self.columns:
            return []
        if "session_id" in shape.among:
            return [self._among(agents, "session_id")]
        kind = self._kind("session_id", agents) if "session_id" in shape.equal else None
        return [] if kind is None else [agents.c.session_id == bindparam("session_id", type_=kind)]

    def _of_session(self, session: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        return exists().where(agents.c.id == self.table.c.agent_id, *session)

    def _numbers(self, shape: Shape, bounds: tuple[str, ...]) -> Statement[Any]:
        """The ids of all lines of a list as text with commas between them, so many thousands to a row, in any order."""
        key = self.table.c.id
        comma: Any = literal_column("','", Text())  # SQLAlchemy would bind it, and only when the statement runs
        core = select(func.aggregate_strings(cast(key, Text), comma).label("ids")).where(*self._fitting(shape, bounds))
        return Statement(self.table, core.group_by(key.bitwise_rshift(literal_column("16"))))

    def _stretch(self, shape: Shape) -> Statement[Row]:
        """The lines with an id above ``after_id`` and up to ``up_to_id``, in order, and of them those that fit."""
        key = self.table.c.id
        ids = bindparam("after_id", type_=BigInteger()), bindparam("up_to_id", type_=BigInteger())
        # As conditions on each line: all the older lines that an index of a filter has would be read every time.
        fits = [_each(fit) for fit in self._filters(shape)]
        if session := self._session(shape):
            fits.append(_each(self._of_session(session)))
        core = select(*self._shown).where(key > ids[0], key <= ids[1], *fits).order_by(key)
        return Statement(self.table, core)

    def _stretch_end(self, rows: int) -> Statement[Any]:
        """The id of the last of so many lines between ``after_id`` and ``up_to_id``; none if there are fewer."""
        key = self.table.c.id
        ids = bindparam("after_id", type_=BigInteger()), bindparam("up_to_id", type_=BigInteger())
        core = select(key).where(key > ids[0], key <= ids[1]).order_by(key)
        return Statement(self.table, core.limit(literal_column("1")).offset(literal_column(str(rows - 1))))

    def _insert(self, names: tuple[str, ...]) -> Statement[Row]:
        return Statement(self.table, insert(self.table), names, changes_one=True)

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
        core = update(self.table).where(self._by_id(), *not_deleted, *self._if_column(if_column), *fits).values(changes)
        return Statement(self.table, core, changes_one=if_column is None)  # with a guard it often finds none

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

    def _prune(self, equal: tuple[str, ...], resume: bool, bounded: bool) -> Statement[Row]:
        """Delete the rows before a time that are between two positions, as far as those are given."""
        # Of two bounds at the top the engines search by the first: only the edge, which is before the time, is near.
        reached = [self._position() <= self._here("edge"), *self._resume(resume)] if bounded else self._old(resume)
        return Statement(self.table, delete(self.table).where(*reached, self._is_old(), *self._equal(equal)))

    def _misplaced(self, equal: tuple[str, ...]) -> Statement[Any]:
        """The ids of rows before a time whose spelling stands behind it: ``limit`` of them, in any order."""
        created = self.table.c.created_at
        behind = created >= self._before(), is_another_spelling(created)
        core = select(self.table.c.id).where(*behind, self._is_old(), *self._equal(equal))
        return Statement(self.table, core.limit(bindparam("limit", type_=BigInteger())))

    def _prune_chosen(self, equal: tuple[str, ...]) -> Statement[Row]:
        """Delete the rows with the ids of a JSON array, as far as they are before a time."""
        chosen = select(func.json_each(bindparam("ids", type_=Text())).table_valued("value").c.value)
        core = delete(self.table).where(self.table.c.id.in_(chosen), self._is_old(), *self._equal(equal))
        return Statement(self.table, core)

    def _old(self, resume: bool) -> list[ColumnElement[bool]]:
        return [self.table.c.created_at < self._before(), *self._resume(resume)]

    def _resume(self, resume: bool) -> list[ColumnElement[bool]]:
        return [self._position() > self._here("last")] if resume else []

    def _is_old(self) -> ColumnElement[bool]:
        return is_understood(self.table.c.created_at, "<", self._before(), strictly=True)

    def _before(self) -> BindParameter[Any]:
        return self._bind("before", "created_at", lookup=True)

    def _equal(self, names: tuple[str, ...]) -> list[ColumnElement[bool]]:
        return [self.table.c[name] == self._bind(name, name, lookup=True) for name in names]

    def _position(self) -> Tuple:
        return tuple_(self.table.c.created_at, self.table.c.id)

    def _here(self, name: str) -> Tuple:
        """A position of the walk through the old lines: it stays where it was while they go."""
        key = bindparam(f"{name}_id", type_=BigInteger())
        return tuple_(stored_time(self.table.c.created_at, key, bindparam(f"{name}_time", type_=StoredTime())), key)

    def _cursor(self) -> Tuple:
        """The position that a cursor holds."""
        key: ColumnElement[Any] = bindparam("after_id", type_=BigInteger())
        if isinstance(self.table.c.id.type, Identifier):
            key = bindparam("after_id", type_=CursorIdentifier())
            key = stored_id(key, bindparam("after_id_bytes", type_=LargeBinary()))
        given = bindparam("after_stored", type_=StoredTime()), bindparam("after_stored_bytes", type_=LargeBinary())
        shown = bindparam("after_time", type_=CursorTime())
        return tuple_(stored_time(self.table.c.created_at, key, *given, shown), key)

    def _delete(self) -> Statement[Row]:
        return Statement(self.table, delete(self.table).where(self._by_id()))

    def _by_id(self) -> ColumnElement[bool]:
        return self.table.c.id == self._bind("row_id", "id", lookup=True)

    def _if_column(self, column: str | None) -> list[ColumnElement[bool]]:
        return [] if column is None else [self.table.c[column] == self._bind(f"if_{column}", column, lookup=True)]

    def _unless(self, include_deleted: bool) -> list[ColumnElement[bool]]:
        return [] if include_deleted else self._not_deleted

    def _kind(self, name: str, table: Table | None = None) -> CheckedType:
        """The type of a value that is looked up in a column."""
        kind = (self.table if table is None else table).c[name].type
        assert isinstance(kind, CheckedType)
        return kind.looked_up()

    def _bind(self, name: str, column: str, *, lookup: bool = False, required: bool = False) -> BindParameter[Any]:
        kind = self.table.c[column].type
        if isinstance(kind, CheckedType):
            if lookup:
                kind = kind.looked_up()
            if name in _PARAMETERS:
                kind = kind.of_parameter(name)
            if required:
                kind = kind.when_required()
        return bindparam(name, type_=kind)


def _part(core: Part, bounds: tuple[str, ...]) -> Part:
    """The part of a list that is asked for."""
    if "limit" in bounds:
        core = core.limit(bindparam("limit", type_=BigInteger()))
    if "offset" in bounds:
        core = core.offset(bindparam("offset", type_=BigInteger()))
    return core


def _most(bounds: tuple[str, ...]) -> ColumnElement[int] | None:
    """How many rows of a list have to be found for a part of it."""
    if "limit" not in bounds:
        return None
    limit = bindparam("limit", type_=BigInteger())
    return limit + bindparam("offset", type_=BigInteger()) if "offset" in bounds else limit


def _in_order(columns: Any, newest_first: bool) -> tuple[ColumnElement[Any], ...]:
    created, key = columns.created_at, columns.id
    return (created.desc(), key.desc()) if newest_first else (created, key)


def _each(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition in a form that no index is taken for."""
    return condition.is_(true())

"""The statements of lists: filters, positions and pages, and the ids of what a list has.

How the rows are found is chosen by the filter that leads: its index has the list's order, for each of its values.
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
    Dialect,
    GenerativeSelect,
    LargeBinary,
    Select,
    Table,
    Text,
    Tuple,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from orchdb.operations.filters import Shape
from orchdb.rows import COLUMNS_OF
from orchdb.schema.column_types import (
    CheckedType,
    CursorIdentifier,
    CursorTime,
    Identifier,
    StoredTime,
)
from orchdb.schema.several import OneOfSeveral, Order, Several, is_among, is_selected, is_word, merged
from orchdb.schema.sql_functions import all_understood, stored_id, stored_time
from orchdb.schema.tables import agents
from orchdb.statements import CompiledStatement, Statement

Row = TypeVar("Row")
Part = TypeVar("Part", bound=GenerativeSelect)
_PARAMETERS = frozenset({"since", "until", "before", "if_status"})
"""What callers give that is checked as a column is, and is not called like it."""


class _Merged(Statement[Row]):
    """A list with a branch for each value of the filter that leads."""

    def __init__(self, table: Table, branches: Sequence[Select[Any]], order: Order, bounds: tuple[str, ...]) -> None:
        super().__init__(table, branches[0])
        self._branches = branches
        self._order = order
        self._bounds = bounds

    def _compile(self, dialect: Dialect) -> CompiledStatement:
        core = merged(self._branches, self._order, _most(self._bounds), dialect)
        return CompiledStatement(_part(core, self._bounds), dialect, None)


class ListStatements(Generic[Row]):
    """The statements of the lists of one table.

    Args:
        table: The table.
        order: The filters that have an index, in the order of preference.
        partial: The filters whose index has some of their values only, and those values.
        conditions: What such an index says of its rows, and what a filter without a value says.

    Attributes:
        columns: The names of the table's columns.
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
        # Each shape is built once; how many are kept is bounded.
        self.equal_only = lru_cache(maxsize=64)(self._equal_only)
        self.page = lru_cache(maxsize=512)(self._page)
        self.numbers = lru_cache(maxsize=64)(self._numbers)
        self.id_range = lru_cache(maxsize=16)(self._stretch)
        self.id_range_end = lru_cache(maxsize=1)(self._stretch_end)

    def _equal_only(self, names: tuple[str, ...]) -> Shape | None:
        """The shape of filters with one value each; ``None`` if it depends on the values."""
        shape = Shape(names)
        known = self.columns | {"session_id"}
        return shape if known.issuperset(names) and not any(self._leads(name, shape) for name in self.partial) else None

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
            return _Merged(self.table, [core.where(fit) for fit in self._branches(shape)], order, bounds)
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
        # As conditions on each row: their own indexes have the rows of all other agents too, once for each agent. And
        # the agent is a range and a part of the order: only the index that begins with it has both. With an equality
        # Postgres takes the index of times where it expects an agent to have many rows, and walks it for one with none.
        fits = [*map(_each, self._filters(shape)), *self._between(bounds), *self._unless(include_deleted)]
        columns = self.table.c
        of_agent = select(columns.id).where(*self._range_of_agent(bounds, newest_first), *fits)
        of_agent = of_agent.order_by(*_in_order(columns, newest_first, columns.agent_id)).limit(_most(bounds))
        of_agent = of_agent.correlate(agents)
        row = self.table.alias("line")
        lines = agents.join(row, is_selected(row.c.id, of_agent.scalar_subquery()))
        core = select(*(row.c[column.name] for column in self._shown)).select_from(lines).where(*self._session(shape))
        return _part(core.order_by(*_in_order(row.c, newest_first)), bounds)

    def _range_of_agent(self, bounds: tuple[str, ...], newest_first: bool) -> list[ColumnElement[bool]]:
        """The rows of an agent as a range of the index that begins with it, as short as the bounds of a list say."""
        columns = self.table.c
        least: ColumnElement[bool] = columns.agent_id >= agents.c.id
        most: ColumnElement[bool] = columns.agent_id <= agents.c.id
        if "since" in bounds:
            since = self._bind("since", "created_at", lookup=True)
            least = tuple_(columns.agent_id, columns.created_at) >= tuple_(agents.c.id, since)
        if "until" in bounds:
            until = self._bind("until", "created_at", lookup=True)
            most = tuple_(columns.agent_id, columns.created_at) < tuple_(agents.c.id, until)
        if "after" in bounds:
            place = tuple_(columns.agent_id, columns.created_at, columns.id)
            there = tuple_(agents.c.id, *self._cursor())
            # What it takes the place of is a condition on each row by itself.
            least, most = (least, place < there) if newest_first else (place > there, most)
        return [least, most]

    def _behind(self, bounds: tuple[str, ...], newest_first: bool) -> list[ColumnElement[bool]]:
        """The position, if the list continues at a cursor."""
        if "after" not in bounds:
            return []
        there = tuple_(*self._cursor())
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
        comparisons: list[tuple[str, ColumnElement[Any]]] = []
        if "since" in bounds:
            since = self._bind("since", "created_at", lookup=True)
            fits.append(created >= since)
            comparisons.append((">=", since))
        if "until" in bounds:
            until = self._bind("until", "created_at", lookup=True)
            fits.append(created < until)
            comparisons.append(("<", until))
        return [*fits, all_understood(created, comparisons)] if comparisons else []

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

    def _equal(self, names: tuple[str, ...]) -> list[ColumnElement[bool]]:
        return [self.table.c[name] == self._bind(name, name, lookup=True) for name in names]

    def _position(self) -> Tuple:
        return tuple_(self.table.c.created_at, self.table.c.id)

    def _cursor(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """The time and the id of the position that a cursor holds."""
        key: ColumnElement[Any] = bindparam("after_id", type_=BigInteger())
        if isinstance(self.table.c.id.type, Identifier):
            key = bindparam("after_id", type_=CursorIdentifier())
            key = stored_id(key, bindparam("after_id_bytes", type_=LargeBinary()))
        given = bindparam("after_stored", type_=StoredTime()), bindparam("after_stored_bytes", type_=LargeBinary())
        shown = bindparam("after_time", type_=CursorTime())
        return stored_time(self.table.c.created_at, key, *given, shown), key

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


def _in_order(columns: Any, newest_first: bool, *before: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    order = (*before, columns.created_at, columns.id)
    return tuple(column.desc() for column in order) if newest_first else order


def _each(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition in a form that no index is taken for."""
    return condition.is_(true())

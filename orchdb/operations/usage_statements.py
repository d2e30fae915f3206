"""The statements of usage: prompts are summed for each agent first, and agents are looked at afterwards.

One statement gives all the figures, so that they are of one moment. What agents carry beyond their prompts is either a
column beside the sums of each agent or, where prompts are told apart or chosen, rows of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Dialect,
    FromClause,
    Label,
    Subquery,
    Text,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
)

from orchdb.operations.filters import Shape
from orchdb.operations.list_statements import ListStatements
from orchdb.schema.sums import Width, is_number, nano_dollars, stretch_of, sum_of, sum_of_nanos, unordered
from orchdb.schema.tables import agents, orchestrator_agents, prompts
from orchdb.statements import CompiledStatement, Statement

Core: TypeAlias = Any
"""A selection; SQLAlchemy's own type would count its columns."""
AGENT_KEYS = {
    "session": agents.c.session_id,
    "agent": agents.c.id,
    "definition": agents.c.orchestrator_agent_id,
}
"""What is known of a prompt by its agent."""
PROMPT_KEYS = {"model": prompts.c.model_used, "prompt_type": prompts.c.prompt_type, "status": prompts.c.status}
TIME_KEYS = ("day", "hour")
KEYS = (*AGENT_KEYS, *PROMPT_KEYS, *TIME_KEYS)
"""All that usage can be grouped by."""
LEAST, MOST = ("first_at",), ("latency_max", "last_at")
"""The figures that are not added up."""
BY_LATENCY = ("latencies", "latency_max")
"""Those that follow from how many prompts took how long."""


class Sums(Statement[Any]):
    """A statement whose rows are sums."""

    def _compile(self, dialect: Dialect) -> CompiledStatement:
        compiled = super()._compile(dialect)
        compiled.is_sum = True
        return compiled


class Scope(NamedTuple):
    """Whose usage is asked for.

    Attributes:
        shape: The filters on agents, by their columns.
        model: The filter on the model.
        bounds: ``since`` and ``until``, as far as they are given.
        subtree: With everyone below the agents.
        include_deleted: Also what was deleted softly.
    """

    shape: Shape = Shape()
    model: Shape = Shape()
    bounds: tuple[str, ...] = ()
    subtree: bool = False
    include_deleted: bool = False


class _Filters(ListStatements[Any]):
    """The filters of a list, on the agents or on the prompts."""

    def fits(self, shape: Shape, bounds: tuple[str, ...] = (), *, include_deleted: bool) -> list[ColumnElement[bool]]:
        """What holds for a row."""
        # The model as a condition on each row: its index lacks the figures, and finds most of the rows anyway.
        chosen = self._filters(shape) if self.table is agents else [fit.is_(true()) for fit in self._filters(shape)]
        return [*chosen, *self._between(bounds), *self._unless(include_deleted)]


_agents, _prompts = _Filters(agents), _Filters(prompts)


@lru_cache(maxsize=256)
def usage(keys: tuple[str, ...], scope: Scope, width: Width | None, by_latency: bool) -> Sums:
    """The figures of all groups, and for each of them perhaps several rows, which are to be added up.

    Args:
        keys: What to group by, of ``KEYS`` without those of time.
        scope: Whose usage.
        width: How long the stretches of time are that are told apart as ``stretch``.
        by_latency: Also say how many prompts took how long.
    """
    agent_keys = tuple(key for key in keys if key in AGENT_KEYS)
    whole = len(agent_keys) == len(keys) and not (scope.bounds or scope.model.equal or scope.model.among or width)
    if whole and not by_latency:
        core = _of_agents(keys, scope)
    else:
        core = _of_prompts(keys, scope, width, by_latency)
        if not (scope.model.equal or scope.model.among):
            core = union_all(core, _beyond_prompts(keys, scope, width, by_latency))
    return Sums(prompts, _with_names(core.subquery("usage")) if "definition" in keys else core)


@lru_cache(maxsize=4)
def tree(of_session: bool, include_deleted: bool) -> Sums:
    """The agents of a session, or one and all below it, each with its definition's name and figures.

    Those that were deleted softly are always among them.

    Args:
        of_session: Choose by ``session_id``, and not by ``id``.
        include_deleted: Count prompts too that were deleted softly.
    """
    shape = Shape(("session_id" if of_session else "id",))
    return Sums(agents, _tree(Scope(shape, subtree=not of_session, include_deleted=include_deleted)))


def _tree(scope: Scope) -> Core:
    sums = _sums(scope).subquery("sums")
    there = agents.outerjoin(sums, sums.c.agent_id == agents.c.id)
    there = there.outerjoin(orchestrator_agents, orchestrator_agents.c.id == agents.c.orchestrator_agent_id)
    figures = [column.label(f"sum_{column.name}") for column in sums.c if column.name != "agent_id"]
    name = orchestrator_agents.c.name.label("definition_name")
    beyond = _beyond(sums).label("sum_unattributed")
    shown = [column for column in agents.c if column.name != "lease_id"]
    chosen = _agents_in(scope._replace(include_deleted=True))
    return select(*shown, name, *figures, beyond).select_from(there).where(*chosen)


def _chosen(scope: Scope) -> Core:
    """The ids of the agents in the scope."""
    return select(agents.c.id).where(*_agents_in(scope)).correlate(None)


def _agents_in(scope: Scope) -> list[ColumnElement[bool]]:
    """What holds for each agent of the scope."""
    if not scope.subtree:
        return _agents.fits(scope.shape, include_deleted=scope.include_deleted)
    # The filter on ids is where the subtree begins; the others hold for each agent of it.
    rest = _without_ids(scope.shape)
    below = _below("id" in scope.shape.among)
    return [agents.c.id.in_(select(below.c.id)), *_agents.fits(rest, include_deleted=scope.include_deleted)]


def _without_ids(shape: Shape) -> Shape:
    equal, among = (tuple(name for name in names if name != "id") for names in (shape.equal, shape.among))
    return Shape(equal, among)


@lru_cache(maxsize=2)  # one for each, because a statement may name it twice
def _below(several: bool) -> CTE:
    """The ids of agents and of all below them, deleted ones in between included."""
    shape = Shape((), ("id",)) if several else Shape(("id",))
    below = select(agents.c.id).where(*_agents.fits(shape, include_deleted=True)).cte("below", recursive=True)
    child = agents.alias("child")
    # UNION and not UNION ALL: another program may have made a circle, which would never end.
    return below.union(select(child.c.id).join(below, child.c.parent_agent_id == below.c.id))


def _is_narrow(scope: Scope) -> bool:
    return bool(scope.shape.equal or scope.shape.among)


def _sums(
    scope: Scope,
    keys: tuple[str, ...] = (),
    width: Width | None = None,
    *,
    by_latency: bool = False,
    by_agent: bool = True,
) -> Core:
    """The figures of the prompts, told apart by ``keys`` of their own, and by agent."""
    fits = _prompts.fits(scope.model, scope.bounds, include_deleted=scope.include_deleted)
    if _is_narrow(scope):
        fits.append(prompts.c.agent_id.in_(_chosen(scope)))
    elif not by_agent and not scope.include_deleted:
        fits.append(prompts.c.agent_id.not_in(select(agents.c.id).where(agents.c.deleted_at.is_not(None))))
    names = [PROMPT_KEYS[key].name for key in keys]
    columns, fits = (prompts.c, fits) if width is None else (_in_stretches(names, fits, width), [])
    own: list[Any] = [columns.agent_id] if by_agent else []
    apart = [*own, *(unordered(columns[name]) if name == "model_used" else columns[name] for name in names)]
    own += [columns[name].label(key) for name, key in zip(names, keys, strict=True)]
    if width is not None:
        own.append(columns.stretch)
        apart.append(columns.stretch)
    figures = _figures(columns)
    if by_latency:
        latency = _whole(columns.latency_ms)
        own.append(latency.label("latency"))
        apart.insert(0, latency)  # as the first, because that is what a sort of them compares most: here, numbers
        figures = [figure for figure in figures if figure.name not in BY_LATENCY]
    return select(*own, *figures).where(*fits).group_by(*apart)


def _in_stretches(names: Sequence[str], fits: Sequence[ColumnElement[bool]], width: Width) -> Any:
    """The columns of the prompts, with the stretch of time that each is in."""
    needed = dict.fromkeys(("agent_id", "status", "cost_usd", *TOKENS, "latency_ms", "created_at", *names))
    stretch = stretch_of(prompts.c.created_at, width).label("stretch")
    core = select(*(prompts.c[name] for name in needed), stretch).where(*fits)
    # Where Postgres sees how a stretch is made, it expects as many as there are times, and sorts all prompts.
    return core.suffix_with("OFFSET 0", dialect="postgresql").subquery("timed").c


def _figures(columns: Any) -> list[Label[Any]]:
    failed = columns.status == literal_column("'failed'")
    return [
        func.count().label("prompts"),
        func.count().filter(failed).label("failed"),
        func.count().filter(is_number(columns.cost_usd)).label("priced"),
        *(sum_of(columns[name]).label(name) for name in TOKENS),
        sum_of_nanos(nano_dollars(columns.cost_usd)).label("nanos"),
        _known(columns.latency_ms).label("latencies"),
        sum_of(columns.latency_ms).label("latency_sum"),
        _whole(func.max(columns.latency_ms)).label("latency_max"),
        func.min(columns.created_at).label("first_at"),
        func.max(columns.created_at).label("last_at"),
    ]


def _known(column: ColumnElement[Any]) -> ColumnElement[int]:
    """How many rows have a value: all less those without one, which are few, and each that is counted costs."""
    return func.count() - func.count().filter(column.is_(None))


TOKENS = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")
FIGURES = (
    "prompts",
    "failed",
    "priced",
    *TOKENS,
    "nanos",
    "latencies",
    "latency_sum",
    "latency_max",
    "first_at",
    "last_at",
)
"""What is known of a group, besides ``unattributed``."""


def _whole(number: ColumnElement[Any]) -> ColumnElement[int]:
    # Other programs on SQLite may have stored a fraction.
    return cast(number, BigInteger)


def _added(sums: FromClause) -> list[ColumnElement[Any]]:
    """The figures of several agents together."""
    added: list[ColumnElement[Any]] = []
    for name in FIGURES:
        if name in BY_LATENCY and "latency" in sums.c:
            added.append(_of_latencies(sums)[name])
            continue
        column = sums.c[name]
        if name in LEAST:
            added.append(func.min(column).label(name))
        elif name in MOST:
            added.append(func.max(column).label(name))
        else:
            added.append((sum_of_nanos if name == "nanos" else sum_of)(column).label(name))
    return added


def _of_latencies(sums: FromClause) -> dict[str, ColumnElement[Any]]:
    """The figures that follow from how many prompts took how long."""
    known = func.sum(sums.c.prompts).filter(sums.c.latency.is_not(None))
    count = _whole(func.coalesce(known, literal_column("0")))
    return {"latencies": count.label("latencies"), "latency_max": func.max(sums.c.latency).label("latency_max")}


def _beyond(sums: FromClause) -> ColumnElement[int]:
    """What an agent carries beyond its prompts, in nano-dollars."""
    zero: ColumnElement[int] = literal_column("0")
    beyond = func.coalesce(nano_dollars(agents.c.cost_usd), zero) - func.coalesce(sums.c.nanos, zero)
    return case((beyond > zero, beyond), else_=zero)


def _of_agents(keys: tuple[str, ...], scope: Scope) -> Core:
    """The figures of agents with all their prompts, and what they carry beyond those."""
    sums = _sums(scope).subquery("sums")
    columns = [AGENT_KEYS[key].label(key) for key in keys]
    beyond = _beyond(sums)
    if "agent" in keys:  # each is a group by itself
        core = select(*columns, *(sums.c[name] for name in FIGURES), beyond.label("unattributed"))
    else:
        core = select(*columns, *_added(sums), sum_of_nanos(beyond).label("unattributed"))
        core = core.group_by(*(_by_agent_key(key, scope) for key in keys))
    return core.select_from(agents.outerjoin(sums, sums.c.agent_id == agents.c.id)).where(*_agents_in(scope))


def _by_agent_key(key: str, scope: Scope) -> ColumnElement[Any]:
    """What tells agents apart; where they are few, not in the order of an index that has all others too."""
    return unordered(AGENT_KEYS[key]) if _is_narrow(scope) else AGENT_KEYS[key]


def _of_prompts(keys: tuple[str, ...], scope: Scope, width: Width | None, by_latency: bool) -> Core:
    """The figures of prompts that are told apart, or chosen."""
    own = tuple(key for key in keys if key in PROMPT_KEYS)
    nothing: Label[int] = literal_column("0", BigInteger()).label("unattributed")
    if len(own) == len(keys) and not by_latency:
        return _sums(scope, own, width, by_agent=False).add_columns(nothing)
    by_agent = len(own) < len(keys)
    sums = _sums(scope, own, width, by_latency=by_latency, by_agent=by_agent).subquery("sums")
    columns: list[Any] = [(AGENT_KEYS[key] if key in AGENT_KEYS else sums.c[key]).label(key) for key in keys]
    apart: list[Any] = [_by_agent_key(key, scope) if key in AGENT_KEYS else sums.c[key] for key in keys]
    if width is not None:
        apart.append(sums.c.stretch)
        columns.append(sums.c.stretch)
    counts = [_latency_counts(sums)] if by_latency else []
    core = select(*columns, *_added(sums), nothing, *counts).group_by(*apart)
    if not by_agent:
        return core
    core = core.select_from(sums.join(agents, agents.c.id == sums.c.agent_id))
    return core.where(*_agents.fits(Shape(), include_deleted=scope.include_deleted))


def _latency_counts(sums: FromClause) -> Label[str]:
    """How many prompts took how long, as text: ``120:3,250:1``."""
    comma: Any = literal_column("','", Text())  # SQLAlchemy would bind it, and only when the statement runs
    pair = cast(sums.c.latency, Text).op("||")(literal_column("':'")).op("||")(cast(sums.c.prompts, Text))
    counts: Label[str] = func.aggregate_strings(pair, comma).label("latency_counts")
    return counts


def _beyond_prompts(keys: tuple[str, ...], scope: Scope, width: Width | None, by_latency: bool) -> Core:
    """What agents carry beyond all their prompts: at the time when they were created, and of no model."""
    costs = _costs_by_agent(scope).subquery("costs")
    apart: list[Any] = [_by_agent_key(key, scope) for key in keys if key in AGENT_KEYS]
    columns: list[Any] = [
        (AGENT_KEYS[key] if key in AGENT_KEYS else cast(null(), PROMPT_KEYS[key].type)).label(key) for key in keys
    ]
    if width is not None:
        apart.append(stretch_of(agents.c.created_at, width))
        columns.append(apart[-1].label("stretch"))
    beyond = _beyond(costs)
    columns += [*map(_none_of, FIGURES), sum_of_nanos(beyond).label("unattributed")]
    if by_latency:
        columns.append(cast(null(), Text).label("latency_counts"))
    core = select(*columns).select_from(agents.outerjoin(costs, costs.c.agent_id == agents.c.id))
    core = core.where(*_agents_in(scope), *_created_in(scope), beyond > literal_column("0"))
    return core.group_by(*apart)


def _costs_by_agent(scope: Scope) -> Core:
    """What all prompts of each agent cost, whenever that was."""
    fits = _prompts.fits(Shape(), include_deleted=scope.include_deleted)
    if _is_narrow(scope):
        fits.append(prompts.c.agent_id.in_(_chosen(scope)))
    elif scope.bounds:
        fits.append(prompts.c.agent_id.in_(select(agents.c.id).where(*_created_in(scope))))
    nanos = sum_of_nanos(nano_dollars(prompts.c.cost_usd)).label("nanos")
    return select(prompts.c.agent_id, nanos).where(*fits).group_by(prompts.c.agent_id)


def _created_in(scope: Scope) -> list[ColumnElement[bool]]:
    return _agents.fits(Shape(), scope.bounds, include_deleted=True)


def _none_of(figure: str) -> Label[Any]:
    """The figure of no prompts."""
    if figure in LEAST + MOST:
        kind = BigInteger() if figure == "latency_max" else prompts.c.created_at.type
        return cast(null(), kind).label(figure)
    nothing: ColumnElement[int] = literal_column("0", BigInteger())
    return nothing.label(figure)


def _with_names(usage: Subquery) -> Core:
    """The figures with the names of definitions."""
    name = orchestrator_agents.c.name.label("definition_name")
    named = usage.outerjoin(orchestrator_agents, orchestrator_agents.c.id == usage.c.definition)
    return select(*usage.c, name).select_from(named)

"""What the differential test does: operations with ordinary and with awkward values, alone and in transactions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from orchdb.rows import AGENT_STATUSES, LOG_LEVELS, PROMPT_STATUSES

MALFORMED = (
    "",
    "nonsense",
    "nul\0",
    "\ud800",
    "01890000-0000-7000-8000-000000000000",
    "01890000-0000-7000-8000-00000000000G",
    "0189000000007000800000000000ABCD",
)


@dataclass(frozen=True)
class Reference:
    """The id of a row that an earlier step created, or of none."""

    table: str
    number: int


@dataclass(frozen=True)
class Step:
    """One operation."""

    operation: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = ()  # type: ignore[assignment]

    def resolved(self, ids: Mapping[str, Sequence[str]]) -> Step:
        """The step with ids in place of references."""
        return replace(self, arguments=_resolved(self.arguments, ids), options=_resolved(dict(self.options), ids))


@dataclass(frozen=True)
class Block:
    """A transaction, or a savepoint inside one."""

    parts: tuple[Step | Block, ...]
    fails: bool


def _resolved(value: Any, ids: Mapping[str, Sequence[str]]) -> Any:
    if isinstance(value, Reference):
        known = ids[value.table]
        return known[value.number % len(known)] if known and value.number >= 0 else MALFORMED[value.number]
    if isinstance(value, tuple):
        return tuple(_resolved(item, ids) for item in value)
    if isinstance(value, dict):
        return {key: _resolved(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, ids) for item in value]
    return value


LISTS: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
    ("list_orchestrator_agents", (), {"include_deleted": True}),
    ("list_agents", (), {"include_deleted": True}),
    ("list_recent_agent_logs", (), {"limit": None}),
    ("get_system_logs", (), {}),
)

# -- values --------------------------------------------------------------------------------------------------------

texts = st.one_of(
    st.sampled_from(
        ["", "x", "Grüße", "日本語 🚀", "a\0b", "\ud83d", "'; DROP TABLE agents; --", "%_\\", "\u2028\r\n\t"]
    ),
    st.text(st.characters(), max_size=8),
)
numbers = st.sampled_from([-1, 2**31, 2**63 - 1, 2**63, 10**30, True, None, 1.0, "1"])
costs = st.sampled_from(
    [math.nan, math.inf, -0.0, 1e-10, 0.1, 1e16, 123456789.123456789, 5e-324, 1e300, 1.7e308, -2.5, 3, True, None]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    texts,
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([1e16, 1e22, -0.0, 2**70, 2**53 + 1]),
)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(0, 3), st.booleans(), st.none()), inner, max_size=2),
        st.tuples(inner),
    ),
    max_leaves=5,
)
deep = st.integers(250, 256).map(lambda depth: _nested(depth))
objects = st.one_of(
    st.none(),
    st.dictionaries(texts, documents, max_size=3),
    st.sampled_from(['{"a": 1}', '{"a": 1, "a": 2}', '{"a": NaN}', "[1]", "no json", "{}", 7]),
)
details = st.one_of(documents, deep, st.sampled_from(['{"a": 1}', {1, 2}, b"bytes"]))
times = st.one_of(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # naive on purpose
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(timezone(timedelta(hours=5.5)))),
    st.sampled_from(["2001-02-04", "2001-02-04T10:30:05Z", "2001-02-04 12:30:07+02:00", "yesterday", "", 5, None]),
)


def _nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A bad value in one of ten: with more of them hardly a row would come to be."""
    return st.integers(0, 9).flatmap(lambda number: bad if number == 9 else good)


def one_of(words: Sequence[str]) -> st.SearchStrategy[Any]:
    return mostly(st.sampled_from(words), st.sampled_from(["no such word", "", None, ["INFO"]]))


def some(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the options, each with a value."""
    return st.fixed_dictionaries({}, optional=strategies)


def row(table: str) -> st.SearchStrategy[Reference]:
    numbers = mostly(st.integers(0, 2), st.integers(-len(MALFORMED), -1))
    return numbers.map(lambda number: Reference(table, number))


def step(
    operation: str, *arguments: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]
) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(operation), st.tuples(*arguments), some(**options))


names = mostly(st.sampled_from(["alpha", "beta", "gamma", "Ä", "ALPHA"]), st.sampled_from([" ", "", "nul\0", "\udfff"]))
counts = mostly(st.integers(0, 3), numbers)
amounts = st.one_of(st.floats(0, 10), costs)
limits = mostly(st.one_of(st.none(), st.integers(0, 4)), st.just(-1))
page = {"limit": limits, "offset": mostly(st.integers(0, 2), st.just(-1))}
near = st.integers(0, 30).map(lambda seconds: f"2001-02-04T10:30:{seconds:02}")
window = {"since": mostly(near, times), "until": mostly(near, times)}
definitions, agents, prompts = row("orchestrator_agents"), row("agents"), row("prompts")
agent_status, prompt_status, level = one_of(AGENT_STATUSES), one_of(PROMPT_STATUSES), one_of(LOG_LEVELS)
kinds = mostly(st.sampled_from(["adw", "own kind"]), st.sampled_from(["", "nul\0", None, 7]))
flag = st.booleans()


# Where a parent does not exist, an engine may say so before it sees that the row is there already, or after.
known_definition, known_agent = (
    st.integers(0, 2).map(lambda number, table=table: Reference(table, number))  # type: ignore[misc]
    for table in ("orchestrator_agents", "agents")
)
new_ids = st.sampled_from(
    [
        "0189ABCD-0000-4000-8000-00000000ABCD",
        "0189abcd-0000-4000-8000-00000000abcd",
        "{0189abcd-0000-4000-8000-00000000ABCE}",
        "0189000000007000800000000000ABCD",
        "nonsense",
        "",
        7,
        None,
    ]
)
# Never the time of a step: a change at the moment of the creation moves the time of the change by a microsecond.
earlier = st.one_of(
    st.datetimes(datetime(1990, 1, 1), datetime(2000, 1, 1), timezones=st.just(timezone(timedelta(hours=5.5)))),
    st.sampled_from(["1999-02-04", "1999-02-04 12:30:07+02:00", "yesterday", "", 5, None]),
)
event_ids = mostly(st.sampled_from(["a", "b", "c", "Ä"]), st.sampled_from(["", "nul\0", 7, None]))
once = {"id": new_ids, "created_at": earlier, "exist_ok": flag}


def times_over(items: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """A few different items, or one many times: a bulk creation goes another way then."""
    many = st.builds(lambda item, number: [item] * number, items, st.sampled_from([24, 25, 40]))
    return st.one_of(st.lists(items, max_size=3), many)


def item(**required: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional={"details": details})


def event(**required: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional={"event_id": event_ids, "created_at": earlier})


repeated = st.one_of(
    step("create_orchestrator_agent", names, **once),
    step("get_or_create_orchestrator_agent", names, description=texts, agent_type=kinds),
    step("create_agent", known_definition, names, status=agent_status, **once),
    step("create_agent", known_definition, names, parent_agent_id=known_agent, **once),
    step(
        "create_agent",
        definitions,
        names,
        started_at=earlier,
        completed_at=earlier,
        cost_usd=amounts,
        error_message=texts,
    ),
    step("create_prompt", known_agent, kinds, texts, status=prompt_status, **once),
    step("create_prompt", agents, kinds, texts, response_text=texts, tokens_output=counts, cost_usd=amounts),
    step("create_prompt", agents, kinds, texts, latency_ms=counts, completed_at=earlier, error_message=texts),
    step("create_agent_log", known_agent, level, kinds, texts, event_id=event_ids, created_at=earlier),
    step("create_system_log", level, names, texts, event_id=event_ids, created_at=earlier),
    step("create_agent_logs", times_over(event(agent_id=known_agent, log_level=level, log_type=kinds, message=texts))),
    step("create_system_logs", times_over(event(log_level=level, component=names, message=texts))),
)
creations = st.one_of(
    step("create_orchestrator_agent", names, description=texts, agent_type=kinds, capabilities=texts, metadata=objects),
    step("create_agent", definitions, names, parent_agent_id=agents, status=agent_status, context=objects),
    step("create_agent", definitions, names, status=agent_status, config=objects, metadata=objects),
    step("create_prompt", agents, kinds, texts, prompt_name=names, status=prompt_status, metadata=objects),
    step("create_agent_log", agents, level, kinds, texts, details=details),
    step("create_system_log", level, names, texts, details=details),
    step("create_agent_logs", times_over(item(agent_id=agents, log_level=level, log_type=kinds, message=texts))),
    step("create_system_logs", times_over(item(log_level=level, component=names, message=texts))),
)
readings = st.one_of(
    step("get_orchestrator_agent", definitions, include_deleted=flag),
    step("get_agent", agents, include_deleted=flag),
    step("get_prompt", prompts, include_deleted=flag),
    step("list_orchestrator_agents", name=names, agent_type=kinds, include_deleted=flag, **window, **page),
    step("list_agents", session_id=names, status=agent_status, parent_agent_id=agents, **window, **page),
    step("list_prompts", agents, status=prompt_status, prompt_type=kinds, include_deleted=flag, **window, **page),
    step("get_agent_logs", agents, log_level=level, log_type=kinds, **window, **page),
    step("get_agent_logs_by_type", agents, kinds, limit=limits),
    step("get_logs_by_type", kinds, limit=limits),
    step("list_recent_agent_logs", **page),
    step("get_system_logs", log_level=level, component=names, **window, **page),
    step("list_recent_system_logs", **page),
    step("pages", st.just("list_orchestrator_agents"), st.integers(1, 3), include_deleted=flag),
    step("pages", st.just("list_agents"), st.integers(1, 3), session_id=names),
    step("pages", st.just("list_recent_agent_logs"), st.integers(1, 3)),
    step("pages", st.just("get_system_logs"), st.integers(1, 3), log_level=level),
)
changes = st.one_of(
    step("update_orchestrator_agent", definitions, name=names, agent_type=kinds, description=texts, metadata=objects),
    step("update_orchestrator_agent", definitions, default_model=names, updated_at=times),
    step("update_agent", agents, status=agent_status, if_status=agent_status, started_at=times, completed_at=times),
    step("update_agent", agents, parent_agent_id=agents, context=objects, cost_usd=amounts, error_message=texts),
    step("update_prompt", prompts, status=prompt_status, tokens_input=counts, cost_usd=amounts, response_text=texts),
    step("update_prompt", prompts, if_status=prompt_status, latency_ms=counts, metadata=objects, prompt_type=kinds),
    step("complete_prompt", prompts, texts, cost_usd=amounts, tokens_input=counts, error_message=texts),
    step("complete_prompt", prompts, status=prompt_status, cost_usd=amounts, metadata=objects, latency_ms=counts),
    step("complete_prompt", prompts, cost_usd=st.floats(0, 10)),
    step("append_prompt_response", prompts, texts),
    step("add_agent_cost", agents, amounts),
    step("add_prompt_usage", prompts, tokens_input=counts, tokens_cache_read=counts, cost_usd=amounts),
    step("delete_orchestrator_agent", definitions, soft=flag),
    step("delete_agent", agents, soft=flag),
    step("delete_prompt", prompts, soft=flag),
    step("restore_orchestrator_agent", definitions),
    step("restore_agent", agents),
    step("restore_prompt", prompts),
    step("prune", mostly(near, times), log_level=level),
    step("cleanup_old_logs", st.just(0)),
    step("cleanup_old_logs", st.sampled_from([0, 1, 30, -1, math.nan, 1e12, "1", True])),
)

PAIRS = {"orchestrator_agent": definitions, "agent": agents, "prompt": prompts}


# Functions, because Hypothesis spells a strategy out wherever it shows it.
@st.composite
def any_step(draw: st.DrawFn) -> Step:
    """One operation."""
    step: Step = draw(st.one_of(creations, creations, repeated, readings, changes))
    return step


@st.composite
def any_steps(draw: st.DrawFn) -> tuple[Step, ...]:
    """One step, or a soft deletion and what may follow it."""
    if draw(st.integers(0, 5)) < 5:
        return (draw(any_step()),)
    kind = draw(st.sampled_from(sorted(PAIRS)))
    row_id = draw(PAIRS[kind])
    return (
        Step(f"delete_{kind}", (row_id,), {"soft": True}),
        draw(any_step()),
        Step(f"restore_{kind}", (row_id,)),
        Step(f"get_{kind}", (row_id,)),
    )


@st.composite
def any_block(draw: st.DrawFn) -> Block:
    """A transaction, with a savepoint now and then."""
    inner = st.builds(Block, st.lists(any_step(), max_size=3).map(tuple), flag)
    parts = draw(st.lists(st.one_of(any_step(), any_step(), inner), max_size=5))
    return Block(tuple(parts), draw(flag))


@st.composite
def plans(draw: st.DrawFn) -> list[Step | Block]:
    """Steps that find something to work on."""
    parts = draw(
        st.lists(
            st.one_of(any_steps(), any_steps(), any_steps(), any_block().map(lambda block: (block,))),
            min_size=8,
            max_size=25,
        )
    )
    return [
        Step("create_orchestrator_agent", ("scout",)),
        Step("create_agent", (Reference("orchestrator_agents", 0), "session")),
        Step("create_prompt", (Reference("agents", 0), "adw", "Plan it")),
        Step("create_agent_log", (Reference("agents", 0), "INFO", "adw", "Started")),
        Step("create_system_log", ("INFO", "alpha", "Started")),
        *(step for steps in parts for step in steps),
    ]

"""The filters of lists, iterators and tails: one value or several, and what fits when more of them are given."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from orchdb import AGENT_STATUSES, LOG_LEVELS, PROMPT_STATUSES, DatabaseManager, InvalidValueError, cursor_of
from tests.conftest import Target
from tests.support.databases import NO_ROW, call, collected, run_elsewhere, taken

ROWS = 60
INSTANT = "2026-01-01T00:00:00.000000"
SESSIONS = ("session-0", "session-1", "session-2", "session-3")
TYPES = ("milestone", "error", "tool_call")
COMPONENTS = ("api", "worker", "scheduler")
MODELS = ("small", "large", "other")


class Stored(NamedTuple):
    """A database with rows of many kinds, oldest first, as plain lists; and the agents' ids."""

    db: DatabaseManager
    rows: Mapping[str, list[dict[str, Any]]]
    agents: list[str]

    def value(self, name: str, row: Mapping[str, Any]) -> Any:
        """What a filter compares in a row: a prompt or a line is in the session of its agent."""
        if name == "session_id" and "agent_id" in row:
            (row,) = [agent for agent in self.rows["agents"] if agent["id"] == row["agent_id"]]
        return row[name]

    def fits(self, row: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
        """Whether a row is in a list with these filters, all of them with several values or a flag."""
        for name, wanted in filters.items():
            if name == "root":
                fits = row["parent_agent_id"] is None or not wanted
            elif name == "min_level":
                fits = LOG_LEVELS.index(row["log_level"]) >= LOG_LEVELS.index(wanted)
            else:
                fits = self.value(name, row) in wanted
            if not fits:
                return False
        return row.get("deleted_at") is None


@pytest.fixture
async def stored(db: DatabaseManager, target: Target) -> Stored:
    chance = random.Random(7)
    definitions = [await db.create_orchestrator_agent(f"scout-{n}", agent_type=TYPES[n % 3]) for n in range(4)]
    agents: list[str] = []
    for number in range(12):
        parent = chance.choice(agents) if number > 4 and number % 2 else None
        status = AGENT_STATUSES[number % len(AGENT_STATUSES)]
        session = SESSIONS[number % 3]
        agents.append(await db.create_agent(definitions[number % 4], session, parent_agent_id=parent, status=status))
    for _ in range(ROWS):
        agent, level = chance.choice(agents), chance.choice(LOG_LEVELS)
        await db.create_agent_log(agent, level, chance.choice(TYPES), "A line")
        await db.create_system_log(level, chance.choice(COMPONENTS), "A line")
        answered, model = chance.choice(PROMPT_STATUSES), chance.choice([*MODELS, None])
        await db.create_prompt(
            chance.choice(agents), chance.choice(TYPES), "Plan it", status=answered, model_used=model
        )
    # A third of the lines has one time, as a clock that stands still gives it.
    run_elsewhere(target.url, f"UPDATE agent_logs SET created_at = '{INSTANT}' WHERE id % 3 = 0")
    await db.delete_agent(agents[3], soft=True)
    rows: dict[str, list[Any]] = {
        "orchestrator_agents": await db.list_orchestrator_agents(),
        "agents": await db.list_agents(include_deleted=True),
        "prompts": [row for agent in agents for row in await db.list_prompts(agent)],
        "agent_logs": await db.list_recent_agent_logs(None),
        "system_logs": await db.list_recent_system_logs(None),
    }
    for found in rows.values():
        found.sort(key=lambda row: (row["created_at"], row["id"]))
    return Stored(db, rows, agents)


class Operation(NamedTuple):
    """A list with filters, and which of them it cannot do without."""

    table: str
    filters: tuple[str, ...]
    newest_first: bool = False
    required: tuple[str, ...] = ()


LINES = ("agent_id", "session_id", "log_type", "log_level", "min_level")
LISTS = {
    "list_orchestrator_agents": Operation("orchestrator_agents", ("name", "agent_type"), newest_first=True),
    "list_agents": Operation(
        "agents", ("session_id", "status", "orchestrator_agent_id", "parent_agent_id", "root"), newest_first=True
    ),
    "list_prompts": Operation("prompts", ("agent_id", "session_id", "status", "prompt_type", "model_used")),
    "get_agent_logs": Operation("agent_logs", ("log_type", "log_level", "min_level"), required=("agent_id",)),
    "get_agent_logs_by_type": Operation("agent_logs", (), newest_first=True, required=("agent_id", "log_type")),
    "get_logs_by_type": Operation("agent_logs", (), newest_first=True, required=("log_type",)),
    "list_recent_agent_logs": Operation("agent_logs", LINES, newest_first=True),
    "get_system_logs": Operation("system_logs", ("component", "log_level", "min_level")),
    "list_recent_system_logs": Operation("system_logs", ("component", "log_level", "min_level"), newest_first=True),
}
FLAGS = ("root", "min_level")
GIVEN_AS: tuple[Callable[[list[Any]], Any], ...] = (
    list,
    tuple,
    set,
    frozenset,
    iter,
    lambda values: dict.fromkeys(values).keys(),
    lambda values: values + values[:1],
    lambda values: values[0] if len(values) == 1 else (value for value in values),
)


def values_of(stored: Stored, table: str, name: str) -> list[Any]:
    """What a filter can be asked for, in some order that is always the same."""
    if name in FLAGS:
        return list(LOG_LEVELS) if name == "min_level" else [True, False]
    found = {stored.value(name, row) for row in stored.rows[table]} - {None}
    return sorted(found) + (["session-3"] if name == "session_id" else [])


def some_filters(chance: random.Random, stored: Stored, it: Operation) -> dict[str, Any]:
    """Filters of a list, by name; each with several values, but for the flags."""
    names = [name for name in it.filters if chance.random() < 0.4]
    filters: dict[str, Any] = {}
    for name in [*it.required, *names]:
        values = values_of(stored, it.table, name)
        filters[name] = chance.choice(values)
        if name not in FLAGS:
            filters[name] = chance.sample(values, chance.choice([0, 1, 1, 2, 2, 3, len(values)]) % (len(values) + 1))
    return filters


def as_given(chance: random.Random, filters: Mapping[str, Any]) -> dict[str, Any]:
    """The same filters in one of the ways in which a caller may write them."""
    return {
        name: value if name in FLAGS else chance.choice(GIVEN_AS if value else GIVEN_AS[:-1])(value)
        for name, value in filters.items()
    }


@pytest.mark.parametrize("operation", LISTS)
async def test_a_list_has_the_rows_that_fit_each_filter_with_one_of_its_values(stored: Stored, operation: str) -> None:
    """Random filters, in all the ways to write several values, in pieces of any size."""
    it, chance = LISTS[operation], random.Random(operation)
    differences: list[Any] = []
    for _ in range(60):
        filters = some_filters(chance, stored, it)
        limit, offset = chance.choice([None, 1, 3, 10, 100]), chance.choice([0, 0, 0, 2])
        expected = [row for row in stored.rows[it.table] if stored.fits(row, filters)]
        if it.newest_first:
            expected.reverse()
        expected = expected[offset:] if limit is None else expected[offset : offset + limit]
        given = as_given(chance, filters)
        if await call(stored.db, operation, **given, limit=limit, offset=offset) != expected:
            differences.append((filters, limit, offset))
    assert not differences


@pytest.mark.parametrize("operation", LISTS)
async def test_pages_of_a_filtered_list_have_each_row_once(stored: Stored, operation: str) -> None:
    it, chance = LISTS[operation], random.Random(operation)
    for _ in range(15):
        filters = some_filters(chance, stored, it)
        expected = [row["id"] for row in stored.rows[it.table] if stored.fits(row, filters)]
        found: list[Any] = []
        page = await call(stored.db, operation, **filters, limit=3)
        while page:
            found += [row["id"] for row in page]
            page = await call(stored.db, operation, **filters, limit=3, after=cursor_of(page[-1]))
        assert found == (expected[::-1] if it.newest_first else expected)


@pytest.mark.parametrize("operation", ["get_agent_logs", "list_prompts"])
async def test_a_list_can_be_turned_round(stored: Stored, operation: str) -> None:
    agents = stored.agents[:2]
    rows = await call(stored.db, operation, agents)
    assert rows
    assert await call(stored.db, operation, agents, newest_first=True) == rows[::-1]
    newest = await call(stored.db, operation, stored.agents[0], newest_first=True, limit=1)
    assert newest == (await call(stored.db, operation, stored.agents[0]))[-1:]


async def test_more_values_than_a_list_has_branches_for(stored: Stored) -> None:
    nobody = [f"session-{number}" for number in range(10, 3000)]
    expected = [row for row in stored.rows["agents"][::-1] if stored.fits(row, {"session_id": SESSIONS[:2]})]
    assert await stored.db.list_agents([*nobody, *SESSIONS[:2]], limit=100) == expected
    lines = [row for row in stored.rows["agent_logs"][::-1] if stored.fits(row, {"session_id": SESSIONS[:2]})]
    assert await stored.db.list_recent_agent_logs(20, session_id=[*nobody, *SESSIONS[:2]]) == lines[:20]


async def test_a_filter_without_a_value_fits_nothing_and_the_others_are_still_checked(stored: Stored) -> None:
    for operation, it in LISTS.items():
        for name in {*it.filters, *it.required} - {*FLAGS}:
            others = {other: values_of(stored, it.table, other) for other in it.required}
            assert await call(stored.db, operation, **{**others, name: ()}) == []
    with pytest.raises(InvalidValueError):
        await call(stored.db, "list_agents", (), status="no such status")


async def test_ids_that_no_row_can_have_leave_the_others(stored: Stored) -> None:
    agent = stored.agents[0]
    strange = ["no-uuid", "nul\0", "\ud800", 7, b"bytes", "", NO_ROW]
    lines = await stored.db.get_agent_logs(agent)
    assert lines
    assert await call(stored.db, "get_agent_logs", [*strange, agent, UUID(agent)]) == lines
    assert await call(stored.db, "get_agent_logs", strange) == []


async def test_a_level_and_a_lowest_level_have_to_fit_both(stored: Stored) -> None:
    db = stored.db
    found = await db.list_recent_agent_logs(None, log_level=("INFO", "ERROR"), min_level="WARNING")
    assert {row["log_level"] for row in found} == {"ERROR"}
    assert await db.list_recent_system_logs(None, log_level="INFO", min_level="WARNING") == []
    assert await db.list_recent_agent_logs(None, min_level="DEBUG") == stored.rows["agent_logs"][::-1]


BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("list_agents", {"status": ["failed", "lost"]}, "status", "agents.status[1]: must be one of"),
    ("list_agents", {"status": ["failed", "failed", None]}, "status", "agents.status[2]: must not be None"),
    ("list_agents", {"session_id": ("s", 7)}, "session_id", "agents.session_id[1]: must be text, not int"),
    ("list_agents", {"session_id": [["s"]]}, "session_id", "agents.session_id[0]: must be text, not list"),
    ("list_agents", {"session_id": {"s": 1}}, "session_id", "agents.session_id: must be text, not dict"),
    ("list_agents", {"session_id": b"s"}, "session_id", "agents.session_id: must be text, not bytes"),
    ("list_agents", {"status": [*"abcdefghijklmnopqrstuvwxyz"]}, "status", "agents.status[0]: must be one of"),
    ("list_agents", {"parent_agent_id": [None]}, "parent_agent_id", "agents.parent_agent_id[0]: must not be None"),
    ("list_agents", {"root": "no"}, "root", "root: must be True or False"),
    ("list_agents", {"include_deleted": "no"}, "include_deleted", "include_deleted: must be True or False"),
    ("list_prompts", {"newest_first": "no"}, "newest_first", "newest_first: must be True or False"),
    ("list_prompts", {"session_id": ["s", "nul\0"]}, "session_id", "agents.session_id[1]: holds a NUL"),
    ("list_prompts", {"model_used": [None]}, "model_used", "prompts.model_used[0]: must not be None"),
    ("list_prompts", {"prompt_type": ["adw", ""]}, "prompt_type", "prompts.prompt_type[1]: must not be empty"),
    ("list_prompts", {"agent_id": NO_ROW, "status": ["lost"]}, "status", "prompts.status[0]: must be one of"),
    ("list_recent_agent_logs", {"min_level": "LOUD"}, "min_level", "min_level: must be one of DEBUG"),
    ("list_recent_agent_logs", {"min_level": ["INFO"]}, "min_level", "min_level: must be one of DEBUG"),
    ("list_recent_agent_logs", {"min_level": "ERROR", "log_level": ["LOUD"]}, "log_level", "agent_logs.log_level[0]:"),
    ("list_recent_agent_logs", {"min_level": "ERROR", "log_level": "LOUD"}, "log_level", "agent_logs.log_level: must"),
    ("list_recent_system_logs", {"component": ["api", 7]}, "component", "system_logs.component[1]: must be text"),
    ("list_prompts", {"model_used": True}, "model_used", "prompts.model_used: must be text, not bool"),
    ("get_logs_by_type", {"log_type": True}, "log_type", "agent_logs.log_type: must be text, not bool"),
    ("get_logs_by_type", {"log_type": ["a", "b", ""]}, "log_type", "agent_logs.log_type[2]: must not be empty"),
]


@pytest.mark.spread
@pytest.mark.parametrize(("operation", "filters", "column", "message"), BAD)
async def test_a_bad_filter_is_named_with_its_place(
    db: DatabaseManager, operation: str, filters: dict[str, Any], column: str, message: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, operation, **filters)
    assert caught.value.column == column
    assert message in str(caught.value)
    assert caught.value.operation == operation


FOLLOWED: list[dict[str, Any]] = [
    {"session_id": "session-1"},
    {"session_id": ["session-0", "session-2"], "min_level": "WARNING"},
    {"log_level": ("DEBUG", "CRITICAL"), "log_type": ["error", "milestone"]},
    {"min_level": "ERROR"},
    {},
]


@pytest.mark.parametrize("filters", FOLLOWED, ids=str)
async def test_iterators_and_tails_take_the_filters_of_the_lists(stored: Stored, filters: dict[str, Any]) -> None:
    db = stored.db
    as_lists = {name: [v] if isinstance(v, str) and name != "min_level" else v for name, v in filters.items()}
    lines = [row for row in stored.rows["agent_logs"] if stored.fits(row, as_lists)]
    assert len(lines) > 5
    assert await collected(db.iter_agent_logs(**filters, page_size=7)) == lines
    tail = db.tail_agent_logs(**filters, after_id=0, poll_seconds=0.01)
    assert await taken(tail, len(lines)) == sorted(lines, key=lambda row: row["id"])
    of_two = [row for row in lines if row["agent_id"] in stored.agents[:2]]
    assert await collected(db.iter_agent_logs(stored.agents[:2], **filters, page_size=4)) == of_two


async def test_the_logs_of_the_system_can_be_followed_from_a_level_on(stored: Stored) -> None:
    filters: dict[str, Any] = {"min_level": "WARNING", "component": {"api", "worker"}}
    lines = [row for row in stored.rows["system_logs"] if stored.fits(row, filters)]
    assert len(lines) > 5
    assert await collected(stored.db.iter_system_logs(**filters, page_size=4)) == lines
    tail = stored.db.tail_system_logs(**filters, after_id=0, poll_seconds=0.01)
    assert await taken(tail, len(lines)) == lines


async def test_values_that_can_be_read_once_serve_all_pages(stored: Stored) -> None:
    lines = [row for row in stored.rows["agent_logs"] if row["log_type"] in TYPES[:2]]
    assert await collected(stored.db.iter_agent_logs(log_type=iter(TYPES[:2]), page_size=5)) == lines


async def test_an_iterator_gives_a_line_once_that_another_program_moves(stored: Stored, target: Target) -> None:
    filters: dict[str, Any] = {"session_id": ["session-0", "session-1"], "log_level": ("INFO", "ERROR", "DEBUG")}
    expected = [row["id"] for row in stored.rows["agent_logs"] if stored.fits(row, filters)]
    rows = stored.db.iter_agent_logs(**filters, page_size=5)
    found = [row["id"] for row in await taken(rows, 6)]
    last = expected[-1]
    run_elsewhere(target.url, f"UPDATE agent_logs SET created_at = '2020-01-01T00:00:00.000000' WHERE id = {last}")
    found += [row["id"] async for row in rows]
    assert sorted(found) == sorted(expected)
    assert found[-1] == last


async def test_a_tail_with_a_filter_gives_what_is_new(db: DatabaseManager, agent_id: str) -> None:
    definition = await db.create_orchestrator_agent("builder")
    tail = db.tail_agent_logs(session_id=["session-1", "session-9"], min_level="WARNING", poll_seconds=0.01)
    other = await db.create_agent(definition, "session-2")
    await db.create_agent_log(other, "ERROR", "error", "Of another session")
    await db.create_agent_log(agent_id, "INFO", "error", "Not grave")
    late = await db.create_agent(definition, "session-9")
    wanted = [await db.create_agent_log(agent, "ERROR", "error", "This one") for agent in (agent_id, late)]
    assert [row["id"] for row in await taken(tail, 2)] == wanted

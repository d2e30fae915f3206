"""What all lists share: limits, pages, cursors, filters by time, and iterators that hold nothing open."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, InvalidValueError, cursor_of
from orchdb.cursors import position
from orchdb.operations import Operations
from tests.support.databases import NO_ROW, TABLES, call, collected, other_program

ROWS = 7


class List(NamedTuple):
    """A list operation on a filled database."""

    operation: str
    table: str
    newest_first: bool
    scope: tuple[str, ...] = ()


LISTS = [
    List("list_orchestrator_agents", "orchestrator_agents", newest_first=True),
    List("list_agents", "agents", newest_first=True),
    List("list_agents", "agents", newest_first=True, scope=("session-1",)),
    List("list_prompts", "prompts", newest_first=False, scope=("agent",)),
    List("get_agent_logs", "agent_logs", newest_first=False, scope=("agent",)),
    List("get_agent_logs_by_type", "agent_logs", newest_first=True, scope=("agent", "milestone")),
    List("get_logs_by_type", "agent_logs", newest_first=True, scope=("milestone",)),
    List("list_recent_agent_logs", "agent_logs", newest_first=True),
    List("get_recent_logs", "agent_logs", newest_first=True),
    List("get_system_logs", "system_logs", newest_first=False),
    List("list_recent_system_logs", "system_logs", newest_first=True),
]
WITH_TIMES = [
    it for it in LISTS if it.operation.startswith(("list_o", "list_a", "list_p", "get_agent_logs", "get_sys"))
]
WITH_TIMES = [it for it in WITH_TIMES if not it.operation.endswith("by_type")]


class Filled(NamedTuple):
    """A database with the same number of rows in each table, and the ids in the order of creation."""

    db: DatabaseManager
    agent: str
    ids: dict[str, list[Any]]

    async def rows(self, it: List, **options: Any) -> list[Any]:
        scope = [self.agent if word == "agent" else word for word in it.scope]
        rows: list[Any] = await call(self.db, it.operation, *scope, **options)
        return rows

    def expected(self, it: List) -> list[Any]:
        return self.ids[it.table][::-1] if it.newest_first else self.ids[it.table]


async def fill(db: Operations, number: int, agent: str) -> dict[str, Any]:
    definition = await db.create_orchestrator_agent(f"scout-{number}")
    return {
        "orchestrator_agents": definition,
        "agents": await db.create_agent(definition, "session-1"),
        "prompts": await db.create_prompt(agent, "adw", f"{number}"),
        "agent_logs": await db.create_agent_log(agent, "INFO", "milestone", f"{number}"),
        "system_logs": await db.create_system_log("INFO", "scheduler", f"{number}"),
    }


@pytest.fixture
async def filled(db: DatabaseManager) -> Filled:
    """Rows in every table; those of the log tables lie apart by at least a tick."""
    definition = await db.create_orchestrator_agent("first")
    agent = await db.create_agent(definition, "session-1")
    ids: dict[str, list[Any]] = {table: [] for table in TABLES}
    ids["orchestrator_agents"].append(definition)
    ids["agents"].append(agent)
    for number in range(ROWS):
        for table, row_id in (await fill(db, number, agent)).items():
            ids[table].append(row_id)
    return Filled(db, agent, ids)


def ids_of(rows: list[Any]) -> list[Any]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize("it", LISTS, ids=str)
async def test_a_list_comes_in_its_order(filled: Filled, it: List) -> None:
    assert ids_of(await filled.rows(it)) == filled.expected(it)


@pytest.mark.parametrize("it", LISTS, ids=str)
async def test_limit_and_offset_cut_a_piece_out(filled: Filled, it: List) -> None:
    everything = filled.expected(it)
    for limit, offset in ((3, 0), (3, 2), (1, 6), (100, 0), (None, 2), (3, 100), (2**63 - 1, 0)):
        piece = everything[offset:] if limit is None else everything[offset : offset + limit]
        assert ids_of(await filled.rows(it, limit=limit, offset=offset)) == piece


@pytest.mark.parametrize("it", LISTS, ids=str)
async def test_a_limit_of_zero_is_an_empty_list(filled: Filled, it: List) -> None:
    assert await filled.rows(it, limit=0) == []


@pytest.mark.parametrize("option", ["limit", "offset"])
async def test_any_other_limit_or_offset_is_refused(filled: Filled, option: str) -> None:
    for it, value in product(LISTS, (-1, 1.5, "3", True, 2**63, float("nan"), [])):
        with pytest.raises(InvalidValueError) as caught:
            await filled.rows(it, **{option: value})
        assert caught.value.column == option
        assert caught.value.table == it.table
        assert caught.value.operation in {it.operation, "list_recent_agent_logs"}
        assert it.table in str(caught.value)


async def test_a_list_for_an_id_that_no_row_can_have_is_the_callers_own(db: DatabaseManager) -> None:
    found = await db.get_agent_logs("\0")
    found.append(found)  # type: ignore[arg-type]  # what the caller does with the list is its own affair
    assert await db.get_agent_logs("\0") == []


@pytest.mark.parametrize("it", LISTS, ids=str)
async def test_pages_by_cursor_hold_every_row_once(filled: Filled, it: List) -> None:
    for size in (1, 3, ROWS):
        found: list[Any] = []
        after = None
        while page := await filled.rows(it, limit=size, after=after):
            found += ids_of(page)
            after = cursor_of(page[-1])
        assert found == filled.expected(it)


@pytest.mark.parametrize("it", LISTS, ids=str)
async def test_ties_in_time_are_broken_in_the_order_of_creation(filled: Filled, it: List) -> None:
    async with filled.db.transaction() as tx:
        await tx.conn.execute(text(f"UPDATE {it.table} SET created_at = (SELECT min(created_at) FROM {it.table})"))
    assert ids_of(await filled.rows(it)) == filled.expected(it)
    first = await filled.rows(it, limit=3)
    rest = await filled.rows(it, after=cursor_of(first[-1]))
    assert ids_of(first + rest) == filled.expected(it)


@pytest.mark.parametrize("it", LISTS, ids=str)
async def test_pages_are_complete_while_rows_are_inserted(filled: Filled, it: List) -> None:
    expected = set(filled.expected(it))
    found: list[Any] = []
    after, number = None, 100
    while page := await filled.rows(it, limit=2, after=after):
        found += ids_of(page)
        after = cursor_of(page[-1])
        if number < 105:
            await fill(filled.db, number, filled.agent)
            number += 1
    assert len(found) == len(set(found))
    assert expected <= set(found)
    assert it.newest_first == (set(found) == expected)


async def test_pages_go_on_where_they_were_when_their_last_row_is_deleted(filled: Filled) -> None:
    page = await filled.db.list_agents(limit=3)
    await filled.db.delete_agent(page[-1]["id"])
    rest = await filled.db.list_agents(after=cursor_of(page[-1]))
    assert ids_of([*page, *rest]) == filled.ids["agents"][::-1]


async def test_a_cursor_keeps_to_the_filters_of_the_list(filled: Filled) -> None:
    db = filled.db
    other = await db.create_agent(await db.create_orchestrator_agent("other"), "session-2")
    foreign = await db.create_prompt(other, "adw", "of the other")
    row = await db.get_prompt(foreign)
    assert row is not None
    assert await db.list_prompts(filled.agent, after=cursor_of(row)) == []
    first = (await db.list_prompts(filled.agent))[0]
    assert foreign not in ids_of(await db.list_prompts(filled.agent, after=cursor_of(first)))


async def test_a_cursor_is_text_that_goes_into_a_url_as_it_is(filled: Filled) -> None:
    for it in LISTS:
        cursor = cursor_of((await filled.rows(it))[0])
        assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")


def forged(position: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


NO_CURSORS: list[Any] = [
    "",
    "x",
    "not a cursor",
    "ünïcode",
    "====",
    7,
    b"bytes",
    ["agents"],
    forged(None),
    forged("agents"),
    forged(["agents"]),
    forged(["agents", "2026-01-01T00:00:00.000000"]),
    forged(["agents", "no time", "01890000-0000-7000-8000-000000000000"]),
    forged(["agents", None, "01890000-0000-7000-8000-000000000000"]),
    forged(["agents", "2026-01-01T00:00:00.000000", 7]),
    forged(["agents", "2026-01-01T00:00:00.000000", None]),
    forged(["agents", "2026-01-01T00:00:00.000000", ["id"]]),
    forged(["nothing", "2026-01-01T00:00:00.000000", "id"]),
    "W" * 100_000,
    forged([[[]] * 5]),
]


async def test_what_is_no_cursor_is_refused(db: DatabaseManager) -> None:
    for cursor in NO_CURSORS:
        with pytest.raises(InvalidValueError) as caught:
            await db.list_agents(after=cursor)
        assert (caught.value.table, caught.value.operation) == ("agents", "list_agents")


async def test_a_forged_number_in_a_cursor_is_refused(db: DatabaseManager) -> None:
    for number in ("7", True, 2**63, -(2**63) - 1, 2**64, 1.5, None):
        with pytest.raises(InvalidValueError):
            await db.get_system_logs(after=forged(["system_logs", "2026-01-01T00:00:00.000000", number]))


async def test_the_cursor_of_another_table_is_refused(filled: Filled) -> None:
    cursors = {it.table: cursor_of((await filled.rows(it))[0]) for it in LISTS}
    for it in LISTS:
        for table, cursor in cursors.items():
            if table != it.table:
                with pytest.raises(InvalidValueError, match="cursor"):
                    await filled.rows(it, after=cursor)


@pytest.mark.parametrize("row", [{}, {"id": 1, "created_at": "2026-01-01"}])
def test_only_a_row_has_a_cursor(row: Any) -> None:
    with pytest.raises(InvalidValueError, match="cursor_of"):
        cursor_of(row)


async def test_what_a_caller_puts_into_a_row_does_not_change_its_cursor(filled: Filled) -> None:
    beside = {"component": "x", "log_type": "x", "prompt_type": "x", "session_id": "x", "agent_type": "x"}
    for it in LISTS:
        row = (await filled.rows(it))[0]
        extended: Any = {**beside, **row}
        assert cursor_of(extended) == cursor_of(row)


@pytest.mark.parametrize(
    ("beside", "table"),
    [
        ({"session_id": "x"}, "agents"),
        ({"agent_type": "x"}, "orchestrator_agents"),
        ({"agent_id": "x", "prompt_type": "x"}, "prompts"),
        ({"agent_id": "x", "log_type": "x", "session_id": "x"}, "agent_logs"),
        ({"component": "x"}, "system_logs"),
        ({"agent_id": "x", "session_id": "x"}, None),
        ({"log_level": "INFO", "message": "x", "details": None}, None),
        ({"status": "failed"}, None),
    ],
)
def test_a_part_of_a_row_has_a_cursor_if_it_can_only_be_of_one_table(beside: Any, table: str | None) -> None:
    key = 1 if str(table).endswith("_logs") else NO_ROW
    for names in (beside, dict(reversed(beside.items()))):
        row: Any = {"id": key, "created_at": "2026-02-04T10:30:00.000000", **names}
        if table is None:
            with pytest.raises(InvalidValueError, match="cursor_of"):
                cursor_of(row)
        else:
            assert position(cursor_of(row), table)


@pytest.mark.parametrize("it", WITH_TIMES, ids=str)
async def test_since_is_inclusive_and_until_is_exclusive(filled: Filled, it: List) -> None:
    rows = await filled.rows(it)
    for row in rows:
        moment = row["created_at"]
        since = [other["id"] for other in rows if other["created_at"] >= moment]
        until = [other["id"] for other in rows if other["created_at"] < moment]
        assert ids_of(await filled.rows(it, since=moment)) == since
        assert ids_of(await filled.rows(it, until=moment)) == until
    assert await filled.rows(it, since=rows[0]["created_at"], until=rows[0]["created_at"]) == []


@pytest.mark.filterwarnings("ignore::orchdb.NaiveDatetimeWarning")
@pytest.mark.parametrize("it", WITH_TIMES, ids=str)
async def test_a_time_may_have_any_form(filled: Filled, it: List) -> None:
    moment = datetime.fromisoformat((await filled.rows(it))[3]["created_at"])
    aware = moment.replace(tzinfo=UTC)
    east = aware.astimezone(timezone(timedelta(hours=5, minutes=30)))
    forms = [moment, aware, east, moment.isoformat(" "), aware.isoformat(), east.isoformat()]
    lists = [ids_of(await filled.rows(it, since=form)) for form in forms]
    assert lists == [lists[0]] * len(forms)
    assert 0 < len(lists[0]) < len(filled.expected(it))


async def test_what_is_no_time_is_refused(filled: Filled) -> None:
    after_all_time = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))
    values: list[Any] = ["yesterday", "", 7, 1.5, "2026-13-01", b"2026", after_all_time]
    for it, option, value in product(WITH_TIMES, ("since", "until"), values):
        with pytest.raises(InvalidValueError) as caught:
            await filled.rows(it, **{option: value})
        assert (caught.value.table, caught.value.operation, caught.value.column) == (it.table, it.operation, option)
        assert f": {option}: must be" in str(caught.value)


async def test_a_page_has_at_least_one_row(db: DatabaseManager, agent_id: str) -> None:
    untyped: Any = db
    for size in (0, -1, 1.5, None, "3", True):
        for rows in (untyped.iter_system_logs(page_size=size), untyped.iter_agent_logs(agent_id, page_size=size)):
            with pytest.raises(InvalidValueError):
                await collected(rows)


async def test_an_iterator_and_a_tail_report_what_they_refuse_under_their_own_name(
    db: DatabaseManager, agent_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    untyped: Any = db
    bad: list[dict[str, Any]] = [{"log_level": "LOUD"}, {"since": "yesterday"}, {"page_size": 0}, {"poll_seconds": 0}]
    for (name, options), table in product(product(("iter", "tail"), bad), ("agent_logs", "system_logs")):
        (option,) = options
        if option in {"iter": ("poll_seconds",), "tail": ("since", "page_size")}[name]:
            continue
        caplog.clear()
        with pytest.raises(InvalidValueError) as caught:
            await collected(getattr(untyped, f"{name}_{table}")(*[agent_id] * (table == "agent_logs"), **options))
        assert (caught.value.operation, caught.value.table) == (f"{name}_{table}", table)
        assert [record.getMessage() for record in caplog.records] == [str(caught.value)]


async def test_an_iterator_sees_the_lines_that_are_written_meanwhile(db: DatabaseManager) -> None:
    for number in range(5):
        await db.create_system_log("INFO", "scheduler", f"{number}")
    seen = []
    async for row in db.iter_system_logs(page_size=2):
        seen.append(row["message"])
        if len(seen) <= 3:
            await db.create_system_log("INFO", "scheduler", f"new {len(seen)}")
    assert seen == ["0", "1", "2", "3", "4", "new 1", "new 2", "new 3"]


async def test_a_paused_iterator_holds_no_read_transaction(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")
        for number in range(10):
            await db.create_system_log("INFO", "scheduler", f"{number}")
            await db.create_agent_log(agent, "INFO", "milestone", f"{number}")
        paused: list[AsyncIterator[Any]] = [db.iter_system_logs(page_size=3), db.iter_agent_logs(agent, page_size=3)]
        for rows in paused:
            await anext(rows)
        await db.create_system_log("INFO", "scheduler", "one more")
        with other_program(path) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert len(await collected(paused[0])) == 10
        assert len(await collected(paused[1])) == 9


async def test_an_iterator_can_be_left_in_the_middle(db: DatabaseManager) -> None:
    await db.create_system_logs({"log_level": "INFO", "component": "a", "message": f"{n}"} for n in range(20))
    for _ in range(10):
        async for row in db.iter_system_logs(page_size=3):
            if row["message"] == "5":
                break
    assert len(await db.get_system_logs()) == 20

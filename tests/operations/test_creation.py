"""Creation that can be repeated: ids, times and event ids of the caller's, on every creation, single and in bulk."""

from __future__ import annotations

import asyncio
import uuid
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import text

from orchdb import (
    ConstraintError,
    DatabaseManager,
    DuplicateError,
    InvalidValueError,
    MissingParentError,
    NewAgentLog,
    NewPrompt,
)
from tests.conftest import Target
from tests.support.databases import NO_ROW, call, count, dump, run_elsewhere
from tests.support.processes import definitions_got_at_once

ID = "0189abcd-0000-4000-8000-00000000abcd"
LONG_AGO = "2019-02-03T04:05:06.000007"
SPELLINGS = (ID, ID.upper(), "{" + ID + "}", f"urn:uuid:{ID}", ID.replace("-", ""), uuid.UUID(ID))


@pytest.fixture
async def definition(db: DatabaseManager) -> str:
    return await db.create_orchestrator_agent("of the agents")


def creations(definition: str, agent_id: str) -> dict[str, tuple[str, tuple[Any, ...]]]:
    return {
        "create_orchestrator_agent": ("get_orchestrator_agent", ("sentry",)),
        "create_agent": ("get_agent", (definition, "session-9")),
        "create_prompt": ("get_prompt", (agent_id, "adw", "Plan it")),
    }


NAMES = tuple(creations("", ""))


@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.parametrize("spelling", SPELLINGS, ids=repr)
async def test_an_id_and_a_time_of_the_callers_are_those_of_the_row(
    db: DatabaseManager, definition: str, agent_id: str, operation: str, spelling: Any
) -> None:
    get, arguments = creations(definition, agent_id)[operation]
    assert await call(db, operation, *arguments, id=spelling, created_at="2019-02-03 06:05:06.000007+02:00") == ID
    row = await call(db, get, ID)
    assert (row["id"], row["created_at"]) == (ID, LONG_AGO)
    assert row.get("updated_at", LONG_AGO) == LONG_AGO


@pytest.mark.spread
@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.parametrize("id", ["", "adw-1", "nul\0", 7, b"x" * 16, ID + "0"], ids=repr)
async def test_an_id_that_is_no_uuid_is_refused(
    db: DatabaseManager, definition: str, agent_id: str, operation: str, id: Any
) -> None:
    _, arguments = creations(definition, agent_id)[operation]
    before = await dump(db)
    with pytest.raises(InvalidValueError) as caught:
        await call(db, operation, *arguments, id=id, exist_ok=True)
    assert (caught.value.column, caught.value.operation) == ("id", operation)
    assert await dump(db) == before


@pytest.mark.parametrize("operation", NAMES)
async def test_a_second_creation_with_an_id_is_refused_or_changes_nothing(
    db: DatabaseManager, definition: str, agent_id: str, operation: str
) -> None:
    _, arguments = creations(definition, agent_id)[operation]
    await call(db, operation, *arguments, id=ID)
    before = await dump(db)
    with pytest.raises(DuplicateError) as caught:
        await call(db, operation, *(f"{value}" for value in arguments), id=ID.upper(), metadata={"k": 1})
    assert (caught.value.column, caught.value.table) in {("id", table) for table in before} | {
        ("name", "orchestrator_agents")  # both are doubled, and the engines look at them in another order
    }
    other = {"metadata": {"k": 1}, "created_at": LONG_AGO, "exist_ok": True}
    assert await call(db, operation, *arguments, id=ID.upper(), **other) == ID
    async with db.transaction() as tx:
        assert await call(tx, operation, *arguments, id=ID, **other) == ID
        assert await call(tx, operation, *arguments[:-1], "another", id=ID, **other) == ID
    assert await dump(db) == before


@pytest.mark.parametrize("operation", NAMES)
async def test_whether_a_row_may_exist_is_said_by_true_or_false(
    db: DatabaseManager, definition: str, agent_id: str, operation: str
) -> None:
    _, arguments = creations(definition, agent_id)[operation]
    for wrong in ("no", 1):
        with pytest.raises(InvalidValueError) as caught:
            await call(db, operation, *arguments, id=ID, exist_ok=wrong)
        assert (caught.value.column, caught.value.operation) == ("exist_ok", operation)


async def test_only_the_same_id_is_forgiven(db: DatabaseManager) -> None:
    await db.create_orchestrator_agent("sentry")
    with pytest.raises(DuplicateError) as caught:
        await db.create_orchestrator_agent("sentry", id=ID, exist_ok=True)
    assert caught.value.column == "name"
    with pytest.raises(MissingParentError) as missing:
        await db.create_agent(NO_ROW, "session", id=ID, exist_ok=True)
    assert missing.value.column == "orchestrator_agent_id"
    assert await db.create_orchestrator_agent("other", id=ID, exist_ok=True) == ID


async def test_an_agent_is_never_its_own_parent(db: DatabaseManager, definition: str) -> None:
    for ok in (False, True):
        with pytest.raises(InvalidValueError) as caught:
            await db.create_agent(definition, "session", ID, id=ID, exist_ok=ok)
        assert caught.value.column == "parent_agent_id"


async def test_creations_at_once_with_one_id_are_one_row(db: DatabaseManager, definition: str) -> None:
    async def create() -> str:
        return await db.create_agent(definition, "session", id=ID, exist_ok=True)

    assert set(await asyncio.gather(*(create() for _ in range(100)))) == {ID}
    assert len(await db.list_agents("session")) == 1


async def test_an_agent_may_be_created_with_the_life_it_has_had(db: DatabaseManager, definition: str) -> None:
    life: Any = {
        "started_at": "2019-02-03T04:05:07.000000",
        "completed_at": "2019-02-03T04:05:08.000000",
        "cost_usd": 1.5,
        "error_message": "gave up",
    }
    agent = await db.get_agent(await db.create_agent(definition, "s", status="failed", created_at=LONG_AGO, **life))
    assert agent is not None
    assert {name: agent[name] for name in life} == life  # type: ignore[literal-required]
    agent = await db.get_agent(await db.create_agent(definition, "s", status="failed", created_at=LONG_AGO))
    assert agent is not None
    assert (agent["started_at"], agent["completed_at"], agent["cost_usd"]) == (None, LONG_AGO, 0.0)


EVERYTHING: dict[str, Any] = {
    "prompt_name": "plan",
    "status": "failed",
    "model_used": "claude",
    "metadata": {"k": [1]},
    "response_text": "No.",
    "tokens_input": 1,
    "tokens_output": 2,
    "tokens_cache_read": 3,
    "tokens_cache_write": 4,
    "cost_usd": 0.25,
    "latency_ms": 5,
    "completed_at": "2019-02-03T04:05:08.000000",
    "error_message": "refused",
    "deleted_at": "2019-02-03T04:05:09.000000",
    "created_at": LONG_AGO,
}


async def test_a_prompt_may_be_created_with_every_column_of_its_row(db: DatabaseManager, agent_id: str) -> None:
    single = await db.create_prompt(agent_id, "adw", "Plan it", id=ID, **EVERYTHING)
    item: Any = {"agent_id": agent_id, "prompt_type": "adw", "prompt_text": "Plan it"}
    plain, full = await db.create_prompts([item, item | EVERYTHING])
    for prompt_id in (single, full):
        row = await db.get_prompt(prompt_id, include_deleted=True)
        assert (
            row == {"id": prompt_id, "agent_id": agent_id, "prompt_type": "adw", "prompt_text": "Plan it"} | EVERYTHING
        )
    row = await db.get_prompt(plain)
    assert row is not None
    assert (row["tokens_input"], row["cost_usd"], row["deleted_at"]) == (0, 0.0, None)
    agent = await db.get_agent(agent_id)
    assert agent is not None
    assert agent["cost_usd"] == 0.0  # only completing adds to it


@pytest.mark.parametrize(("name", "value"), [("tokens_input", False), ("cost_usd", "0"), ("latency_ms", -1)])
async def test_what_a_prompt_is_created_with_is_checked(
    db: DatabaseManager, agent_id: str, name: str, value: Any
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_prompt", agent_id, "adw", "Plan it", **{name: value})
    assert caught.value.column == name


async def test_prompts_in_bulk_are_there_once(db: DatabaseManager, agent_id: str) -> None:
    def prompt(number: int) -> NewPrompt:
        return {"agent_id": agent_id, "prompt_type": "adw", "prompt_text": f"{number}", "id": uuid.UUID(int=number)}

    ids = [str(uuid.UUID(int=number)) for number in range(1000)]
    assert await db.create_prompts([prompt(n) for n in range(300)]) == ids[:300]
    with pytest.raises(DuplicateError) as caught:
        await db.create_prompts([prompt(n) for n in range(299, 400)])
    assert caught.value.column == "id"
    assert await count(db, "prompts") == 300
    assert await db.create_prompts([prompt(n) for n in range(1000)] * 2, exist_ok=True) == ids * 2
    assert await count(db, "prompts") == 1000
    with pytest.raises(InvalidValueError, match="item 1: "):
        await db.create_prompts([prompt(1), {**prompt(2), "id": "x"}])


def line(agent_id: str, message: str, event_id: str | None) -> NewAgentLog:
    return {
        "agent_id": agent_id,
        "log_level": "INFO",
        "log_type": "milestone",
        "message": message,
        "event_id": event_id,
        "created_at": LONG_AGO,
    }


async def test_a_line_with_an_event_id_is_written_once_and_shows_it(db: DatabaseManager, agent_id: str) -> None:
    first = await db.create_agent_log(agent_id, "INFO", "milestone", "a", event_id="e", created_at=LONG_AGO)
    assert await db.create_agent_log(agent_id, "ERROR", "error", "b", {"k": 1}, event_id="e") == first
    other = await db.create_agent_log(agent_id, "INFO", "milestone", "c", event_id="f")
    unnamed = await db.create_agent_log(agent_id, "INFO", "milestone", "d")
    assert len({first, other, unnamed}) == 3
    rows = await db.get_agent_logs(agent_id)
    assert [(row["id"], row["message"], row["event_id"]) for row in rows] == [
        (first, "a", "e"),
        (other, "c", "f"),
        (unnamed, "d", None),
    ]
    assert rows[0]["created_at"] == LONG_AGO
    system = await db.create_system_log("INFO", "api", "a", event_id="e", created_at=LONG_AGO)  # a log of its own
    assert await db.create_system_log("INFO", "api", "b", event_id="e") == system
    assert [(row["message"], row["event_id"]) for row in await db.get_system_logs()] == [("a", "e")]


@pytest.mark.parametrize("event_id", ["", "x" * 501, "nul\0", 7, b"x"], ids=repr)
async def test_an_event_id_is_a_word(db: DatabaseManager, agent_id: str, event_id: Any) -> None:
    lines: Any = [line(agent_id, "a", "e"), line(agent_id, "b", event_id)]
    for operation, *arguments in (
        ("create_agent_log", agent_id, "INFO", "milestone", "x"),
        ("create_system_log", "INFO", "api", "x"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            await call(db, operation, *arguments, event_id=event_id)
        assert caught.value.column == "event_id"
    with pytest.raises(InvalidValueError, match="item 1: ") as caught:
        await db.create_agent_logs(lines)
    assert caught.value.column == "event_id"
    assert await count(db, "agent_logs") == await count(db, "system_logs") == 0


@pytest.mark.parametrize("size", [3, 30, 1000])  # as separate rows, as one COPY, in several portions
async def test_lines_in_bulk_are_there_once_each(db: DatabaseManager, agent_id: str, size: int) -> None:
    there = await db.create_agent_log(agent_id, "INFO", "milestone", "there", event_id="0")
    lines = [line(agent_id, f"{n}", f"{n}") for n in range(size)]
    numbers = await db.create_agent_logs([*lines, line(agent_id, "unnamed", None), *lines])
    assert numbers[0] == there
    assert numbers[: size + 1] == sorted(numbers[: size + 1])
    assert numbers[size + 1 :] == numbers[:size]
    assert await db.create_agent_logs(lines) == numbers[:size]
    stored = await db.get_agent_logs(agent_id)
    assert [(row["id"], row["message"]) for row in sorted(stored, key=lambda row: row["id"])] == [
        (number, message)
        for number, message in zip(numbers, ["there", *map(str, range(1, size)), "unnamed"], strict=False)
    ]
    async with db.transaction() as tx:
        assert await tx.create_agent_logs(lines) == numbers[:size]
        assert await tx.create_agent_log(agent_id, "INFO", "milestone", "x", event_id="1") == numbers[1]
        new = await tx.create_agent_log(agent_id, "INFO", "milestone", "x", event_id="new")
        assert await tx.create_agent_logs([line(agent_id, "x", "new")]) == [new]
    assert len(await db.get_agent_logs(agent_id)) == len(stored) + 1


class Event(str, Enum):  # noqa: UP042  # not as a StrEnum hashes
    STARTED = "started"


async def test_a_member_of_an_enum_is_the_text_that_it_stands_for(db: DatabaseManager, agent_id: str) -> None:
    number = await db.create_agent_log(agent_id, "INFO", "milestone", "x", event_id=Event.STARTED)
    lines = [line(agent_id, "x", "started"), line(agent_id, "x", Event.STARTED)]
    assert await db.create_agent_logs(lines) == [number, number]
    assert [row["event_id"] for row in await db.get_agent_logs(agent_id)] == ["started"]


async def test_lines_of_many_tasks_that_repeat_each_other_are_there_once(db: DatabaseManager, agent_id: str) -> None:
    async def write(number: int) -> int:
        return await db.create_agent_log(agent_id, "INFO", "milestone", "x", event_id=f"{number % 50}")

    numbers = await asyncio.gather(*(write(number) for number in range(500)))
    assert numbers == numbers[:50] * 10
    assert sorted(row["id"] for row in await db.get_agent_logs(agent_id)) == sorted(numbers[:50])


async def test_bulks_at_once_that_overlap_are_there_once(db: DatabaseManager, agent_id: str) -> None:
    async def write(start: int) -> list[int]:
        return await db.create_agent_logs([line(agent_id, "x", f"{n}") for n in range(start, start + 100)])

    found = await asyncio.gather(*(write(start) for start in (0, 10, 20, 0, 10, 20)))
    assert found[:3] == found[3:]
    assert found[0][10:] == found[1][:90]
    assert len(await db.get_agent_logs(agent_id)) == 120


async def test_a_block_that_is_undone_takes_its_event_ids_along(db: DatabaseManager, agent_id: str) -> None:
    async def undone() -> None:
        async with db.transaction() as tx:
            await tx.create_agent_log(agent_id, "INFO", "milestone", "a", event_id="e")
            raise ValueError("undo")

    with pytest.raises(ValueError, match="undo"):
        await undone()
    await db.create_agent_log(agent_id, "INFO", "milestone", "b", event_id="e")
    assert [row["message"] for row in await db.get_agent_logs(agent_id)] == ["b"]


async def test_a_log_whose_numbers_are_taken_takes_a_line_with_an_event_id(
    db: DatabaseManager, target: Target, agent_id: str
) -> None:
    values = f"'{agent_id}', 'INFO', 'milestone', 'x'"
    run_elsewhere(
        target.url,
        f"INSERT INTO agent_logs (id, agent_id, log_level, log_type, message) VALUES (1, {values}), (2, {values})",
    )
    number = await db.create_agent_log(agent_id, "INFO", "milestone", "y", event_id="e")
    assert number > 2
    assert await db.create_agent_log(agent_id, "INFO", "milestone", "y", event_id="e") == number


async def test_a_definition_is_got_or_created(db: DatabaseManager) -> None:
    first = await db.get_or_create_orchestrator_agent("scout", "Looks around", metadata={"k": 1})
    assert await db.get_or_create_orchestrator_agent("scout", "Something else") == first
    row = await db.get_orchestrator_agent(first)
    assert row is not None
    assert (row["description"], row["agent_type"], row["metadata"]) == ("Looks around", "utility", {"k": 1})
    await db.delete_orchestrator_agent(first, soft=True)
    second = await db.get_or_create_orchestrator_agent("scout")
    assert second != first
    async with db.transaction() as tx:
        assert await tx.get_or_create_orchestrator_agent("scout") == second
        third = await tx.get_or_create_orchestrator_agent("builder")
        assert await tx.get_or_create_orchestrator_agent("builder") == third


@pytest.mark.parametrize("name", [None, "nul\0", 7, "x" * 501])
async def test_the_name_of_a_definition_is_checked(db: DatabaseManager, name: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await db.get_or_create_orchestrator_agent(name)
    assert (caught.value.column, caught.value.operation) == ("name", "get_or_create_orchestrator_agent")


async def test_many_tasks_get_one_definition(db: DatabaseManager) -> None:
    found = await asyncio.gather(*(db.get_or_create_orchestrator_agent("scout") for _ in range(100)))
    assert len(set(found)) == 1
    assert await count(db, "orchestrator_agents") == 1


@pytest.mark.slow
async def test_many_tasks_of_several_processes_get_one_definition(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        found = await asyncio.to_thread(definitions_got_at_once, target.url, "scout", processes=4, tasks=100)
        assert len(found) == 400
        assert len(set(found)) == 1
        assert db.conn is not None
        assert (await db.conn.execute(text("SELECT count(*) FROM orchestrator_agents"))).scalar_one() == 1


SKIPPING = "CREATE TRIGGER picky BEFORE INSERT ON agent_logs WHEN NEW.message = 'no' BEGIN SELECT RAISE(IGNORE); END"
COPYING = (
    "CREATE TRIGGER copying AFTER INSERT ON agent_logs WHEN NEW.log_type <> 'copy' BEGIN "
    "INSERT INTO agent_logs (agent_id, log_type, message) VALUES (NEW.agent_id, 'copy', NEW.message); END"
)
NO_UPDATES = "CREATE TRIGGER append_only BEFORE UPDATE ON agent_logs BEGIN SELECT RAISE(ABORT, 'never'); END"


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
async def test_triggers_of_other_programs_see_each_line_once(
    db: DatabaseManager, target: Target, agent_id: str
) -> None:
    run_elsewhere(target.url, SKIPPING, COPYING, NO_UPDATES)
    lines = [line(agent_id, f"{n}", f"{n % 20}") for n in range(40)]
    single = await asyncio.gather(*(db.create_agent_log(**line) for line in lines))
    assert single[:20] == single[20:]
    assert await db.create_agent_logs(lines) == single
    rows = await db.get_agent_logs(agent_id)
    assert [row["id"] for row in sorted(rows, key=lambda row: row["id"]) if row["event_id"]] == sorted(single[:20])
    assert len([row for row in rows if row["log_type"] == "copy"]) == 20
    for write in (db.create_agent_log(**line(agent_id, "no", "x")), db.create_agent_logs([line(agent_id, "no", "x")])):
        with pytest.raises(ConstraintError, match="picky skipped the row"):
            await write

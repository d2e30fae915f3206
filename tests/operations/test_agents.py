"""Running instances of agents: their lifecycle, their times and what they cost."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchdb import AGENT_STATUSES, AgentRow, DatabaseManager, InvalidValueError, MissingParentError
from tests.conftest import Target
from tests.support.databases import NO_ROW, ONE_FORM, call, count

RUNNING = {"planning", "executing", "reviewing"}
ENDED = {"completed", "failed", "cancelled"}
WAITING = {"pending", "initializing"}


@pytest.fixture
async def definition(db: DatabaseManager) -> str:
    """The id of a definition."""
    return await db.create_orchestrator_agent("scout")


async def found(db: DatabaseManager, agent_id: str) -> AgentRow:
    row = await db.get_agent(agent_id)
    assert row is not None
    return row


async def test_agents_crud(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(
        orchestrator_agent_id=definition,
        session_id="550e8400-e29b-41d4-a716-446655440000",
        status="executing",
        context={"issue": 629},
        config={"model": "claude"},
        metadata={"adw": "feature"},
    )

    row = await found(db, agent_id)
    assert row["orchestrator_agent_id"] == definition
    assert row["session_id"] == "550e8400-e29b-41d4-a716-446655440000"
    assert row["status"] == "executing"
    assert (row["context"], row["config"], row["metadata"]) == ({"issue": 629}, {"model": "claude"}, {"adw": "feature"})
    assert await db.list_agents() == [row]

    assert await db.update_agent(agent_id, status="completed", cost_usd=0.25) is True
    changed = await found(db, agent_id)
    assert (changed["status"], changed["cost_usd"]) == ("completed", 0.25)

    assert await db.delete_agent(agent_id) is True
    assert await db.get_agent(agent_id) is None


async def test_a_new_agent_has_these_values(db: DatabaseManager, definition: str) -> None:
    row = await found(db, await db.create_agent(definition, "session-1"))
    assert row == {
        "id": row["id"],
        "orchestrator_agent_id": definition,
        "session_id": "session-1",
        "parent_agent_id": None,
        "status": "initializing",
        "context": None,
        "config": None,
        "started_at": None,
        "completed_at": None,
        "cost_usd": 0.0,
        "error_message": None,
        "created_at": row["created_at"],
        "updated_at": row["created_at"],
        "metadata": None,
        "deleted_at": None,
    }
    assert re.fullmatch(ONE_FORM, row["created_at"])


def test_the_statuses_are_these() -> None:
    assert set(AGENT_STATUSES) == RUNNING | ENDED | WAITING


@pytest.mark.parametrize("status", sorted(RUNNING | ENDED | WAITING))
async def test_the_first_status_sets_the_times(db: DatabaseManager, definition: str, status: Any) -> None:
    row = await found(db, await db.create_agent(definition, "session-1", status=status))
    assert (row["started_at"] is not None) == (status in RUNNING)
    assert (row["completed_at"] is not None) == (status in ENDED)


@pytest.mark.parametrize("status", ["running", "", "COMPLETED", 7, ["completed"], {"a": 1}, None])
async def test_any_other_status_is_refused(db: DatabaseManager, definition: str, status: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_agent", definition, "session-1", status=status)
    assert caught.value.column == "status"
    agent_id = await db.create_agent(definition, "session-1")
    with pytest.raises(InvalidValueError):
        await call(db, "update_agent", agent_id, status=status)
    assert await count(db, "agents") == 1


async def test_an_agent_starts_once_and_ends_last(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1", status="pending")
    await db.update_agent(agent_id, status="planning")
    planning = await found(db, agent_id)
    await db.update_agent(agent_id, status="executing")
    executing = await found(db, agent_id)
    await db.update_agent(agent_id, status="completed")
    completed = await found(db, agent_id)

    assert planning["started_at"] is not None
    assert executing["started_at"] == completed["started_at"] == planning["started_at"]
    assert planning["completed_at"] is executing["completed_at"] is None
    assert (completed["completed_at"] or "") > planning["started_at"]
    assert completed["updated_at"] >= executing["updated_at"] >= planning["updated_at"]


async def test_an_agent_that_goes_on_has_not_ended(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1", status="failed")
    await db.update_agent(agent_id, status="executing")
    row = await found(db, agent_id)
    assert row["completed_at"] is None
    assert row["started_at"] is not None


async def test_an_end_that_is_told_twice_keeps_the_first_time(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1", status="completed")
    first = await found(db, agent_id)
    await db.update_agent(agent_id, status="completed", cost_usd=1)
    assert (await found(db, agent_id))["completed_at"] == first["completed_at"]


async def test_times_that_are_given_win(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1")
    two_hours_east = datetime(2026, 2, 4, 12, tzinfo=UTC) + timedelta(hours=0)
    await db.update_agent(agent_id, status="executing", started_at="2026-02-04T10:30:00", updated_at=two_hours_east)
    row = await found(db, agent_id)
    assert row["started_at"] == "2026-02-04T10:30:00.000000"
    assert row["updated_at"] == "2026-02-04T12:00:00.000000"

    await db.update_agent(agent_id, status="completed", completed_at="2026-02-04T13:00:00+02:00")
    assert (await found(db, agent_id))["completed_at"] == "2026-02-04T11:00:00.000000"
    await db.update_agent(agent_id, status="completed", completed_at=None)
    assert (await found(db, agent_id))["completed_at"] is None


async def test_other_changes_leave_the_times_of_the_life_alone(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1", status="completed")
    before = await found(db, agent_id)
    await db.update_agent(agent_id, error_message="late", cost_usd=2.5)
    after = await found(db, agent_id)
    assert (after["started_at"], after["completed_at"]) == (before["started_at"], before["completed_at"])


async def test_a_status_is_changed_only_if_it_is_the_expected_one(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1", status="executing")
    assert await db.update_agent(agent_id, if_status="planning", status="failed") is False
    assert (await found(db, agent_id))["status"] == "executing"
    assert await db.update_agent(agent_id, if_status="executing", status="reviewing") is True
    assert await db.update_agent(agent_id, if_status="reviewing") is True
    assert await db.update_agent(agent_id, if_status="executing") is False
    assert await db.update_agent(agent_id, if_status="executing", error_message="x", updated_at="2020-01-01") is False
    row = await found(db, agent_id)
    assert (row["status"], row["error_message"]) == ("reviewing", None)
    assert row["updated_at"] > "2026"


async def test_of_many_who_set_the_same_status_one_wins(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1", status="pending")
    claims = await asyncio.gather(
        *(db.update_agent(agent_id, if_status="pending", status="executing", session_id=f"{n}") for n in range(50))
    )
    assert claims.count(True) == 1
    assert (await found(db, agent_id))["session_id"] == str(claims.index(True))


@pytest.mark.parametrize("if_status", ["running", "", 7, []])
async def test_an_unknown_expected_status_is_refused(db: DatabaseManager, definition: str, if_status: Any) -> None:
    agent_id = await db.create_agent(definition, "session-1")
    with pytest.raises(InvalidValueError):
        await call(db, "update_agent", agent_id, if_status=if_status, status="failed")
    with pytest.raises(InvalidValueError):
        await call(db, "update_agent", agent_id, if_status=if_status)


async def test_none_sets_null(db: DatabaseManager, definition: str) -> None:
    parent = await db.create_agent(definition, "session-1")
    agent_id = await db.create_agent(definition, "session-1", parent, "completed", {"a": 1}, {"b": 2}, {"c": 3})
    await db.update_agent(agent_id, error_message="text", cost_usd=1)
    names = ("parent_agent_id", "context", "config", "metadata", "completed_at", "cost_usd", "error_message")
    await call(db, "update_agent", agent_id, **dict.fromkeys(names))
    row: Any = await found(db, agent_id)
    assert [row[name] for name in names] == [None] * len(names)


@pytest.mark.parametrize("value", ['{"issue": 629}', {"issue": 629}])
async def test_context_and_config_may_be_the_text_of_an_object(
    db: DatabaseManager, definition: str, value: Any
) -> None:
    agent_id = await db.create_agent(definition, "session-1", context=value, config=value)
    row = await found(db, agent_id)
    assert (row["context"], row["config"]) == ({"issue": 629}, {"issue": 629})
    await db.update_agent(agent_id, context='{"größe": [1, 2]}')
    assert (await found(db, agent_id))["context"] == {"größe": [1, 2]}


@pytest.mark.spread
@pytest.mark.parametrize("value", ["not json", "[1]", '"text"', "null", "7", "", [1], 7, True, b"{}"])
@pytest.mark.parametrize("column", ["context", "config", "metadata"])
async def test_what_is_no_object_is_refused(db: DatabaseManager, definition: str, column: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_agent", definition, "session-1", **{column: value})
    assert caught.value.column == column
    assert await count(db, "agents") == 0


async def test_children_stay_when_their_parent_goes(db: DatabaseManager, definition: str) -> None:
    parent = await db.create_agent(definition, "session-1")
    child = await db.create_agent(definition, "session-1", parent_agent_id=parent)
    assert [row["id"] for row in await db.list_agents(parent_agent_id=parent)] == [child]
    assert await db.delete_agent(parent) is True
    assert (await found(db, child))["parent_agent_id"] is None


async def test_deleting_an_agent_takes_its_prompts_and_logs(db: DatabaseManager, definition: str) -> None:
    doomed, kept = [await db.create_agent(definition, "session-1") for _ in range(2)]
    for agent in (doomed, kept):
        await db.create_prompt(agent, "adw", "Plan it")
        await db.create_agent_log(agent, "INFO", "milestone", "Half way")
    await db.delete_agent(doomed)
    assert [await count(db, table) for table in ("agents", "prompts", "agent_logs")] == [1, 1, 1]
    assert len(await db.list_prompts(kept)) == 1


async def test_a_soft_deletion_hides_the_agent_alone(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1")
    prompt = await db.create_prompt(agent_id, "adw", "Plan it")
    assert await db.delete_agent(agent_id, soft=True) is True
    assert await db.get_agent(agent_id) is None
    assert await db.list_agents(session_id="session-1") == []
    assert len(await db.list_agents(include_deleted=True)) == 1
    assert await db.add_agent_cost(agent_id, 1) is False
    assert await db.get_prompt(prompt) is not None
    assert await db.restore_agent(agent_id) is True
    assert await db.restore_agent(agent_id) is False
    assert (await found(db, agent_id))["cost_usd"] == 0.0


@pytest.mark.parametrize("missing", [NO_ROW, "no-uuid", ""])
async def test_a_parent_that_is_not_there_is_missing(db: DatabaseManager, definition: str, missing: str) -> None:
    with pytest.raises(MissingParentError) as caught:
        await db.create_agent(missing, "session-1")
    assert (caught.value.table, caught.value.operation) == ("agents", "create_agent")
    with pytest.raises(MissingParentError):
        await db.create_agent(definition, "session-1", parent_agent_id=missing)
    agent_id = await db.create_agent(definition, "session-1")
    with pytest.raises(MissingParentError):
        await db.update_agent(agent_id, parent_agent_id=missing, status="failed")
    assert (await found(db, agent_id))["status"] == "initializing"
    assert await count(db, "agents") == 1


async def test_lists_filter_by_every_scope(db: DatabaseManager, definition: str) -> None:
    other = await db.create_orchestrator_agent("builder")
    first = await db.create_agent(definition, "session-1", status="executing")
    second = await db.create_agent(definition, "session-2", status="pending")
    third = await db.create_agent(other, "session-2", status="pending", parent_agent_id=second)

    async def ids(*arguments: Any, **filters: Any) -> list[str]:
        return [row["id"] for row in await db.list_agents(*arguments, **filters)]

    assert await ids() == [third, second, first]
    assert await ids("session-2") == [third, second]
    assert await ids(status="executing") == [first]
    assert await ids(orchestrator_agent_id=definition) == [second, first]
    assert await ids(session_id="session-2", status="pending", orchestrator_agent_id=other) == [third]
    assert await ids("session-3") == []
    assert await ids(orchestrator_agent_id="no-uuid") == []


async def test_costs_of_many_tasks_add_up(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1")

    async def add_hundred() -> list[bool]:
        return [await db.add_agent_cost(agent_id, 0.00003) for _ in range(20)]

    results = await asyncio.gather(*(add_hundred() for _ in range(100)))
    assert all(all(result) for result in results)
    assert (await found(db, agent_id))["cost_usd"] == 0.06


async def test_a_cost_is_exact_after_ten_thousand_additions(
    db: DatabaseManager, definition: str, target: Target
) -> None:
    additions = 10_000 if target.engine == "sqlite" else 1_000  # a server costs three round trips each
    agent_id = await db.create_agent(definition, "session-1")
    async with db.transaction() as tx:
        for _ in range(additions):
            await tx.add_agent_cost(agent_id, 0.00003)
    assert (await found(db, agent_id))["cost_usd"] == round(additions * 0.00003, 9)


async def test_adding_a_cost_moves_updated_at_and_starts_from_nothing(db: DatabaseManager, definition: str) -> None:
    agent_id = await db.create_agent(definition, "session-1")
    await db.update_agent(agent_id, cost_usd=None)
    before = await found(db, agent_id)
    assert await db.add_agent_cost(agent_id, 1.5) is True
    after = await found(db, agent_id)
    assert after["cost_usd"] == 1.5
    assert after["updated_at"] > before["updated_at"]
    assert await db.add_agent_cost(NO_ROW, 1.5) is False


@pytest.mark.spread
@pytest.mark.parametrize("usd", [None, "0.5", float("nan"), float("inf"), True, [], pytest.param(10**400, id="huge")])
async def test_what_is_no_amount_is_not_added(db: DatabaseManager, definition: str, usd: Any) -> None:
    agent_id = await db.create_agent(definition, "session-1")
    await db.add_agent_cost(agent_id, 0.5)
    before = await found(db, agent_id)
    with pytest.raises(InvalidValueError):
        await call(db, "add_agent_cost", agent_id, usd)
    assert await found(db, agent_id) == before


@pytest.mark.parametrize("most", [1.7976931348623157e308, -1.7976931348623157e308])
async def test_a_sum_beyond_every_number_is_refused(db: DatabaseManager, definition: str, most: float) -> None:
    agent_id = await db.create_agent(definition, "session-1")
    await db.update_agent(agent_id, cost_usd=most)
    for more in (most, most / 1e6):
        with pytest.raises(InvalidValueError):
            await db.add_agent_cost(agent_id, more)
    assert (await found(db, agent_id))["cost_usd"] == most
    for amount, total in ((0.0, most), (most / 1e300, most), (-most, 0.0), (-most, -most), (most, 0.0)):
        assert await db.add_agent_cost(agent_id, amount) is True
        assert (await found(db, agent_id))["cost_usd"] == total

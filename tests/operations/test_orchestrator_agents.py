"""Definitions of agents."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from orchdb import DatabaseManager, DuplicateError, InvalidValueError
from tests.support.databases import NO_ROW, ONE_FORM, call, count

COLUMNS = {
    "id",
    "name",
    "description",
    "agent_type",
    "capabilities",
    "default_model",
    "created_at",
    "updated_at",
    "metadata",
    "deleted_at",
}


async def test_orchestrator_agents_crud(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent(
        name="scout-report-suggest",
        description="Scouts codebase and suggests fixes",
        agent_type="utility",
        capabilities="codebase_exploration,issue_detection",
        default_model="claude-sonnet-3.5",
        metadata={"owner": "platform"},
    )

    row = await db.get_orchestrator_agent(agent_id)
    assert row is not None
    assert row["name"] == "scout-report-suggest"
    assert row["description"] == "Scouts codebase and suggests fixes"
    assert row["capabilities"] == "codebase_exploration,issue_detection"
    assert row["default_model"] == "claude-sonnet-3.5"
    assert row["metadata"] == {"owner": "platform"}
    assert await db.list_orchestrator_agents() == [row]

    assert await db.update_orchestrator_agent(agent_id, description="Scouts") is True
    changed = await db.get_orchestrator_agent(agent_id)
    assert changed == row | {"description": "Scouts", "updated_at": changed["updated_at"]} if changed else False

    assert await db.delete_orchestrator_agent(agent_id) is True
    assert await db.get_orchestrator_agent(agent_id) is None
    assert await db.list_orchestrator_agents() == []


async def test_only_the_name_is_needed(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    row = await db.get_orchestrator_agent(agent_id)
    assert row is not None
    assert set(row) == COLUMNS
    assert row["agent_type"] == "utility"
    assert {name for name, value in row.items() if value is None} == {
        "description",
        "capabilities",
        "default_model",
        "metadata",
        "deleted_at",
    }


async def test_the_id_is_a_uuid_of_version_7_and_the_times_are_in_the_one_form(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    row = await db.get_orchestrator_agent(agent_id)
    assert row is not None
    assert str(uuid.UUID(agent_id)) == agent_id
    assert uuid.UUID(agent_id).version == 7
    assert re.fullmatch(ONE_FORM, row["created_at"])
    assert row["updated_at"] == row["created_at"]


async def test_ids_sort_in_the_order_of_creation(db: DatabaseManager) -> None:
    ids = [await db.create_orchestrator_agent(f"scout-{number}") for number in range(50)]
    assert sorted(ids) == ids
    assert [row["id"] for row in await db.list_orchestrator_agents()] == ids[::-1]


@pytest.mark.parametrize("agent_type", ["planner", "my-own-type", "späher"])
async def test_the_agent_type_is_an_open_vocabulary(db: DatabaseManager, agent_type: str) -> None:
    agent_id = await db.create_orchestrator_agent("scout", agent_type=agent_type)
    row = await db.get_orchestrator_agent(agent_id)
    assert row is not None
    assert row["agent_type"] == agent_type


@pytest.mark.parametrize("agent_type", ["", None, 7, "nul\0", "lone\ud800"])
async def test_an_agent_type_that_is_no_word_is_refused(db: DatabaseManager, agent_type: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_orchestrator_agent", "scout", agent_type=agent_type)
    assert caught.value.column == "agent_type"


@pytest.mark.parametrize("name", [None, 7, b"scout", "nul\0", "lone\udfff"])
async def test_a_name_that_is_no_text_is_refused(db: DatabaseManager, name: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_orchestrator_agent", name)
    assert caught.value.column == "name"
    assert await count(db, "orchestrator_agents") == 0


async def test_a_name_is_taken_once(db: DatabaseManager) -> None:
    await db.create_orchestrator_agent("scout")
    with pytest.raises(DuplicateError) as caught:
        await db.create_orchestrator_agent("scout")
    assert (caught.value.table, caught.value.operation) == ("orchestrator_agents", "create_orchestrator_agent")
    await db.create_orchestrator_agent("Scout")
    assert await count(db, "orchestrator_agents") == 2


async def test_renaming_to_a_taken_name_changes_nothing(db: DatabaseManager) -> None:
    await db.create_orchestrator_agent("scout")
    other = await db.create_orchestrator_agent("builder")
    before = await db.get_orchestrator_agent(other)
    with pytest.raises(DuplicateError):
        await db.update_orchestrator_agent(other, name="scout", description="new")
    assert await db.get_orchestrator_agent(other) == before


async def test_a_name_is_free_again_after_a_deletion(db: DatabaseManager) -> None:
    first = await db.create_orchestrator_agent("scout")
    await db.delete_orchestrator_agent(first, soft=True)
    second = await db.create_orchestrator_agent("scout")
    await db.delete_orchestrator_agent(second)
    third = await db.create_orchestrator_agent("scout")
    assert [row["id"] for row in await db.list_orchestrator_agents(include_deleted=True)] == [third, first]


async def test_restoring_a_name_that_was_taken_meanwhile_fails(db: DatabaseManager) -> None:
    first = await db.create_orchestrator_agent("scout")
    await db.delete_orchestrator_agent(first, soft=True)
    await db.create_orchestrator_agent("scout")
    with pytest.raises(DuplicateError):
        await db.restore_orchestrator_agent(first)
    assert await db.get_orchestrator_agent(first) is None


async def test_a_soft_deletion_hides_and_a_restoration_brings_back(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout", metadata={"a": 1})
    before = await db.get_orchestrator_agent(agent_id)

    assert await db.delete_orchestrator_agent(agent_id, soft=True) is True
    assert await db.get_orchestrator_agent(agent_id) is None
    assert await db.list_orchestrator_agents() == []
    hidden = await db.get_orchestrator_agent(agent_id, include_deleted=True)
    assert hidden is not None
    assert re.fullmatch(ONE_FORM, hidden["deleted_at"] or "")
    assert await db.list_orchestrator_agents(include_deleted=True) == [hidden]

    assert await db.restore_orchestrator_agent(agent_id) is True
    after = await db.get_orchestrator_agent(agent_id)
    assert after is not None
    assert before is not None
    assert after["deleted_at"] is None
    assert after["updated_at"] > before["updated_at"]
    assert {**after, "updated_at": ""} == {**before, "updated_at": ""}


async def test_what_is_softly_deleted_is_neither_changed_nor_deleted_softly_again(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    await db.delete_orchestrator_agent(agent_id, soft=True)
    hidden = await db.get_orchestrator_agent(agent_id, include_deleted=True)
    assert await db.update_orchestrator_agent(agent_id, description="x") is False
    assert await db.update_orchestrator_agent(agent_id) is False
    assert await db.delete_orchestrator_agent(agent_id, soft=True) is False
    assert await db.get_orchestrator_agent(agent_id, include_deleted=True) == hidden
    assert await db.delete_orchestrator_agent(agent_id) is True
    assert await db.get_orchestrator_agent(agent_id, include_deleted=True) is None


async def test_only_what_is_softly_deleted_is_restored(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    assert await db.restore_orchestrator_agent(agent_id) is False
    assert await db.restore_orchestrator_agent(NO_ROW) is False


async def test_none_sets_null(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout", "text", "planner", "plan", "model", {"a": 1})
    await db.update_orchestrator_agent(agent_id, description=None, capabilities=None, default_model=None, metadata=None)
    row = await db.get_orchestrator_agent(agent_id)
    assert row is not None
    assert [row["description"], row["capabilities"], row["default_model"], row["metadata"]] == [None] * 4


@pytest.mark.parametrize("column", ["name", "agent_type", "updated_at"])
async def test_none_where_a_value_is_needed_is_refused(db: DatabaseManager, column: str) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    before = await db.get_orchestrator_agent(agent_id)
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "update_orchestrator_agent", agent_id, **{column: None})
    assert caught.value.column == column
    assert await db.get_orchestrator_agent(agent_id) == before


async def test_an_update_moves_updated_at_and_nothing_else(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    before = await db.get_orchestrator_agent(agent_id)
    await db.update_orchestrator_agent(agent_id, agent_type="planner")
    after = await db.get_orchestrator_agent(agent_id)
    assert before is not None
    assert after is not None
    assert after["updated_at"] > before["updated_at"]
    assert after == {**before, "agent_type": "planner", "updated_at": after["updated_at"]}


@pytest.mark.parametrize("changes", [{}, {"description": "new"}])
async def test_an_updated_at_that_is_given_wins(db: DatabaseManager, changes: dict[str, Any]) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    assert await db.update_orchestrator_agent(agent_id, updated_at="2020-01-02T03:04:05Z", **changes)
    row: Any = await db.get_orchestrator_agent(agent_id)
    assert row["updated_at"] == "2020-01-02T03:04:05.000000"
    assert all(row[name] == value for name, value in changes.items())


async def test_an_empty_update_tells_whether_there_is_such_a_row(db: DatabaseManager) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    before = await db.get_orchestrator_agent(agent_id)
    assert await db.update_orchestrator_agent(agent_id) is True
    assert await db.update_orchestrator_agent(NO_ROW) is False
    assert await db.get_orchestrator_agent(agent_id) == before


async def test_lists_filter_by_name_and_type(db: DatabaseManager) -> None:
    for name, agent_type in (("a", "planner"), ("b", "planner"), ("c", "tester")):
        await db.create_orchestrator_agent(name, agent_type=agent_type)

    async def names(**filters: Any) -> list[str]:
        return [row["name"] for row in await db.list_orchestrator_agents(**filters)]

    assert await names(agent_type="planner") == ["b", "a"]
    assert await names(name="c") == ["c"]
    assert await names(name="c", agent_type="planner") == []


async def test_deleting_a_definition_takes_all_that_belongs_to_it(db: DatabaseManager) -> None:
    doomed, kept = await db.create_orchestrator_agent("doomed"), await db.create_orchestrator_agent("kept")
    for definition in (doomed, kept):
        agent = await db.create_agent(definition, "session-1")
        await db.create_prompt(agent, "adw", "Plan it")
        await db.create_agent_log(agent, "INFO", "milestone", "Half way")
    await db.create_system_log("INFO", "scheduler", "stays")

    assert await db.delete_orchestrator_agent(doomed) is True
    tables = ("orchestrator_agents", "agents", "prompts", "agent_logs", "system_logs")
    assert [await count(db, table) for table in tables] == [1, 1, 1, 1, 1]
    assert (await db.list_agents())[0]["orchestrator_agent_id"] == kept


async def test_a_soft_deletion_leaves_the_agents_visible(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    agent = await db.create_agent(definition, "session-1")
    await db.delete_orchestrator_agent(definition, soft=True)
    assert await db.get_agent(agent) is not None

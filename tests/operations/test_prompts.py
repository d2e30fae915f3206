"""Prompts and responses, with tokens and costs."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from orchdb import PROMPT_STATUSES, DatabaseManager, InvalidValueError, MissingParentError, PromptRow
from tests.support.databases import NO_ROW, ONE_FORM, call, count

ENDED = {"completed", "failed", "cancelled"}
TOKENS = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")


async def found(db: DatabaseManager, prompt_id: str) -> PromptRow:
    row = await db.get_prompt(prompt_id)
    assert row is not None
    return row


async def test_prompts_crud(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(
        agent_id=agent_id,
        prompt_type="command",
        prompt_text="Write the plan",
        prompt_name="plan",
        model_used="claude",
        metadata={"step": 1},
    )
    row = await found(db, prompt_id)
    assert (row["prompt_type"], row["prompt_text"], row["prompt_name"]) == ("command", "Write the plan", "plan")
    assert await db.list_prompts(agent_id) == [row]

    changes: Any = {
        "response_text": "The plan",
        "tokens_input": 1200,
        "tokens_output": 340,
        "tokens_cache_read": 50_000,
        "tokens_cache_write": 7,
        "cost_usd": 0.0123,
        "latency_ms": 812,
        "status": "completed",
    }
    assert await db.update_prompt(prompt_id, **changes) is True
    changed = await found(db, prompt_id)
    assert {**changed, "completed_at": None} == {**row, **changes}
    assert re.fullmatch(ONE_FORM, changed["completed_at"] or "")

    assert await db.delete_prompt(prompt_id) is True
    assert await db.get_prompt(prompt_id) is None
    assert await db.delete_prompt(prompt_id) is False


async def test_a_new_prompt_has_these_values(db: DatabaseManager, agent_id: str) -> None:
    row = await found(db, await db.create_prompt(agent_id, "adw", "Plan it"))
    assert row == {
        "id": row["id"],
        "agent_id": agent_id,
        "prompt_type": "adw",
        "prompt_name": None,
        "prompt_text": "Plan it",
        "response_text": None,
        "status": "pending",
        "model_used": None,
        "tokens_input": 0,
        "tokens_output": 0,
        "cost_usd": 0.0,
        "latency_ms": None,
        "created_at": row["created_at"],
        "completed_at": None,
        "error_message": None,
        "metadata": None,
        "deleted_at": None,
        "tokens_cache_read": 0,
        "tokens_cache_write": 0,
    }


@pytest.mark.parametrize("status", PROMPT_STATUSES)
async def test_a_status_that_ends_a_prompt_sets_completed_at(db: DatabaseManager, agent_id: str, status: Any) -> None:
    created = await found(db, await db.create_prompt(agent_id, "adw", "Plan it", status=status))
    assert (created["completed_at"] is not None) == (status in ENDED)

    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it", status="failed")
    first = (await found(db, prompt_id))["completed_at"]
    await db.update_prompt(prompt_id, status=status)
    assert (await found(db, prompt_id))["completed_at"] == (first if status in ENDED else None)


async def test_a_completed_at_that_is_given_wins(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    await db.update_prompt(prompt_id, status="completed", completed_at="2026-02-04 10:30:00+02:00")
    assert (await found(db, prompt_id))["completed_at"] == "2026-02-04T08:30:00.000000"
    await db.update_prompt(prompt_id, status="pending", completed_at="2026-02-04")
    assert (await found(db, prompt_id))["completed_at"] == "2026-02-04T00:00:00.000000"


@pytest.mark.parametrize("status", ["executing", "", None, ["failed"], 1])
async def test_any_other_status_is_refused(db: DatabaseManager, agent_id: str, status: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_prompt", agent_id, "adw", "Plan it", status=status)
    assert caught.value.column == "status"
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    with pytest.raises(InvalidValueError):
        await call(db, "update_prompt", prompt_id, status=status)
    assert await count(db, "prompts") == 1


async def test_a_status_is_changed_only_if_it_is_the_expected_one(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    assert await db.update_prompt(prompt_id, if_status="streaming", status="failed") is False
    assert await db.update_prompt(prompt_id, if_status="pending", status="streaming") is True
    assert await db.update_prompt(prompt_id, if_status="pending") is False
    row = await found(db, prompt_id)
    assert (row["status"], row["completed_at"]) == ("streaming", None)


@pytest.mark.parametrize("prompt_type", ["tool_call", "my_own_type"])
async def test_the_prompt_type_is_an_open_vocabulary(db: DatabaseManager, agent_id: str, prompt_type: str) -> None:
    prompt_id = await db.create_prompt(agent_id, prompt_type, "Plan it")
    await db.update_prompt(prompt_id, prompt_type=f"{prompt_type}_2")
    assert [row["id"] for row in await db.list_prompts(agent_id, prompt_type=f"{prompt_type}_2")] == [prompt_id]
    assert await db.list_prompts(agent_id, prompt_type=prompt_type) == []


@pytest.mark.parametrize("prompt_type", ["", None, 5, "nul\0"])
async def test_a_prompt_type_that_is_no_word_is_refused(db: DatabaseManager, agent_id: str, prompt_type: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_prompt", agent_id, prompt_type, "Plan it")
    assert caught.value.column == "prompt_type"


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["Plan it"]])
async def test_a_prompt_text_that_is_no_text_is_refused(db: DatabaseManager, agent_id: str, text: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_prompt", agent_id, "adw", text)
    assert caught.value.column == "prompt_text"


async def test_none_sets_null(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it", "plan", "completed", "claude", {"a": 1})
    await db.update_prompt(prompt_id, response_text="text", latency_ms=5, error_message="text", tokens_input=5)
    names = (
        *("prompt_name", "response_text", "model_used", "latency_ms", "completed_at", "error_message", "metadata"),
        *("cost_usd", *TOKENS),
    )
    await call(db, "update_prompt", prompt_id, **dict.fromkeys(names))
    row: Any = await found(db, prompt_id)
    assert [row[name] for name in names] == [None] * len(names)


@pytest.mark.spread
@pytest.mark.parametrize("number", [-1, 2**63, 1.5, "7", True, float("nan")])
@pytest.mark.parametrize("column", [*TOKENS, "latency_ms"])
async def test_a_count_is_a_whole_number_from_0(db: DatabaseManager, agent_id: str, column: str, number: Any) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "update_prompt", prompt_id, response_text="text", **{column: number})
    assert caught.value.column == column
    assert (await found(db, prompt_id))["response_text"] is None


async def test_the_largest_count_is_kept(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    await db.update_prompt(prompt_id, tokens_input=2**63 - 1, latency_ms=0)
    row = await found(db, prompt_id)
    assert (row["tokens_input"], row["latency_ms"]) == (2**63 - 1, 0)


async def test_usage_of_many_tasks_adds_up(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    amounts = {"tokens_input": 3, "tokens_output": 5, "tokens_cache_read": 7, "tokens_cache_write": 11}

    async def add() -> list[bool]:
        return [await db.add_prompt_usage(prompt_id, cost_usd=0.00003, **amounts) for _ in range(10)]

    results = await asyncio.gather(*(add() for _ in range(100)))
    assert all(all(result) for result in results)
    row = await found(db, prompt_id)
    assert [row["tokens_input"], row["tokens_output"], row["tokens_cache_read"], row["tokens_cache_write"]] == [
        amount * 1000 for amount in amounts.values()
    ]
    assert row["cost_usd"] == 0.03


async def test_usage_starts_from_nothing_and_can_be_partial(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    await db.update_prompt(prompt_id, tokens_input=None, cost_usd=None)
    assert await db.add_prompt_usage(prompt_id, tokens_input=4) is True
    assert await db.add_prompt_usage(prompt_id) is True
    row = await found(db, prompt_id)
    assert (row["tokens_input"], row["tokens_output"], row["cost_usd"]) == (4, 0, 0.0)
    assert await db.add_prompt_usage(NO_ROW, tokens_input=4) is False


@pytest.mark.parametrize(
    "amounts",
    [
        {"tokens_input": -1},
        {"tokens_output": None},
        {"tokens_cache_read": 1.5},
        {"tokens_cache_write": "1"},
        {"cost_usd": None},
        {"cost_usd": float("nan")},
    ],
)
async def test_what_is_no_amount_is_not_added(db: DatabaseManager, agent_id: str, amounts: dict[str, Any]) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    before = await found(db, prompt_id)
    with pytest.raises(InvalidValueError):
        await call(db, "add_prompt_usage", prompt_id, **amounts)
    assert await found(db, prompt_id) == before


async def test_a_count_beyond_its_column_is_not_stored(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    await db.update_prompt(prompt_id, tokens_input=2**63 - 1)
    with pytest.raises(InvalidValueError):
        await db.add_prompt_usage(prompt_id, tokens_input=1)
    assert (await found(db, prompt_id))["tokens_input"] == 2**63 - 1


async def test_a_soft_deletion_hides_the_prompt(db: DatabaseManager, agent_id: str) -> None:
    prompt_id = await db.create_prompt(agent_id, "adw", "Plan it")
    before = await found(db, prompt_id)
    assert await db.delete_prompt(prompt_id, soft=True) is True
    assert await db.get_prompt(prompt_id) is None
    assert await db.list_prompts(agent_id) == []
    assert await db.update_prompt(prompt_id, response_text="x") is False
    assert await db.add_prompt_usage(prompt_id, tokens_input=1) is False
    hidden = await db.get_prompt(prompt_id, include_deleted=True)
    assert hidden is not None
    assert await db.list_prompts(agent_id, include_deleted=True) == [hidden]
    assert hidden == {**before, "deleted_at": hidden["deleted_at"]}
    assert await db.restore_prompt(prompt_id) is True
    assert await found(db, prompt_id) == before


@pytest.mark.parametrize("missing", [NO_ROW, "no-uuid"])
async def test_an_agent_that_is_not_there_is_missing(db: DatabaseManager, missing: str) -> None:
    with pytest.raises(MissingParentError) as caught:
        await db.create_prompt(missing, "adw", "Plan it")
    assert (caught.value.table, caught.value.operation) == ("prompts", "create_prompt")
    assert await count(db, "prompts") == 0


async def test_lists_hold_the_prompts_of_one_agent_oldest_first(db: DatabaseManager, agent_id: str) -> None:
    other = await db.create_agent(await db.create_orchestrator_agent("other"), "session-2")
    ids = [await db.create_prompt(agent_id, "adw", f"{number}") for number in range(5)]
    await db.create_prompt(other, "adw", "of the other")
    await db.update_prompt(ids[2], status="failed")
    assert [row["id"] for row in await db.list_prompts(agent_id)] == ids
    assert [row["id"] for row in await db.list_prompts(agent_id, status="failed")] == [ids[2]]
    assert [row["id"] for row in await db.list_prompts(agent_id, status="pending", limit=2, offset=1)] == ids[1:4:2]


@pytest.mark.parametrize("nobody", ["no-uuid", "", 7, (), ["no-uuid", "nul\0"]])
async def test_the_prompts_of_nobody_are_none(db: DatabaseManager, agent_id: str, nobody: Any) -> None:
    await db.create_prompt(agent_id, "adw", "Plan it")
    assert await call(db, "list_prompts", nobody) == []

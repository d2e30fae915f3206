"""Prompts come to their end, and their cost to their agent."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError, MissingParentError, PromptRow
from orchdb.schema.values import MAX_BYTES
from tests.conftest import Target
from tests.support.databases import NO_ROW, ONE_FORM, call, dump, run_elsewhere

END: dict[str, Any] = {
    "response_text": "Here it is",
    "tokens_input": 1200,
    "tokens_output": 340,
    "tokens_cache_read": 5,
    "tokens_cache_write": 6,
    "cost_usd": 0.1,
    "latency_ms": 812,
    "model_used": "claude",
    "metadata": {"k": 1},
}


@pytest.fixture
async def prompt_id(db: DatabaseManager, agent_id: str) -> str:
    return await db.create_prompt(agent_id, "adw", "Plan it")


async def found(db: DatabaseManager, prompt_id: str) -> PromptRow:
    row = await db.get_prompt(prompt_id)
    assert row is not None
    return row


async def cost_of(db: DatabaseManager, agent_id: str) -> float | None:
    row = await db.get_agent(agent_id)
    assert row is not None
    return row["cost_usd"]


async def test_a_completed_prompt_has_what_came_back_and_its_agent_the_cost(
    db: DatabaseManager, agent_id: str, prompt_id: str
) -> None:
    before, agent = await found(db, prompt_id), await db.get_agent(agent_id)
    assert await db.complete_prompt(prompt_id, **END) is True
    row = await found(db, prompt_id)
    assert row == {**before, **END, "status": "completed", "completed_at": row["completed_at"]}
    assert re.fullmatch(ONE_FORM, row["completed_at"] or "")
    after = await db.get_agent(agent_id)
    assert agent is not None
    assert after is not None
    assert after == {**agent, "cost_usd": 0.1, "updated_at": after["updated_at"]}
    assert after["updated_at"] > agent["updated_at"]


async def test_repeated_it_changes_nothing_and_corrected_it_corrects_both(
    db: DatabaseManager, agent_id: str, prompt_id: str
) -> None:
    await db.add_agent_cost(agent_id, 1.0)
    await db.complete_prompt(prompt_id, **END)
    before = await dump(db)
    assert await db.complete_prompt(prompt_id, **END) is True
    assert await dump(db) == before
    assert await db.complete_prompt(prompt_id, cost_usd=0.3, tokens_output=7) is True
    row = await found(db, prompt_id)
    assert (row["cost_usd"], row["tokens_output"], row["tokens_input"], row["response_text"]) == (
        0.3,
        7,
        1200,
        "Here it is",
    )
    assert await cost_of(db, agent_id) == 1.3
    assert await db.complete_prompt(prompt_id, cost_usd=0.0) is True
    assert await cost_of(db, agent_id) == 1.0


async def test_what_is_not_given_stays_but_for_the_error(db: DatabaseManager, agent_id: str, prompt_id: str) -> None:
    await db.complete_prompt(prompt_id, "partly", status="failed", error_message="overloaded", cost_usd=0.2)
    failed = await found(db, prompt_id)
    assert (failed["status"], failed["error_message"]) == ("failed", "overloaded")
    await db.complete_prompt(prompt_id)
    assert await found(db, prompt_id) == {**failed, "status": "completed", "error_message": None}
    assert await cost_of(db, agent_id) == 0.2


async def test_a_cost_that_was_never_known_counts_as_nothing(
    db: DatabaseManager, agent_id: str, prompt_id: str
) -> None:
    await db.update_prompt(prompt_id, cost_usd=None)
    await db.update_agent(agent_id, cost_usd=None)
    await db.complete_prompt(prompt_id, cost_usd=0.5)
    assert await cost_of(db, agent_id) == 0.5


async def test_nothing_is_completed_where_nothing_is(db: DatabaseManager, agent_id: str, prompt_id: str) -> None:
    await db.delete_prompt(prompt_id, soft=True)
    before = await dump(db)
    for missing in (prompt_id, NO_ROW, "nonsense", "nul\0"):
        assert await db.complete_prompt(missing, cost_usd=0.5) is False
        assert await db.complete_prompt(missing) is False
        assert await db.append_prompt_response(missing, "x") is False
    assert await dump(db) == before


@pytest.mark.spread
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "pending"),
        ("status", "streaming"),
        ("status", None),
        ("status", ["completed"]),
        ("cost_usd", float("nan")),
        ("cost_usd", "0.1"),
        ("tokens_input", -1),
        ("latency_ms", 1.5),
        ("model_used", "x" * 501),
        ("response_text", b"x"),
        ("metadata", [1]),
    ],
)
async def test_a_wrong_value_is_refused_and_changes_nothing(
    db: DatabaseManager, prompt_id: str, name: str, value: Any
) -> None:
    before = await dump(db)
    for cost in ({}, {"cost_usd": 0.5}):
        with pytest.raises(InvalidValueError) as caught:
            await call(db, "complete_prompt", prompt_id, **{**cost, name: value})
        assert (caught.value.column, caught.value.operation) == (name, "complete_prompt")
    assert await dump(db) == before


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_each_end_sets_the_time_once(db: DatabaseManager, prompt_id: str, status: Any) -> None:
    await db.complete_prompt(prompt_id, status=status, cost_usd=0.1)
    first = await found(db, prompt_id)
    await db.complete_prompt(prompt_id, status="completed", cost_usd=0.2)
    assert (await found(db, prompt_id))["completed_at"] == first["completed_at"] is not None


async def test_a_completion_belongs_to_its_block(db: DatabaseManager, agent_id: str, prompt_id: str) -> None:
    async def undone() -> None:
        async with db.transaction() as tx:
            await tx.complete_prompt(prompt_id, "gone", cost_usd=0.5)
            raise ValueError("undo")

    with pytest.raises(ValueError, match="undo"):
        await undone()
    assert await cost_of(db, agent_id) == 0.0
    async with db.transaction() as tx:
        await tx.complete_prompt(prompt_id, "kept", cost_usd=0.5)
        with pytest.raises(InvalidValueError):
            await call(tx, "complete_prompt", prompt_id, 7, cost_usd=9.0)
        async with tx.transaction() as part:
            await part.complete_prompt(prompt_id, cost_usd=0.75)
    assert await cost_of(db, agent_id) == 0.75


async def test_a_completion_stays_when_a_later_call_of_its_block_fails(
    db: DatabaseManager, agent_id: str, prompt_id: str
) -> None:
    async with db.transaction() as tx:
        with pytest.raises(MissingParentError):
            await tx.create_agent_log(NO_ROW, "INFO", "error", "refused")
        await tx.complete_prompt(prompt_id, cost_usd=0.5)
        with pytest.raises(MissingParentError):
            await tx.create_agent_log(NO_ROW, "INFO", "error", "refused")
    assert [await cost_of(db, agent_id), (await found(db, prompt_id))["cost_usd"]] == [0.5, 0.5]


def nano(dollars: float | None) -> int:
    """The whole number of nano-dollars, which it is."""
    exact = Fraction(dollars or 0.0) * 10**9
    assert abs(exact - round(exact)) < Fraction(1, 100)
    return round(exact)


async def test_crossing_completions_leave_agents_the_exact_sums_of_their_prompts(
    db: DatabaseManager, agent_id: str
) -> None:
    randomness = random.Random(1)
    agent = await db.get_agent(agent_id)
    assert agent is not None
    others = [await db.create_agent(agent["orchestrator_agent_id"], "session") for _ in range(2)]
    owners = [agent_id, *others]
    ids = await db.create_prompts(
        [{"agent_id": owners[n % 3], "prompt_type": "adw", "prompt_text": f"{n}"} for n in range(30)]
    )
    costs = [0.1, 0.2, 0.3, 1e-9, 1234.567890123, 0.000000007, 2.675, 0.0]

    async def complete(number: int) -> None:
        for _ in range(12):
            cost = randomness.choice(costs)
            for _ in range(2):
                assert await db.complete_prompt(randomness.choice(ids), f"{number}", cost_usd=cost)

    await asyncio.gather(*(complete(number) for number in range(12)))
    for owner in owners:
        total = sum(nano(prompt["cost_usd"]) for prompt in await db.list_prompts(owner))
        cost = await cost_of(db, owner)
        assert cost == total / 1e9
        assert nano(cost) == total


async def test_many_corrections_leave_no_error(db: DatabaseManager, agent_id: str, prompt_id: str) -> None:
    async with db.transaction() as tx:
        for number in range(500):
            await tx.complete_prompt(prompt_id, cost_usd=0.1 + number % 7 * 0.3)
    assert await cost_of(db, agent_id) == (await found(db, prompt_id))["cost_usd"]


async def test_costs_that_no_column_could_hold_together_leave_the_agent_as_it_is(
    db: DatabaseManager, agent_id: str, prompt_id: str
) -> None:
    await db.add_agent_cost(agent_id, 1.7e308)
    assert await db.complete_prompt(prompt_id, cost_usd=1.7e308) is True
    assert await cost_of(db, agent_id) == 1.7e308


@contextmanager
def trigger(target: Target, sqlite: str, postgres: str) -> Iterator[None]:
    """A trigger of another program's, grim, before prompts are changed: the statement, or what its function does."""
    function = f"CREATE FUNCTION grim() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {postgres} END$$"
    made = "CREATE TRIGGER grim BEFORE UPDATE ON prompts FOR EACH ROW EXECUTE FUNCTION grim()"
    on_sqlite = target.engine == "sqlite"
    run_elsewhere(target.url, *([sqlite] if on_sqlite else [function, made]))
    try:
        yield
    finally:
        run_elsewhere(target.url, "DROP TRIGGER grim" if on_sqlite else "DROP FUNCTION grim() CASCADE")


async def test_a_trigger_that_refuses_the_prompt_keeps_the_cost_from_the_agent(
    db: DatabaseManager, target: Target, agent_id: str, prompt_id: str
) -> None:
    with trigger(
        target,
        "CREATE TRIGGER grim BEFORE UPDATE ON prompts BEGIN SELECT RAISE(ABORT, 'never'); END",
        "RAISE EXCEPTION 'never';",
    ):
        before = await dump(db)
        failures = await asyncio.gather(
            *(db.complete_prompt(prompt_id, cost_usd=0.5) for _ in range(3)),
            db.add_agent_cost(agent_id, 0.0),
            return_exceptions=True,
        )
        assert [type(failure) for failure in failures[:3]] == [InvalidValueError] * 3
        assert failures[3] is True
        after = await dump(db)
        assert after["prompts"] == before["prompts"]
        assert after["agents"][0]["cost_usd"] == 0.0


async def test_what_a_trigger_keeps_from_the_prompt_it_keeps_from_the_agent(
    db: DatabaseManager, target: Target, agent_id: str, prompt_id: str
) -> None:
    others = await db.create_prompts([{"agent_id": agent_id, "prompt_type": "adw", "prompt_text": "x"}] * 3)
    refuses = f"OLD.id = '{prompt_id}'"
    with trigger(
        target,
        f"CREATE TRIGGER grim BEFORE UPDATE ON prompts WHEN {refuses} BEGIN SELECT RAISE(IGNORE); END",
        f"IF {refuses} THEN RETURN NULL; END IF; RETURN NEW;",
    ):
        before = await dump(db)
        assert await db.complete_prompt(prompt_id, cost_usd=0.5) is False
        assert await dump(db) == before
        ids = [prompt_id, *others]
        done = await asyncio.gather(*(db.complete_prompt(each, cost_usd=0.5) for each in ids))
        assert done == [False, True, True, True]
        async with db.transaction() as tx:
            assert await tx.complete_prompt(prompt_id, cost_usd=0.5) is False
            assert await tx.complete_prompt(others[0], cost_usd=0.75) is True
        assert await cost_of(db, agent_id) == 1.75
        assert (await found(db, prompt_id))["cost_usd"] == 0.0


async def test_a_cost_that_a_trigger_changes_on_its_way_reaches_the_agent_as_it_is_stored(
    db: DatabaseManager, target: Target, agent_id: str, prompt_id: str
) -> None:
    if target.engine == "sqlite":
        pytest.skip("no trigger of SQLite's can change a value on its way")
    with trigger(target, "", "NEW.cost_usd = least(NEW.cost_usd, 0.25); RETURN NEW;"):
        for _ in range(2):
            assert await db.complete_prompt(prompt_id, cost_usd=0.5) is True
    assert [await cost_of(db, agent_id), (await found(db, prompt_id))["cost_usd"]] == [0.25, 0.25]


async def test_a_stream_is_appended_piece_by_piece(db: DatabaseManager, prompt_id: str) -> None:
    await db.update_prompt(prompt_id, status="streaming")
    for piece in ("Grüße", "", " 世界", "!\n"):
        assert await db.append_prompt_response(prompt_id, piece) is True
    row = await found(db, prompt_id)
    assert (row["response_text"], row["status"]) == ("Grüße 世界!\n", "streaming")
    for wrong in (None, 7, b"x"):
        with pytest.raises(InvalidValueError) as caught:
            await call(db, "append_prompt_response", prompt_id, wrong)
        assert caught.value.column == "response_text"
    await asyncio.gather(*(db.append_prompt_response(prompt_id, ".") for _ in range(50)))
    assert (await found(db, prompt_id))["response_text"] == "Grüße 世界!\n" + "." * 50


async def test_a_response_grows_no_larger_than_a_text_may_be(db: DatabaseManager, prompt_id: str) -> None:
    most = MAX_BYTES
    await db.update_prompt(prompt_id, response_text="ü" * (most // 2 - 1))
    with pytest.raises(InvalidValueError) as caught:
        await db.append_prompt_response(prompt_id, "üü")
    assert (caught.value.column, caught.value.operation) == ("response_text", "append_prompt_response")
    assert await db.append_prompt_response(prompt_id, "ü") is True

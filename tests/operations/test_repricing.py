"""Prices of requests, and prompts that are priced anew."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError, NaiveDatetimeWarning, PromptRow, prices
from orchdb.repricing import apply_repriced, find_repriced
from tests.conftest import Target
from tests.support.databases import call, run_elsewhere

MODEL = "claude-sonnet-4-5"
USAGE = {"tokens_input": 1_000, "tokens_output": 500, "tokens_cache_read": 10_000, "tokens_cache_write": 2_000}
DOLLARS = 1_000 * 3e-6 + 500 * 15e-6 + 10_000 * 0.3e-6 + 2_000 * 3.75e-6
_WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted"
AT = "2025-11-01T10:00:00"


def test_a_request_costs_what_the_list_says_with_each_kind_of_token_at_its_own_price() -> None:
    assert prices.cost_of(MODEL, USAGE, at=AT) == round(DOLLARS, 9)
    assert prices.cost_of(MODEL, {"tokens_output": 500}, at=AT) == 0.0075
    assert prices.cost_of(MODEL, {}, at=AT) == 0.0
    assert prices.price_list().startswith("genai-prices 0.2")


def test_a_cache_write_that_is_kept_for_an_hour_costs_twice_the_input() -> None:
    an_hour = prices.cost_of(MODEL, {"tokens_cache_write": 1_000, "tokens_cache_write_1h": 1_000}, at=AT)
    assert an_hour == 1_000 * 6e-6


def test_searches_have_a_price_of_their_own() -> None:
    assert prices.cost_of(MODEL, {"web_searches": 3}, at=AT) == 0.03


def test_an_unknown_model_has_no_price() -> None:
    with pytest.raises(LookupError):
        prices.cost_of("nobody's model", USAGE, at=AT)


def test_prices_are_those_of_the_time_of_the_request() -> None:
    before, after = "2025-05-01T10:00:00", "2025-05-01T17:00:00"  # this one has cheaper hours
    prices_of = [prices.cost_of("deepseek-chat", {"tokens_input": 1_000_000}, at=at) for at in (before, after)]
    assert prices_of == [0.27, 0.135]
    assert prices.cost_of("deepseek-chat", {"tokens_input": 1_000_000}, at="2025-05-01T12:00:00-05:00") == 0.135


def test_a_long_request_is_priced_as_one_and_not_as_several() -> None:
    long, short = ({"tokens_input": 1, "tokens_cache_read": read} for read in (250_000, 125_000))
    assert prices.cost_of("gemini-2.5-pro", long, at=AT) > 2 * prices.cost_of("gemini-2.5-pro", short, at=AT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((MODEL, {"input_tokens": 1}), "usage: input_tokens is not one of tokens_input, tokens_output"),
        ((MODEL, {"tokens_input": 1, "cost_usd": 2}), "usage: cost_usd is not one of"),
        ((MODEL, {5: 1}), "usage: 5 is not one of"),
        ((MODEL, None), "usage: "),
        ((MODEL, {"tokens_input": -1}), "tokens_input: must be a whole number from 0"),
        ((MODEL, {"tokens_output": 1.5}), "tokens_output: must be a whole number from 0"),
        ((MODEL, {"tokens_output": "many"}), "tokens_output: must be a whole number from 0"),
        ((MODEL, {"tokens_cache_write": 1, "tokens_cache_write_1h": 2}), "tokens_cache_write_1h: is a part of"),
        ((None, {}), "model: must be text"),
        ((MODEL, {}, "yesterday"), "at: must be a datetime or an ISO 8601 text"),
        ((MODEL, {}, 5), "at: must be a datetime or an ISO 8601 text"),
        ((MODEL, {}, "0001-01-01T00:00:00+05:00"), "at: must be a datetime or an ISO 8601 text"),
    ],
)
def test_what_cannot_be_priced_is_refused_by_name_and_costs_not_nothing(arguments: Any, said: str) -> None:
    model, usage, *at = arguments
    with pytest.raises(InvalidValueError, match=said):
        prices.cost_of(model, usage, at=at[0] if at else AT)


def test_a_request_without_a_zone_is_of_utc_and_a_datetime_without_one_warns_where_it_was_given() -> None:
    assert prices.cost_of("deepseek-chat", {"tokens_input": 1_000_000, "tokens_output": 0}, at=" 2025-05-01T17:00 ")
    with pytest.warns(NaiveDatetimeWarning) as warned:
        usd = prices.cost_of("deepseek-chat", {"tokens_input": 1_000_000}, at=datetime(2025, 5, 1, 17))
    assert (usd, warned[0].filename) == (0.135, __file__)


def test_without_the_list_of_prices_it_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    for ask in (prices.price_list, lambda: prices.cost_of(MODEL, {"tokens_input": 12_345}, at=AT)):
        with pytest.raises(ImportError, match=r"pip install 'orchdb\[prices\]'"):
            ask()


async def prompt_of(db: DatabaseManager, agent_id: str, cost_usd: float | None, **values: Any) -> str:
    values = {"model_used": MODEL, "status": "completed", "created_at": AT, **USAGE, **values}
    return str(await call(db, "create_prompt", agent_id, "command", "x", cost_usd=cost_usd, **values))


async def found(db: DatabaseManager, prompt: str) -> PromptRow:
    row = await db.get_prompt(prompt)
    assert row is not None
    return row


async def test_only_what_nobody_has_reported_is_priced_and_only_when_it_is_applied(
    db: DatabaseManager, agent_id: str
) -> None:
    unknown = await prompt_of(db, agent_id, None, metadata={"tokens_cache_write_1h": 2_000, "kept": 1})
    older = await prompt_of(db, agent_id, 9.0, metadata={"price_list": "genai-prices 0.0.1"})
    reported = await prompt_of(db, agent_id, 9.0, metadata={"price_list": "reported"})
    told = await prompt_of(db, agent_id, 9.0)
    await prompt_of(db, agent_id, None, model_used="nobody's model")
    await prompt_of(db, agent_id, None, status="streaming")
    zero = await prompt_of(db, agent_id, 0.0)
    an_hour = round(DOLLARS + 2_000 * 2.25e-6, 9)
    repricing = await find_repriced(db)
    assert [(one["id"], one["old_usd"], one["new_usd"]) for one in repricing["prompts"]] == [
        (unknown, None, an_hour),
        (older, 9.0, round(DOLLARS, 9)),
    ]
    assert repricing["unknown_models"] == {"nobody's model": 1}
    assert (await found(db, unknown))["cost_usd"] is None
    assert await apply_repriced(db, repricing) == 2
    row = await found(db, unknown)
    assert (row["cost_usd"], row["status"], row["error_message"]) == (an_hour, "completed", None)
    assert row["metadata"] == {"tokens_cache_write_1h": 2_000, "kept": 1, "price_list": prices.price_list()}
    assert [(await found(db, prompt))["cost_usd"] for prompt in (reported, told, zero)] == [9.0, 9.0, 0.0]
    assert (await find_repriced(db))["prompts"] == []
    assert [one["id"] for one in (await find_repriced(db, zeros=True))["prompts"]] == [zero]


async def test_what_is_priced_is_all_there_is_however_many_and_nothing_without_tokens(
    db: DatabaseManager, agent_id: str
) -> None:
    row: Any = {"agent_id": agent_id, "prompt_type": "command", "prompt_text": "x", "status": "completed"}
    row |= {"model_used": MODEL, "created_at": AT, "cost_usd": None}
    asked: list[Any] = [{**row, "tokens_output": 500}] * 501
    searched: Any = {**row, "tokens_output": 500, "metadata": {"web_searches": 2}}
    await db.create_prompts([*asked, row, searched])
    repricing = await find_repriced(db)
    assert [one["new_usd"] for one in repricing["prompts"]] == [0.0075] * 501 + [0.0275]
    assert await apply_repriced(db, repricing) == 502
    (total,) = await db.usage(())
    assert (total["cost_usd"], total["unpriced"]) == (3.785, 1)


async def test_no_dollar_is_counted_twice_that_an_agent_was_told_in_all(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    told = await db.create_agent(definition, "told", cost_usd=5.0)
    await prompt_of(db, told, None)
    summed = await db.create_agent(definition, "summed", cost_usd=9.5)
    await prompt_of(db, summed, 9.5)
    await prompt_of(db, summed, None)
    copied = await db.create_agent(definition, "copied", cost_usd=0.0)
    await prompt_of(db, copied, 9.5)
    await prompt_of(db, copied, None)
    corrected = await db.create_agent(definition, "corrected", cost_usd=1.0)
    await prompt_of(db, corrected, 1.0, metadata={"price_list": "genai-prices 0.0.1"})
    assert await apply_repriced(db, await find_repriced(db)) == 4
    new = round(DOLLARS, 9)
    rows: list[Any] = await db.usage()
    assert {row["session"]: (row["cost_usd"], row["unattributed_usd"]) for row in rows} == {
        "told": (5.0, round(5.0 - new, 9)),
        "summed": (9.5 + new, 0.0),
        "copied": (9.5 + new, 0.0),
        "corrected": (new, 0.0),
    }
    costs = {row["session_id"]: row["cost_usd"] for row in await db.list_agents()}
    assert costs == {"told": 5.0, "summed": 9.5 + new, "copied": 0.0, "corrected": new}


async def test_what_changed_meanwhile_stays_as_it_is(db: DatabaseManager, agent_id: str) -> None:
    prompt = await prompt_of(db, agent_id, None)
    gone = await prompt_of(db, agent_id, None)
    await prompt_of(db, agent_id, 0.0)
    repricing = await find_repriced(db, session_id=["session-1"], since="2025-01-01", until="2026-01-01")
    await db.update_prompt(prompt, cost_usd=1.0)
    await db.delete_prompt(gone)
    assert await apply_repriced(db, repricing) == 0
    assert (await found(db, prompt))["cost_usd"] == 1.0
    other: tuple[dict[str, Any], ...] = ({"session_id": ["another"]}, {"since": "2025-11-02"}, {"until": AT})
    for filters in other:
        assert (await find_repriced(db, **filters, zeros=True))["prompts"] == []


@pytest.mark.parametrize("report", ["complete_prompt", "update_prompt"])
async def test_a_cost_that_is_reported_while_prices_are_written_is_not_lost(
    db: DatabaseManager, target: Target, agent_id: str, report: str
) -> None:
    prompts = [await prompt_of(db, agent_id, None) for _ in range(3)]
    repricing = await find_repriced(db)
    async with DatabaseManager(target.url) as other:
        async with other.transaction() as tx:
            await call(tx, report, prompts[1], cost_usd=7.0)
            writing = asyncio.create_task(apply_repriced(db, repricing))
            while target.engine != "sqlite" and not run_elsewhere(
                target.url, "SELECT 1 FROM pg_locks WHERE NOT granted"
            ):
                await asyncio.sleep(0.01)
        assert await writing == 2
    assert [(await found(db, prompt))["cost_usd"] for prompt in prompts] == [round(DOLLARS, 9), 7.0, round(DOLLARS, 9)]
    (total,) = await db.usage(())
    agent = await db.get_agent(agent_id)
    assert agent is not None
    assert (total["cost_usd"], total["unattributed_usd"]) == (round(7.0 + 2 * round(DOLLARS, 9), 9), 0.0)
    if report == "complete_prompt":
        assert agent["cost_usd"] == total["cost_usd"]


@pytest.mark.parametrize(
    "change",
    [
        {"tokens_output": 501},
        {"model_used": "claude-opus-4-1"},
        {"status": "streaming"},
        {"metadata": {"tokens_cache_write_1h": 1}},
        {"metadata": {"tokens_cache_write_1h": 10**6}},
    ],
)
async def test_a_price_is_only_written_for_what_it_is_the_price_of(
    db: DatabaseManager, agent_id: str, change: dict[str, Any]
) -> None:
    prompt = await prompt_of(db, agent_id, None)
    repricing = await find_repriced(db)
    await call(db, "update_prompt", prompt, **change)
    assert await apply_repriced(db, repricing) == 0
    assert (await found(db, prompt))["cost_usd"] is None


async def test_a_cost_that_was_reported_since_stays_though_it_is_the_same(db: DatabaseManager, agent_id: str) -> None:
    prompt = await prompt_of(db, agent_id, 9.0, metadata={"price_list": "genai-prices 0.0.1"})
    repricing = await find_repriced(db)
    await db.complete_prompt(prompt, cost_usd=9.0, metadata={"price_list": "reported"})
    assert await apply_repriced(db, repricing) == 0
    assert (await found(db, prompt))["cost_usd"] == 9.0

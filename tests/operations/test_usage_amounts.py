"""Usage of amounts of any size, and of what other programs take for one: a sum is given, and is the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager
from tests.conftest import Target
from tests.support.databases import call, other_program, run_elsewhere
from tests.support.usage_model import Model

GROUPS: tuple[tuple[str, ...], ...] = ((), ("session",), ("agent",), ("model",), ("day",), ("session", "status"))


async def filled(db: DatabaseManager, *costs: float | None, **values: Any) -> list[str]:
    """Prompts of two agents in turn, which cost so much."""
    definition = await db.create_orchestrator_agent("scout")
    agents = [await db.create_agent(definition, f"session-{number}", cost_usd=0.0) for number in range(2)]
    return [
        await call(db, "create_prompt", agents[place % 2], "command", "x", cost_usd=usd, **values)
        for place, usd in enumerate(costs)
    ]


async def answers(db: DatabaseManager) -> list[list[dict[str, Any]]]:
    """What is said of everything, in each grouping, with percentiles and without."""
    found = [await call(db, "usage", group, percentiles=more) for group in GROUPS for more in (False, True)]
    json.dumps([*found, await db.agent_tree("session-0")], allow_nan=False)
    return found


@pytest.mark.parametrize("usd", [1e-9, 0.1, 4_000_000.000000001, 4_194_304.0, 8_900_000.25, 9_007_199.5, 1e9, -7.5])
async def test_dollars_are_exact_to_the_last_digit_that_a_row_has(db: DatabaseManager, usd: float) -> None:
    await filled(db, usd, usd, 0.25, usd)
    model = await Model.of(db)
    assert await answers(db) == [model.usage(group, percentiles=more) for group in GROUPS for more in (False, True)]


@pytest.mark.parametrize("usd", [3.9e9, 5e9, 1e300])
async def test_what_costs_more_than_there_is_counts_as_billions_and_not_as_nothing(
    db: DatabaseManager, usd: float
) -> None:
    await filled(db, usd, usd, usd, 1.0, usd, usd)
    for rows in await answers(db):
        assert sum(row["cost_usd"] for row in rows) >= 4e9
        assert sum(row["unpriced"] for row in rows) == 0
    (total,) = await db.usage(())
    assert total["cost_usd"] == 4.6e9
    for agent in await db.list_agents():
        await db.update_agent(agent["id"], cost_usd=usd)
    assert (await db.usage(()))[0]["cost_usd"] >= 4.6e9


async def test_more_tokens_than_64_bits_hold_are_as_many_as_they_hold(db: DatabaseManager) -> None:
    most = 2**63 - 1
    await filled(db, *[1.0] * 5, tokens_input=most, tokens_cache_read=2**62, latency_ms=most)
    for rows in await answers(db):
        assert sum(row["cost_usd"] for row in rows) == 5.0
        assert all(row["tokens_input"] >= 4.5e18 and row["latency_ms_max"] == most for row in rows)


@pytest.mark.parametrize("spelling", ["'NaN'", "'Infinity'", "'-Infinity'", "NULL"])
async def test_what_a_row_shows_as_no_cost_is_unpriced(db: DatabaseManager, target: Target, spelling: str) -> None:
    prompts = await filled(db, 1.0, 1.0, 1.0)
    if target.engine == "sqlite":
        spelling = {"'Infinity'": "9e999", "'-Infinity'": "-9e999"}.get(spelling, spelling)
    run_elsewhere(
        target.url,
        f"UPDATE prompts SET cost_usd = {spelling} WHERE id = '{prompts[0]}'",
        f"UPDATE agents SET cost_usd = {spelling}",
    )
    row = await db.get_prompt(prompts[0])
    assert row is not None
    assert row["cost_usd"] is None
    for rows in await answers(db):
        assert [sum(row[name] for row in rows) for name in ("prompts", "unpriced", "cost_usd")] == [3, 1, 2.0]


@pytest.mark.parametrize(
    ("spelling", "nanos"),
    [("1.25e-8", 13), ("3.75e-8", 38), ("2.5e-9", 3), ("5e-10", 1), ("4.9e-10", 0)],
)
async def test_parts_of_a_nano_dollar_are_rounded_the_same_on_both_engines(
    db: DatabaseManager, target: Target, spelling: str, nanos: int
) -> None:
    (prompt,) = await filled(db, 1.0)
    run_elsewhere(target.url, f"UPDATE prompts SET cost_usd = {spelling} WHERE id = '{prompt}'")
    for rows in await answers(db):
        assert [row["cost_usd"] for row in rows] == [nanos / 10**9]


@pytest.mark.parametrize("column", ["tokens_input", "tokens_cache_write", "latency_ms", "cost_usd"])
@pytest.mark.parametrize(
    "value", ["'many'", "''", "'12 or so'", "1.5", "-5", "1e300", "9e18", "-9e18", "9223372036854775807", "9e999"]
)
async def test_another_programs_amounts_break_no_answer(tmp_path: Path, column: str, value: str) -> None:
    async with DatabaseManager(tmp_path / "x.db") as db:
        prompts = await filled(db, *[1.0] * 4, tokens_output=3)
        with other_program(tmp_path / "x.db") as other:
            for prompt in prompts[:3]:
                other.execute(f"UPDATE prompts SET {column} = {value} WHERE id = ?", (prompt,))
        shown = [row["cost_usd"] for row in await db.list_prompts()]
        for rows in await answers(db):
            assert [sum(row[name] for row in rows) for name in ("prompts", "tokens_output")] == [4, 12]
            assert sum(row["unpriced"] for row in rows) == shown.count(None)
            if column != "cost_usd":
                assert sum(row["cost_usd"] for row in rows) == 4.0


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
async def test_days_of_any_year_have_ten_characters_and_come_in_time(db: DatabaseManager, zone: str) -> None:
    definition = await db.create_orchestrator_agent("scout")
    agent = await db.create_agent(definition, "session-1")
    years = ("0001-06-01", "0999-06-01", "1969-12-31", "2026-01-01", "9999-06-01")
    for year in years:
        await db.create_prompt(agent, "command", "x", created_at=f"{year}T12:00:00", cost_usd=1.0)
    for key, length in (("day", 10), ("hour", 16)):
        rows: list[Any] = await call(db, "usage", key, tz=zone)
        found = [row[key] for row in rows]
        assert found == sorted(found)
        assert [len(time) for time in found] == [length] * 5

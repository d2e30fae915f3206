"""Ids by their beginnings: found, and made as short as they can be."""

from __future__ import annotations

import sqlite3
from uuid import UUID

import pytest

from orchdb import DatabaseManager
from orchdb.inspection.identifiers import SHORTEST, Place, find, find_sessions, shortened, shortened_sessions
from orchdb.inspection.sessions import list_sessions
from tests.conftest import Target

ALIKE = [
    "01a215e6-7d07-7e8b-b88c-a39403ff78f4",
    "01a215e6-7d07-7e8b-b88c-a39403ff78f5",
    "01a215e6-7d07-7e8c-b88c-a39403ff78f4",
    "01a215e7-0000-7000-8000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
]


@pytest.fixture
async def ids(db: DatabaseManager) -> list[str]:
    """Agents whose ids begin alike."""
    definition = await db.create_orchestrator_agent("scout")
    return [await db.create_agent(definition, f"s{name}", id=name) for name in ALIKE]


async def test_an_id_is_shortened_to_what_no_other_one_begins_with(db: DatabaseManager, ids: list[str]) -> None:
    short = await shortened(db, ids)
    assert short == {
        ALIKE[0]: ALIKE[0],
        ALIKE[1]: ALIKE[1],
        ALIKE[2]: ALIKE[2][:18],
        ALIKE[3]: ALIKE[3][:SHORTEST],
        ALIKE[4]: ALIKE[4][:SHORTEST],
    }
    assert [await find(db, beginning) for beginning in short.values()] == [[Place("agents", one)] for one in ids]
    definition = (await db.list_orchestrator_agents())[0]["id"]
    for name in (*ALIKE, "by hand"):
        await db.create_agent(definition, name)
    assert await shortened_sessions(db, [*ids, "by hand"]) == {**short, "by hand": "by hand"}


@pytest.mark.parametrize(
    ("beginning", "found"),
    [
        (ALIKE[0].upper(), ALIKE[:1]),
        ("01a215e6-7d07-7e8", ALIKE[:3]),
        ("01a215e6-7d07-", ALIKE[:3]),
        ("01A215", ALIKE[:4]),
        ("f", ALIKE[4:]),
        ("", []),
        ("%", []),
        ("01a215e6_", []),
        ("01a215e67d07", []),
        ("0" * 40, []),
        ("\x00", []),
    ],
)
async def test_a_beginning_finds_all_that_begin_so(
    db: DatabaseManager, ids: list[str], beginning: str, found: list[str]
) -> None:
    assert [place.id for place in await find(db, beginning) if place.table == "agents"] == found


async def test_a_session_is_found_by_its_name_and_letters_count(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    for name in ("run", "run_2", "runs", "Run", "100%"):
        await db.create_agent(definition, name)
    assert await find_sessions(db, "run") == ["run"]
    assert sorted(await find_sessions(db, "ru")) == ["run", "run_2", "runs"]
    assert await find_sessions(db, "run_") == ["run_2"]
    assert await find_sessions(db, "100%") == ["100%"]


async def test_a_line_of_a_log_is_found_by_its_number(db: DatabaseManager) -> None:
    number = await db.create_system_log("INFO", "here", "there")
    assert await find(db, str(number)) == [Place("system_logs", str(number))]
    assert await find(db, "9" * 30) == []


async def test_an_id_that_is_no_uuid_is_found_by_its_beginning(target: Target) -> None:
    if target.engine != "sqlite":
        return  # there it cannot be
    async with DatabaseManager(target.url) as db:
        connection = sqlite3.connect(target.path)
        connection.execute(
            "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('adw-orchestrator', 'a', 'b')"
        )
        connection.commit()
        connection.close()
        assert await find(db, "adw-o") == [Place("orchestrator_agents", "adw-orchestrator")]


async def test_a_session_costs_what_its_prompts_cost_or_what_its_agents_carry(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    for carried, asked in ((1.0, (0.25, 0.25)), (0.0, (0.1, 0.2)), (0.5, ())):
        agent = await db.create_agent(definition, "sums", cost_usd=carried, id=UUID(int=int(carried * 10) + 1))
        for cost in asked:
            await db.create_prompt(agent, "command", "x", cost_usd=cost, tokens_input=1, tokens_cache_write=2)
    gone = await db.create_agent(definition, "sums", cost_usd=100.0, status="failed")
    await db.delete_agent(gone, soft=True)
    (row,) = await list_sessions(db)
    assert row["cost_usd"] == 1.8
    numbers = (row["agents"], row["failed"], row["prompts"], row["tokens_input"], row["tokens_cache_write"])
    assert numbers == (3, 0, 4, 4, 8)
    assert row["first_at"] <= row["last_at"]
    assert await list_sessions(db, session_id=["other"]) == []
    assert await list_sessions(db, limit=0) == []

"""Rows that other programs wrote into the SQLite file with plain SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, DuplicateError, MissingParentError, cursor_of
from tests.support.databases import TABLES, other_program

FIRST_REVISION_INSERTS = [
    "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('adw-orchestrator', 'adw', 'orchestrator')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id) VALUES ('agent 1', 'adw-orchestrator', 's')",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text) VALUES ('prompt/1', 'agent 1', 'adw', 'Plan it')",
    "INSERT INTO agent_logs (agent_id, log_type, message) VALUES ('agent 1', 'milestone', 'x')",
    "INSERT INTO system_logs (component, message) VALUES ('scheduler', 'x')",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of ``db``."""
    return tmp_path / "orchestrator.db"


@pytest.fixture
async def db(path: Path) -> AsyncIterator[DatabaseManager]:
    """A manager on an SQLite file."""
    async with DatabaseManager(path) as manager:
        yield manager


def run(path: Path, *statements: str) -> None:
    with other_program(path) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_inserts_written_for_the_first_revision_still_work(db: DatabaseManager, path: Path) -> None:
    run(path, *FIRST_REVISION_INSERTS)
    definition: Any = await db.get_orchestrator_agent("adw-orchestrator")
    agent: Any = await db.get_agent("agent 1")
    prompt: Any = await db.get_prompt("prompt/1")
    log = (await db.get_agent_logs("agent 1"))[0]
    system_log = (await db.get_system_logs())[0]
    assert definition["name"] == "adw"
    assert (agent["status"], agent["cost_usd"]) == ("initializing", 0.0)
    assert (prompt["status"], prompt["tokens_input"], prompt["tokens_cache_read"]) == ("pending", 0, 0)
    assert log["log_level"] == system_log["log_level"] == "INFO"
    now = datetime.now(UTC)
    for row in (definition, agent, prompt, log, system_log):
        assert len(row["created_at"]) == 26
        assert abs(datetime.fromisoformat(row["created_at"]).replace(tzinfo=UTC) - now) < timedelta(minutes=5)


async def test_ids_that_are_no_uuids_work_everywhere(db: DatabaseManager, path: Path) -> None:
    run(path, *FIRST_REVISION_INSERTS)
    assert await db.update_orchestrator_agent("adw-orchestrator", description="old") is True
    agent = await db.create_agent("adw-orchestrator", "s", parent_agent_id="agent 1")
    assert [row["id"] for row in await db.list_agents(orchestrator_agent_id="adw-orchestrator")] == [agent, "agent 1"]
    assert await db.update_agent("agent 1", status="completed") is True
    assert await db.add_agent_cost("agent 1", 0.5) is True
    await db.create_prompt("agent 1", "adw", "new")
    await db.create_agent_log("agent 1", "INFO", "milestone", "new")
    assert len(await db.list_prompts("agent 1")) == 2
    page = await db.list_agents(limit=1)
    assert [row["id"] for row in await db.list_agents(after=cursor_of(page[0]))] == ["agent 1"]
    with pytest.raises(MissingParentError):
        await db.create_agent("adw-nobody", "s")
    assert await db.delete_agent("agent 1", soft=True) is True
    assert await db.restore_agent("agent 1") is True
    assert await db.delete_orchestrator_agent("adw-orchestrator") is True
    assert await db.list_agents() == []


@pytest.mark.parametrize(
    "text", ["not json", "", "{'single': 'quotes'}", "{'a': NaN}", "[1,", "[" * 5000, "a,b,c", "2026-01-01"]
)
async def test_text_that_is_not_json_comes_back_as_that_text(db: DatabaseManager, path: Path, text: str) -> None:
    run(path, *FIRST_REVISION_INSERTS)
    with other_program(path) as connection:
        connection.execute("UPDATE agents SET context = ?, config = ?, metadata = ?", (text, text, text))
        connection.execute("UPDATE agent_logs SET details = ?", (text,))
    agent: Any = await db.get_agent("agent 1")
    assert [agent["context"], agent["config"], agent["metadata"]] == [text] * 3
    assert (await db.get_agent_logs("agent 1"))[0]["details"] == text
    json.dumps(agent, allow_nan=False)


async def test_json_of_other_programs_is_read(db: DatabaseManager, path: Path) -> None:
    run(path, *FIRST_REVISION_INSERTS)
    with other_program(path) as connection:
        connection.execute("UPDATE agents SET context = ?", (json.dumps({"größe": "😀", "n": None}, indent=2),))
        connection.execute("UPDATE agents SET config = ?", (b'{"bytes": true}',))
        connection.execute("UPDATE agent_logs SET details = 7")
        connection.execute("UPDATE system_logs SET details = ?", (json.dumps({"cost": float("nan")}),))
    agent: Any = await db.get_agent("agent 1")
    assert agent["context"] == {"größe": "😀", "n": None}
    assert agent["config"] == {"bytes": True}
    assert (await db.get_agent_logs("agent 1"))[0]["details"] == 7
    json.dumps(await db.get_system_logs(), allow_nan=False)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-02-04 10:30:00", "2026-02-04T10:30:00.000000"),
        ("2026-02-04 10:30:00.123456", "2026-02-04T10:30:00.123456"),
        ("2026-02-04T10:30:00", "2026-02-04T10:30:00.000000"),
        ("2026-02-04T10:30:00.123456", "2026-02-04T10:30:00.123456"),
        ("2026-02-04T10:30:00.123456Z", "2026-02-04T10:30:00.123456"),
        ("2026-02-04T10:30:00.123456+00:00", "2026-02-04T10:30:00.123456"),
        ("2026-02-04T10:30:00+00:00", "2026-02-04T10:30:00.000000"),
        ("2026-02-04T10:30:00.500+05:30", "2026-02-04T05:00:00.500000"),
        ("2026-02-04T10:30:00Z", "2026-02-04T10:30:00.000000"),
        ("2026-02-04 10:30", "2026-02-04T10:30:00.000000"),
        ("2026-02-04", "2026-02-04T00:00:00.000000"),
    ],
)
async def test_a_creation_time_in_another_form_is_brought_into_the_one_form(
    db: DatabaseManager, path: Path, written: str, expected: str
) -> None:
    run(path, *FIRST_REVISION_INSERTS)
    copies = {
        "orchestrator_agents": "(id, name, agent_type, created_at) VALUES ('x', 'x', 'utility', ?)",
        "agents": "(id, orchestrator_agent_id, session_id, created_at) VALUES ('x', 'adw-orchestrator', 's', ?)",
        "prompts": "(id, agent_id, prompt_type, prompt_text, created_at) VALUES ('x', 'agent 1', 'adw', 'x', ?)",
        "agent_logs": "(agent_id, log_type, message, created_at) VALUES ('agent 1', 'x', 'new', ?)",
        "system_logs": "(component, message, created_at) VALUES ('x', 'new', ?)",
    }
    with other_program(path) as connection:
        for table, insert in copies.items():
            connection.execute(f"INSERT INTO {table} {insert}", (written,))
            found = connection.execute(f"SELECT created_at FROM {table} ORDER BY rowid DESC LIMIT 1").fetchone()
            assert found == (expected,), table
    assert (await db.get_system_logs())[0]["created_at"] == expected


async def test_other_times_are_read_in_the_one_form(db: DatabaseManager, path: Path) -> None:
    run(
        path,
        *FIRST_REVISION_INSERTS,
        "UPDATE agents SET started_at = '2026-02-04 10:30:00', completed_at = '2026-02-04T12:00:00+02:00'",
        "UPDATE prompts SET completed_at = 'yesterday'",
        "UPDATE orchestrator_agents SET deleted_at = '0001-01-01T00:00:00+05:00'",
    )
    agent: Any = await db.get_agent("agent 1")
    prompt: Any = await db.get_prompt("prompt/1")
    assert agent["started_at"] == "2026-02-04T10:30:00.000000"
    assert agent["completed_at"] == "2026-02-04T10:00:00.000000"
    assert prompt["completed_at"] == "yesterday"
    definition: Any = await db.get_orchestrator_agent("adw-orchestrator", include_deleted=True)
    assert definition["deleted_at"] == "0001-01-01T00:00:00+05:00"


async def test_foreign_rows_sort_page_and_prune_like_ours(db: DatabaseManager, path: Path) -> None:
    base = datetime(2026, 1, 1, tzinfo=UTC)
    with other_program(path) as connection:
        for hour in range(24):
            moment = base + timedelta(hours=hour)
            form = (moment.strftime("%Y-%m-%d %H:%M:%S"), moment.isoformat(), f"{moment:%Y-%m-%dT%H:%M:%S}.000000")
            statement = "INSERT INTO system_logs (component, message, created_at) VALUES ('x', ?, ?)"
            connection.execute(statement, (str(hour), form[hour % 3]))
        connection.execute(
            "INSERT INTO system_logs (component, message, created_at) VALUES ('x', 'now', datetime('now'))"
        )
    ours = await db.create_system_log("INFO", "x", "ours")
    messages = [str(hour) for hour in range(24)]

    rows = await db.get_system_logs()
    assert [row["message"] for row in rows] == [*messages, "now", "ours"]
    assert rows[-1]["id"] == ours
    paged, after = [], None
    while page := await db.get_system_logs(limit=5, after=after):
        paged += page
        after = cursor_of(page[-1])
    assert paged == rows
    noon = base + timedelta(hours=12)
    assert [row["message"] for row in await db.get_system_logs(until=noon)] == messages[:12]
    assert await db.prune(noon) == 12
    assert [row["message"] for row in await db.get_system_logs()] == [*messages[12:], "now", "ours"]
    assert await db.cleanup_old_logs(days=1) == 12


async def test_an_update_by_another_program_moves_updated_at(db: DatabaseManager, path: Path) -> None:
    agent_id = await db.create_orchestrator_agent("scout")
    await db.update_orchestrator_agent(agent_id, updated_at="2020-01-01")
    run(path, "UPDATE orchestrator_agents SET description = 'by hand'")
    row: Any = await db.get_orchestrator_agent(agent_id)
    assert row["updated_at"] > "2026"
    assert len(row["updated_at"]) == 26
    run(path, "UPDATE orchestrator_agents SET description = 'x', updated_at = '2021-01-01T00:00:00.000000'")
    row = await db.get_orchestrator_agent(agent_id)
    assert row["updated_at"] == "2021-01-01T00:00:00.000000"


async def test_the_rules_of_the_tables_hold_for_other_programs_too(db: DatabaseManager, path: Path) -> None:
    run(path, *FIRST_REVISION_INSERTS)
    for statement in (
        "UPDATE agents SET status = 'running'",
        "UPDATE prompts SET status = 'running'",
        "UPDATE prompts SET prompt_type = ''",
        "UPDATE agent_logs SET log_level = 'LOUD'",
        "UPDATE system_logs SET log_level = 'LOUD'",
        "UPDATE orchestrator_agents SET agent_type = ''",
        "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('2', 'adw', 'orchestrator')",
        "INSERT INTO agents (id, orchestrator_agent_id, session_id) VALUES ('2', 'nobody', 's')",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            run(path, statement)
    with pytest.raises(DuplicateError):
        await db.create_orchestrator_agent("adw")


async def test_what_others_delete_is_gone_for_us(db: DatabaseManager, path: Path) -> None:
    run(path, *FIRST_REVISION_INSERTS, "DELETE FROM orchestrator_agents", "DELETE FROM system_logs")
    with other_program(path) as connection:
        assert [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES] == [(0,)] * 5
    assert await db.list_agents() == []

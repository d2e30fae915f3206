"""SQLite: the settings of each connection, and a file that people read with the sqlite3 shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb import DatabaseManager
from tests.support.databases import TABLES, other_program
from tests.support.old_files import OldFile

SHELL = shutil.which("sqlite3")
BOTH = {"journal_mode": "wal", "foreign_keys": 1, "trusted_schema": 0, "mmap_size": 0}
WRITER = BOTH | {
    "busy_timeout": 100,
    "synchronous": 1,
    "query_only": 0,
    "journal_size_limit": 67_108_864,
    "wal_autocheckpoint": 4000,
    "cache_size": -16_000,
}
READER = BOTH | {"busy_timeout": 10_000, "query_only": 1, "wal_autocheckpoint": 0}


async def settings_of(connection: AsyncConnection | None, names: dict[str, Any]) -> dict[str, Any]:
    assert connection is not None
    found = {}
    for name in names:
        found[name] = (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
    return found


async def test_the_writing_connection_has_every_setting(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db, db.transaction() as tx:
        assert await settings_of(tx.conn, WRITER) == WRITER


async def test_the_reading_connection_has_every_setting(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        assert await settings_of(db.conn, READER) == READER


async def wal_by_now(path: Path, **options: Any) -> None:
    async with DatabaseManager(path, **options) as db:
        assert db.conn is not None
        assert (await db.conn.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"


async def test_the_reading_connection_knows_of_the_wal_before_it_has_read(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", OldFile(tmp_path / "old.db").path
    for path in (new, old):
        await wal_by_now(path)
        with other_program(path) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        await wal_by_now(path)
        await wal_by_now(path, read_only=True)


@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
async def test_durability_chooses_how_a_commit_is_synchronised(
    tmp_path: Path, durability: Literal["normal", "full"], synchronous: int
) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db", durability=durability) as db, db.transaction() as tx:
        await tx.create_orchestrator_agent("scout")
        assert await settings_of(tx.conn, {"synchronous": 0}) == {"synchronous": synchronous}


async def test_the_settings_hold_for_a_file_that_another_program_made(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path):
        pass
    with other_program(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    async with DatabaseManager(path) as db:
        async with db.transaction() as tx:
            assert await settings_of(tx.conn, WRITER) == WRITER
        assert await settings_of(db.conn, READER) == READER


async def test_a_transaction_takes_the_write_lock_when_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db, db.transaction():
        with other_program(path) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            with pytest.raises(Exception, match="locked"):
                connection.execute("BEGIN IMMEDIATE")


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        await db.create_orchestrator_agent("scout")
        await db.list_orchestrator_agents()
    assert [path.name for path in tmp_path.iterdir()] == ["orchestrator.db"]


async def filled(path: Path) -> str:
    async with DatabaseManager(path) as db:
        definition = await db.create_orchestrator_agent("scout", "Scouts the codebase", "utility")
        agent = await db.create_agent(definition, "session-1", status="executing", context={"größe": "数据 😀"})
        await db.create_agent_log(agent, "INFO", "state_change", "Agent started", {"phase": "größer"})
        await db.create_agent_log(agent, "ERROR", "error", "Agent failed")
    return agent


def shell(path: Path, command: str) -> str:
    assert SHELL is not None
    done = subprocess.run([SHELL, str(path), command], check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(SHELL is None, reason="the sqlite3 shell is not installed")
async def test_the_inspection_commands_work_as_printed(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    agent = await filled(path)

    schema = shell(path, ".schema")
    assert all(f"CREATE TABLE {table} (" in schema for table in TABLES)
    listed = shell(path, "SELECT id, name, agent_type FROM orchestrator_agents;")
    assert listed.strip().split("|")[1:] == ["scout", "utility"]
    query = "SELECT agent_id, log_level, message FROM agent_logs ORDER BY created_at DESC LIMIT 10;"
    assert shell(path, query).splitlines() == [f"{agent}|ERROR|Agent failed", f"{agent}|INFO|Agent started"]


@pytest.mark.skipif(SHELL is None, reason="the sqlite3 shell is not installed")
async def test_the_inspection_commands_work_while_the_manager_is_open(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("scout")
        assert shell(path, "SELECT name FROM orchestrator_agents").split() == ["scout"]


async def test_values_are_stored_as_people_read_them(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    agent = await filled(path)
    with other_program(path) as connection:
        row = connection.execute("SELECT id, context, created_at, typeof(cost_usd) FROM agents").fetchone()
        phase = connection.execute("SELECT json_extract(details, '$.phase') FROM agent_logs WHERE id = 1").fetchone()
    assert row[0] == agent
    assert row[1] == '{"größe":"数据 😀"}'
    assert len(row[2]) == 26
    assert row[3] == "real"
    assert phase == ("größer",)


async def test_the_file_is_whole_after_use(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    await filled(path)
    with other_program(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []

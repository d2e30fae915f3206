"""The schema file: applied to an empty database, once, as a whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, OperationError, SchemaError
from orchdb.schema.revisions import schema_file
from tests.conftest import Target
from tests.support.databases import TABLES, other_program

SCHEMA = schema_file()


def tables_of(path: Path) -> set[str]:
    with other_program(path) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {name for (name,) in rows}


async def test_the_first_connect_makes_all_tables(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        assert db.conn is not None
        for table in TABLES:
            assert (await db.conn.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 0


async def test_the_file_of_the_package_is_what_is_applied(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db"):
        pass
    by_hand = sqlite3.connect(tmp_path / "by_hand.db")
    by_hand.executescript(SCHEMA.read_text(encoding="utf-8"))
    by_hand.close()

    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    with other_program(tmp_path / "orchestrator.db") as made, other_program(tmp_path / "by_hand.db") as expected:
        assert made.execute(query).fetchall() == expected.execute(query).fetchall()


async def test_a_file_made_from_the_schema_by_hand_is_a_database(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.db"
    by_hand = sqlite3.connect(path)
    by_hand.executescript(SCHEMA.read_text(encoding="utf-8"))
    by_hand.close()
    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("scout")


async def test_another_schema_file_can_be_given(tmp_path: Path) -> None:
    schema = tmp_path / "own.sql"
    schema.write_text(SCHEMA.read_text(encoding="utf-8") + "\nCREATE TABLE notes (note TEXT);\n", encoding="utf-8")
    async with DatabaseManager(tmp_path / "orchestrator.db", schema_path=schema) as db:
        await db.create_orchestrator_agent("scout")
    assert tables_of(tmp_path / "orchestrator.db") == {*TABLES, "leases", "orchdb_version", "notes"}


async def test_statements_may_share_a_line_and_end_in_a_comment(tmp_path: Path) -> None:
    schema = tmp_path / "own.sql"
    joined = SCHEMA.read_text(encoding="utf-8").replace(";\nCREATE INDEX", "; CREATE INDEX")
    schema.write_text(f"{joined}\n-- the end; of it\n/* really */", encoding="utf-8")
    async with DatabaseManager(tmp_path / "orchestrator.db", schema_path=schema) as db:
        await db.create_orchestrator_agent("scout")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
async def test_a_missing_or_unreadable_schema_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    schema = tmp_path / "missing.sql"
    if content is not None:
        schema.write_bytes(content)
    db = DatabaseManager(tmp_path / "orchestrator.db", schema_path=schema)
    with pytest.raises(SchemaError) as caught:
        await db.connect()
    assert str(schema) in str(caught.value)
    assert caught.value.operation == "connect"
    assert db.conn is None


async def test_an_invalid_statement_is_named_and_nothing_is_left_half_done(tmp_path: Path) -> None:
    path, schema = tmp_path / "orchestrator.db", tmp_path / "invalid.sql"
    schema.write_text("CREATE TABLE agents (id TEXT);\nCREATE TABEL prompts (id TEXT);\n")
    with pytest.raises(SchemaError) as caught:
        await DatabaseManager(path, schema_path=schema).connect()
    assert str(schema) in str(caught.value)
    assert "CREATE TABEL prompts" in str(caught.value)
    assert "syntax error" in str(caught.value)
    assert tables_of(path) == set()

    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("works")


@pytest.mark.parametrize("script", ["", "-- nothing but a comment\n", "CREATE TABLE notes (note TEXT);"])
async def test_a_schema_file_without_our_tables_is_refused(tmp_path: Path, script: str) -> None:
    path, schema = tmp_path / "orchestrator.db", tmp_path / "other.sql"
    schema.write_text(script)
    with pytest.raises(SchemaError) as caught:
        await DatabaseManager(path, schema_path=schema).connect()
    assert str(schema) in str(caught.value)
    assert tables_of(path) == set()


async def test_an_existing_database_needs_no_schema_file(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        agent_id = await db.create_orchestrator_agent("scout")
    async with DatabaseManager(path, schema_path=tmp_path / "missing.sql") as db:
        assert await db.get_orchestrator_agent(agent_id) is not None


@pytest.mark.parametrize("content", [b"no database at all\n" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(OperationError):
        await DatabaseManager(path).connect()
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]

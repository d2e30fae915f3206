"""A manager that only reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, OperationError, OrchdbError
from tests.conftest import Target
from tests.support.databases import OPERATIONS, call, collected, dump, other_program

CHANGES: dict[str, dict[str, Any]] = {
    "update_orchestrator_agent": {"description": "x"},
    "update_agent": {"error_message": "x"},
    "update_prompt": {"error_message": "x"},
}


async def filled(target: Target) -> dict[str, Any]:
    async with DatabaseManager(target.url) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")
        await db.create_agent_log(agent, "INFO", "milestone", "x")
        return await dump(db)


async def test_everything_can_be_read_and_nothing_written(target: Target) -> None:
    before = await filled(target)
    async with DatabaseManager(target.url, read_only=True) as db:
        for operation, arguments in OPERATIONS.items():
            reads = operation.startswith(("get_", "list")) or operation in ("usage", "agent_tree")
            if reads and "create" not in operation:
                await call(db, operation, *arguments)
                continue
            with pytest.raises(OperationError, match="read_only") as caught:
                await call(db, operation, *arguments, **CHANGES.get(operation, {}))
            assert caught.value.operation == operation
        with pytest.raises(OperationError, match="read_only"):
            async with db.transaction():
                pytest.fail("the block must not run")
        assert await db.log_agent_event(before["agents"][0]["id"], "milestone", "x") is None
        assert len(await collected(db.iter_agent_logs(before["agents"][0]["id"]))) == 1
        assert await dump(db) == before


async def test_conn_writes_nothing_either(target: Target) -> None:
    before = await filled(target)
    async with DatabaseManager(target.url, read_only=True) as db:
        assert db.conn is not None
        with pytest.raises(Exception, match=r"read.?only"):
            await db.conn.execute(text("DELETE FROM agents"))
        assert await dump(db) == before


async def test_a_reader_sees_what_a_writer_writes(target: Target) -> None:
    async with DatabaseManager(target.url) as writer, DatabaseManager(target.url, read_only=True) as reader:
        for expected in (1, 2, 3):
            await writer.create_system_log("INFO", "c", "x")
            assert len(await reader.get_system_logs()) == expected


async def test_an_empty_database_is_not_made_by_a_reader(target: Target) -> None:
    with pytest.raises(OrchdbError) as caught:
        await DatabaseManager(target.url, read_only=True).connect()
    assert caught.value.operation == "connect"
    assert not target.path.exists() or target.engine != "sqlite"


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "orchestrator.db"
    with pytest.raises(OrchdbError) as caught:
        await DatabaseManager(path, read_only=True).connect()
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_reader_changes_no_setting_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("scout")
    with other_program(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    async with DatabaseManager(path, read_only=True) as db:
        assert len(await db.list_orchestrator_agents()) == 1
    assert path.read_bytes() == before

"""Writes of one moment go to the database together; each caller gets what its own write gave."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from orchdb import ConstraintError, DatabaseManager, MissingParentError, NotConnectedError
from tests.support.databases import NO_ROW

TOGETHER = 60


async def test_each_line_of_a_shared_commit_has_its_own_id_in_the_order_of_the_calls(
    db: DatabaseManager, agent_id: str
) -> None:
    names = [f"line {number}" for number in range(TOGETHER)]
    for _ in range(2):
        ids = await asyncio.gather(*(db.create_agent_log(agent_id, "INFO", "milestone", name) for name in names))
        rows = {row["id"]: row["message"] for row in await db.get_agent_logs(agent_id)}
        assert [rows[number] for number in ids] == names
    assert len(await db.get_agent_logs(agent_id)) == 2 * TOGETHER


async def test_writes_of_different_kinds_keep_apart_in_a_shared_commit(db: DatabaseManager, agent_id: str) -> None:
    async def all_kinds(number: int) -> tuple[int, int, bool]:
        return await asyncio.gather(
            db.create_agent_log(agent_id, "INFO", "milestone", f"agent {number}"),
            db.create_system_log("INFO", "test", f"system {number}"),
            db.update_agent(agent_id, error_message=f"message {number}"),
        )

    results = await asyncio.gather(*(all_kinds(number) for number in range(TOGETHER)))
    agent_logs = {row["id"]: row["message"] for row in await db.get_agent_logs(agent_id)}
    system_logs = {row["id"]: row["message"] for row in await db.get_system_logs()}
    for number, (agent_log, system_log, updated) in enumerate(results):
        assert updated
        assert agent_logs[agent_log] == f"agent {number}"
        assert system_logs[system_log] == f"system {number}"


async def test_an_update_that_finds_no_row_is_told_from_those_it_shares_a_commit_with(
    db: DatabaseManager, agent_id: str
) -> None:
    targets = [NO_ROW if number % 7 == 3 else agent_id for number in range(TOGETHER)]
    for _ in range(2):
        found = await asyncio.gather(*(db.update_agent(target, error_message="x") for target in targets))
        assert found == [target == agent_id for target in targets]


async def test_a_line_that_is_refused_takes_none_of_those_it_shares_a_commit_with_along(
    db: DatabaseManager, agent_id: str
) -> None:
    targets = [NO_ROW if number % 20 == 10 else agent_id for number in range(TOGETHER)]
    results = await asyncio.gather(
        *(db.create_agent_log(target, "INFO", "milestone", f"{n}") for n, target in enumerate(targets)),
        return_exceptions=True,
    )
    rows = {row["id"]: row["message"] for row in await db.get_agent_logs(agent_id)}
    for number, (target, result) in enumerate(zip(targets, results, strict=True)):
        if target == agent_id:
            assert isinstance(result, int)
            assert rows.pop(result) == str(number)
        else:
            assert isinstance(result, MissingParentError)
    assert rows == {}


async def test_a_trigger_of_another_program_that_skips_rows_moves_nobodys_id(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        with closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER skip BEFORE INSERT ON system_logs WHEN NEW.message = 'noise' "
                "BEGIN SELECT RAISE(IGNORE); END"
            )
        messages = ["noise" if number % 10 == 5 else f"line {number}" for number in range(TOGETHER)]
        results = await asyncio.gather(
            *(db.create_system_log("INFO", "test", message) for message in messages), return_exceptions=True
        )
        rows = {row["id"]: row["message"] for row in await db.get_system_logs()}
    told = list(zip(results, messages, strict=True))
    assert rows == {number: message for number, message in told if message != "noise"}
    assert all(isinstance(result, ConstraintError) for result, message in told if message == "noise")


async def test_each_write_that_a_closed_connection_refuses_gets_an_error_that_names_its_own_operation(
    tmp_path: Path,
) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")
        async with db.transaction() as tx:
            driver: Any = (await tx.conn.get_raw_connection()).driver_connection
        await driver.close()  # behind the manager's back: the thread of the connection that writes has ended
        errors = await asyncio.gather(
            db.create_agent_log(agent, "INFO", "milestone", "is posted at once"),
            db.create_agent_log(agent, "INFO", "milestone", "shares the next commit"),
            db.create_system_log("INFO", "test", "with this one"),
            return_exceptions=True,
        )
        assert [type(error) for error in errors] == [NotConnectedError] * 3
        operations = [error.operation for error in errors if isinstance(error, NotConnectedError)]
        assert operations == ["create_agent_log", "create_agent_log", "create_system_log"]
        assert len(await db.get_agent_logs(agent)) == 0

"""Writes of one moment go to the database together; each caller gets what its own write gave."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchdb import (
    ConstraintError,
    DatabaseManager,
    MissingParentError,
    NewAgentLog,
    NewSystemLog,
    NotConnectedError,
)
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


@pytest.mark.parametrize("together", [24, 25, 26, 50, 51, 120])
async def test_long_lines_among_short_ones_keep_their_ids_and_their_values(
    db: DatabaseManager, agent_id: str, together: int
) -> None:
    texts = [f"line {number}".ljust(150_000 if number in {30, 110} else 10, "x") for number in range(together)]
    details = [
        None if number % 3 else {"number": number, "text": "" if number % 2 else "ü"} for number in range(together)
    ]
    alone = await asyncio.gather(
        *(db.create_agent_log(agent_id, "INFO", "t", *line) for line in zip(texts, details, strict=True))
    )
    items: list[NewAgentLog] = [
        {"agent_id": agent_id, "log_level": "INFO", "log_type": "t", "message": text, "details": value}
        for text, value in zip(texts, details, strict=True)
    ]
    at_once = await db.create_agent_logs(items)
    rows = {row["id"]: (row["message"], row["details"]) for row in await db.get_agent_logs(agent_id)}
    for ids in (alone, at_once):
        assert [rows[number] for number in ids] == list(zip(texts, details, strict=True))


async def test_what_sqlite_keeps_for_an_undo_goes_to_memory_only_while_many_rows_are_added(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        agent_id = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")

        async def setting() -> int:
            async with db.transaction() as tx:
                found: int = (await tx.conn.exec_driver_sql("PRAGMA temp_store")).scalar_one()
            return found

        before = await setting()
        for last in (agent_id, NO_ROW):
            targets = [agent_id] * TOGETHER + [last]
            lines = (db.create_agent_log(target, "INFO", "milestone", "line") for target in targets)
            await asyncio.gather(*lines, return_exceptions=True)
            assert await setting() == before


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


async def test_a_trigger_of_another_program_that_comes_between_two_shared_commits_moves_nobodys_id(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        for number in range(2):
            lines = [f"line {number}.{place}" for place in range(2 * TOGETHER)]
            bulk = await db.create_system_logs([_line(message) for message in lines])
            ids = await asyncio.gather(*(db.create_system_log("INFO", "test", message) for message in lines))
            rows = {row["id"]: row["message"] for row in await db.get_system_logs()}
            assert [rows[place] for place in (*bulk, *ids)] == lines + lines
            with closing(sqlite3.connect(path)) as other:
                other.execute(
                    f"CREATE TRIGGER echo{number} AFTER INSERT ON system_logs WHEN NEW.component = 'test' BEGIN "
                    "INSERT INTO system_logs (log_level, component, message) VALUES ('INFO', 'echo', NEW.message); END"
                )
        assert len(rows) == 2 * len(lines) * 3


def _line(message: str) -> NewSystemLog:
    return {"log_level": "INFO", "component": "test", "message": message}


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

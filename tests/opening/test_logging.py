"""One logger, ``orchdb``: what works is told at DEBUG, what fails at ERROR."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchdb import DatabaseManager, MissingParentError, NotConnectedError, OrchdbError
from tests.conftest import Target
from tests.support.databases import NO_ROW, OPERATIONS, call, complaints


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged at any level."""
    caplog.set_level(logging.DEBUG, logger="orchdb")
    yield caplog
    assert {record.name for record in caplog.records if record.name.startswith("orchdb")} <= {"orchdb"}


def told(log: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [r.getMessage() for r in log.records if r.name == "orchdb" and r.levelname == level]


async def test_an_operation_tells_its_name_table_rows_and_duration(
    db: DatabaseManager, agent_id: str, log: pytest.LogCaptureFixture
) -> None:
    log.clear()
    await db.create_agent_log(agent_id, "INFO", "milestone", "x")
    await db.create_system_logs([{"log_level": "INFO", "component": "c", "message": "x"}] * 7)
    await db.get_system_logs()
    await db.update_agent(agent_id, status="failed")
    expected = [
        ("create_agent_log", "agent_logs", 1),
        ("create_system_logs", "system_logs", 7),
        ("get_system_logs", "system_logs", 7),
        ("update_agent", "agents", 1),
    ]
    lines = told(log, "DEBUG")
    assert len(lines) == len(expected)
    for line, (operation, table, rows) in zip(lines, expected, strict=True):
        assert re.fullmatch(rf"{operation} on {table}: {rows} rows? in \d+\.\d+ ms", line)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_is_told_once(
    db: DatabaseManager, agent_id: str, log: pytest.LogCaptureFixture, operation: str
) -> None:
    arguments = [agent_id if value == NO_ROW else value for value in OPERATIONS[operation]]
    if operation == "create_agent":
        arguments[0] = (await db.list_orchestrator_agents())[0]["id"]
    arguments = ["builder" if value == "scout" else value for value in arguments]
    log.clear()
    await call(db, operation, *arguments)
    name = "list_recent_agent_logs" if operation == "get_recent_logs" else operation
    lines = told(log, "DEBUG")
    assert lines
    assert all(line.startswith(f"{name} on ") for line in lines)
    assert told(log, "ERROR") == []


async def test_a_failure_is_told_once(db: DatabaseManager, log: pytest.LogCaptureFixture) -> None:
    log.clear()
    with pytest.raises(MissingParentError) as caught:
        await db.create_agent(NO_ROW, "session-1")
    assert told(log, "ERROR") == [str(caught.value)]
    assert told(log, "DEBUG") == []
    assert all(record.exc_info is None for record in log.records)


@pytest.mark.parametrize(
    ("operation", "options"),
    [
        ("list_agents", {"limit": -1}),
        ("list_agents", {"after": "x"}),
        ("get_system_logs", {"since": "x"}),
        ("cleanup_old_logs", {"days": -1}),
        ("prune", {"before": "x"}),
        ("create_system_log", {"log_level": "LOUD", "component": "c", "message": "m"}),
    ],
)
async def test_refused_input_is_a_failure_too(
    db: DatabaseManager, log: pytest.LogCaptureFixture, operation: str, options: dict[str, object]
) -> None:
    log.clear()
    with pytest.raises(OrchdbError) as caught:
        await call(db, operation, **options)
    assert told(log, "ERROR") == [str(caught.value)]


async def test_use_without_a_connection_is_a_failure(target: Target, log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NotConnectedError) as caught:
        await DatabaseManager(target.url).list_agents()
    assert told(log, "ERROR") == [str(caught.value)]


async def test_an_event_that_cannot_be_logged_is_told(db: DatabaseManager, log: pytest.LogCaptureFixture) -> None:
    log.clear()
    assert await db.log_agent_event(NO_ROW, "milestone", "x") is None
    assert len(told(log, "ERROR")) == 1


async def test_nothing_is_told_where_nobody_listens(db: DatabaseManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="orchdb")
    caplog.clear()
    await db.create_system_log("INFO", "test", "x")
    await db.get_system_logs()
    assert [record for record in caplog.records if record.name == "orchdb"] == []


def test_a_failure_that_the_caller_handles_prints_nothing_where_no_logging_is_set_up(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from orchdb import DatabaseManager
from orchdb import OrchdbError

async def main():
    async with DatabaseManager(sys.argv[1]) as db:
        try:
            await db.create_agent("nobody", "session")
        except OrchdbError:
            print("handled")
        await db.create_system_log("INFO", "x", "replaced\\0", {"a": float("nan")})

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "orchestrator.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, complaints(done.stderr)) == ("handled\n", "")

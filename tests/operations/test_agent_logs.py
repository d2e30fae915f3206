"""The log of the agents: append-only."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchdb import LOG_LEVELS, AgentLogRow, DatabaseManager, InvalidValueError, MissingParentError
from tests.support.databases import NO_ROW, ONE_FORM, call, collected, count


def messages(rows: list[AgentLogRow]) -> list[str]:
    return [row["message"] for row in rows]


@pytest.fixture
async def lines(db: DatabaseManager, agent_id: str) -> list[int]:
    """The ids of twelve lines: levels and types alternate."""
    return [
        await db.create_agent_log(agent_id, "ERROR" if n % 3 == 0 else "INFO", "ab"[n % 2], f"line {n}", {"n": n})
        for n in range(12)
    ]


async def test_agent_logs_append_only(db: DatabaseManager, agent_id: str) -> None:
    log_id = await db.create_agent_log(
        agent_id=agent_id,
        log_level="INFO",
        log_type="state_change",
        message="Agent started execution",
        details={"phase": "exploration", "files": [1, 2, None]},
    )
    rows = await db.get_agent_logs(agent_id)
    assert rows == [
        {
            "id": log_id,
            "agent_id": agent_id,
            "log_level": "INFO",
            "log_type": "state_change",
            "message": "Agent started execution",
            "details": {"phase": "exploration", "files": [1, 2, None]},
            "created_at": rows[0]["created_at"],
            "event_id": None,
        }
    ]
    assert isinstance(log_id, int)
    assert re.fullmatch(ONE_FORM, rows[0]["created_at"])
    assert json.loads(json.dumps(rows)) == rows
    for verb in ("update", "delete", "restore"):
        assert not any(name.startswith(verb) and "log" in name for name in dir(db))


async def test_a_number_is_never_given_twice(db: DatabaseManager, agent_id: str) -> None:
    first = await db.create_agent_log(agent_id, "INFO", "milestone", "gone")
    await db.prune(datetime.now(UTC) + timedelta(seconds=1))
    assert await count(db, "agent_logs") == 0
    assert await db.create_agent_log(agent_id, "INFO", "milestone", "new") > first


@pytest.mark.parametrize("level", LOG_LEVELS)
async def test_every_level_is_stored(db: DatabaseManager, agent_id: str, level: Any) -> None:
    await db.create_agent_log(agent_id, level, "milestone", "x")
    assert [row["log_level"] for row in await db.get_agent_logs(agent_id, level)] == [level]


@pytest.mark.parametrize("level", ["info", "WARN", "", None, 20, ["INFO"]])
async def test_any_other_level_is_refused(db: DatabaseManager, agent_id: str, level: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_agent_log", agent_id, level, "milestone", "x")
    assert caught.value.column == "log_level"


@pytest.mark.parametrize("log_type", ["execution", "step_start", "agent_started", "größe"])
async def test_the_log_type_is_an_open_vocabulary(db: DatabaseManager, agent_id: str, log_type: str) -> None:
    await db.create_agent_log(agent_id, "INFO", log_type, "x")
    assert [row["log_type"] for row in await db.get_logs_by_type(log_type)] == [log_type]


@pytest.mark.parametrize("log_type", ["", None, 5, "nul\0"])
async def test_a_log_type_that_is_no_word_is_refused(db: DatabaseManager, agent_id: str, log_type: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_agent_log", agent_id, "INFO", log_type, "x")
    assert caught.value.column == "log_type"


@pytest.mark.parametrize("details", [{"a": 1}, [1, "b"], "text", "", 0, 1.5, True, False, {}, []])
async def test_details_are_any_json_value(db: DatabaseManager, agent_id: str, details: Any) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "x", details)
    found = (await db.get_agent_logs(agent_id))[0]["details"]
    assert found == details
    assert type(found) is type(details)


async def test_a_line_needs_an_agent(db: DatabaseManager) -> None:
    for missing in (NO_ROW, "no-uuid"):
        with pytest.raises(MissingParentError) as caught:
            await db.create_agent_log(missing, "INFO", "milestone", "x")
        assert (caught.value.table, caught.value.operation) == ("agent_logs", "create_agent_log")
    assert await count(db, "agent_logs") == 0


async def test_the_lines_of_an_agent_come_oldest_first(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    rows = await db.get_agent_logs(agent_id)
    assert [row["id"] for row in rows] == lines
    assert [row["details"] for row in rows] == [{"n": n} for n in range(12)]


async def test_lines_are_filtered_by_level_and_type(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    assert [row["id"] for row in await db.get_agent_logs(agent_id, "ERROR")] == lines[::3]
    assert [row["id"] for row in await db.get_agent_logs(agent_id, log_type="b")] == lines[1::2]
    assert [row["id"] for row in await db.get_agent_logs(agent_id, "ERROR", "a")] == lines[::6]
    assert await db.get_agent_logs(agent_id, "DEBUG") == []


async def test_lines_are_filtered_by_time(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    rows = await db.get_agent_logs(agent_id)
    middle = datetime.fromisoformat(rows[5]["created_at"]).replace(tzinfo=UTC)
    at_or_after = [row["id"] for row in rows if row["created_at"] >= rows[5]["created_at"]]
    before = [row["id"] for row in rows if row["created_at"] < rows[5]["created_at"]]
    east = middle.isoformat()
    for moment in (rows[5]["created_at"], middle, east, east.replace("+00:00", "Z")):
        assert [row["id"] for row in await db.get_agent_logs(agent_id, since=moment)] == at_or_after
        assert [row["id"] for row in await db.get_agent_logs(agent_id, until=moment)] == before
    assert before + at_or_after == lines


async def test_lines_by_type_come_newest_first(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    assert [row["id"] for row in await db.get_agent_logs_by_type(agent_id, "a")] == lines[::2][::-1]
    assert [row["id"] for row in await db.get_agent_logs_by_type(agent_id, "a", 2)] == [lines[10], lines[8]]
    assert [row["id"] for row in await db.get_logs_by_type("b", limit=1)] == [lines[11]]
    assert await db.get_agent_logs_by_type(NO_ROW, "a") == []


async def test_recent_lines_come_newest_first(db: DatabaseManager, lines: list[int]) -> None:
    recent = await db.list_recent_agent_logs()
    assert [row["id"] for row in recent] == lines[::-1]
    assert await db.get_recent_logs() == recent
    assert [row["id"] for row in await db.get_recent_logs(3)] == lines[:-4:-1]
    assert [row["id"] for row in await db.list_recent_agent_logs(limit=2, offset=1)] == [lines[10], lines[9]]


async def test_recent_and_by_type_stop_at_a_hundred(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_logs(
        {"agent_id": agent_id, "log_level": "INFO", "log_type": "a", "message": f"{n}"} for n in range(120)
    )
    newest = [f"{n}" for n in range(119, 19, -1)]
    assert messages(await db.list_recent_agent_logs()) == newest
    assert messages(await db.get_logs_by_type("a")) == newest
    assert messages(await db.get_agent_logs_by_type(agent_id, "a")) == newest
    assert len(await db.get_agent_logs(agent_id)) == 120
    assert len(await db.list_recent_agent_logs(limit=None)) == 120


@pytest.mark.parametrize("nobody", [None, "no-uuid", ""])
async def test_the_lines_of_nobody_are_none(db: DatabaseManager, lines: list[int], nobody: Any) -> None:
    assert await call(db, "get_agent_logs", nobody) == []
    assert await call(db, "get_agent_logs_by_type", nobody, "a") == []
    assert await count(db, "agent_logs") == len(lines)


async def test_an_iterator_without_an_agent_is_about_all_and_of_nobody_about_none(
    db: DatabaseManager, lines: list[int]
) -> None:
    assert sorted([row["id"] async for row in db.iter_agent_logs()]) == lines
    for nobody in ("no-uuid", "", ()):
        assert await collected(db.iter_agent_logs(nobody)) == []


async def test_the_lines_of_no_type_are_not_all_lines(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    with pytest.raises(InvalidValueError):
        await call(db, "get_logs_by_type", None)
    with pytest.raises(InvalidValueError):
        await call(db, "get_agent_logs_by_type", agent_id, None)


async def test_an_event_is_a_line(db: DatabaseManager, agent_id: str) -> None:
    log_id = await db.log_agent_event(agent_id, "agent_started", "Started", {"step": 1})
    rows = await db.get_agent_logs(agent_id)
    assert [(row["id"], row["log_level"], row["details"]) for row in rows] == [(log_id, "INFO", {"step": 1})]
    assert await db.log_agent_event(agent_id, "agent_failed", "Failed", log_level="ERROR") is not None


@pytest.mark.parametrize(
    "arguments",
    [
        (NO_ROW, "milestone", "x"),
        ("no-uuid", "milestone", "x"),
        (None, None, None),
        ([], {}, object()),
        ("agent", "milestone", "x", {1: {2}}, "LOUD"),
    ],
)
async def test_an_event_that_cannot_be_logged_raises_nothing(
    db: DatabaseManager, agent_id: str, caplog: pytest.LogCaptureFixture, arguments: tuple[Any, ...]
) -> None:
    with caplog.at_level(logging.ERROR, logger="orchdb"):
        assert await call(db, "log_agent_event", *arguments) is None
        assert await call(db, "log_agent_event", agent_id, "milestone", "x", log_level="LOUD") is None
    assert len(caplog.records) == 2
    assert await count(db, "agent_logs") == 0


async def test_an_event_can_be_cancelled(db: DatabaseManager, agent_id: str) -> None:
    task = asyncio.create_task(db.log_agent_event(agent_id, "milestone", "x"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_iterator_gives_all_lines(db: DatabaseManager, agent_id: str, lines: list[int]) -> None:
    for page_size in (1, 5, 12, 500):
        rows = await collected(db.iter_agent_logs(agent_id, page_size=page_size))
        assert [row["id"] for row in rows] == lines
    errors = await collected(db.iter_agent_logs(agent_id, "ERROR", "a", "2020-01-01", "2999-01-01", page_size=1))
    assert [row["id"] for row in errors] == lines[::6]


@pytest.mark.parametrize(
    "metadata",
    [{1}, b"x", {"a": [object()]}, 2**70, pytest.param({"a": "x" * (64 * 2**20)}, id="large")],
    ids=lambda value: type(value).__name__,
)
async def test_an_event_whose_metadata_cannot_be_stored_is_a_line_without_it_and_the_log_says_so(
    db: DatabaseManager, agent_id: str, caplog: pytest.LogCaptureFixture, metadata: Any
) -> None:
    with caplog.at_level(logging.WARNING, logger="orchdb"):
        log_id = await call(db, "log_agent_event", agent_id, "tool_call", "finished", metadata, "WARNING")
    (row,) = await db.get_agent_logs(agent_id)
    assert (row["id"], row["log_type"], row["message"]) == (log_id, "tool_call", "finished")
    assert (row["log_level"], row["details"]) == ("WARNING", None)
    levels = [
        (record.levelname, "agent_logs.details" in record.getMessage())
        for record in caplog.records
        if record.name == "orchdb"
    ]
    assert levels == [("ERROR", True), ("WARNING", False)]
    assert "without its metadata" in caplog.text


async def test_an_event_whose_metadata_cannot_be_stored_is_a_line_of_its_block(
    db: DatabaseManager, agent_id: str
) -> None:
    untyped: Any = {1}
    async with db.transaction() as tx:
        assert await tx.log_agent_event(agent_id, "a", "x", untyped) is not None
        assert await tx.log_agent_event(agent_id, "a", "x", {"fits": 1}) is not None
    assert [row["details"] for row in await db.get_agent_logs(agent_id)] == [None, {"fits": 1}]


async def test_the_order_of_create_agent_log_is_noticed(
    db: DatabaseManager, agent_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    for level in LOG_LEVELS:
        caplog.clear()
        with caplog.at_level(logging.ERROR, logger="orchdb"):
            assert await db.log_agent_event(agent_id, level, "milestone", "Half way") is None
        (record,) = caplog.records
        assert (
            "log_agent_event on agent_logs: log_type: is a level: the order here is agent_id, log_type"
            in record.message
        )
    assert await count(db, "agent_logs") == 0
    for kind in ("error", "info", "ERRORS"):
        assert await db.log_agent_event(agent_id, kind, "x") is not None

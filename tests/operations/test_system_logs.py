"""The log of the system: append-only."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from orchdb import LOG_LEVELS, DatabaseManager, InvalidValueError
from tests.support.databases import ONE_FORM, call, collected, count


@pytest.fixture
async def lines(db: DatabaseManager) -> list[int]:
    """The ids of twelve lines: levels and components alternate."""
    return [await db.create_system_log("ERROR" if n % 3 == 0 else "INFO", "ab"[n % 2], f"line {n}") for n in range(12)]


async def test_system_logs_append_only(db: DatabaseManager) -> None:
    log_id = await db.create_system_log("WARNING", "scheduler", "Queue is long", {"length": 512})
    rows = await db.get_system_logs()
    assert rows == [
        {
            "id": log_id,
            "log_level": "WARNING",
            "component": "scheduler",
            "message": "Queue is long",
            "details": {"length": 512},
            "created_at": rows[0]["created_at"],
            "event_id": None,
        }
    ]
    assert re.fullmatch(ONE_FORM, rows[0]["created_at"])
    for name in ("update_system_log", "delete_system_log", "restore_system_log"):
        assert not hasattr(db, name)


async def test_details_are_optional(db: DatabaseManager) -> None:
    await db.create_system_log("INFO", "scheduler", "Started")
    assert (await db.get_system_logs())[0]["details"] is None


@pytest.mark.parametrize("level", LOG_LEVELS)
async def test_every_level_is_stored(db: DatabaseManager, level: Any) -> None:
    await db.create_system_log(level, "scheduler", "x")
    assert [row["log_level"] for row in await db.get_system_logs(level)] == [level]


@pytest.mark.spread
@pytest.mark.parametrize(
    ("column", "arguments"),
    [
        ("log_level", ("LOUD", "scheduler", "x")),
        ("log_level", (None, "scheduler", "x")),
        ("component", ("INFO", None, "x")),
        ("component", ("INFO", "nul\0", "x")),
        ("component", ("INFO", 5, "x")),
        ("message", ("INFO", "scheduler", None)),
        ("message", ("INFO", "scheduler", b"x")),
        ("details", ("INFO", "scheduler", "x", {1, 2})),
    ],
)
async def test_what_does_not_fit_is_refused(db: DatabaseManager, column: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "create_system_log", *arguments)
    assert (caught.value.table, caught.value.operation) == ("system_logs", "create_system_log")
    assert caught.value.column == column
    assert await count(db, "system_logs") == 0


async def test_lines_come_oldest_first_and_are_filtered(db: DatabaseManager, lines: list[int]) -> None:
    assert [row["id"] for row in await db.get_system_logs()] == lines
    assert [row["id"] for row in await db.get_system_logs("ERROR")] == lines[::3]
    assert [row["id"] for row in await db.get_system_logs(component="b")] == lines[1::2]
    assert [row["id"] for row in await db.get_system_logs("ERROR", "b")] == lines[3::6]
    assert await db.get_system_logs(component="c") == []


async def test_lines_are_filtered_by_time(db: DatabaseManager, lines: list[int]) -> None:
    rows = await db.get_system_logs()
    first, last = rows[0]["created_at"], rows[-1]["created_at"]
    after = datetime.fromisoformat(f"{last}Z") + timedelta(microseconds=1)
    assert [row["id"] for row in await db.get_system_logs(since=first, until=after)] == lines
    assert await db.get_system_logs(since=after) == []
    assert await db.get_system_logs(until=first) == []
    assert [row["id"] for row in await db.get_system_logs("ERROR", "a", first, after)] == lines[::6]


async def test_recent_lines_come_newest_first(db: DatabaseManager, lines: list[int]) -> None:
    assert [row["id"] for row in await db.list_recent_system_logs()] == lines[::-1]
    assert [row["id"] for row in await db.list_recent_system_logs(2)] == lines[:-3:-1]
    await db.create_system_logs({"log_level": "INFO", "component": "a", "message": f"{n}"} for n in range(100))
    assert [row["message"] for row in await db.list_recent_system_logs()] == [f"{n}" for n in range(99, -1, -1)]


async def test_an_iterator_gives_all_lines(db: DatabaseManager, lines: list[int]) -> None:
    for page_size in (1, 4, 12, 500):
        assert [row["id"] for row in await collected(db.iter_system_logs(page_size=page_size))] == lines
    errors = await collected(db.iter_system_logs("ERROR", "b", "2020-01-01", "2999-01-01", page_size=1))
    assert [row["id"] for row in errors] == lines[3::6]

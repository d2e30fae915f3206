"""The only ways out of the logs: by age."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from orchdb import DatabaseManager, InvalidValueError
from orchdb.schema.tables import agent_logs, system_logs
from tests.support.databases import call, count


async def aged(db: DatabaseManager, agent_id: str, days: float, level: Any = "INFO") -> None:
    """A line in each log that is so many days old."""
    first = await db.create_agent_log(agent_id, level, "milestone", f"{days:g}")
    second = await db.create_system_log(level, "test", f"{days:g}")
    moment = datetime.now(UTC) - timedelta(days=days)
    async with db.transaction() as tx:
        for table, number in ((agent_logs, first), (system_logs, second)):
            await tx.conn.execute(update(table).where(table.c.id == number).values(created_at=moment))


async def left(db: DatabaseManager) -> list[str]:
    agent_lines = [row["message"] for row in await db.list_recent_agent_logs(None)]
    assert agent_lines == [row["message"] for row in await db.list_recent_system_logs(None)]
    return agent_lines


@pytest.fixture
async def lines(db: DatabaseManager, agent_id: str) -> None:
    """Lines of different ages in both logs."""
    for days in (400, 31, 30.5, 29.5, 8, 1, 0):
        await aged(db, agent_id, days)


@pytest.mark.usefixtures("lines")
async def test_lines_older_than_thirty_days_go(db: DatabaseManager) -> None:
    assert await db.cleanup_old_logs() == 6
    assert await left(db) == ["0", "1", "8", "29.5"]
    assert await db.cleanup_old_logs() == 0


@pytest.mark.usefixtures("lines")
async def test_the_age_can_be_chosen(db: DatabaseManager) -> None:
    assert await db.cleanup_old_logs(days=365) == 2
    assert await db.cleanup_old_logs(7.5) == 8
    assert await left(db) == ["0", "1"]
    assert await db.cleanup_old_logs(0) == 4
    assert await left(db) == []


@pytest.mark.usefixtures("lines")
async def test_an_age_before_all_time_deletes_nothing(db: DatabaseManager) -> None:
    for days in (10**6, 10**12, 1e300, float("inf")):
        assert await db.cleanup_old_logs(days) == 0
    assert len(await left(db)) == 7


@pytest.mark.usefixtures("lines")
async def test_what_is_no_age_is_refused(db: DatabaseManager) -> None:
    wrong: list[Any] = [-1, -0.5, float("nan"), "30", None, True, [], timedelta(days=1)]
    for days in wrong:
        with pytest.raises(InvalidValueError) as caught:
            await call(db, "cleanup_old_logs", days)
        assert (caught.value.operation, caught.value.column) == ("cleanup_old_logs", "days")
    assert len(await left(db)) == 7


@pytest.mark.usefixtures("lines")
@pytest.mark.filterwarnings("ignore::orchdb.NaiveDatetimeWarning")
async def test_lines_before_a_time_are_pruned(db: DatabaseManager) -> None:
    moment = datetime.now(UTC) - timedelta(days=10)
    for before in (moment.isoformat(), moment, moment.replace(tzinfo=None)):
        await db.prune(before)
        assert await left(db) == ["0", "1", "8"]
    assert await db.prune(datetime.now(UTC) + timedelta(days=1)) == 6


async def test_the_time_itself_is_not_before(db: DatabaseManager) -> None:
    await db.create_system_log("INFO", "test", "x")
    created = (await db.get_system_logs())[0]["created_at"]
    assert await db.prune(created) == 0
    assert await db.prune(datetime.fromisoformat(f"{created}Z") + timedelta(microseconds=1)) == 1


async def test_pruning_can_keep_to_a_level(db: DatabaseManager, agent_id: str) -> None:
    for days in (40, 20):
        for level in ("DEBUG", "INFO", "ERROR"):
            await aged(db, agent_id, days, level)
    before = datetime.now(UTC) - timedelta(days=30)
    assert await db.prune(before, log_level="DEBUG") == 2
    assert await count(db, "agent_logs") == await count(db, "system_logs") == 5
    assert await db.prune(before, log_level="CRITICAL") == 0
    assert await db.prune(before) == 4


async def test_a_level_goes_from_among_many_lines_of_others(db: DatabaseManager) -> None:
    levels: list[Any] = ["DEBUG" if number % 7 == 0 else "INFO" for number in range(3500)]
    await db.create_system_logs(
        [{"log_level": level, "component": "test", "message": str(number)} for number, level in enumerate(levels)]
    )
    assert await db.prune(datetime.now(UTC) + timedelta(days=1), log_level="DEBUG") == 500
    assert [row["message"] for row in await db.get_system_logs()] == [str(n) for n in range(3500) if n % 7]


async def test_large_amounts_are_pruned_completely(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_logs(
        {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": "x"} for _ in range(3000)
    )
    await db.create_system_logs({"log_level": "INFO", "component": "x", "message": "x"} for _ in range(2001))
    assert await db.prune(datetime.now(UTC) + timedelta(days=1)) == 5001
    assert await count(db, "agent_logs") == await count(db, "system_logs") == 0


async def test_others_write_while_large_amounts_are_pruned(db: DatabaseManager) -> None:
    await db.create_system_logs({"log_level": "INFO", "component": "x", "message": "x"} for _ in range(5000))
    pruning = asyncio.create_task(db.prune(datetime.now(UTC)))
    written = 0
    while not pruning.done():
        await db.create_system_log("INFO", "y", "kept")
        written += 1
    assert await pruning == 5000
    assert await count(db, "system_logs") == written


@pytest.mark.usefixtures("lines")
async def test_only_the_logs_are_cleaned(db: DatabaseManager, agent_id: str) -> None:
    await db.create_prompt(agent_id, "adw", "x")
    await db.prune("2999-01-01")
    assert [await count(db, table) for table in ("orchestrator_agents", "agents", "prompts")] == [1, 1, 1]

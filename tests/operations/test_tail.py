"""Following a log while others write to it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import Table

from orchdb import AgentLogRow, DatabaseManager, InvalidValueError, NotConnectedError
from orchdb.backend import HighWatermark
from orchdb.postgres.backend import PostgresBackend
from tests.conftest import Target
from tests.support.databases import NO_ROW, taken


async def test_a_tail_begins_at_its_call(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "old")
    lines = db.tail_agent_logs(agent_id, poll_seconds=0.01)
    await db.create_agent_log(agent_id, "INFO", "milestone", "new", {"step": 1})
    (row,) = await taken(lines, 1)
    assert (row["message"], row["details"]) == ("new", {"step": 1})
    assert row in await db.get_agent_logs(agent_id)


@pytest.mark.parametrize("pool_size", [1, 10])
async def test_a_tail_that_is_called_inside_a_transaction_gives_all_lines_of_it(target: Target, pool_size: int) -> None:
    async with DatabaseManager(target.url, pool_size=pool_size) as db:
        await db.create_system_log("INFO", "test", "old")
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "test", "before the call")
            lines = db.tail_system_logs(poll_seconds=0.01)
            await tx.create_system_log("INFO", "test", "behind the call")
        assert [row["message"] for row in await taken(lines, 2)] == ["before the call", "behind the call"]


async def test_every_kind_of_write_after_the_call_of_a_tail_is_behind_it(db: DatabaseManager) -> None:
    line: Any = {"log_level": "INFO", "component": "test", "message": "many"}
    for number in range(30):
        lines = db.tail_system_logs(poll_seconds=0.001)
        writes: list[Awaitable[Any]] = [db.create_system_log("INFO", "test", "one"), db.create_system_logs([line] * 3)]
        writes += [db.create_system_log("INFO", "test", "one of many") for _ in range(20)] if number % 2 else []
        await asyncio.gather(*writes)
        found = {row["id"] for row in await taken(lines, 2 + len(writes))}
        assert found == {row["id"] for row in await db.list_recent_system_logs(2 + len(writes))}


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
async def test_a_write_that_is_cancelled_while_a_tail_begins_is_undone(
    postgres_url: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line: Any = {"log_level": "INFO", "component": "test", "message": "x"}
    begins = asyncio.Event()

    async def block() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "test", "x")

    async def beginning(backend: PostgresBackend, table: Table) -> HighWatermark:
        await begins.wait()
        return await slow(backend, table)

    slow = PostgresBackend._beginning
    monkeypatch.setattr(PostgresBackend, "_beginning", beginning)
    async with DatabaseManager(postgres_url.replace("postgresql:", f"postgresql+{engine}:"), pool_size=30) as db:
        lines = db.tail_system_logs(poll_seconds=0.01)
        writes = [block(), db.create_system_logs([line] * 3), *(db.create_system_log(**line) for _ in range(20))]
        tasks = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in tasks)
        for task in tasks[:3]:
            task.cancel()
        await asyncio.wait(tasks[:3])
        begins.set()
        await asyncio.gather(*tasks[3:])
        assert len(await taken(lines, 19)) == len(await db.get_system_logs()) == 19


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
async def test_what_another_program_commits_after_a_list_is_in_a_tail_that_was_called_before_it(
    postgres_url: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = PostgresBackend._begin_on

    async def late(*arguments: Any) -> HighWatermark:
        await asyncio.sleep(0.3)
        return await begin(*arguments)

    monkeypatch.setattr(PostgresBackend, "_begin_on", late)
    async with DatabaseManager(postgres_url.replace("postgresql:", f"postgresql+{engine}:")) as db:
        lines = db.tail_system_logs()
        assert await db.list_recent_system_logs(10) == []
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute("INSERT INTO system_logs (log_level, component, message) VALUES ('INFO', 'x', 'later')")
        assert (await asyncio.wait_for(anext(lines), 10))["message"] == "later"
        await cast("AsyncGenerator[Any]", lines).aclose()


async def test_a_tail_that_nobody_iterates_over_leaves_nothing(target: Target) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with DatabaseManager(target.url) as db:
        for _ in range(5):
            db.tail_system_logs()
            db.tail_agent_logs(after_id=3)
        await db.create_system_log("INFO", "test", "x")
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        db.tail_system_logs()
    gc.collect()
    await asyncio.sleep(0.01)
    assert complaints == []
    assert len(asyncio.all_tasks()) == 1


async def test_a_tail_of_a_manager_that_is_not_connected_is_refused_at_the_call(target: Target) -> None:
    db = DatabaseManager(target.url)
    for after_id in (None, 0):
        with pytest.raises(NotConnectedError):
            db.tail_agent_logs(after_id=after_id)
    async with db:
        pass
    with pytest.raises(NotConnectedError):
        db.tail_system_logs()


async def test_a_tail_goes_on_where_another_one_stopped(db: DatabaseManager, agent_id: str) -> None:
    numbers = [await db.create_agent_log(agent_id, "INFO", "milestone", f"line {n}") for n in range(5)]
    first = await taken(db.tail_agent_logs(after_id=0), 2)
    rest = await taken(db.tail_agent_logs(after_id=first[-1]["id"]), 3)
    assert [row["id"] for row in first + rest] == numbers


async def test_the_filters_of_a_tail_leave_the_others_out(db: DatabaseManager, agent_id: str) -> None:
    definition = await db.create_orchestrator_agent("other")
    other = await db.create_agent(definition, "session-1")
    await db.create_agent_log(other, "ERROR", "error", "line 0")
    await db.create_agent_log(agent_id, "INFO", "error", "line 1")
    await db.create_agent_log(agent_id, "ERROR", "milestone", "line 2")
    await db.create_agent_log(agent_id, "ERROR", "error", "line 3")
    assert await _messages(db.tail_agent_logs(agent_id, after_id=0), 3) == ["line 1", "line 2", "line 3"]
    assert await _messages(db.tail_agent_logs(None, "ERROR", after_id=0), 3) == ["line 0", "line 2", "line 3"]
    assert await _messages(db.tail_agent_logs(agent_id, "ERROR", "error", after_id=0), 1) == ["line 3"]


async def _messages(lines: AsyncIterator[AgentLogRow], number: int) -> list[str]:
    return [row["message"] for row in await taken(lines, number)]


async def test_an_agent_that_cannot_exist_has_no_lines_to_follow(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "x")
    for stranger in (NO_ROW, "no id"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(db.tail_agent_logs(stranger, after_id=0, poll_seconds=0.01))


async def test_a_tail_crosses_gaps_and_more_lines_than_one_look_reads(db: DatabaseManager, agent_id: str) -> None:
    line = {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": "x"}
    numbers = await db.create_agent_logs([line] * 1201)  # type: ignore[list-item]
    assert [row["id"] for row in await taken(db.tail_agent_logs(agent_id, after_id=0), 1201)] == numbers


FAR = 1_700_000_000_000
"""Milliseconds, which some programs take for an id."""


@pytest.mark.parametrize("filtered", [False, True])
async def test_a_tail_crosses_any_gap_at_once(db: DatabaseManager, agent_id: str, filtered: bool) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "near")
    columns = "(id, agent_id, log_type, message)"
    async with db.transaction() as tx:
        for number in (FAR, 2 * FAR, 3 * FAR):
            await tx.conn.exec_driver_sql(
                f"INSERT INTO agent_logs {columns} VALUES ({number}, '{agent_id}', 'milestone', 'far')"
            )
    filters: Any = {"agent_id": agent_id, "log_type": "milestone"} if filtered else {}
    rows = await taken(db.tail_agent_logs(**filters, after_id=0), 4)
    assert [row["id"] for row in rows[1:]] == [FAR, 2 * FAR, 3 * FAR]


async def test_a_tail_that_looks_for_a_few_lines_among_many_reads_them_in_bounded_steps(
    db: DatabaseManager, agent_id: str
) -> None:
    rare, usual = "step_start", {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": "x"}
    lines: list[Any] = [usual | {"log_type": rare} if number % 700 == 0 else usual for number in range(2500)]
    numbers = await db.create_agent_logs(lines)
    assert [row["id"] for row in await taken(db.tail_agent_logs(log_type=rare, after_id=0), 4)] == numbers[::700]


async def test_the_system_log_can_be_followed(db: DatabaseManager) -> None:
    await db.create_system_log("INFO", "scheduler", "started")
    await db.create_system_log("ERROR", "scheduler", "failed")
    await db.create_system_log("ERROR", "worker", "failed too")
    (row,) = await taken(db.tail_system_logs("ERROR", "worker", after_id=0), 1)
    assert row["message"] == "failed too"
    assert len(await taken(db.tail_system_logs(after_id=0), 3)) == 3


async def test_a_tail_ends_when_the_manager_is_closed(target: Target) -> None:
    db = DatabaseManager(target.url)
    await db.connect()
    following = asyncio.create_task(taken(db.tail_system_logs(poll_seconds=0.01), 1))
    await asyncio.sleep(0.05)
    await db.close()
    with pytest.raises(NotConnectedError):
        await following


@pytest.mark.spread
@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("after_id", {"after_id": -1}),
        ("after_id", {"after_id": "5"}),
        ("poll_seconds", {"poll_seconds": 0}),
        ("poll_seconds", {"poll_seconds": float("nan")}),
        ("poll_seconds", {"poll_seconds": float("inf")}),
        ("poll_seconds", {"poll_seconds": "1"}),
        ("log_level", {"log_level": "LOUD"}),
        ("log_level", {"log_level": 5}),
    ],
)
async def test_what_a_tail_cannot_use_is_refused_at_once(
    db: DatabaseManager, column: str, options: dict[str, Any]
) -> None:
    for tail in (db.tail_agent_logs, db.tail_system_logs):
        with pytest.raises(InvalidValueError) as caught:
            tail(**options)
        assert caught.value.column == column


@pytest.mark.parametrize(("column", "options"), [("log_type", {"log_type": "x\0"}), ("log_type", {"log_type": 7})])
async def test_a_filter_that_no_line_can_fit_is_refused_at_the_call(
    db: DatabaseManager, column: str, options: dict[str, Any]
) -> None:
    for after_id in (None, 0):
        with pytest.raises(InvalidValueError) as caught:
            db.tail_agent_logs(**options, after_id=after_id)
        assert (caught.value.column, caught.value.operation) == (column, "tail_agent_logs")

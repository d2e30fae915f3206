"""Clocks that stand still, jump or go backwards, as tests of other programs make them: all works all the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg  # noqa: F401  # what is compiled complains when it is loaded while the clock stands still
import pytest
import time_machine
from freezegun import freeze_time

from orchdb import DatabaseManager, OperationError
from tests.conftest import Target
from tests.support.databases import ONE_FORM, locked_by_another, taken

Clock = Callable[[], AbstractContextManager[Any]]
STOPPED: dict[str, Clock] = {
    "stands still": lambda: freeze_time("2021-02-03 04:05:06.789"),
    "stands still at a whole second": lambda: freeze_time("2021-02-03 04:05:06"),
    "stood still before 1970": lambda: freeze_time("1950-01-01 00:00:00.5"),
    "stands still in another way": lambda: time_machine.travel(
        datetime(2021, 2, 3, 4, 5, 6, 7, tzinfo=UTC), tick=False
    ),
}
MOVING: dict[str, Clock] = {
    "goes on": lambda: freeze_time("2021-02-03 04:05:06.789", tick=True),
    "has another zone": lambda: freeze_time("2021-02-03 04:05:06.789", tz_offset=-5),
    "leaves asyncio alone": lambda: freeze_time("2021-02-03 04:05:06.789", real_asyncio=True),
    "is far ahead": lambda: time_machine.travel(datetime(2099, 2, 3, 4, 5, 6, 7, tzinfo=UTC)),
}


@pytest.mark.parametrize("clock", [*STOPPED.values(), *MOVING.values()], ids=[*STOPPED, *MOVING])
async def test_every_kind_of_write_and_read_works(target: Target, clock: Clock) -> None:
    with clock():
        async with DatabaseManager(target.url) as db:
            agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session")
            await db.create_agent_logs(
                [{"agent_id": agent, "log_level": "INFO", "log_type": "x", "message": "x"} for _ in range(30)]
            )
            details: Any = {"at": datetime.now(UTC), "on": date(2021, 2, 3)}
            await asyncio.gather(*(db.create_agent_log(agent, "INFO", "x", "x", details) for _ in range(30)))
            assert await db.update_agent(agent, status="executing", started_at=datetime.now(UTC))
            assert await db.update_agent(agent, error_message="x", updated_at=datetime.now(UTC))
            assert await db.add_agent_cost(agent, 0.5)
            async with db.transaction() as tx:
                assert await tx.update_agent(agent, status="completed")
                async with tx.transaction():
                    await tx.create_system_log("INFO", "x", "x")
            assert await db.delete_agent(agent, soft=True)
            assert await db.restore_agent(agent)
            row = await db.get_agent(agent)
            assert row is not None
            times = [row[column] for column in ("created_at", "updated_at", "started_at", "completed_at")]
            assert all(re.fullmatch(ONE_FORM, moment or "") for moment in times)
            assert len(await db.get_agent_logs(agent, since=datetime(1940, 1, 1, tzinfo=UTC))) == 60
            assert await db.prune(datetime.now(UTC) + timedelta(days=1)) == 61


@pytest.mark.parametrize("clock", STOPPED.values(), ids=STOPPED)
async def test_times_are_those_of_a_clock_that_stands_still(target: Target, clock: Clock) -> None:
    with clock():
        now = datetime.now(UTC)
        moment = now.isoformat(timespec="microseconds")[:26]
        following = (now + timedelta(microseconds=1)).isoformat(timespec="microseconds")[:26]
        async with DatabaseManager(target.url) as db:
            agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session", status="executing")
            for number in range(3):
                row = await db.get_agent(agent)
                assert row is not None
                assert (row["created_at"], row["started_at"]) == (moment, moment)
                # A change has to move it: a microsecond, where the clock does not.
                assert row["updated_at"] == (following if number % 2 else moment)
                await db.update_agent(agent, error_message=str(number))
            await db.update_agent(agent, status="completed", updated_at=moment)
            row = await db.get_agent(agent)
            assert row is not None
            assert (row["completed_at"], row["updated_at"]) == (moment, moment)
            await db.create_system_log("INFO", "x", "x")
            assert (await db.get_system_logs())[0]["created_at"] == moment


@pytest.mark.parametrize("clock", STOPPED.values(), ids=STOPPED)
async def test_within_one_instant_rows_come_in_the_order_of_their_creation(target: Target, clock: Clock) -> None:
    with clock():
        async with DatabaseManager(target.url) as db:
            definition = await db.create_orchestrator_agent("scout")
            agents = [await db.create_agent(definition, "session") for _ in range(50)]
            prompts = [await db.create_prompt(agents[0], "adw", str(number)) for number in range(50)]
            logs = [await db.create_agent_log(agents[0], "INFO", "x", str(number)) for number in range(50)]
            assert [row["id"] for row in await db.list_agents()] == agents[::-1]
            assert [row["id"] for row in await db.list_prompts(agents[0])] == prompts
            assert [row["id"] for row in await db.get_agent_logs(agents[0])] == logs
            assert [row["id"] async for row in db.iter_agent_logs(agents[0], page_size=7)] == logs


async def test_ids_keep_their_order_on_a_clock_that_goes_backwards(db: DatabaseManager, agent_id: str) -> None:
    prompts: list[str] = []
    for year in (2099, 2021, 1950, 2030):
        with time_machine.travel(datetime(year, 1, 1, tzinfo=UTC)):
            prompts += [await db.create_prompt(agent_id, "adw", "x") for _ in range(3)]
    prompts.append(await db.create_prompt(agent_id, "adw", "x"))
    assert prompts == sorted(prompts)
    assert len(await db.list_prompts(agent_id)) == 13


async def test_a_tail_follows_while_the_clock_stands_still(db: DatabaseManager) -> None:
    with freeze_time("2021-02-03 04:05:06.789"):
        tail = db.tail_system_logs(after_id=0, poll_seconds=0.01)
        reading = asyncio.ensure_future(taken_without_a_time_out(tail, 3))
        for number in range(3):
            await db.create_system_log("INFO", "x", str(number))
        assert [row["message"] for row in await reading] == ["0", "1", "2"]


async def taken_without_a_time_out(rows: Any, number: int) -> list[Any]:
    """The next ones; a time-out of the loop would not come while its clock stands still."""
    return [await anext(rows) for _ in range(number)]


async def test_sqlite_a_lock_is_waited_for_no_longer_than_it_may_be(target: Target) -> None:
    if target.engine != "sqlite":
        pytest.skip("a server has its own clock")
    async with DatabaseManager(target.url, lock_timeout=0.3) as db:
        with locked_by_another(target.path), freeze_time("2021-02-03 04:05:06.789"):
            with pytest.raises(OperationError, match="locked"):
                await db.create_system_log("INFO", "x", "alone")
            with pytest.raises(OperationError, match="locked"):
                async with db.transaction():
                    pass
            results = await asyncio.gather(
                *(db.create_system_log("INFO", "x", "x") for _ in range(5)), return_exceptions=True
            )
            assert all(isinstance(result, OperationError) for result in results)
        await db.create_system_log("INFO", "x", "the lock is free")
        assert len(await db.get_system_logs()) == 1


async def test_sqlite_who_waits_behind_a_block_waits_no_longer_than_it_may(target: Target) -> None:
    if target.engine != "sqlite":
        pytest.skip("a server has its own clock")
    async with DatabaseManager(target.url, lock_timeout=0.3) as db:
        with freeze_time("2021-02-03 04:05:06.789"):
            async with db.transaction() as tx:
                behind = asyncio.create_task(db.create_system_log("INFO", "x", "behind"))
                with pytest.raises(OperationError, match="locked"):
                    await behind
                await tx.create_system_log("INFO", "x", "inside")
            assert [row["message"] for row in await db.get_system_logs()] == ["inside"]


async def test_a_jump_of_the_clock_is_no_time_out(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        behind = asyncio.create_task(db.create_system_log("INFO", "x", "behind"))
        await asyncio.sleep(0)
        with freeze_time("2099-01-01"):
            await tx.create_system_log("INFO", "x", "inside")
    await behind
    assert len(await db.get_system_logs()) == 2


async def test_after_the_clock_is_free_again_everything_goes_on(target: Target) -> None:
    with freeze_time("2099-01-01 00:00:00.5"):
        db = DatabaseManager(target.url)
        await db.connect()
        await db.create_system_log("INFO", "x", "0")
    await db.create_system_log("INFO", "x", "1")
    tail = db.tail_system_logs(after_id=0, poll_seconds=0.01)
    assert [row["message"] for row in await taken(tail, 2)] == ["0", "1"]
    await db.close()

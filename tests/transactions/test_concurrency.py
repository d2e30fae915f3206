"""Many tasks, several managers and several processes on one database."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, DuplicateError, InvalidValueError, MissingParentError, OperationError, OrchdbError
from tests.conftest import Target
from tests.support.databases import NO_ROW, call, complaints, count, locked_by_another, other_program

TASKS, CREATES = 100, 50


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """What only the garbage collector would clean up stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def lock_is_free(db: DatabaseManager, target: Target) -> bool:
    """Whether another program gets the write lock at once; on Postgres whether nobody is in a transaction."""
    if target.engine != "sqlite":
        return True  # the fixture looks at the sessions that are left
    connection = sqlite3.connect(target.path, isolation_level=None, timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


async def test_a_hundred_tasks_share_a_manager_and_each_failure_reaches_its_own_caller(
    db: DatabaseManager, agent_id: str
) -> None:
    wrong: list[tuple[type[Exception], tuple[Any, ...]]] = [
        (MissingParentError, ("create_agent_log", NO_ROW, "INFO", "milestone", "x")),
        (InvalidValueError, ("create_agent_log", agent_id, "LOUD", "milestone", "x")),
        (DuplicateError, ("create_orchestrator_agent", "scout")),
        (MissingParentError, ("create_prompt", NO_ROW, "adw", "x")),
    ]
    acknowledged: dict[int, str] = {}
    failures = 0

    async def work(task: int) -> None:
        nonlocal failures
        for number in range(CREATES):
            if number % 25 == task % 25:
                kind, arguments = wrong[(task + number) % len(wrong)]
                with pytest.raises(kind):
                    await call(db, *arguments)
                failures += 1
            else:
                message = f"{task}/{number}"
                acknowledged[await db.create_agent_log(agent_id, "INFO", "milestone", message)] = message

    await asyncio.gather(*(work(task) for task in range(TASKS)))

    assert failures == TASKS * CREATES * 4 // 100
    assert len(acknowledged) == TASKS * CREATES - failures
    assert {row["id"]: row["message"] for row in await db.get_agent_logs(agent_id)} == acknowledged
    assert await count(db, "orchestrator_agents") == 1
    assert await count(db, "prompts") == 0


async def test_bad_and_good_writes_of_one_moment_do_not_touch_each_other(db: DatabaseManager, agent_id: str) -> None:
    good = [db.create_agent_log(agent_id, "INFO", "milestone", f"{n}") for n in range(200)]
    bad = [db.create_agent_log(NO_ROW, "INFO", "milestone", f"{n}") for n in range(200)]
    mixed = [coroutine for pair in zip(good, bad, strict=True) for coroutine in pair]
    results = await asyncio.gather(*mixed, return_exceptions=True)
    assert {type(result) for result in results[1::2]} == {MissingParentError}
    assert {row["id"] for row in await db.get_agent_logs(agent_id)} == set(results[::2])


async def test_concurrent_reads(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_logs(
        {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": f"{n}"} for n in range(100)
    )
    lists = await asyncio.gather(*(db.get_agent_logs(agent_id) for _ in range(100)))
    assert all(rows == lists[0] for rows in lists)
    assert len(lists[0]) == 100


async def test_readers_do_not_wait_for_a_long_transaction(db: DatabaseManager, agent_id: str) -> None:
    async with db.transaction() as tx:
        await tx.update_agent(agent_id, status="executing")
        async with asyncio.timeout(10):
            rows = await asyncio.gather(*(asyncio.create_task(db.get_agent(agent_id)) for _ in range(20)))
        assert {row["status"] for row in rows if row} == {"initializing"}
    assert (await db.list_agents())[0]["status"] == "executing"


async def test_a_reader_sees_only_whole_transactions(db: DatabaseManager) -> None:
    done = asyncio.Event()

    async def write() -> None:
        for _ in range(30):
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "pair", "first")
                await tx.create_system_log("INFO", "pair", "second")
        done.set()

    async def read() -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(len(await db.get_system_logs()))
        return counts

    _, *seen = await asyncio.gather(write(), read(), read())
    for counts in seen:
        assert counts == sorted(counts)
        assert all(number % 2 == 0 for number in counts)


async def test_two_managers_in_one_process_share_the_database(target: Target) -> None:
    async with DatabaseManager(target.url) as one, DatabaseManager(target.url) as two:
        agent = await one.create_agent(await two.create_orchestrator_agent("scout"), "session-1")
        managers = [one, two] * 100
        ids = await asyncio.gather(*(db.create_agent_log(agent, "INFO", "milestone", "x") for db in managers))
        await asyncio.gather(*(db.add_agent_cost(agent, 0.25) for db in managers))
        assert len(set(ids)) == 200
        for db in (one, two):
            assert len(await db.get_agent_logs(agent)) == 200
            row = await db.get_agent(agent)
            assert row is not None
            assert row["cost_usd"] == 50.0


async def test_two_managers_may_open_a_fresh_database_together(target: Target) -> None:
    managers = [DatabaseManager(target.url) for _ in range(6)]
    await asyncio.gather(*(db.connect() for db in managers))
    try:
        await asyncio.gather(*(db.create_orchestrator_agent(f"{n}") for n, db in enumerate(managers)))
        assert len(await managers[0].list_orchestrator_agents()) == len(managers)
    finally:
        await asyncio.gather(*(db.close() for db in managers))


WRITER = """
import asyncio, sys
from orchdb import DatabaseManager

async def main(url, name):
    sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
    async with DatabaseManager(url) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent(name), name)
        async def work(task):
            for number in range(25):
                await db.create_agent_log(agent, "INFO", "milestone", f"{task}/{number}")
                if number % 10 == 0:
                    async with db.transaction() as tx:
                        await tx.create_system_log("INFO", name, f"{task}/{number}")
                        await tx.add_agent_cost(agent, 0.25)
        await asyncio.gather(*(work(task) for task in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_four_processes_start_together_on_a_fresh_database(target: Target) -> None:
    names = [f"process-{number}" for number in range(4)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes: list[Any] = [
        subprocess.Popen([sys.executable, "-c", WRITER, target.url, name], **pipes) for name in names
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [await asyncio.to_thread(process.communicate, timeout=120) for process in processes]

    said = [(process.returncode, complaints(errors)) for process, (_, errors) in zip(processes, ends, strict=True)]
    assert said == [(0, "")] * 4
    async with DatabaseManager(target.url) as db:
        agents = await db.list_agents()
        assert sorted(row["session_id"] for row in agents) == names
        expected = sorted(f"{task}/{number}" for task in range(8) for number in range(25))
        for row in agents:
            assert sorted(line["message"] for line in await db.get_agent_logs(row["id"])) == expected
            assert len(await db.get_system_logs(component=row["session_id"])) == 24
            assert row["cost_usd"] == 6.0


async def _write(db: DatabaseManager, agent_id: str, kind: int, number: int) -> None:
    if kind == 0:
        await db.create_agent_log(agent_id, "INFO", "milestone", f"{number}")
    elif kind == 1:
        await db.create_agent_logs(
            [{"agent_id": agent_id, "log_level": "INFO", "log_type": "bulk", "message": f"{number}"}] * 20
        )
    elif kind == 2:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", f"{number}", "first")
            await asyncio.sleep(0)
            await tx.create_system_log("INFO", f"{number}", "second")
    elif kind == 3:
        await db.get_agent_logs(agent_id)
    else:
        await db.add_agent_cost(agent_id, 0.5)


@pytest.mark.usefixtures("no_garbage_collection")
async def test_a_cancelled_operation_leaves_the_manager_usable_and_no_lock(
    db: DatabaseManager, agent_id: str, target: Target
) -> None:
    chance = random.Random(7)
    for number in range(150):
        task = asyncio.create_task(_write(db, agent_id, number % 5, number))
        if number % 2:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(chance.random() * 0.003)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await db.create_system_log("INFO", "probe", "x")
        assert await lock_is_free(db, target)
    components = [row["component"] for row in await db.get_system_logs()]
    assert components.count("probe") == 150
    assert all(components.count(name) == 2 for name in set(components) - {"probe"})
    bulk = [row["message"] for row in await db.get_agent_logs(agent_id, log_type="bulk")]
    assert all(bulk.count(message) == 20 for message in set(bulk))


@pytest.mark.usefixtures("no_garbage_collection")
async def test_a_storm_of_cancellations_harms_nobody_else(db: DatabaseManager, agent_id: str, target: Target) -> None:
    chance = random.Random(11)
    kept: list[asyncio.Task[int]] = []
    doomed: list[asyncio.Task[int]] = []
    for number in range(300):
        task = asyncio.create_task(db.create_agent_log(agent_id, "INFO", "milestone", f"{number}"))
        (doomed if chance.random() < 0.5 else kept).append(task)
    for _ in range(5):
        for task in chance.sample(doomed, len(doomed) // 2):
            task.cancel()
        await asyncio.sleep(0.002)
    async with asyncio.timeout(30):
        ids = await asyncio.gather(*kept)
        await asyncio.gather(*doomed, return_exceptions=True)
        stored = {row["id"] for row in await db.get_agent_logs(agent_id)}
    assert set(ids) <= stored
    finished = {task.result() for task in doomed if not task.cancelled()}
    assert finished <= stored
    assert await lock_is_free(db, target)


async def test_cancelled_reads_leave_the_readers_usable(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_logs(
        {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": f"{n}"} for n in range(500)
    )
    for turns in range(30):
        reads = [asyncio.create_task(db.get_agent_logs(agent_id)) for _ in range(8)]
        for _ in range(turns % 10):
            await asyncio.sleep(0)
        for task in reads[::2]:
            task.cancel()
        async with asyncio.timeout(30):
            results = await asyncio.gather(*reads, return_exceptions=True)
        assert all(len(rows) == 500 for rows in results[1::2] if isinstance(rows, list))
        assert not any(isinstance(result, OrchdbError) for result in results)


@pytest.mark.usefixtures("no_garbage_collection")
async def test_calls_that_are_cancelled_while_a_connection_is_made_leave_none_behind(target: Target) -> None:
    for turns in range(10):
        async with DatabaseManager(target.url) as db:
            reads = [asyncio.create_task(db.get_system_logs()) for _ in range(8)]
            await asyncio.sleep(turns / 1000)
            for task in reads:
                task.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            async with asyncio.timeout(10):
                assert await db.get_system_logs() == []


async def test_a_timeout_is_kept_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        with locked_by_another(path):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await db.create_orchestrator_agent("late")
        await db.create_orchestrator_agent("next")
        names = [row["name"] for row in await db.list_orchestrator_agents()]
        # What timed out may have been applied, if the lock was released before it was withdrawn.
        assert [name for name in names if name != "late"] == ["next"]


async def test_a_lock_that_is_released_in_time_costs_nothing_but_time(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        with locked_by_another(path):
            writes = [asyncio.create_task(db.create_orchestrator_agent(f"{n}")) for n in range(5)]
            await asyncio.sleep(0.4)
            assert not any(task.done() for task in writes)
            assert await db.list_orchestrator_agents() == []
        async with asyncio.timeout(20):
            await asyncio.gather(*writes)
        assert len(await db.list_orchestrator_agents()) == 5


async def test_a_lock_beyond_the_timeout_is_an_error_and_then_all_is_well(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path, lock_timeout=0.3) as db:
        with locked_by_another(path):
            writes = [db.create_orchestrator_agent(f"{n}") for n in range(5)]
            results = await asyncio.gather(*writes, return_exceptions=True)
            with pytest.raises(OperationError):
                async with db.transaction():
                    pytest.fail("the block must not run")
        assert {type(result) for result in results} == {OperationError}
        await db.create_orchestrator_agent("after")
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("and after")
        assert len(await db.list_orchestrator_agents()) == 2


async def test_the_event_loop_goes_on_while_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path, lock_timeout=0.5) as db:
        with locked_by_another(path):
            write = asyncio.create_task(db.create_orchestrator_agent("late"))
            turns = 0
            while not write.done():
                await asyncio.sleep(0.001)
                turns += 1
        with pytest.raises(OperationError):
            await write
    assert turns > 50


async def test_a_write_waits_behind_ones_own_long_transaction_no_longer_than_it_may(target: Target) -> None:
    async with DatabaseManager(target.url, lock_timeout=0.3) as db:
        agent = await db.create_orchestrator_agent("scout")
        async with db.transaction() as tx:
            await tx.update_orchestrator_agent(agent, description="long")
            other = asyncio.create_task(db.update_orchestrator_agent(agent, description="other"))
            with pytest.raises(OperationError):
                async with asyncio.timeout(20):
                    await other
        assert await db.update_orchestrator_agent(agent, description="after") is True


async def test_a_reader_of_another_program_does_not_hold_up_writes(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path, lock_timeout=1) as db:
        await db.create_orchestrator_agent("first")
        with other_program(path) as connection:
            connection.execute("BEGIN")
            assert connection.execute("SELECT count(*) FROM orchestrator_agents").fetchone() == (1,)
            await db.create_orchestrator_agent("second")
            assert connection.execute("SELECT count(*) FROM orchestrator_agents").fetchone() == (1,)
            connection.execute("COMMIT")
            assert connection.execute("SELECT count(*) FROM orchestrator_agents").fetchone() == (2,)

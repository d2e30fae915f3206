"""Several processes with many tasks on one database: no error, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from orchdb import DatabaseManager
from tests.conftest import Target
from tests.support.faults import Child, ask, assert_sound, foreign_lock, lock_is_free, log, messages, seen, until

PROCESSES, TASKS = 4, 25


async def contend(target: Target, seconds: float, backups: Path) -> dict[str, float]:
    """The figures, after everything has been checked."""
    async with DatabaseManager(target.url) as db:
        definition = await db.create_orchestrator_agent("contender")
        agent = await db.create_agent(definition, "contention")
        with ExitStack() as stack:
            children = [
                stack.enter_context(Child("contending", target.url, number, TASKS, seconds, agent))
                for number in range(PROCESSES)
            ]
            assert [child.line() for child in children] == ["ready"] * PROCESSES
            for child in children:
                child.tell("go")
            results = asyncio.ensure_future(asyncio.to_thread(lambda: [child.line() for child in children]))
            paged = await beside(db, target, results, backups)
        rows = [name for result in await results for name in result["rows"]]
        visible = [line["message"] async for line in db.iter_system_logs()]
        assert len(rows) == len(set(rows)) > 0
        assert sorted(visible) == sorted(rows)
        found = await db.get_agent(agent)
        assert found is not None
        assert found["cost_usd"] == len(rows) * 0.5
    figures: dict[str, float] = {
        name: max(result[name] for result in results.result()) for name in ("p50", "p99", "max")
    }
    return {**figures, "rows": len(rows), "paged": paged}


async def beside(db: DatabaseManager, target: Target, results: asyncio.Future[Any], backups: Path) -> int:
    """Page through everything and make backups, until the writers are done; what is seen never shrinks."""
    paged = before = 0
    while not results.done():
        count = len([None async for _ in db.iter_system_logs(page_size=200)])
        assert count >= before
        paged, before = paged + count, count
        if target.engine == "sqlite":
            backup = backups / f"backup-{paged}.db"
            await db.backup(backup)
            assert ask(backup, "PRAGMA quick_check") == [("ok",)]
            assert len(messages(backup)) >= count
            backup.unlink()
    return paged


@pytest.mark.slow
async def test_4_processes_with_25_tasks_each_a_reader_and_backups(target: Target, tmp_path: Path) -> None:
    figures = await contend(target, 3, tmp_path)
    assert figures["max"] < 5
    if target.engine == "sqlite":
        assert_sound(target.path)


@pytest.mark.soak
async def test_4_processes_with_25_tasks_each_for_30_seconds(target: Target, tmp_path: Path) -> None:
    figures = await contend(target, 30, tmp_path)
    print(target.engine, {name: round(value, 3) for name, value in figures.items()})
    assert figures["max"] < 10
    if target.engine == "sqlite":
        assert_sound(target.path)


@pytest.mark.slow
def test_8_processes_open_a_new_database_in_the_same_instant(target: Target, tmp_path: Path) -> None:
    rounds = 5 if target.engine == "sqlite" else 1
    with ExitStack() as stack:
        children = [stack.enter_context(Child("opening", number)) for number in range(8)]
        assert [child.line() for child in children] == ["ready"] * 8
        for number in range(rounds):
            url = make_url(target.url)
            if target.engine == "sqlite":
                url = url.set(database=str(tmp_path / f"{number}.db"))
            for child in children:
                child.tell("go")
            for child in children:
                child.tell(url.render_as_string(hide_password=False))
            assert [child.line() for child in children] == ["done"] * 8

            async def look(address: str) -> list[str]:
                async with DatabaseManager(address) as db:
                    return sorted(await seen(db))

            assert asyncio.run(look(url.render_as_string(hide_password=False))) == [str(child) for child in range(8)]
        for child in children:
            child.tell("enough")


async def test_two_managers_in_one_process_do_not_disturb_each_other(target: Target) -> None:
    async with DatabaseManager(target.url) as one, DatabaseManager(target.url) as two:
        ids = await asyncio.gather(
            *(log(one, f"one {number}") for number in range(300)), *(log(two, f"two {number}") for number in range(300))
        )
        assert len(set(ids)) == 600
        assert len(await seen(one)) == len(await seen(two)) == 600


async def test_no_increment_is_lost(target: Target) -> None:
    async with DatabaseManager(target.url) as one, DatabaseManager(target.url) as two:
        definition = await one.create_orchestrator_agent("counted")
        agent = await one.create_agent(definition, "session")
        prompt = await one.create_prompt(agent, "command", "count")
        managers = (one, two)
        added = await asyncio.gather(
            *(managers[number % 2].add_prompt_usage(prompt, tokens_output=1, cost_usd=0.1) for number in range(1000))
        )
        assert all(added)
        found = await one.get_prompt(prompt)
        assert found is not None
        assert found["tokens_output"] == 1000
        assert math.isclose(found["cost_usd"] or 0, 100)


async def test_failing_calls_beside_good_ones_cost_the_good_ones_nothing(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        missing = "01890000-0000-7000-8000-000000000000"
        results = await asyncio.gather(
            *(log(db, f"good {number}") for number in range(200)),
            *(db.create_agent_log(missing, "INFO", "error", "orphan") for _ in range(200)),
            return_exceptions=True,
        )
        kinds = [type(result).__name__ for result in results]
        assert kinds == ["int"] * 200 + ["MissingParentError"] * 200
        assert len(await seen(db)) == 200
        assert await db.list_recent_agent_logs() == []


async def test_sqlite_a_reader_never_waits_and_never_sees_less(path: Path) -> None:
    async with DatabaseManager(path) as db, DatabaseManager(path) as other:
        writing = asyncio.create_task(asyncio.wait_for(_many(other, 400), 30))
        before = 0
        while not writing.done():
            started = time.monotonic()
            count = len(await seen(db))
            assert time.monotonic() - started < 1
            assert count >= before
            before = count
        assert len(await seen(db)) == await writing == 400


async def _many(db: DatabaseManager, count: int) -> int:
    for number in range(count):
        await log(db, str(number))
    return count


async def test_sqlite_a_lock_that_another_process_holds_for_a_while_is_waited_for(path: Path) -> None:
    async with DatabaseManager(path) as db:
        with foreign_lock(path):
            writes = [asyncio.create_task(log(db, str(number))) for number in range(50)]
            await asyncio.sleep(1)
            assert not any(write.done() for write in writes)
        await asyncio.wait_for(asyncio.gather(*writes), 2)
        assert len(messages(path)) == 50
        await until(lambda: lock_is_free(path), 1)

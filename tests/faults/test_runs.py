"""Runs whose owner dies, is stopped, sleeps or comes back: nobody stays executing, and nobody alive is ended."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from orchdb import DatabaseManager, OperationError
from tests.conftest import Target
from tests.operations.test_runs import found, leases, outcome
from tests.support.databases import run_elsewhere
from tests.support.faults import Child, foreign_lock, on_postgres, until

LOST = ("failed", "owner lost")
FAKETIME = next(iter(sorted(Path("/usr").glob("lib*/**/faketime/libfaketime.so.1"))), None)
needs_faketime = pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")


@contextmanager
def clock_set_by(seconds: int) -> Iterator[None]:
    """The processes that are started in here see another time than the others."""
    with pytest.MonkeyPatch.context() as environment:
        if seconds:
            environment.setenv("LD_PRELOAD", str(FAKETIME))
            environment.setenv("FAKETIME", f"{seconds:+}s")
        yield


@contextmanager
def nothing_can_be_written(target: Target, agent_id: str) -> Iterator[None]:
    """Somebody holds the lock that the end of the run needs."""
    if target.engine == "sqlite":
        with foreign_lock(target.path):
            yield
        return
    url = make_url(target.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM agents WHERE id = %s FOR UPDATE", [agent_id])
        yield


@needs_faketime
@pytest.mark.slow
@pytest.mark.parametrize(("dead", "living"), [(0, 60), (60, 0)], ids=["the living is ahead", "the dead is ahead"])
async def test_kill_9_of_a_process_with_20_runs_and_exactly_these_are_reaped_whatever_the_clocks_say(
    target: Target, dead: int, living: int
) -> None:
    seconds = 4.0
    async with DatabaseManager(target.url) as db:
        with clock_set_by(dead):
            first = Child("holding", target.url, "good", 20, seconds)
        with clock_set_by(living):
            second = Child("holding", target.url, "good", 20, seconds)
        with first, second:
            lost, held = first.line(), second.line()
            ahead, behind = (lost, held) if dead else (held, lost)
            times = [(await found(db, agents[-1]))["created_at"] for agents in (ahead, behind)]
            assert times[0] > times[1] or times[0][:13] != times[1][:13]  # the clocks are bent
            assert await db.reap_agents() == []
            first.process.kill()
            first.process.wait()
            await asyncio.sleep(seconds + 1)
            assert sorted(await db.reap_agents()) == sorted(lost)
            assert {await outcome(db, agent) for agent in lost} == {LOST}
            assert {await outcome(db, agent) for agent in held} == {("executing", None)}
            for word in ("end", "end"):
                second.tell(word)
            assert second.end() == ["done"]
        assert {await outcome(db, agent) for agent in held} == {("completed", None)}
        assert {await outcome(db, agent) for agent in lost} == {LOST}
        for agent in lost:
            row = await found(db, agent)
            assert row["completed_at"] is not None
            assert row["created_at"] <= row["completed_at"]
    assert leases(target.url) == []


@pytest.mark.slow
async def test_a_run_that_sleeps_or_whose_loop_is_blocked_for_half_of_the_lease_is_never_reaped(
    target: Target,
) -> None:
    seconds = 3.0
    async with DatabaseManager(target.url) as db:
        with Child("holding", target.url, "blocked", 5, seconds) as blocked:
            agents = blocked.line()
            done = asyncio.create_task(asyncio.to_thread(blocked.line))
            async with db.agent_run("sleeper", "session-1", lease_seconds=1) as run:
                while not done.done():
                    assert await db.reap_agents() == []
                    await asyncio.sleep(0.1)
            assert await done == "done"
            blocked.tell("end")
            blocked.end()
        assert {await outcome(db, agent) for agent in (*agents, run.id)} == {("completed", None)}


@pytest.mark.slow
async def test_a_process_that_was_stopped_for_longer_than_its_lease_is_reaped_and_cannot_undo_that(
    target: Target,
) -> None:
    async with DatabaseManager(target.url) as db:
        with Child("holding", target.url, "good", 3, 1.0, stderr=-1) as child:
            agents = child.line()
            os.kill(child.process.pid, signal.SIGSTOP)
            reaped: list[str] = []
            while len(reaped) < 3:
                reaped += await db.reap_agents()
                await asyncio.sleep(0.05)
            os.kill(child.process.pid, signal.SIGCONT)
            for word in ("end", "end"):
                child.tell(word)
            _, complaint = child.process.communicate(timeout=60)
            assert child.process.returncode == 1
            assert "OperationError: agent_run on agents: its lease had run out" in complaint
        assert sorted(reaped) == sorted(agents)
        assert {await outcome(db, agent) for agent in agents} == {LOST}


def test_a_fork_neither_keeps_nor_ends_the_runs_of_its_parent(target: Target) -> None:
    with Child("holding", target.url, "forking", 3, 60) as child:
        agents = child.line()
        assert child.line() == "done"
        assert len(leases(target.url)) == 1
        assert run_elsewhere(target.url, "SELECT DISTINCT status FROM agents") == [("executing",)]
        child.tell("end")
        child.end()
    assert len(agents) == 3
    assert run_elsewhere(target.url, "SELECT DISTINCT status FROM agents") == [("completed",)]
    assert leases(target.url) == []


@pytest.mark.parametrize("raises", [False, True])
async def test_an_end_that_cannot_be_written_is_told_and_written_as_soon_as_it_can_be(
    target: Target, raises: bool
) -> None:
    async with DatabaseManager(target.url, lock_timeout=0.2) as db:
        with ExitStack() as locks:
            with pytest.raises(ValueError if raises else OperationError):
                async with db.agent_run("scout", "session-1", lease_seconds=3) as run:
                    locks.enter_context(nothing_can_be_written(target, run.id))
                    if raises:
                        raise ValueError("its own")
            assert await outcome(db, run.id) == ("executing", None)
        async with asyncio.timeout(30):
            while (await found(db, run.id))["status"] == "executing":
                await asyncio.sleep(0.05)
        assert await outcome(db, run.id) == (("failed", "ValueError: its own") if raises else ("completed", None))
        async with DatabaseManager(target.url) as other:
            assert await other.reap_agents() == []


@on_postgres
@pytest.mark.slow
async def test_an_end_that_waits_for_a_lock_keeps_no_other_run_from_being_kept_alive(target: Target) -> None:
    async with DatabaseManager(target.url, lock_timeout=1.5) as db, DatabaseManager(target.url) as other:
        with ExitStack() as locks:
            async with db.agent_run("scout", "session-1", lease_seconds=1.5) as beside:
                with pytest.raises(OperationError):
                    async with db.agent_run("scout", "session-1", lease_seconds=1.5) as run:
                        locks.enter_context(nothing_can_be_written(target, run.id))
                for _ in range(60):
                    assert await other.reap_agents() == []
                    await asyncio.sleep(0.1)
                locks.close()
        async with db.agent_run("scout", "session-1", lease_seconds=1.5), asyncio.timeout(30):
            while (await found(db, run.id))["status"] == "executing":
                await asyncio.sleep(0.05)
        assert [await outcome(db, agent) for agent in (beside.id, run.id)] == [("completed", None)] * 2


async def test_an_end_that_is_still_to_be_written_is_written_by_close(target: Target) -> None:
    async with DatabaseManager(target.url, lock_timeout=0.2) as db:
        with ExitStack() as locks, pytest.raises(OperationError):
            async with db.agent_run("scout", "session-1") as run:
                locks.enter_context(nothing_can_be_written(target, run.id))
    async with DatabaseManager(target.url) as db:
        assert await outcome(db, run.id) == ("completed", None)
    assert leases(target.url) == []


async def test_a_shutdown_that_cancels_every_task_ends_every_run_and_the_manager_keeps_the_next_ones_alive(
    target: Target,
) -> None:
    async with DatabaseManager(target.url) as db:

        async def work() -> None:
            async with db.agent_run("scout", "session-1", lease_seconds=1):
                entered.release()
                await asyncio.Event().wait()

        entered = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(work()) for _ in range(20)]
        for _ in tasks:
            await entered.acquire()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert {row["status"] for row in await db.list_agents()} == {"cancelled"}
        async with db.agent_run("scout", "session-1", lease_seconds=1) as run:
            first = run_elsewhere(target.url, "SELECT clock FROM leases")
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await until(lambda: run_elsewhere(target.url, "SELECT clock FROM leases") > first, 20)
        assert await outcome(db, run.id) == ("completed", None)

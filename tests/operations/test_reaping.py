"""Ending agents whose owner has died: exactly those, once, and those that come back are told."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchdb import AGENT_STATUSES, DatabaseManager, InvalidValueError, OperationError
from orchdb.sqlite.jobs import OneStatement
from tests.conftest import Target
from tests.operations.test_runs import found, leases, outcome
from tests.support.databases import call, run_elsewhere

LOST = ("failed", "owner lost")


def expire(url: str) -> None:
    """Let the time of every lease pass."""
    run_elsewhere(url, "UPDATE leases SET clock = clock - 100000")


def lease_of(url: str, agent_id: str) -> Any:
    """The lease that an agent names."""
    return run_elsewhere(url, f"SELECT lease_id FROM agents WHERE id = '{agent_id}'")[0][0]


async def test_a_run_whose_lease_has_run_out_is_reaped_told_and_keeps_the_end_it_got(
    db: DatabaseManager, target: Target
) -> None:
    async with DatabaseManager(target.url) as other:
        assert await other.reap_agents() == []
        with pytest.raises(OperationError, match="reaped"):
            async with db.agent_run("scout", "session-1") as run:
                before = await found(db, run.id)
                assert await other.reap_agents() == []
                expire(target.url)
                assert await other.reap_agents() == [run.id]
                assert await other.reap_agents() == []
                reaped = await found(db, run.id)
        assert await outcome(db, run.id) == LOST
        assert await found(db, run.id) == reaped
        assert before["updated_at"] <= str(reaped["completed_at"]) < reaped["updated_at"]
    assert leases(target.url) == []
    async with db.agent_run("scout", "session-1") as again:
        pass
    assert await outcome(db, again.id) == ("completed", None)


async def test_a_reaped_run_whose_block_raises_raises_that(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url) as other:
        with pytest.raises(ValueError, match="its own"):
            async with db.agent_run("scout", "session-1") as run:
                expire(target.url)
                await other.reap_agents()
                raise ValueError("its own")
    assert await outcome(db, run.id) == LOST


async def test_a_reaped_run_that_somebody_has_started_again_is_not_ended_by_its_first_owner(
    db: DatabaseManager, target: Target
) -> None:
    async with DatabaseManager(target.url) as other:
        with pytest.raises(OperationError, match="reaped"):
            async with db.agent_run("scout", "session-1") as run:
                expire(target.url)
                await other.reap_agents()
                await other.update_agent(run.id, status="executing", error_message=None)
        assert await outcome(db, run.id) == ("executing", None)


async def test_a_renewal_that_finds_the_lease_gone_tells_the_run(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url) as other:
        with pytest.raises(OperationError, match="reaped"):
            async with db.agent_run("scout", "session-1", lease_seconds=1) as run:
                while not await other.reap_agents():
                    expire(target.url)
                with pytest.raises(OperationError, match="reaped"):
                    while True:
                        await run.log("milestone", "not yet told")
                        await asyncio.sleep(0.05)
                with pytest.raises(OperationError, match="reaped"):
                    await run.prompt("command", "too late")
                async with db.agent_run("scout", "session-1", lease_seconds=1) as fresh:
                    pass
    assert await outcome(db, fresh.id) == ("completed", None)


async def test_the_last_sign_of_life_is_the_renewal_or_a_later_change(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url) as other:
        with suppress(OperationError):
            async with db.agent_run("scout", "s") as idle, db.agent_run("scout", "s") as busy:
                await db.update_agent(busy.id, status="reviewing")
                changed = (await found(db, busy.id))["updated_at"]
                renewed = run_elsewhere(target.url, "SELECT renewed_at FROM leases")[0][0]
                expire(target.url)
                assert await other.reap_agents() == [idle.id, busy.id]
        assert (await found(db, busy.id))["completed_at"] == changed
        ended = (await found(db, idle.id))["completed_at"]
        assert ended is not None
        assert ended < changed
        assert isinstance(renewed, str) <= (ended == renewed)


async def test_only_the_leases_that_have_run_out_are_reaped_and_those_of_another_start_of_the_machine(
    db: DatabaseManager, target: Target
) -> None:
    async with DatabaseManager(target.url) as other:
        with suppress(OperationError):
            async with (
                db.agent_run("b", "s", lease_seconds=30) as short,
                db.agent_run("c", "s", lease_seconds=90) as restarted,
                db.agent_run("a", "s") as long,
            ):
                run_elsewhere(target.url, "UPDATE leases SET clock = clock - 45")
                assert await other.reap_agents() == [short.id]
                run_elsewhere(target.url, "UPDATE leases SET clock_id = 'another' WHERE seconds = 90")
                assert await other.reap_agents() == [restarted.id]
                assert await outcome(db, long.id) == ("executing", None)
        assert await outcome(db, long.id) == ("completed", None)


async def test_who_reaps_is_alive_and_loses_no_run_of_its_own(db: DatabaseManager, target: Target) -> None:
    async with db.agent_run("scout", "session-1") as run:
        expire(target.url)
        assert await db.reap_agents() == []
    assert await outcome(db, run.id) == ("completed", None)


async def test_a_run_begun_on_a_lease_that_was_taken_away_unnoticed_gets_another(
    db: DatabaseManager, target: Target
) -> None:
    async with db.agent_run("scout", "session-1"):
        pass
    async with DatabaseManager(target.url) as other:
        expire(target.url)
        assert await other.reap_agents() == []
        assert leases(target.url) == []
        async with db.agent_run("scout", "session-1") as run:
            assert lease_of(target.url, run.id) is not None
    assert await outcome(db, run.id) == ("completed", None)


async def test_an_agent_that_had_an_end_of_its_own_keeps_it_and_names_no_lease_any_more(
    db: DatabaseManager, target: Target
) -> None:
    async with DatabaseManager(target.url) as other, db.agent_run("scout", "session-1") as run:
        await db.update_agent(run.id, status="completed")
        before = await found(db, run.id)
        expire(target.url)
        assert await other.reap_agents() == []
        assert lease_of(target.url, run.id) is None
    assert await found(db, run.id) == before


async def test_a_run_that_was_deleted_softly_is_reaped_too(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url) as other:
        with suppress(OperationError):
            async with db.agent_run("scout", "session-1") as run:
                await db.delete_agent(run.id, soft=True)
                expire(target.url)
                assert await other.reap_agents() == [run.id]
    assert await outcome(db, run.id) == LOST


async def test_reapers_at_once_reap_each_agent_once(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url) as second, DatabaseManager(target.url) as third:
        for _ in range(10):
            with suppress(OperationError):
                async with db.agent_run("a", "s") as one, db.agent_run("b", "s", lease_seconds=30) as two:
                    expire(target.url)
                    managers = (second, third, second, third)
                    found_lists = await asyncio.gather(*(manager.reap_agents() for manager in managers))
            assert sorted(agent for each in found_lists for agent in each) == [one.id, two.id]


async def test_a_reaper_beside_a_renewal_takes_the_run_or_leaves_it(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url) as other:
        for _ in range(20):
            taken: list[str] = []
            with suppress(OperationError):
                async with db.agent_run("a", "s") as run, db.agent_run("b", "s", lease_seconds=30) as beside:
                    expire(target.url)
                    _, taken = await asyncio.gather(db.reap_agents(), other.reap_agents())  # the first one renews
            for agent in (run.id, beside.id):
                assert await outcome(db, agent) == (LOST if agent in taken else ("completed", None))


async def test_a_reaper_beside_the_end_of_a_run_never_overwrites_it_nor_is_overwritten(
    db: DatabaseManager, target: Target
) -> None:
    async with DatabaseManager(target.url) as other:
        for turns in range(20):
            leave = asyncio.Event()
            entered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def work(leave: asyncio.Event, entered: asyncio.Future[str]) -> str:
                try:
                    async with db.agent_run("scout", "session-1") as run:
                        entered.set_result(run.id)
                        await leave.wait()
                except OperationError:
                    return "told"
                return "ended"

            task = asyncio.create_task(work(leave, entered))
            run_id = await entered
            expire(target.url)
            reaping = asyncio.create_task(other.reap_agents())
            for _ in range(turns):
                await asyncio.sleep(0.0003)
            leave.set()
            taken = await reaping
            assert (await task, await outcome(db, run_id)) == (
                ("told", LOST) if taken == [run_id] else ("ended", ("completed", None))
            )


async def test_only_who_is_asked_for_it_reaps_agents_without_a_lease_and_only_idle_ones(
    db: DatabaseManager, target: Target
) -> None:
    definition = await db.create_orchestrator_agent("scout")
    agents = {status: await db.create_agent(definition, "s", status=status) for status in AGENT_STATUSES}
    deleted = await db.create_agent(definition, "s", status="executing")
    await db.delete_agent(deleted, soft=True)
    logged, asking, answered, busy = [await db.create_agent(definition, "s", status="executing") for _ in range(4)]
    line = await db.create_agent_log(logged, "INFO", "milestone", "still here")
    prompt = await db.create_prompt(asking, "command", "Anyone?")
    old = await db.create_prompt(answered, "command", "Anyone?")
    for table in ("agents", "agent_logs", "prompts"):
        run_elsewhere(target.url, f"UPDATE {table} SET created_at = '2020-01-01T00:00:00.000000'")
    everyone = [*agents.values(), logged, asking, answered]
    for agent in everyone:
        await db.update_agent(agent, updated_at="2020-01-01T00:00:00")
    async with db.agent_run("scout", "s") as run:
        await db.update_agent(run.id, updated_at="2020-01-01T00:00:00")
        run_elsewhere(target.url, f"UPDATE agent_logs SET created_at = '2021-01-01T00:00:00.000000' WHERE id = {line}")
        await db.update_prompt(prompt, status="completed", completed_at="2022-01-01T00:00:00")
        await db.update_prompt(old, status="completed")
        assert await db.reap_agents() == []
        reaped = await db.reap_agents(idle_for=3600)
    begun = [agents[status] for status in ("initializing", "planning", "executing", "reviewing")]
    assert reaped == [*begun, logged, asking]
    assert {await outcome(db, agent) for agent in reaped} == {LOST}
    ends = [(await found(db, agent))["completed_at"] for agent in (begun[0], logged, asking)]
    assert ends == [f"202{year}-01-01T00:00:00.000000" for year in (0, 1, 2)]
    assert [await outcome(db, agent) for agent in (answered, busy, deleted)] == [("executing", None)] * 3
    assert await outcome(db, agents["pending"]) == ("pending", None)
    assert await db.reap_agents(idle_for=3600) == []
    assert await db.reap_agents(idle_for=0) == [answered, busy]


async def test_an_agent_whose_times_another_program_has_spelled_is_judged_by_what_they_mean(target: Target) -> None:
    if target.engine != "sqlite":
        pytest.skip("the others store times and not their spelling")
    async with DatabaseManager(target.url) as db:
        definition = await db.create_orchestrator_agent("scout")
        old, strange, fresh = [await db.create_agent(definition, "s", status="executing") for _ in range(3)]
        for agent, spelled in ((old, "2020-01-01 02:00:00+02:00"), (strange, "yesterday"), (fresh, "2999-01-01 00:00")):
            run_elsewhere(target.url, f"UPDATE agents SET updated_at = '{spelled}' WHERE id = '{agent}'")
        await db.create_agent_log(old, "INFO", "milestone", "a line")
        run_elsewhere(target.url, "UPDATE agent_logs SET created_at = 'long ago'")
        await db.reap_agents(idle_for=60)
        assert await outcome(db, fresh) == ("executing", None)
        assert await outcome(db, strange) == ("executing", None)


@pytest.mark.parametrize("idle_for", [-1, float("nan"), "60", True, float("inf")])
async def test_an_idle_time_that_is_none_is_refused(db: DatabaseManager, idle_for: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "reap_agents", idle_for=idle_for)
    assert caught.value.column == "idle_for"


async def test_an_idle_time_from_before_the_first_year_reaps_nobody(db: DatabaseManager, agent_id: str) -> None:
    assert await db.reap_agents(idle_for=1e12) == []
    assert await outcome(db, agent_id) == ("initializing", None)


async def test_reaping_reads_no_table_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    run = OneStatement.run

    def recorded(self: OneStatement, connection: Any) -> Any:
        compiled, parameters = self._compiled, self.parameters  # pyright: ignore[reportPrivateUsage]
        plan = connection.execute(f"EXPLAIN QUERY PLAN {compiled.sql}", parameters)
        asked.extend((compiled.sql, row[-1]) for row in plan.fetchall())
        return run(self, connection)

    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db, DatabaseManager(path) as other:
        definition = await db.create_orchestrator_agent("scout")
        for number in range(200):
            await db.create_agent(definition, f"session-{number}", status="executing")
        with suppress(OperationError):
            async with db.agent_run("scout", "session-1"):
                expire(f"sqlite:///{path}")
                monkeypatch.setattr(OneStatement, "run", recorded)
                assert len(await other.reap_agents(idle_for=0)) == 201
    monkeypatch.undo()
    plans = [step for _, step in asked if step.startswith("SCAN") and step.split()[1] != "leases"]
    assert plans == []
    assert any("idx_agents_lease" in step for _, step in asked)

"""A block that several tasks use: what was told is what is there, and the others notice nothing of it."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import insert, text

from orchdb import DatabaseManager, MissingParentError, NotConnectedError, OperationError, Transaction
from orchdb.schema.tables import system_logs
from tests.conftest import Target
from tests.support.databases import NO_ROW, other_program
from tests.support.shared_block_programs import Program, Step, programs

LINE: Any = {"log_level": "INFO", "component": "bulk", "message": "x"}
OR_ROLLBACK = "INSERT OR ROLLBACK INTO system_logs (log_level, component, message) VALUES ('LOUD', 'x', 'x')"


class UndoneError(Exception):
    """What a test raises to leave a block."""


async def components(db: DatabaseManager | Transaction) -> list[str]:
    return [row["component"] for row in await db.get_system_logs()]


async def innocent(db: DatabaseManager, name: str) -> None:
    """Blocks and calls of somebody else's, each of which has to be there in the end."""
    for number in range(2):
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", name, f"block {number}")
        await db.create_system_log("INFO", name, f"call {number}")


async def messages(db: DatabaseManager, component: str) -> list[str]:
    return sorted(row["message"] for row in await db.get_system_logs(component=component))


@pytest.mark.parametrize("seed", range(3))
def test_what_was_told_is_what_is_there_whatever_the_tasks_of_a_block_do(target: Target, seed: int) -> None:
    runs = 0

    async def example(db: DatabaseManager, program: tuple[Step, ...]) -> None:
        nonlocal runs
        runs += 1
        name, other = f"program-{seed}-{runs}", f"innocent-{seed}-{runs}"
        beside = asyncio.ensure_future(innocent(db, other))
        expected = await Program(db, name).run(program)
        await beside
        found = await messages(db, name)
        assert found in [sorted(rows) for rows in expected]
        assert await messages(db, other) == ["block 0", "block 1", "call 0", "call 1"]

    # Not to be reproduced by a seed: the tasks interleave as the threads and the server answer.
    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(programs)
    def check(program: tuple[Step, ...]) -> None:
        runner.run(example(db, program))

    with asyncio.Runner() as runner:
        # Who waits for a part that waits for it in turn gets an error soon.
        db = DatabaseManager(target.url, lock_timeout=1.5, pool_size=4)
        runner.run(db.connect())
        try:
            check()
        finally:
            runner.run(db.close())


async def test_a_gather_that_fails_leaves_nothing_and_hurts_nobody(db: DatabaseManager, agent_id: str) -> None:
    for _ in range(20):
        with pytest.raises(MissingParentError):
            async with db.transaction() as tx:
                agents = [agent_id] * 3 + [NO_ROW] + [agent_id] * 6
                await asyncio.gather(*(tx.create_agent_log(agent, "INFO", "milestone", "x") for agent in agents))
    assert await db.get_agent_logs(agent_id) == []
    await db.create_agent_log(agent_id, "INFO", "milestone", "still works")


async def test_a_storm_of_failing_blocks_loses_no_row_of_others(db: DatabaseManager, agent_id: str) -> None:
    async def failing(number: int) -> None:
        agents = [agent_id, agent_id, NO_ROW, agent_id]
        with contextlib.suppress(MissingParentError):
            async with (
                db.transaction() as tx,
                tx.transaction() if number % 2 else contextlib.nullcontext(tx) as part,
            ):
                await asyncio.gather(*(part.create_agent_log(agent, "INFO", "milestone", "x") for agent in agents))

    async def fine(number: int) -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", f"block-{number}", "1")
            async with tx.transaction() as part:
                await part.create_system_log("INFO", f"block-{number}", "2")

    for start in range(0, 150, 10):
        blocks = [block for number in range(start, start + 10) for block in (failing(number), fine(number))]
        await asyncio.gather(*blocks)
    assert sorted(await components(db)) == sorted([f"block-{number}" for number in range(150)] * 2)
    assert await db.get_agent_logs(agent_id) == []


async def test_a_part_that_outlives_its_block_reaches_nobody_elses(db: DatabaseManager) -> None:
    go = asyncio.Event()

    async def sibling(tx: Transaction) -> None:
        async with tx.transaction():
            await go.wait()
            with pytest.raises(NotConnectedError):
                await tx.create_system_log("INFO", "sibling", "x")

    async def fails() -> None:
        await asyncio.sleep(0.02)
        raise UndoneError

    late: list[asyncio.Task[None]] = []
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            late.append(asyncio.create_task(sibling(tx)))
            await asyncio.gather(fails(), late[0])
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "innocent", "x")
        go.set()
        with pytest.raises(NotConnectedError):  # the part itself was undone with its block
            await late[0]
    assert await components(db) == ["innocent"]


async def test_a_bulk_that_is_under_way_is_undone_with_its_block(db: DatabaseManager) -> None:
    async def fails(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise UndoneError

    for turns in range(0, 40, 3):
        bulk: list[asyncio.Task[Any]] = []
        with pytest.raises(UndoneError):
            async with db.transaction() as tx:
                bulk.append(asyncio.create_task(tx.create_system_logs([LINE] * 1200)))
                await asyncio.gather(bulk[0], fails(turns))
        with contextlib.suppress(NotConnectedError):
            await bulk[0]
    assert await components(db) == []


async def test_changes_of_several_tasks_that_are_parts_are_each_whole(db: DatabaseManager, agent_id: str) -> None:
    other = await db.create_agent((await db.list_orchestrator_agents())[0]["id"], "session-1")
    time = "2026-01-01T00:00:00.000000"
    async with db.transaction() as tx:
        results = await asyncio.gather(
            tx.update_agent(agent_id, updated_at=time, parent_agent_id=NO_ROW),
            tx.update_agent(other, updated_at=time, session_id="session-2"),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [MissingParentError, bool]
    rows = {row["id"]: (row["session_id"], row["updated_at"] == time) for row in await db.list_agents()}
    assert rows == {agent_id: ("session-1", False), other: ("session-2", True)}


async def test_a_call_that_is_given_up_is_not_in_the_block(db: DatabaseManager) -> None:
    returned = 0
    async with db.transaction() as tx:
        for number in range(30):
            task = asyncio.create_task(tx.create_system_logs([LINE] * 30))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            returned += not task.cancelled()
            await tx.create_system_log("INFO", "kept", f"{number}")
    found = await components(db)
    assert (found.count("kept"), found.count("bulk")) == (30, 30 * returned)


async def test_an_own_statement_that_is_given_up_is_not_in_the_block(db: DatabaseManager, target: Target) -> None:
    """SQLAlchemy closes a server's connection with a cancelled statement: the block is then lost, and says so."""
    statement = insert(system_logs).values(log_level="INFO", component="own", message="x")
    expected: list[str] = []
    for turns in range(12):
        returned = False
        try:
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "kept", f"{turns}")
                task = asyncio.ensure_future(tx.conn.execute(statement))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                returned = not task.cancelled()
                await tx.create_system_log("INFO", "kept", f"{turns}")
        except OperationError:
            assert target.engine != "sqlite"
        else:
            expected += ["kept", *["own"] * returned, "kept"]
    assert sorted(await components(db)) == sorted(expected)  # the server gives an own row the time of BEGIN


async def test_savepoints_of_the_callers_own_live_beside_ours(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "before", "x")
        await tx.conn.execute(text("SAVEPOINT mine"))
        await tx.create_system_log("INFO", "gone", "x")
        with pytest.raises(MissingParentError):
            await tx.create_agent(NO_ROW, "session-1")
        async with tx.transaction() as part:
            await part.create_system_log("INFO", "gone", "x")
        await tx.conn.execute(text("ROLLBACK TO SAVEPOINT mine"))
        await tx.create_system_log("INFO", "after", "x")
        await tx.conn.execute(text("RELEASE SAVEPOINT mine"))
    assert await components(db) == ["before", "after"]


async def test_what_does_not_belong_to_a_part_waits_for_its_end(db: DatabaseManager) -> None:
    opened, close = asyncio.Event(), asyncio.Event()

    async def undone(tx: Transaction) -> None:
        with contextlib.suppress(UndoneError):
            async with tx.transaction() as part:
                await part.create_system_log("INFO", "part", "x")
                await tx.create_system_log("INFO", "the opener on the outer one", "x")
                await asyncio.create_task(part.create_system_log("INFO", "another task on the part", "x"))
                opened.set()
                await close.wait()
                raise UndoneError

    async with db.transaction() as tx:
        part = asyncio.create_task(undone(tx))
        await opened.wait()
        waits = asyncio.create_task(tx.create_system_log("INFO", "outer", "x"))
        waits_too = asyncio.create_task(undone(tx))
        await asyncio.sleep(0.02)
        assert not waits.done()
        close.set()
        await asyncio.gather(part, waits, waits_too)
    assert await components(db) == ["outer"]


async def test_the_wait_for_a_part_of_another_task_is_bounded(target: Target) -> None:
    async with DatabaseManager(target.url, lock_timeout=0.1) as db, db.transaction() as tx:
        async with tx.transaction() as part:
            await part.create_system_log("INFO", "part", "x")
            with pytest.raises(OperationError, match="another part"):
                await asyncio.create_task(tx.create_system_log("INFO", "outer", "x"))
        await tx.create_system_log("INFO", "after", "x")
        assert await components(tx) == ["part", "after"]


async def test_an_undone_block_does_not_wait_for_a_statement_that_takes_long(
    db: DatabaseManager, target: Target
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    query = text(endless if target.engine == "sqlite" else "SELECT pg_sleep(300)")
    siblings: list[asyncio.Task[Any]] = []
    async with asyncio.timeout(20):
        with pytest.raises(UndoneError):
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "gone", "x")
                siblings.append(asyncio.ensure_future(tx.conn.execute(query)))
                siblings.append(asyncio.create_task(tx.create_system_log("INFO", "waits its turn", "x")))
                await asyncio.sleep(0.05)
                raise UndoneError
    results = await asyncio.gather(*siblings, return_exceptions=True)
    assert [type(result) for result in results] == [NotConnectedError] * 2
    assert [task.cancelling() for task in siblings] == [0, 0]
    assert await components(db) == []


async def test_a_cancellation_from_outside_stays_one_though_the_block_stops_the_call(db: DatabaseManager) -> None:
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            bulk = asyncio.create_task(tx.create_system_logs([LINE] * 3000))
            await asyncio.sleep(0.01)
            bulk.cancel()
            raise UndoneError
    with contextlib.suppress(asyncio.CancelledError):
        await bulk
    assert bulk.cancelled()


@pytest.mark.parametrize("clean", [True, False])
async def test_a_block_that_a_paused_generator_holds_swallows_no_other(db: DatabaseManager, clean: bool) -> None:
    async def lines() -> AsyncIterator[Transaction]:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "generator", "x")
            yield tx
            if not clean:
                raise UndoneError

    generator = lines()
    held = await anext(generator)
    with pytest.raises(OperationError, match="generator"):
        async with db.transaction():
            pytest.fail("a part of a block that may never be committed")
    await held.create_system_log("INFO", "with its tx", "x")
    with contextlib.suppress(UndoneError, StopAsyncIteration):
        await anext(generator)
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "later", "x")
    assert await components(db) == (["generator", "with its tx", "later"] if clean else ["later"])


async def test_a_generator_that_is_forgotten_frees_its_block(db: DatabaseManager) -> None:
    async def lines() -> AsyncIterator[int]:
        async with db.transaction() as tx:
            yield await tx.create_system_log("INFO", "generator", "x")

    async def forgets() -> None:
        await anext(lines())

    await asyncio.create_task(forgets())
    gc.collect()
    async with asyncio.timeout(10), db.transaction() as tx:
        await tx.create_system_log("INFO", "later", "x")
    assert await components(db) == ["later"]


async def test_close_ends_a_block_that_stays_open(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchdb.database._CLOSE_SECONDS", 0.1)
    db = DatabaseManager(target.url, lock_timeout=0)
    await db.connect()
    opened, closed = asyncio.Event(), asyncio.Event()

    async def stays() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "gone", "x")
            opened.set()
            await closed.wait()
            with pytest.raises(NotConnectedError):
                await tx.create_system_log("INFO", "late", "x")

    task = asyncio.create_task(stays())
    await opened.wait()
    await db.close()
    closed.set()
    with pytest.raises(NotConnectedError):
        await task
    async with DatabaseManager(target.url) as again:
        assert await components(again) == []


@pytest.mark.parametrize("statement", [OR_ROLLBACK, "SELECT 1 / 0"], ids=["or rollback", "failed"])
async def test_a_commit_that_is_a_rollback_is_an_error(db: DatabaseManager, target: Target, statement: str) -> None:
    if target.engine == "sqlite" and statement != OR_ROLLBACK:
        pytest.skip("a failed statement ends no transaction of SQLite's")

    def swallowed(connection: Any) -> None:
        with contextlib.suppress(Exception):
            connection.exec_driver_sql(statement)

    with pytest.raises(OperationError):
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "gone", "x")
            await tx.conn.run_sync(swallowed)
    assert await components(db) == []


async def test_after_a_rollback_in_the_middle_nothing_more_is_taken(db: DatabaseManager, target: Target) -> None:
    if target.engine != "sqlite":
        pytest.skip("RAISE(ROLLBACK) is SQLite's")
    with other_program(target.path) as connection:
        connection.execute(
            "CREATE TRIGGER poison BEFORE INSERT ON system_logs WHEN NEW.message = 'poison'"
            " BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )

    async def goes_on() -> None:
        async with db.transaction() as tx:
            with contextlib.suppress(Exception):
                await tx.create_system_log("INFO", "poison", "poison")
            for write in (
                tx.create_system_logs([LINE] * 3),
                tx.create_system_log("INFO", "single", "x"),
                tx.conn.execute(insert(system_logs).values(log_level="INFO", component="own", message="x")),
            ):
                with contextlib.suppress(OperationError):
                    await write
            with contextlib.suppress(OperationError):
                async with tx.transaction() as part:
                    await part.create_system_log("INFO", "part", "x")

    with pytest.raises(OperationError):
        await goes_on()
    assert await components(db) == []
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "next", "x")
    assert await components(db) == ["next"]

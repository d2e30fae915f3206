"""Connecting and closing: what works when, and what a manager is outside its life."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from orchdb import DatabaseManager, InvalidValueError, NotConnectedError
from tests.conftest import Target
from tests.support.databases import NO_ROW, OPERATIONS, call, collected


async def test_the_context_manager_connects_and_closes(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        await db.create_orchestrator_agent("scout")
        assert [row["name"] for row in await db.list_orchestrator_agents()] == ["scout"]
    with pytest.raises(NotConnectedError):
        await db.list_orchestrator_agents()


async def test_connect_and_close_by_hand_do_the_same(target: Target) -> None:
    db = DatabaseManager(target.url)
    await db.connect()
    try:
        agent_id = await db.create_orchestrator_agent("scout")
    finally:
        await db.close()

    async with DatabaseManager(target.url) as again:
        assert await again.get_orchestrator_agent(agent_id) is not None


async def test_an_error_in_the_block_comes_out_and_the_manager_is_closed(target: Target) -> None:
    db = DatabaseManager(target.url)
    with pytest.raises(ZeroDivisionError):
        async with db:
            raise ZeroDivisionError
    assert db.conn is None


async def test_closing_twice_is_fine(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        await db.close()
        await db.close()
        await asyncio.gather(db.close(), db.close())


async def test_closing_what_was_never_connected_is_fine(target: Target) -> None:
    await DatabaseManager(target.url).close()


async def test_connecting_twice_is_fine(db: DatabaseManager) -> None:
    await db.create_orchestrator_agent("scout")
    conn = db.conn
    await db.connect()
    assert db.conn is conn
    assert len(await db.list_orchestrator_agents()) == 1


async def test_two_tasks_may_connect_the_same_manager(target: Target) -> None:
    db = DatabaseManager(target.url)
    await asyncio.gather(*(db.connect() for _ in range(5)))
    try:
        await db.create_orchestrator_agent("scout")
    finally:
        await db.close()


async def test_a_closed_manager_can_be_connected_again(target: Target) -> None:
    db = DatabaseManager(target.url)
    for name in ("first", "second"):
        async with db:
            await db.create_orchestrator_agent(name)
    async with db:
        assert [row["name"] for row in await db.list_orchestrator_agents()] == ["second", "first"]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_operation_before_connect_raises(tmp_path: Path, operation: str) -> None:
    db = DatabaseManager(tmp_path / "orchestrator.db")
    with pytest.raises(NotConnectedError) as caught:
        await call(db, operation, *OPERATIONS[operation])
    assert caught.value.operation in {operation, "list_recent_agent_logs"}
    assert list(tmp_path.iterdir()) == []


async def test_every_operation_after_close_raises(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        pass
    for operation, arguments in OPERATIONS.items():
        with pytest.raises(NotConnectedError):
            await call(db, operation, *arguments)


async def test_iterators_and_transactions_need_a_connection_too(tmp_path: Path) -> None:
    db = DatabaseManager(tmp_path / "orchestrator.db")
    with pytest.raises(NotConnectedError):
        await collected(db.iter_agent_logs(NO_ROW))
    with pytest.raises(NotConnectedError):
        await collected(db.iter_system_logs())
    with pytest.raises(NotConnectedError):
        async with db.transaction():
            pytest.fail("the block must not run")
    with pytest.raises(NotConnectedError):
        async with db.agent_run("scout", "session-1"):
            pytest.fail("the block must not run")
    with pytest.raises(NotConnectedError):
        await db.reap_agents()


async def test_an_event_that_cannot_be_logged_raises_nothing(tmp_path: Path) -> None:
    assert await DatabaseManager(tmp_path / "orchestrator.db").log_agent_event(NO_ROW, "milestone", "Done") is None


def test_the_table_of_operations_is_complete() -> None:
    others = {"connect", "close", "transaction", "conn", "log_agent_event", "iter_agent_logs", "iter_system_logs"}
    others |= {"agent_run", "backup", "reap_agents", "schema_version", "tail_agent_logs", "tail_system_logs"}
    public = {name for name in dir(DatabaseManager) if not name.startswith("_")}
    assert public - others == set(OPERATIONS)


async def test_conn_is_there_only_while_connected(target: Target) -> None:
    db = DatabaseManager(target.url)
    assert db.conn is None
    async with db:
        assert db.conn is not None
    assert db.conn is None


async def test_conn_reads_what_has_just_been_written(db: DatabaseManager) -> None:
    assert db.conn is not None
    for expected in (1, 2, 3):
        await db.create_system_log("INFO", "scheduler", "tick")
        assert (await db.conn.execute(text("SELECT count(*) FROM system_logs"))).scalar_one() == expected


async def test_conn_writes_nothing_on_sqlite(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        assert db.conn is not None
        with pytest.raises(DBAPIError, match="readonly"):
            await db.conn.execute(text("DELETE FROM system_logs"))
        await db.create_system_log("INFO", "scheduler", "still works")


async def test_a_cancelled_connect_leaves_nothing_open(tmp_path: Path) -> None:
    threads = threading.active_count()
    for turns in range(25):
        db = DatabaseManager(tmp_path / f"{turns}.db")
        task = asyncio.create_task(db.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(turns / 2500)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() == (db.conn is None)
        await db.close()
        async with db:
            await db.create_orchestrator_agent("works")
    async with asyncio.timeout(10):  # a thread ends a moment after it has closed its connection
        while threading.active_count() > threads:
            await asyncio.sleep(0.001)


async def test_a_failed_connect_can_be_tried_again(tmp_path: Path) -> None:
    obstacle = tmp_path / "data"
    obstacle.write_text("a file where a folder should be")
    db = DatabaseManager(obstacle / "orchestrator.db")
    with pytest.raises(Exception, match="connect"):
        await db.connect()
    obstacle.unlink()
    async with db:
        await db.create_orchestrator_agent("works")


def test_another_event_loop_gets_a_clear_error(tmp_path: Path) -> None:
    async def elsewhere(db: DatabaseManager) -> None:
        with pytest.raises(NotConnectedError, match="event loop"):
            await db.list_agents()

    async def main() -> None:
        async with DatabaseManager(tmp_path / "orchestrator.db") as db:
            await asyncio.to_thread(asyncio.run, elsewhere(db))
            assert await db.list_agents() == []

    asyncio.run(main())


def test_a_manager_serves_one_event_loop_after_the_other(tmp_path: Path) -> None:
    db = DatabaseManager(tmp_path / "orchestrator.db")

    async def main(name: str) -> int:
        async with db:
            await db.create_orchestrator_agent(name)
            return len(await db.list_orchestrator_agents())

    assert [asyncio.run(main(name)) for name in ("first", "second")] == [1, 2]


async def test_close_lets_running_writes_end(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        writes = [asyncio.create_task(db.create_system_log("INFO", "scheduler", "tick")) for _ in range(50)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*writes, return_exceptions=True)

    async with DatabaseManager(target.url) as db:
        stored = {row["id"] for row in await db.get_system_logs()}
    assert {result for result in results if isinstance(result, int)} == stored
    assert all(isinstance(result, (int, NotConnectedError)) for result in results)


async def test_close_waits_for_an_open_transaction(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with db.transaction() as tx:
                entered.set()
                await go_on.wait()
                await tx.create_orchestrator_agent("in time")

        task = asyncio.create_task(work())
        await entered.wait()
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0.01)
        with pytest.raises(NotConnectedError, match="closing"):
            await db.list_agents()
        go_on.set()
        await asyncio.gather(task, closing)
    async with DatabaseManager(target.url) as db:
        assert len(await db.list_orchestrator_agents()) == 1


@pytest.mark.parametrize("password", ["geheim", "p%40ss%2Fword"])
def test_the_repr_hides_the_password(password: str) -> None:
    shown = repr(DatabaseManager(f"postgresql://scott:{password}@db.example/orch"))
    assert password not in shown
    assert "scott:***@db.example/orch" in shown


def test_an_unknown_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="durability"):
        DatabaseManager(tmp_path / "orchestrator.db", durability="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_an_impossible_lock_timeout_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InvalidValueError, match="lock_timeout"):
        DatabaseManager(tmp_path / "orchestrator.db", lock_timeout=seconds)


@pytest.mark.parametrize("seconds", [0, 0.001])
async def test_a_short_lock_timeout_writes_to_a_free_database(tmp_path: Path, seconds: float) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db", lock_timeout=seconds) as db:
        await db.create_orchestrator_agent("scout")
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("builder")
        assert len(await db.list_orchestrator_agents()) == 2

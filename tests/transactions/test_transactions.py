"""Transactions: all or nothing, savepoints, and nobody sees the half of another."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from orchdb import (
    DatabaseManager,
    DuplicateError,
    InvalidValueError,
    MissingParentError,
    NotConnectedError,
    OperationError,
    Transaction,
)
from orchdb.schema.tables import orchestrator_agents, system_logs
from tests.conftest import Target
from tests.support.databases import NO_ROW, OPERATIONS, call, collected, count, dump


class UndoneError(Exception):
    """What a test raises to leave a block."""


async def names(db: DatabaseManager | Transaction) -> list[str]:
    return [row["name"] for row in await db.list_orchestrator_agents()][::-1]


async def test_all_of_a_block_is_applied(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        definition = await tx.create_orchestrator_agent("scout")
        agent = await tx.create_agent(definition, "session-1")
        await tx.create_prompts([{"agent_id": agent, "prompt_type": "adw", "prompt_text": "Plan it"}])
        await tx.create_agent_log(agent, "INFO", "milestone", "x")
        assert await tx.update_agent(agent, status="completed") is True
    assert {table: len(rows) for table, rows in (await dump(db)).items()} == {
        "orchestrator_agents": 1,
        "agents": 1,
        "prompts": 1,
        "agent_logs": 1,
        "system_logs": 0,
    }


async def test_nothing_of_a_block_that_raises_is_applied(db: DatabaseManager, agent_id: str) -> None:
    before = await dump(db)
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("builder")
            await tx.update_agent(agent_id, status="failed")
            await tx.delete_orchestrator_agent((await tx.list_orchestrator_agents())[-1]["id"])
            raise UndoneError
    assert await dump(db) == before


async def test_a_failed_operation_that_is_not_caught_undoes_the_block(db: DatabaseManager) -> None:
    with pytest.raises(DuplicateError):
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("scout")
            await tx.create_orchestrator_agent("scout")
    assert await names(db) == []


async def test_a_failed_operation_that_is_caught_leaves_the_rest(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("scout")
        for wrong, kind in (
            (("create_orchestrator_agent", "scout"), DuplicateError),
            (("create_agent", NO_ROW, "session-1"), MissingParentError),
            (("create_orchestrator_agent", None), InvalidValueError),
            (("create_system_logs", [{"log_level": "INFO"}]), TypeError),
        ):
            with pytest.raises(kind):
                await call(tx, *wrong)
        await tx.create_orchestrator_agent("builder")
    assert await names(db) == ["scout", "builder"]


async def test_a_failed_bulk_operation_that_is_caught_leaves_the_rest(db: DatabaseManager, agent_id: str) -> None:
    line: Any = {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": "x"}
    async with db.transaction() as tx:
        await tx.create_agent_logs([line])
        with pytest.raises(MissingParentError):
            await tx.create_agent_logs([line, line | {"agent_id": NO_ROW}])
        await tx.create_agent_logs([line])
    assert await count(db, "agent_logs") == 2


async def test_a_block_reads_its_own_writes_and_others_do_not(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        agent_id = await tx.create_orchestrator_agent("scout")
        await tx.create_system_log("INFO", "test", "x")
        assert await names(tx) == ["scout"]
        assert await tx.get_orchestrator_agent(agent_id) is not None
        assert len(await collected(tx.iter_system_logs())) == 1
        assert await names(db) == []
        assert await asyncio.create_task(names(db)) == []
    assert await names(db) == ["scout"]


async def test_two_tasks_never_see_or_commit_each_others_half(db: DatabaseManager) -> None:
    written, checked = asyncio.Event(), asyncio.Event()

    async def undone() -> None:
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("half")
            written.set()
            await checked.wait()
            raise UndoneError

    async def others() -> None:
        await written.wait()
        assert await names(db) == []
        write = asyncio.create_task(db.create_orchestrator_agent("other"))
        await asyncio.sleep(0.05)
        assert "half" not in await names(db)
        checked.set()
        await write

    results = await asyncio.gather(undone(), others(), return_exceptions=True)
    assert [type(result) for result in results] == [UndoneError, type(None)]
    assert await names(db) == ["other"]


async def test_many_transactions_at_once_are_each_whole(db: DatabaseManager) -> None:
    async def pair(number: int) -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", f"pair-{number}", "first")
            await asyncio.sleep(0)
            await tx.create_system_log("INFO", f"pair-{number}", "second")
            if number % 3 == 0:
                raise UndoneError

    results = await asyncio.gather(*(pair(number) for number in range(30)), return_exceptions=True)
    components = [row["component"] for row in await db.get_system_logs()]
    for number, result in enumerate(results):
        assert components.count(f"pair-{number}") == (0 if number % 3 == 0 else 2)
        assert isinstance(result, UndoneError) == (number % 3 == 0)


async def test_an_inner_block_that_raises_is_undone_alone(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("before")
        with pytest.raises(UndoneError):
            async with tx.transaction() as inner:
                await inner.create_orchestrator_agent("inner")
                async with inner.transaction() as innermost:
                    await innermost.create_orchestrator_agent("innermost")
                raise UndoneError
        async with tx.transaction() as inner:
            await inner.create_orchestrator_agent("kept")
            with pytest.raises(DuplicateError):
                async with inner.transaction() as innermost:
                    await innermost.create_orchestrator_agent("gone")
                    await innermost.create_orchestrator_agent("kept")
        await tx.create_orchestrator_agent("after")
    assert await names(db) == ["before", "kept", "after"]


async def test_an_outer_block_that_raises_takes_the_inner_one_along(db: DatabaseManager) -> None:
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            async with tx.transaction() as inner:
                await inner.create_orchestrator_agent("inner")
            raise UndoneError
    assert await names(db) == []


async def test_a_transaction_of_the_manager_inside_ones_own_is_a_savepoint(db: DatabaseManager) -> None:
    async def helper(*, fails: bool) -> None:
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent(f"helper that fails: {fails}")
            if fails:
                raise UndoneError

    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("outer")
        await helper(fails=False)
        with pytest.raises(UndoneError):
            await helper(fails=True)
        assert await names(tx) == ["outer", "helper that fails: False"]
        assert await names(db) == []
    assert await names(db) == ["outer", "helper that fails: False"]


async def test_a_cancellation_undoes_the_block_and_frees_the_lock(db: DatabaseManager) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("half")
            async with tx.transaction() as inner:
                await inner.create_orchestrator_agent("inner half")
                entered.set()
                await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(db.create_orchestrator_agent("next"), 10)
    assert await names(db) == ["next"]


async def test_a_task_that_waits_for_a_transaction_can_be_cancelled(
    db: DatabaseManager, agent_id: str, target: Target
) -> None:
    async with db.transaction() as tx:
        await tx.update_agent(agent_id, session_id="first")

        async def third() -> None:
            async with db.transaction() as other:
                await other.update_agent(agent_id, session_id="third")
                pytest.fail("the update must wait")

        second = asyncio.create_task(db.update_agent(agent_id, session_id="second"))
        waiting: list[asyncio.Task[Any]] = [second, asyncio.create_task(third())]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    # A server may hear of the cancellation only after the lock was free: then a single write was applied.
    possible = {"first"} if target.engine == "sqlite" else {"first", "second"}
    assert {row["session_id"] for row in await db.list_agents()} <= possible
    async with db.transaction() as tx, asyncio.timeout(10):
        await tx.update_agent(agent_id, session_id="fourth")
    assert [row["session_id"] for row in await db.list_agents()] == ["fourth"]


CHANGES: dict[str, dict[str, Any]] = {  # without a change an update only reads
    "update_orchestrator_agent": {"description": "x"},
    "update_agent": {"error_message": "x"},
    "update_prompt": {"error_message": "x"},
}


async def test_a_write_past_ones_own_transaction_is_refused_at_once(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("scout")
        for operation, arguments in OPERATIONS.items():
            if not operation.startswith(("get", "list", "usage", "agent_tree")):
                async with asyncio.timeout(10):
                    with pytest.raises(OperationError, match="tx") as caught:
                        await call(db, operation, *arguments, **CHANGES.get(operation, {}))
                assert caught.value.operation == operation
    assert await names(db) == ["scout"]


async def test_a_change_with_its_own_updated_at_is_refused_too(db: DatabaseManager, agent_id: str) -> None:
    async with db.transaction():
        with pytest.raises(OperationError, match="tx"):
            await db.update_agent(agent_id, status="failed", updated_at="2026-01-01")


async def test_an_event_past_ones_own_transaction_is_not_logged(db: DatabaseManager, agent_id: str) -> None:
    async with db.transaction() as tx:
        assert await db.log_agent_event(agent_id, "milestone", "x") is None
        assert await tx.log_agent_event(agent_id, "milestone", "y") is not None
    assert [row["message"] for row in await db.get_agent_logs(agent_id)] == ["y"]


async def test_another_task_changes_the_row_when_the_transaction_has_ended(db: DatabaseManager, agent_id: str) -> None:
    async with db.transaction() as tx:
        await tx.add_agent_cost(agent_id, 1)
        other = asyncio.create_task(db.add_agent_cost(agent_id, 2))
        await asyncio.sleep(0.05)
        assert not other.done()
        await tx.add_agent_cost(agent_id, 4)
    assert await other is True
    assert [row["cost_usd"] for row in await db.list_agents()] == [7.0]


async def test_tasks_of_a_block_may_share_its_transaction(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        numbers = await asyncio.gather(*(tx.create_system_log("INFO", "test", f"{n}") for n in range(20)))
    assert [row["id"] for row in await db.get_system_logs()] == sorted(numbers)


async def test_every_operation_of_a_transaction_that_has_ended_raises(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        pass
    for operation, arguments in OPERATIONS.items():
        with pytest.raises(NotConnectedError, match="ended"):
            await call(tx, operation, *arguments)
    with pytest.raises(NotConnectedError):
        async with tx.transaction():
            pytest.fail("the block must not run")


@pytest.mark.parametrize("raises", [False, True])
async def test_the_connection_of_a_transaction_that_has_ended_is_of_no_use(db: DatabaseManager, raises: bool) -> None:
    kept: list[Any] = []
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            kept.append(tx.conn)
            if raises:
                raise UndoneError
        raise UndoneError
    with pytest.raises(Exception):  # noqa: B017  # which one is left open: it must not be a write
        await kept[0].execute(insert(system_logs).values(log_level="INFO", component="late", message="x"))
    with pytest.raises(Exception):  # noqa: B017
        await kept[0].execute(text("SELECT 1"))
    await db.create_system_log("INFO", "test", "still works")
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "test", "this too")
    assert [row["component"] for row in await db.get_system_logs()] == ["test", "test"]


async def test_own_statements_are_part_of_the_transaction(db: DatabaseManager) -> None:
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            await tx.conn.execute(insert(system_logs).values(log_level="INFO", component="own", message="gone"))
            assert len(await tx.get_system_logs()) == 1
            raise UndoneError
    async with db.transaction() as tx:
        await tx.conn.execute(insert(system_logs).values(log_level="INFO", component="own", message="kept"))
        agent_id = await tx.create_orchestrator_agent("scout")
        query = select(orchestrator_agents.c.name).where(orchestrator_agents.c.id == agent_id)
        assert (await tx.conn.execute(query)).scalar_one() == "scout"
    assert [row["message"] for row in await db.get_system_logs()] == ["kept"]


async def test_own_statements_pass_the_checks_of_the_columns(db: DatabaseManager) -> None:
    with pytest.raises(Exception, match="log_level"):
        async with db.transaction() as tx:
            await tx.conn.execute(insert(system_logs).values(log_level="LOUD", component="own", message="x"))
    assert await count(db, "system_logs") == 0


@pytest.mark.parametrize("ending", ["commit", "rollback", "close", "invalidate"])
async def test_the_connection_cannot_end_the_transaction(db: DatabaseManager, ending: str) -> None:
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("scout")
        with pytest.raises(OperationError):
            await getattr(tx.conn, ending)()
        await tx.create_orchestrator_agent("builder")
    assert await names(db) == ["scout", "builder"]


async def test_an_empty_transaction_is_fine(db: DatabaseManager) -> None:
    async with db.transaction():
        pass
    async with db.transaction() as tx, tx.transaction():
        assert await names(tx) == []


async def test_retention_and_soft_deletion_can_be_undone(db: DatabaseManager, agent_id: str) -> None:
    await db.create_system_log("INFO", "test", "x")
    before = await dump(db)
    with pytest.raises(UndoneError):
        async with db.transaction() as tx:
            assert await tx.prune("2999-01-01") == 1
            assert await tx.delete_agent(agent_id, soft=True) is True
            assert await tx.get_agent(agent_id) is None
            raise UndoneError
    assert await dump(db) == before

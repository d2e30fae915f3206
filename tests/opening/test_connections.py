"""``db.conn`` and ``tx.conn``: the caller's own SQL, beside the operations and inside a transaction."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, insert, select, text

from orchdb import DatabaseManager, OperationError
from orchdb.schema.tables import agent_logs, agents, orchestrator_agents, system_logs

COUNT = select(func.count()).select_from(system_logs)
LINE = insert(system_logs).values(log_level="INFO", component="own", message="x", details={"a": [1, None]})


async def test_rows_of_the_tables_come_back_as_from_the_operations(db: DatabaseManager, agent_id: str) -> None:
    await db.create_agent_log(agent_id, "INFO", "milestone", "größer", {"a": [1, None, "😀"]})
    await db.update_agent(agent_id, context={"a": 1}, cost_usd=0.25, started_at="2026-02-04T10:30:00Z")
    assert db.conn is not None
    agent = (await db.conn.execute(select(agents).where(agents.c.id == agent_id))).mappings().one()
    line = (await db.conn.execute(select(agent_logs).where(agent_logs.c.agent_id == agent_id))).mappings().one()
    assert {name: agent[name] for name in agent if name != "lease_id"} == await db.get_agent(agent_id)
    assert dict(line) == (await db.get_agent_logs(agent_id))[0]


async def test_every_way_to_read_works(db: DatabaseManager) -> None:
    await db.create_system_logs({"log_level": "INFO", "component": "c", "message": f"{n}"} for n in range(5))

    def messages(connection: Connection) -> list[str]:
        return list(connection.execute(select(system_logs.c.message).order_by(system_logs.c.id)).scalars())

    assert db.conn is not None
    assert (await db.conn.execute(COUNT)).scalar_one() == 5
    assert await db.conn.scalar(COUNT) == 5
    assert list(await db.conn.scalars(select(system_logs.c.message).order_by(system_logs.c.id))) == list("01234")
    assert (await db.conn.exec_driver_sql("SELECT count(*) FROM system_logs")).scalar_one() == 5
    assert await db.conn.run_sync(messages) == list("01234")
    streamed = [row.message async for row in await db.conn.stream(select(system_logs).order_by(system_logs.c.id))]
    assert streamed == list("01234")


async def test_many_tasks_may_read_by_conn_at_once(db: DatabaseManager) -> None:
    await db.create_system_log("INFO", "c", "x")

    async def read() -> int:
        assert db.conn is not None
        found: int = (await db.conn.execute(COUNT)).scalar_one()
        return found

    assert await asyncio.gather(*(read() for _ in range(30))) == [1] * 30


async def test_a_failed_statement_leaves_conn_usable(db: DatabaseManager) -> None:
    assert db.conn is not None
    for _ in range(3):
        with pytest.raises(Exception, match="nonsense"):
            await db.conn.execute(text("SELECT * FROM nonsense"))
        assert (await db.conn.execute(COUNT)).scalar_one() == 0


async def test_a_cancelled_statement_leaves_conn_usable(db: DatabaseManager) -> None:
    for turns in range(20):
        assert db.conn is not None
        task = asyncio.create_task(db.conn.execute(COUNT))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await db.create_system_log("INFO", "c", "x")
        async with asyncio.timeout(10):
            assert db.conn is not None
            assert (await db.conn.execute(COUNT)).scalar_one() == turns + 1


async def test_a_statement_of_ones_own_brings_no_warning_and_passes_the_checks(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.conn.execute(LINE)
        assert (await tx.get_system_logs())[0]["details"] == {"a": [1, None]}
        for column in ("component", "log_level"):
            with pytest.raises(Exception, match=f"system_logs.{column}"):
                await tx.conn.execute(LINE.values({column: "a\0"}))
    assert len(await db.get_system_logs()) == 1


async def test_every_way_to_write_in_a_transaction_works(db: DatabaseManager) -> None:
    def add(connection: Connection) -> None:
        connection.execute(LINE)

    async with db.transaction() as tx:
        await tx.conn.run_sync(add)
        await tx.conn.exec_driver_sql(
            "INSERT INTO system_logs (log_level, component, message) VALUES ('INFO', 'own', 'by hand')"
        )
        assert [row.component async for row in await tx.conn.stream(select(system_logs))] == ["own", "own"]
        assert (await tx.conn.execute(delete(system_logs).where(system_logs.c.message == "x"))).rowcount == 1
        assert await tx.conn.scalar(COUNT) == 1
    assert [row["message"] for row in await db.get_system_logs()] == ["by hand"]


async def test_own_statements_in_an_inner_block_are_undone_with_it(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.conn.execute(LINE)
        with pytest.raises(ZeroDivisionError):
            async with tx.transaction() as inner:
                await inner.conn.execute(LINE.values(message="gone"))
                raise ZeroDivisionError
        await tx.create_system_log("INFO", "c", "y")
    assert [row["message"] for row in await db.get_system_logs()] == ["x", "y"]


async def test_conn_begins_no_savepoint_of_its_own(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        with pytest.raises(OperationError, match="transaction"):
            await tx.conn.begin_nested()
        await tx.create_system_log("INFO", "c", "x")
    assert len(await db.get_system_logs()) == 1


async def test_closing_inside_ones_own_transaction_is_refused(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("scout")
        with pytest.raises(OperationError, match="close"):
            await db.close()
    assert len(await db.list_orchestrator_agents()) == 1


async def test_conn_works_beside_an_open_transaction(db: DatabaseManager) -> None:
    query: Any = select(func.count()).select_from(orchestrator_agents)
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent("scout")
        assert db.conn is not None
        assert await db.conn.scalar(query) == 0
        assert await tx.conn.scalar(query) == 1
    assert await db.conn.scalar(query) == 1

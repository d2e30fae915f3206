"""The pool, the appends that share a commit, and transactions on Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from psycopg import AsyncPipeline
from sqlalchemy import URL, make_url, text

from orchdb import ConnectionLostError, DatabaseManager, MissingParentError, NewAgentLog, OperationError
from tests.support.databases import NO_ROW

DRIVERS = ("asyncpg", "psycopg")


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, postgres_url: str) -> URL:
    """The URL of a new, empty database, for each driver in turn."""
    return make_url(postgres_url).set(drivername=f"postgresql+{request.param}")


async def new_agent(db: DatabaseManager, name: str = "scout") -> str:
    return await db.create_agent(await db.create_orchestrator_agent(name), "session")


async def end_every_connection(db: DatabaseManager) -> None:
    """End all connections of the database but the one that does it."""
    assert db.conn is not None
    await db.conn.execute(
        text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )


async def test_many_appends_at_once_are_few_commits(url: URL) -> None:
    async with DatabaseManager(url) as db:
        agent = await new_agent(db)
        numbers = await asyncio.gather(
            *(db.create_agent_log(agent, "INFO", "milestone", f"{number}") for number in range(300))
        )
        messages = {row["id"]: row["message"] for row in await db.get_agent_logs(agent)}
        assert db.conn is not None
        commits = await db.conn.execute(text("SELECT count(DISTINCT xmin::text) FROM agent_logs"))
        assert commits.scalar_one() < 30
    assert [messages[number] for number in numbers] == [f"{number}" for number in range(300)]


async def test_a_bad_append_among_many_fails_alone(url: URL) -> None:
    async with DatabaseManager(url) as db:
        agent = await new_agent(db)
        results = await asyncio.gather(
            *(
                db.create_agent_log(NO_ROW if number % 40 == 7 else agent, "INFO", "milestone", f"{number}")
                for number in range(200)
            ),
            return_exceptions=True,
        )
        stored = {row["id"]: row["message"] for row in await db.get_agent_logs(agent)}
    for number, result in enumerate(results):
        if number % 40 == 7:
            assert isinstance(result, MissingParentError)
        else:
            assert isinstance(result, int)
            assert stored[result] == f"{number}"
    assert len(stored) == 195


async def test_an_append_that_waits_for_a_lock_does_not_hold_up_the_others(url: URL) -> None:
    async with DatabaseManager(url) as db:
        held, free = await new_agent(db, "held"), await new_agent(db, "free")
        released = asyncio.Event()
        began = asyncio.Event()

        async def hold() -> None:
            async with db.transaction() as tx:
                await tx.conn.execute(text("SELECT 1 FROM agents WHERE id = :id FOR UPDATE"), {"id": held})
                began.set()
                await released.wait()

        holding = asyncio.create_task(hold())
        await began.wait()
        waiting = asyncio.create_task(db.create_agent_log(held, "INFO", "milestone", "x"))
        appends = [db.create_agent_log(held if n % 50 == 3 else free, "INFO", "milestone", f"{n}") for n in range(100)]
        tasks = [waiting, *map(asyncio.create_task, appends)]
        others = [task for number, task in enumerate(tasks[1:]) if number % 50 != 3]
        done, pending = await asyncio.wait(others, timeout=20)
        assert (len(done), len(pending)) == (98, 0)
        assert sum(task.done() for task in tasks) == 98
        released.set()
        await holding
        assert len({await task for task in tasks}) == 101


async def test_a_waiting_append_that_is_cancelled_never_runs(url: URL) -> None:
    async with DatabaseManager(url, pool_size=1) as db:
        agent = await new_agent(db)
        async with db.transaction() as tx:
            tasks = [
                asyncio.create_task(db.create_agent_log(agent, "INFO", "milestone", f"{number}"))
                for number in range(60)
            ]
            await asyncio.sleep(0.05)
            for task in tasks[::2]:
                task.cancel()
            await tx.list_agents()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        stored = [row["message"] for row in await db.get_agent_logs(agent)]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    # A group that was already under way may hold cancelled members; what still waited may not.
    assert {f"{number}" for number in range(1, 60, 2)} <= set(stored)
    assert all(isinstance(result, int) for result in results[1::2])


async def test_a_pool_that_is_used_up_is_an_error_and_recovers(url: URL) -> None:
    async with DatabaseManager(url, pool_size=2, pool_timeout=0.2) as db:
        agent = await new_agent(db)
        release = asyncio.Event()

        async def hold() -> None:
            async with db.transaction() as tx:
                await tx.list_agents()
                await release.wait()

        holding = [asyncio.create_task(hold()) for _ in range(2)]
        await asyncio.sleep(0.1)
        operations: list[Callable[[], Awaitable[object]]] = [
            lambda: db.get_agent(agent),
            lambda: db.create_agent_log(agent, "INFO", "milestone", "x"),
            lambda: db.add_agent_cost(agent, 1),
        ]
        for operation in operations:
            begun = time.monotonic()
            with pytest.raises(OperationError, match="pool_timeout"):
                await operation()
            assert time.monotonic() - begun < 2
        release.set()
        await asyncio.gather(*holding)
        assert await db.add_agent_cost(agent, 1)


async def test_no_more_connections_than_the_pool_has(url: URL) -> None:
    async with DatabaseManager(url, pool_size=3) as db:
        agent = await new_agent(db)
        await asyncio.gather(*(db.get_agent(agent) for _ in range(100)))
        await asyncio.gather(*(db.create_agent_log(agent, "INFO", "milestone", "x") for _ in range(100)))
        assert db.conn is not None
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert (await db.conn.execute(text(query))).scalar_one() <= 3 + 1


async def test_a_cancelled_statement_costs_a_transaction_only_itself(url: URL) -> None:
    async with DatabaseManager(url) as db, DatabaseManager(url) as other:
        agent = await new_agent(db)
        async with other.transaction() as blocker:
            await blocker.update_agent(agent, error_message="held")
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "test", "before")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await tx.update_agent(agent, error_message="ours")
                await tx.create_system_log("INFO", "test", "after")
        assert [row["message"] for row in await db.get_system_logs()] == ["before", "after"]
        row = await db.get_agent(agent)
        assert row is not None
        assert row["error_message"] == "held"


async def test_a_cancelled_statement_ends_at_once_on_the_server(url: URL) -> None:
    async with DatabaseManager(url) as db, DatabaseManager(url) as other:
        agent = await new_agent(db)
        async with other.transaction() as blocker:
            await blocker.update_agent(agent, error_message="held")
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await db.update_agent(agent, error_message="late")
            assert time.monotonic() - begun < 1
            await asyncio.sleep(0.2)  # the server hears of it a moment later
        row = await db.get_agent(agent)
        assert row is not None
        assert row["error_message"] == "held"


async def test_a_lock_that_is_not_to_be_had_in_time_is_an_error(url: URL) -> None:
    async with DatabaseManager(url, lock_timeout=0.2) as db, DatabaseManager(url) as other:
        agent = await new_agent(db)
        async with other.transaction() as blocker:
            await blocker.update_agent(agent, error_message="held")
            with pytest.raises(OperationError, match="55P03"):
                await db.update_agent(agent, error_message="late")
        assert await db.update_agent(agent, error_message="later")


async def test_a_transaction_whose_connection_was_lost_raises_and_is_undone(url: URL) -> None:
    async with DatabaseManager(url) as db:

        async def block() -> None:
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "test", "x")
                await end_every_connection(db)
                await asyncio.sleep(0.1)

        with pytest.raises(ConnectionLostError):
            await block()
        assert await db.get_system_logs() == []
        await db.create_system_log("INFO", "test", "y")


async def test_a_failure_of_the_callers_own_statement_does_not_become_a_silent_rollback(url: URL) -> None:
    async with DatabaseManager(url) as db:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "test", "before")
            with pytest.raises(Exception, match="no_such_table"):
                await tx.conn.execute(text("SELECT * FROM no_such_table"))
            await tx.create_system_log("INFO", "test", "after")
        assert [row["message"] for row in await db.get_system_logs()] == ["before", "after"]


async def test_columns_that_another_program_adds_do_not_break_open_connections(url: URL) -> None:
    async with DatabaseManager(url) as db, DatabaseManager(url) as other:
        agent = await new_agent(db)
        await db.create_agent_log(agent, "INFO", "milestone", "x")
        for _ in range(8):
            await db.get_agent(agent)
            await db.get_agent_logs(agent)
        async with other.transaction() as tx:
            await tx.conn.execute(text("ALTER TABLE agents ADD COLUMN theirs integer"))
            await tx.conn.execute(text("ALTER TABLE agent_logs ALTER COLUMN message TYPE varchar(90)"))
        assert await db.get_agent(agent) is not None
        assert [row["message"] for row in await db.get_agent_logs(agent)] == ["x"]
        assert await db.list_agents()


async def test_a_cancellation_that_comes_as_psycopg_enters_a_pipeline_stays_one_and_costs_no_connection(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", -1)  # so that it always yields to the loop there
    original = AsyncPipeline._enter_gen  # pyright: ignore[reportPrivateUsage]
    doomed: list[asyncio.Task[Any]] = []

    def cancelling(self: AsyncPipeline) -> Any:
        yield from original(self)
        if (task := asyncio.current_task()) in doomed:
            task.cancel()

    monkeypatch.setattr(AsyncPipeline, "_enter_gen", cancelling)
    async with DatabaseManager(make_url(postgres_url).set(drivername="postgresql+psycopg"), pool_size=1) as db:
        agent = await new_agent(db)
        lines: list[NewAgentLog] = [
            {"agent_id": agent, "log_level": "INFO", "log_type": "error", "message": f"{number}"} for number in range(3)
        ]

        async def write() -> None:
            doomed.append(cast("asyncio.Task[Any]", asyncio.current_task()))
            async with db.transaction() as tx:
                servers.append(await tx.conn.scalar(text("SELECT pg_backend_pid()")))
                with contextlib.suppress(asyncio.CancelledError):
                    await tx.create_agent_logs(lines)
                    servers.clear()
                doomed.clear()
                servers.append(await tx.conn.scalar(text("SELECT pg_backend_pid()")))
                await tx.create_agent_logs(lines)

        servers: list[int] = []
        await write()
        assert len(servers) == 2
        assert servers[0] == servers[1]
        assert [row["message"] for row in await db.get_agent_logs(agent)] == ["0", "1", "2"]
        task = asyncio.create_task(db.create_agent_logs(lines))
        doomed.append(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await db.create_agent_logs(lines)) == 3
        assert len(await db.get_agent_logs(agent)) == 6

"""A server that stops, restarts, ends connections or refuses: named errors, nothing half, the same client goes on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from orchdb import ConnectionLostError, DatabaseManager, InvalidValueError, OperationError, OrchdbError
from tests.support.faults import log, seen
from tests.support.stoppable_server import Server, proxied, running_server

DRIVERS = ("asyncpg", "psycopg")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own: it is stopped and killed."""
    with running_server() as running:
        yield running


def sql(server: Server, *statements: str) -> list[Any]:
    """What the server's administrator does and sees."""
    url = server.url("psycopg").set(drivername="postgresql").render_as_string(hide_password=False)
    rows: list[Any] = []
    with psycopg.connect(url, autocommit=True) as admin:
        for statement in statements:
            cursor = admin.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def end_all(server: Server) -> int:
    """End every connection of orchdb's."""
    return len(
        sql(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'orchdb%'")
    )


@pytest.fixture(autouse=True)
def emptied(server: Server) -> Iterator[None]:
    """No table before, no connection afterwards."""
    sql(
        server,
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "ALTER SYSTEM RESET ALL",
        "SELECT pg_reload_conf()",
    )
    yield
    deadline = time.monotonic() + 3
    query = (
        "SELECT state, query FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    while left := sql(server, query):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


class Load:
    """Writers that go on whatever happens; what was acknowledged, and how calls failed."""

    def __init__(self, db: DatabaseManager) -> None:
        self.db = db
        self.acknowledged: set[str] = set()
        self.failures: list[OrchdbError] = []
        self._stop = False

    async def _alone(self, worker: int) -> None:
        number = 0
        while not self._stop:
            number += 1
            name = f"{worker}-{number}"
            try:
                if worker % 2:
                    await log(self.db, name)
                else:
                    await self._together(name)
            except OrchdbError as error:
                self.failures.append(error)
                await asyncio.sleep(0.02)
            else:
                self.acknowledged.add(name)

    async def _together(self, name: str) -> None:
        async with self.db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", name)
            await tx.create_orchestrator_agent(name)

    async def during(self, *faults: Callable[[], Any]) -> None:
        """Run the load while the faults happen in a thread, one after the other."""
        tasks = [asyncio.create_task(self._alone(worker)) for worker in range(6)]
        await asyncio.sleep(0.3)
        for fault in faults:
            await asyncio.to_thread(fault)
            await asyncio.sleep(0.2)
        self._stop = True
        await asyncio.wait_for(asyncio.gather(*tasks), 20)

    async def check(self) -> None:
        """Nothing acknowledged is lost, nothing is half, and every failure had one of the names."""
        visible = await seen(self.db)
        assert self.acknowledged
        assert self.acknowledged - set(visible) == set()
        assert len(visible) == len(set(visible))
        pairs = {row["name"] for row in await self.db.list_orchestrator_agents()}
        assert pairs == {name for name in visible if int(name.split("-")[0]) % 2 == 0}
        assert {type(error) for error in self.failures} <= {ConnectionLostError, OperationError}


@pytest.mark.parametrize("driver", DRIVERS)
async def test_connections_that_are_ended_8_times_under_load_lose_nothing(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        load = Load(db)
        await load.during(*[lambda: end_all(server)] * 8)
        await load.check()
        assert len(load.failures) <= 20 * 8
        started = time.monotonic()
        await log(db, "1-after")
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_restarts_under_load_loses_nothing_and_the_same_client_goes_on(
    server: Server, driver: str, mode: str
) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        load = Load(db)
        await load.during(lambda: server.restart(mode))
        await load.check()
        await asyncio.wait_for(log(db, "1-after"), 5)
        assert db.conn is not None
        assert (await db.conn.exec_driver_sql("SELECT 1")).scalar() == 1


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_is_down_is_named_and_works_again_when_it_is_up(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        await log(db, "before")
        await asyncio.to_thread(server.stop)
        try:
            for call in (
                lambda: log(db, "down"),
                lambda: seen(db),
                lambda: DatabaseManager(server.url(driver)).connect(),
            ):
                started = time.monotonic()
                with pytest.raises(OperationError) as caught:
                    await call()
                assert time.monotonic() - started < 5
                assert caught.value.__cause__ is caught.value.__context__ is None
        finally:
            await asyncio.to_thread(server.start)
        await log(db, "after")
        assert await seen(db) == ["before", "after"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_idle_connections_that_were_ended_cost_no_call(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        await asyncio.gather(*(log(db, "before") for _ in range(8)))
        assert end_all(server) > 1
        await asyncio.sleep(0.1)
        for _ in range(4):
            await log(db, "after")
        await asyncio.gather(*(seen(db) for _ in range(8)))
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", "transaction")
        assert len(await seen(db)) == 13


COMMIT = re.compile(rb"Q\0\0\0.COMMIT", re.DOTALL)
"""The message with which a client commits."""


async def together(db: DatabaseManager, name: str) -> None:
    async with db.transaction() as tx:
        await tx.create_orchestrator_agent(f"{name} a")
        await tx.create_orchestrator_agent(f"{name} b")


@pytest.mark.parametrize("forwarded", [False, True], ids=["before the server", "before the answer"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_connection_cut_in_the_middle_of_a_commit_leaves_all_or_nothing(
    server: Server, driver: str, forwarded: bool
) -> None:
    async with proxied(server) as (proxy, sockets), DatabaseManager(server.url(driver, sockets)) as db:
        for number in range(5):
            await together(db, f"whole {number}")
            proxy.cut_at, proxy.forward_first = COMMIT, forwarded
            with pytest.raises(ConnectionLostError) as caught:
                await asyncio.wait_for(together(db, f"cut {number}"), 5)
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert proxy.cuts == number + 1
        names = [row["name"] for row in await db.list_orchestrator_agents()]
        for number in range(5):
            assert sum(name.startswith(f"whole {number}") for name in names) == 2
            assert sum(name.startswith(f"cut {number}") for name in names) in ((2,) if forwarded else (0,))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_connection_cut_anywhere_loses_nothing(server: Server, driver: str) -> None:
    async with proxied(server) as (proxy, sockets), DatabaseManager(server.url(driver, sockets)) as db:
        load, loop = Load(db), asyncio.get_running_loop()
        await load.during(*[lambda: loop.call_soon_threadsafe(proxy.cut_all)] * 5)
        await load.check()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_pool_that_is_used_up_is_an_error_in_time_and_then_all_is_well(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver), pool_size=2, pool_timeout=0.3) as db:
        leave = asyncio.Event()

        async def hold(name: str) -> None:
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "fault", name)
                await leave.wait()

        holding = [asyncio.create_task(hold(f"held {number}")) for number in range(2)]
        await asyncio.sleep(0.2)
        started = time.monotonic()
        results = await asyncio.gather(*(log(db, "no") for _ in range(5)), hold("no"), return_exceptions=True)
        assert time.monotonic() - started < 1
        assert {type(result) for result in results} == {OperationError}
        leave.set()
        await asyncio.gather(*holding)
        await asyncio.gather(*(log(db, "after") for _ in range(20)))
        assert len(await seen(db)) == 22


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_without_a_connection_left_is_an_error_and_then_all_is_well(server: Server, driver: str) -> None:
    managers = [DatabaseManager(server.url(driver), pool_size=20, connect_timeout=2) for _ in range(8)]
    connected: list[DatabaseManager] = []
    errors: list[OrchdbError] = []

    async def use(db: DatabaseManager) -> None:
        try:
            await db.connect()
            connected.append(db)
            async with db.transaction() as tx:
                await tx.list_orchestrator_agents()
                await asyncio.sleep(0.5)
        except OrchdbError as error:
            errors.append(error)

    async def crowd(db: DatabaseManager) -> None:
        await asyncio.gather(use(db), *(use(db) for _ in range(19)))

    await asyncio.gather(*(crowd(db) for db in managers))
    assert errors
    assert {type(error) for error in errors} == {OperationError}
    assert any(error.code == "53300" or "too many clients" in str(error) for error in errors)
    await asyncio.gather(*(db.close() for db in managers))
    async with DatabaseManager(server.url(driver)) as db:
        await log(db, "after")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_time_outs_of_the_server_are_errors_in_time_and_then_all_is_well(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver), statement_timeout=0.3, lock_timeout=0.3) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session")
        url = server.url("psycopg").set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE agents IN ACCESS EXCLUSIVE MODE")
            for call in (lambda: db.update_agent(agent, status="executing"), lambda: db.get_agent(agent)):
                started = time.monotonic()
                with pytest.raises(OperationError) as caught:
                    await call()
                assert caught.value.code in ("57014", "55P03")
                assert time.monotonic() - started < 0.8
        assert await db.update_agent(agent, status="executing")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_deadlock_is_resolved_without_a_call_lost(server: Server, driver: str) -> None:
    sql(server, "ALTER SYSTEM SET deadlock_timeout = '100ms'", "SELECT pg_reload_conf()")
    async with DatabaseManager(server.url(driver)) as db:
        definition = await db.create_orchestrator_agent("scout")
        one, two = [await db.create_agent(definition, "session") for _ in range(2)]

        meeting = asyncio.Barrier(2)

        async def cross(first: str, second: str) -> None:
            async with db.transaction() as tx:
                await tx.add_agent_cost(first, 1)
                await meeting.wait()  # from here on each waits for the other
                await tx.add_agent_cost(second, 1)

        results = await asyncio.gather(cross(one, two), cross(two, one), return_exceptions=True)
        errors = [result for result in results if result is not None]
        assert len(errors) == 1
        assert isinstance(errors[0], OperationError)
        assert errors[0].code == "40P01"
        for agent in (one, two):
            row = await db.get_agent(agent)
            assert row is not None
            assert row["cost_usd"] == 1


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_table_that_others_change_costs_at_most_one_call(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        for _ in range(10):
            await log(db, "before")
            await seen(db)
        sql(server, "ALTER TABLE system_logs ADD COLUMN theirs text")
        sql(server, "ALTER TABLE system_logs ALTER message TYPE varchar(500)")
        failures = 0
        for _ in range(5):
            try:
                await log(db, "after")
                assert await seen(db)
            except OrchdbError:
                failures += 1
        assert failures <= 1


@pytest.mark.parametrize("driver", DRIVERS)
async def test_sessions_that_the_url_makes_read_only_are_named_and_can_be_read(server: Server, driver: str) -> None:
    url = server.url(driver)
    async with DatabaseManager(url) as db:
        await log(db, "before")
    async with DatabaseManager(url.update_query_dict({"options": "-c default_transaction_read_only=on"})) as db:
        assert await seen(db) == ["before"]
        with pytest.raises(OperationError) as caught:
            await log(db, "refused")
        assert caught.value.code == "25006"
        with pytest.raises(OperationError):
            await together(db, "refused")
        assert await seen(db) == ["before"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_standby_can_be_read_and_says_that_it_cannot_be_written(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        await log(db, "before")
    with server.standby() as standby:
        await _use_standby(standby, driver)


async def _use_standby(standby: Server, driver: str) -> None:
    async with DatabaseManager(standby.url(driver)) as db:
        assert await seen(db) == ["before"]
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: log(db, "refused"),
            lambda: together(db, "refused"),
            lambda: db.agent_run("refused", "session-1").__aenter__(),
            lambda: db.reap_agents(idle_for=60),
        ]
        for call in calls:
            with pytest.raises(OperationError) as caught:
                await call()
            assert caught.value.code == "25006"
        assert await seen(db) == ["before"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_value_that_the_server_refuses_ends_nothing_but_its_call(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db, db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "before")
        with pytest.raises(InvalidValueError):
            await tx.create_system_log("LOUD", "fault", "refused")  # type: ignore[arg-type]
        await tx.create_system_log("INFO", "fault", "after")
        assert len(await tx.get_system_logs()) == 2

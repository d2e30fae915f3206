"""A server that restarts, ends its connections, streams to a replica, encrypts, or stands behind a pooler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, MissingParentError, OperationError
from tests.support.databases import NO_ROW
from tests.support.postgres_servers import Server, folder, make_certificate, new_server, pgbouncer, pooler

DRIVERS = ("asyncpg", "psycopg")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this file's own."""
    with new_server() as server:
        yield server


@pytest.fixture(autouse=True)
def empty(server: Server) -> Iterator[None]:
    """Each test finds an empty database, and leaves no connection behind."""
    with server.admin() as admin:
        admin.execute("DROP SCHEMA public CASCADE")
        admin.execute("CREATE SCHEMA public")
    yield
    with server.admin() as admin:
        for _ in range(50):
            left = admin.execute(
                "SELECT state, query FROM pg_stat_activity WHERE application_name = 'orchdb'"
            ).fetchall()
            if not left:
                return
            time.sleep(0.1)
        pytest.fail(f"connections are left: {left}")


class Load:
    """Tasks that append and read without end, and what they were told."""

    def __init__(self, db: DatabaseManager) -> None:
        self._db = db
        self.acknowledged: list[str] = []
        self.unknown: list[str] = []
        self.errors: list[OperationError] = []
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(20)]

    async def _work(self, number: int) -> None:
        for count in range(1_000_000):
            message = f"{number}-{count}"
            try:
                await self._db.create_system_log("INFO", "load", message)
                self.acknowledged.append(message)
                await self._db.get_agent(NO_ROW)
            except OperationError as error:
                self.unknown.append(message)
                self.errors.append(error)
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def visible(db: DatabaseManager) -> list[str]:
    return [row["message"] for row in await db.get_system_logs(component="load")]


async def works_again(db: DatabaseManager) -> float:
    """Seconds until a write works."""
    begun = time.monotonic()
    while True:
        try:
            await db.create_system_log("INFO", "after", "x")
            return time.monotonic() - begun
        except OperationError:
            assert time.monotonic() - begun < 10
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_restart_loses_nothing_that_was_acknowledged(server: Server, driver: str, mode: str) -> None:
    async with DatabaseManager(server.url(driver), connect_timeout=2) as db:
        load = Load(db)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.restart, mode)
        assert await works_again(db) < 5
        await load.stop()
        found = await visible(db)
        assert db.conn is not None
        assert (await db.conn.execute(text("SELECT 1"))).scalar_one() == 1
    assert load.acknowledged
    assert not set(load.acknowledged) - set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_ended_connections_cost_at_most_the_operations_in_flight(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        load = Load(db)
        with server.admin() as admin:
            for _ in range(5):
                await asyncio.sleep(0.1)
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orchdb'"
                )
        await asyncio.sleep(0.1)
        failed = len(load.errors)
        await asyncio.sleep(0.2)
        assert len(load.errors) == failed
        await load.stop()
        found = await visible(db)
    assert not set(load.acknowledged) - set(found)
    assert len(load.errors) <= 5 * 40


@pytest.mark.parametrize("driver", DRIVERS)
async def test_connections_that_ended_while_idle_are_replaced_unseen(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        definition = await db.create_orchestrator_agent("scout")
        for _ in range(3):
            with server.admin() as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orchdb'"
                )
            await asyncio.sleep(0.1)  # their good-bye needs a moment
            await db.create_agent(definition, "session")
            assert await db.update_orchestrator_agent(definition, description="x")
            async with db.transaction() as tx:
                await tx.create_agent(definition, "session")
            assert db.conn is not None
            assert (await db.conn.execute(text("SELECT count(*) FROM agents"))).scalar_one() == len(
                await db.list_agents()
            )


@pytest.mark.parametrize("code", ["40P01", "40001"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_conflict_that_certainly_changed_nothing_is_tried_again(server: Server, driver: str, code: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session")
        with server.admin() as admin:
            admin.execute("CREATE SEQUENCE tries")
            admin.execute(
                "CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                " IF nextval('tries') < 3 THEN RAISE EXCEPTION USING ERRCODE = '"
                + code
                + "'; END IF; RETURN NEW; END$$"
            )
            admin.execute(
                "CREATE TRIGGER fail_twice BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION fail_twice()"
            )
        assert await db.add_agent_cost(agent, 0.5)
        row = await db.get_agent(agent)
        assert row is not None
        assert row["cost_usd"] == 0.5


@pytest.mark.parametrize("driver", DRIVERS)
async def test_reads_go_to_the_replica_and_writes_to_the_primary(server: Server, driver: str) -> None:
    async with DatabaseManager(server.url(driver)) as db:
        await db.create_orchestrator_agent("before")
    with folder() as place:
        replica = server.copy(place)
        replica.start()
        try:
            async with DatabaseManager(server.url(driver), read_url=replica.url(driver)) as db:
                assert db.conn is not None
                assert (await db.conn.execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
                await db.create_orchestrator_agent("after")
                async with db.transaction() as tx:
                    assert not (await tx.conn.execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
                    assert len(await tx.list_orchestrator_agents()) == 2
                begun = time.monotonic()
                while len(await db.list_orchestrator_agents()) < 2:
                    assert time.monotonic() - begun < 10
                    await asyncio.sleep(0.02)
                number = await db.create_system_log("INFO", "scheduler", "started")
                assert (await anext(db.tail_system_logs(after_id=0)))["id"] == number
            async with DatabaseManager(replica.url(driver), read_only=True) as standby:
                with pytest.raises(OperationError, match="standby"):
                    await anext(standby.tail_system_logs(after_id=0))
        finally:
            replica.stop()


POOLER = pytest.mark.skipif(pgbouncer() is None, reason="Debian's package pgbouncer is not installed")


@POOLER
@pytest.mark.parametrize("driver", DRIVERS)
async def test_tls_as_people_know_it_from_libpq(server: Server, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pooler encrypts, because the server that the tests start was built without.
    with folder() as place, folder() as elsewhere:
        trusted, other = make_certificate(place), make_certificate(elsewhere)
        files = {"client_tls_cert_file": trusted, "client_tls_key_file": place / "key"}
        with pooler(server, 4, client_tls_sslmode="require", **files) as address:

            async def connect(**query: str) -> None:
                query |= {"pooler": "transaction"}
                async with DatabaseManager(address.set(drivername=f"postgresql+{driver}", query=query)) as db:
                    await db.list_orchestrator_agents()

            await connect(sslmode="require")
            await connect(sslmode="verify-full", sslrootcert=str(trusted))
            with pytest.raises(OperationError, match="no connection to"):
                await connect(sslmode="disable")
            with pytest.raises(OperationError, match="certificate"):
                await connect(sslmode="verify-full", sslrootcert=str(other))
            with pytest.raises(OperationError, match="certificate"):
                await connect(sslrootcert="system")
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            await connect(sslrootcert="system")
            await connect(sslmode="verify-full", sslrootcert="system", ssl_min_protocol_version="TLSv1.2")


@POOLER
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_pooler_in_transaction_mode(server: Server, driver: str) -> None:
    with pooler(server, 2) as address:
        url = address.set(drivername=f"postgresql+{driver}", query={"pooler": "transaction"})
        async with DatabaseManager(url) as db, DatabaseManager(url) as other:
            definition = await db.create_orchestrator_agent("scout")
            agent = await other.create_agent(definition, "session")

            async def work(manager: DatabaseManager, number: int) -> Any:
                await manager.create_agent_log(agent, "INFO", "milestone", f"{number}")
                await manager.update_agent(agent, context={"number": number})
                async with manager.transaction() as tx:
                    await tx.create_system_log("INFO", "test", f"{number}")
                    with pytest.raises(MissingParentError):
                        await tx.create_agent_log(NO_ROW, "INFO", "milestone", "x")
                assert manager.conn is not None
                await manager.conn.execute(text("SELECT count(*) FROM agent_logs WHERE id > :id"), {"id": number})
                return await manager.get_agent(agent)

            await asyncio.gather(*(work(manager, number) for manager in (db, other) for number in range(30)))
            assert await db.create_agent_logs(
                [{"agent_id": agent, "log_level": "INFO", "log_type": "bulk", "message": f"{n}"} for n in range(100)]
            )
            await asyncio.gather(*(db.create_agent_log(agent, "INFO", "many", f"{n}") for n in range(100)))
            assert len(await db.get_agent_logs(agent)) == 60 + 100 + 100
            assert len(await other.get_system_logs()) == 60
            assert db.conn is not None
            with pytest.raises(Exception, match="read-only"):
                await db.conn.execute(text("DELETE FROM agents"))

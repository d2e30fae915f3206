"""Several hosts in one URL, and which of them is taken, as libpq documents it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from sqlalchemy import make_url, text

from orchdb import DatabaseManager, InvalidValueError, OperationError
from tests.support.postgres_servers import Server, folder, free_port, new_server

DRIVERS = ("asyncpg", "psycopg")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """A server with orchdb's tables, and its standby."""
    with new_server() as primary, folder() as place:

        async def prepare() -> None:
            async with DatabaseManager(primary.url("psycopg")) as db:
                await db.create_system_log("INFO", "hosts", "before")

        asyncio.run(prepare())
        standby = primary.copy(place)
        standby.start()
        try:
            yield primary, standby
        finally:
            standby.stop()


async def is_standby(url: Any) -> bool:
    """Whether the host that was taken is the standby; on each of the manager's connections."""
    async with DatabaseManager(url, read_only=True, connect_timeout=3) as db:
        assert [row["message"] for row in await db.get_system_logs(component="hosts")] == ["before"]
        assert db.conn is not None
        assert (await db.conn.execute(text("SHOW default_transaction_read_only"))).scalar_one() == "on"
        return bool((await db.conn.execute(text("SELECT pg_is_in_recovery()"))).scalar_one())


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("attributes", "standby_first", "primary_first"),
    [
        (None, True, False),
        ("any", True, False),
        ("read-write", False, False),
        ("primary", False, False),
        ("read-only", True, True),
        ("standby", True, True),
        ("prefer-standby", True, True),
    ],
)
async def test_the_first_host_that_is_as_asked_for_is_taken(
    servers: tuple[Server, Server], driver: str, attributes: str | None, standby_first: bool, primary_first: bool
) -> None:
    primary, standby = (f"127.0.0.1:{server.port}" for server in servers)
    query = "" if attributes is None else f"?target_session_attrs={attributes}"
    start = f"postgresql+{driver}://postgres@"
    assert await is_standby(f"{start}{standby},{primary}/postgres{query}") is standby_first
    assert await is_standby(f"{start}{primary},{standby}/postgres{query}") is primary_first


@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_ways_to_write_several_hosts(servers: tuple[Server, Server], driver: str) -> None:
    (primary, port), (standby, other) = ((str(server.data), server.port) for server in servers)
    start = f"postgresql+{driver}://postgres@/postgres?target_session_attrs=standby"
    for query in (
        f"host={primary},{standby}&port={port},{other}",
        f"host=127.0.0.1,{standby}&port={port},{other}",
        f"host=127.0.0.1:{port}&host=127.0.0.1:{other}",
    ):
        assert await is_standby(f"{start}&{query}")
        assert await is_standby(make_url(f"{start}&{query}"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("attributes", ["primary", "read-write"])
async def test_writing_goes_on_where_one_can_write(
    servers: tuple[Server, Server], driver: str, attributes: str
) -> None:
    primary, standby = (f"127.0.0.1:{server.port}" for server in servers)
    nobody = f"127.0.0.1:{free_port()}"
    url = f"postgresql+{driver}://postgres@{nobody},{standby},{primary}/postgres?target_session_attrs={attributes}"
    async with DatabaseManager(url, pool_size=2) as db:
        await asyncio.gather(*(db.create_system_log("INFO", "written", "x") for _ in range(30)))
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "written", "y")
        assert db.conn is not None
        with pytest.raises(Exception, match="read-only"):
            await db.conn.execute(text("DELETE FROM system_logs"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("attributes", ["standby", "read-only"])
async def test_a_host_that_is_not_as_asked_for_is_said_so(
    servers: tuple[Server, Server], driver: str, attributes: str
) -> None:
    url = f"postgresql+{driver}://postgres@127.0.0.1:{servers[0].port}/postgres?target_session_attrs={attributes}"
    with pytest.raises(OperationError, match=r"standby|read-only|read_only|target attribute"):
        await DatabaseManager(url).connect()
    assert not await is_standby(url.replace(attributes, "prefer-standby"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_each_host_has_its_time(servers: tuple[Server, Server], driver: str) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    begun = time.monotonic()
    try:
        url = f"postgresql+{driver}://postgres@127.0.0.1:{port},127.0.0.1:{servers[0].port}/postgres?sslmode=disable"
        async with DatabaseManager(url, connect_timeout=2) as db:
            assert await db.get_system_logs()
    finally:
        listening.close()
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_load_can_be_spread(servers: tuple[Server, Server], driver: str) -> None:
    primary, standby = (f"127.0.0.1:{server.port}" for server in servers)
    url = f"postgresql+{driver}://postgres@{primary},{standby}/postgres?load_balance_hosts=random"
    taken = set()
    for _ in range(40):
        taken.add(await is_standby(url))
        if len(taken) == 2:
            return
    pytest.fail("always the same host")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("query", ["target_session_attrs=writable", "load_balance_hosts=yes", "channel_binding=always"])
def test_a_word_that_libpq_does_not_know_is_refused_by_name(driver: str, query: str) -> None:
    with pytest.raises(InvalidValueError, match=query.partition("=")[0]):
        DatabaseManager(f"postgresql+{driver}://u:pw@h/db?{query}")


NEON = "u:pw@ep-x-pooler.eu.aws.neon.tech/neondb?sslmode=require&channel_binding=require"


def test_a_url_as_neon_gives_it_is_taken_by_the_driver_that_can_do_what_it_asks_for() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert "postgresql+psycopg://" in repr(DatabaseManager(f"{scheme}://{NEON}"))


@pytest.mark.parametrize(
    "query", ["channel_binding=require", "gssencmode=require", "sslsni=0", "require_auth=scram-sha-256", "keepalives=1"]
)
def test_what_asyncpg_cannot_do_is_refused_by_name(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = query.partition("=")[0]
    with pytest.raises(InvalidValueError, match=f"{name}.*postgresql\\+psycopg"):
        DatabaseManager(f"postgresql+asyncpg://u:pw@h/db?{query}")
    assert "+psycopg" in repr(DatabaseManager(f"postgresql://u:pw@h/db?{query}"))
    monkeypatch.setattr("orchdb.location.find_spec", lambda name: None if name == "psycopg" else find_spec(name))
    with pytest.raises(InvalidValueError, match=f"{name}.*orchdb\\[psycopg\\]"):
        DatabaseManager(f"postgresql://u:pw@h/db?{query}")


@pytest.mark.parametrize(
    "query", ["channel_binding=prefer", "channel_binding=disable", "gssencmode=disable", "sslsni=1"]
)
@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+asyncpg"])
def test_what_asks_for_nothing_that_asyncpg_does_not_do_is_taken(scheme: str, query: str) -> None:
    assert "postgresql+asyncpg://" in repr(DatabaseManager(f"{scheme}://u:pw@h/db?{query}"))

"""What a connection failed of is said as the server, the driver or TLS said it, without a password."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from orchdb import ConnectionLostError, DatabaseManager, InvalidValueError, OperationError

DRIVERS = ("asyncpg", "psycopg")
PASSWORD = "S3cretPw"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    return await reader.readexactly(length - 4)


async def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what a client begins with, and refuse TLS."""
    if await message(reader) == struct.pack("!I", 80877103):
        writer.write(b"N")
        await message(reader)


def refusing(code: str, text: str) -> Answer:
    """A server, or a pooler in front of it, that refuses the start with these words."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await start(reader, writer)
        fields = f"SFATAL\0VFATAL\0C{code}\0M{text}\0\0".encode()
        writer.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)
        await writer.drain()

    return answer


async def agreeing_to_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"S")
    await reader.read()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """The address of a server that answers so."""
    connections: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def failure(url: str, **options: Any) -> OperationError:
    """How connecting fails: as an error that says no password and drags nothing along."""
    with pytest.raises(OperationError) as caught:
        await DatabaseManager(url, **{"connect_timeout": 1, **options}).connect()
    error = caught.value
    assert not isinstance(error, ConnectionLostError)
    assert "lost" not in str(error)
    assert "no connection to" in str(error)
    assert PASSWORD not in f"{error} {error!r} {vars(error)}"
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("08P01", "unsupported startup parameter in options: default_transaction_isolation"),
        ("08P01", "no such database: prod"),
        ("28P01", 'password authentication failed for user "orch"'),
        ("28000", 'no pg_hba.conf entry for host "10.0.0.7", user "orch", database "db", no encryption'),
        ("3D000", 'database "db" does not exist'),
        ("53300", "sorry, too many clients already"),
        ("57P03", "the database system is starting up"),
        ("XX000", "Tenant or user not found"),
        ("22023", 'invalid value for parameter "statement_timeout"'),
    ],
)
async def test_what_a_server_or_a_pooler_says_is_passed_on(driver: str, code: str, text: str) -> None:
    async with listening(refusing(code, text)) as place:
        error = await failure(f"postgresql+{driver}://orch:{PASSWORD}@{place}/db")
    assert text in str(error)
    assert place in str(error)
    assert ("pooler=transaction" in str(error)) is ("startup parameter" in text)
    assert error.code in {code, None}


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_password_that_a_server_repeats_is_not_passed_on(driver: str) -> None:
    async with listening(refusing("28P01", f"wrong password: {PASSWORD}")) as place:
        assert "wrong password: ***" in str(await failure(f"postgresql+{driver}://orch:{PASSWORD}@{place}/db"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_hangs_up_is_named(driver: str) -> None:
    async with listening(hanging_up) as place:
        assert place in str(await failure(f"postgresql+{driver}://orch:{PASSWORD}@{place}/db"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_without_tls_where_it_is_asked_for_is_named(driver: str) -> None:
    async with listening(refusing("XX000", "x")) as place:
        error = await failure(f"postgresql+{driver}://orch:{PASSWORD}@{place}/db?sslmode=require")
    assert "SSL" in str(error)
    assert "could not be reached" not in str(error)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("query", ["sslmode=disable", "sslmode=require&sslnegotiation=direct"])
async def test_a_server_that_says_nothing_is_given_up_after_connect_timeout(driver: str, query: str) -> None:
    async with listening(silent) as place, asyncio.timeout(20):
        error = await failure(f"postgresql+{driver}://orch:{PASSWORD}@{place}/db?{query}")
    assert "time" in str(error)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_verification_without_a_root_certificate_names_the_file(
    driver: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    missing = tmp_path / "no.crt"
    async with listening(agreeing_to_tls) as place:
        url = f"postgresql+{driver}://orch:{PASSWORD}@{place}/db?sslmode={mode}"
        assert "root certificate file" in str(await failure(url))
        assert str(missing) in str(await failure(f"{url}&sslrootcert={missing}"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_the_system_trusts_needs_no_file(driver: str) -> None:
    error = await failure(f"postgresql+{driver}://orch:{PASSWORD}@127.0.0.1:1/db?sslrootcert=system")
    assert "file" not in str(error)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_what_the_system_trusts_is_for_full_verification(driver: str, mode: str) -> None:
    with pytest.raises(InvalidValueError, match="sslrootcert=system"):
        DatabaseManager(f"postgresql+{driver}://h/db?sslrootcert=system&sslmode={mode}")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_each_of_several_hosts_says_its_own(driver: str) -> None:
    async with listening(refusing("57P03", "the database system is starting up")) as place:
        error = await failure(f"postgresql+{driver}://orch:{PASSWORD}@127.0.0.1:1,{place}/db?sslmode=disable")
    assert "starting up" in str(error)
    assert "127.0.0.1:1" in str(error)
    assert "efused" in str(error) or "nothing listens" in str(error)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_host_that_is_not_known(driver: str) -> None:
    error = await failure(f"postgresql+{driver}://orch:{PASSWORD}@no-such-host.invalid/db")
    assert "no-such-host.invalid" in str(error)

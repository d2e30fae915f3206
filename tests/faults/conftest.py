"""Faults are provoked for real here; the long ones run with ``pytest -m soak tests/faults``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url


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


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, postgres_url: str) -> URL:
    """The URL of a new, empty database on the server, for each driver in turn."""
    return make_url(postgres_url).set(drivername=f"postgresql+{request.param}")

"""Faults are provoked for real here; the long ones run with ``pytest -m soak tests/faults``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the soak out unless it was asked for."""
    if "soak" in config.getoption("markexpr", ""):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="a long run: pytest -m soak tests/faults"))


@pytest.fixture(autouse=True)
def silent_event_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What asyncio reports of forgotten exceptions and destroyed tasks fails the test."""
    yield
    reports = [
        record for phase in ("setup", "call") for record in caplog.get_records(phase) if record.name == "asyncio"
    ]
    reports = [record for record in reports if record.levelno >= logging.ERROR]
    assert not reports, [record.getMessage() for record in reports]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a new database goes."""
    return tmp_path / "orchestrator.db"

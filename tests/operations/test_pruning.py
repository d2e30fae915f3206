"""Pruning that spares, tells before, and keeps what it takes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError, OperationError
from tests.conftest import Target
from tests.support.databases import call, run_elsewhere

LATER = "2999-01-01"


@pytest.fixture
async def lines(db: DatabaseManager, agent_id: str) -> None:
    """More lines than go at a time, of every kind; and one that another program spelled in its own way."""
    await db.create_agent_logs(
        [
            {
                "agent_id": agent_id,
                "log_level": "ERROR" if number % 500 == 0 else "DEBUG" if number % 2 else "INFO",
                "log_type": "milestone",
                "message": f"line {number} é",
                "details": {"at": number},
            }
            for number in range(1200)
        ]
    )
    await db.create_system_log("CRITICAL", "test", "alarm")
    await db.create_system_log("INFO", "test", "quiet")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of an archive."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.usefixtures("lines")
async def test_errors_stay_if_they_are_to(db: DatabaseManager) -> None:
    assert await db.prune(LATER, log_level="DEBUG", keep_errors=True) == 600
    assert await db.prune(LATER, log_level="ERROR", keep_errors=True) == 0
    assert await db.prune(LATER, keep_errors=True) == 600 - 3 + 1
    assert {row["log_level"] for row in await db.list_recent_agent_logs()} == {"ERROR"}
    assert [row["message"] for row in await db.get_system_logs()] == ["alarm"]


@pytest.mark.usefixtures("lines")
async def test_a_dry_run_tells_what_would_go_and_deletes_nothing(db: DatabaseManager) -> None:
    for options, lines, system in (({}, 1200, 2), ({"keep_errors": True}, 1197, 1), ({"log_level": "DEBUG"}, 600, 0)):
        told = await db.prune(LATER, dry_run=True, **options)
        assert {name: found.rows for name, found in told.items()} == {"agent_logs": lines, "system_logs": system}
        assert lines * 50 < told["agent_logs"].bytes < lines * 500
    assert (await db.prune("2000-01-01", dry_run=True))["agent_logs"] == (0, 0)
    assert len(await db.list_recent_agent_logs(None)) == 1200


@pytest.mark.usefixtures("lines")
async def test_an_archive_has_what_went_as_orchdb_returns_it(
    db: DatabaseManager, target: Target, tmp_path: Path
) -> None:
    if target.engine == "sqlite":
        run_elsewhere(target.url, "DROP TRIGGER trg_agent_logs_created_at_changed")
        run_elsewhere(target.url, "UPDATE agent_logs SET created_at = 1795601472 WHERE id = 2")
    before = {row["id"]: row for row in await db.list_recent_agent_logs(None)}
    path = tmp_path / "archive.jsonl.gz"
    assert await db.prune(LATER, keep_errors=True, archive=path) == 1198
    manifest, *rows, end = read(path)
    assert manifest["orchdb_archive"] == 1
    assert (manifest["operation"], manifest["keep_errors"]) == ("prune", True)
    assert end == {"orchdb_archive_end": True, "rows": {"agent_logs": 1197, "system_logs": 1}}
    kept = {row["id"]: row for row in await db.list_recent_agent_logs(None)}
    gone = {row["id"]: {k: v for k, v in row.items() if k != "table"} for row in rows if row["table"] == "agent_logs"}
    assert {**gone, **kept} == before
    assert not gone.keys() & kept.keys()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("lines")
async def test_nothing_goes_that_is_not_in_the_archive(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.gz"
    there.write_text("mine")
    for path in (there, tmp_path / "nowhere" / "archive.gz"):
        with pytest.raises(OperationError, match="archive") as caught:
            await db.prune(LATER, archive=path)
        assert caught.value.operation == "prune"
    with pytest.raises(InvalidValueError):
        await db.prune(LATER, archive="postgresql://host/name")
    with pytest.raises(InvalidValueError):
        await call(db, "prune", LATER, archive=tmp_path / "wrong.gz", log_level="LOUD")
    assert there.read_text() == "mine"
    assert not (tmp_path / "wrong.gz").exists()
    monkeypatch.setattr("orchdb.operations.archives.os.fsync", _full_after(3))
    with pytest.raises(OperationError, match="No space"):
        await db.prune(LATER, archive=tmp_path / "archive.gz")
    monkeypatch.undo()
    _, *rows = read(tmp_path / "archive.gz")
    left = {row["id"] for row in await db.list_recent_agent_logs(None)}
    assert len(left) == 200
    assert {row["id"] for row in rows} | left == set(range(1, 1201))


def _full_after(times: int) -> Any:
    """An fsync that fails when it has been called so often: the folder, the manifest, and portions."""
    left = [times]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")

    return fsync

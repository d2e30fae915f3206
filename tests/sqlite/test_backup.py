"""``db.backup()``: a consistent copy, a new file for its owner only, or nothing."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError, NewSystemLog, NotConnectedError, OperationError
from orchdb.schema.revisions import HEAD
from tests.support.old_files import ask, change
from tests.support.processes import backup_with_little_space


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def said(db: DatabaseManager, target: Path | str) -> str:
    """What a backup that cannot be made raises."""
    with pytest.raises(OperationError) as caught:
        await db.backup(target)
    assert caught.value.operation == "backup"
    assert caught.value.__cause__ is None
    return str(caught.value)


async def test_a_backup_holds_what_was_committed_and_can_be_connected_to(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        key = await db.create_orchestrator_agent("größe", metadata={"数据": [1, None]})
        before = await db.get_orchestrator_agent(key)
        await db.backup(tmp_path / "copy.db")
        await db.create_orchestrator_agent("too late")
    async with DatabaseManager(tmp_path / "copy.db") as copy:
        assert await copy.schema_version() == HEAD
        assert await copy.list_orchestrator_agents() == [before]


async def test_a_backup_is_consistent_while_others_write(tmp_path: Path) -> None:
    async with (
        DatabaseManager(tmp_path / "orchestrator.db") as db,
        DatabaseManager(tmp_path / "orchestrator.db") as other,
    ):
        stop = asyncio.Event()

        async def write(writer: DatabaseManager) -> None:
            while not stop.is_set():
                async with writer.transaction() as tx:  # two rows that belong together
                    await tx.create_system_log("INFO", "first", "größe" * 50)
                    await tx.create_system_log("INFO", "second", "größe" * 50)

        writers = [asyncio.create_task(write(writer)) for writer in (db, other)]
        acknowledged = []
        for number in range(5):
            acknowledged.append(len(await db.get_system_logs()))
            await db.backup(tmp_path / f"{number}.db")
        stop.set()
        await asyncio.gather(*writers)
    for number, least in enumerate(acknowledged):
        copy = tmp_path / f"{number}.db"
        assert ask(copy, "PRAGMA integrity_check") == [("ok",)]
        rows = ask(copy, "SELECT id, component FROM system_logs ORDER BY id")
        assert len(rows) >= least
        assert rows == [(index + 1, ("first", "second")[index % 2]) for index in range(len(rows))]
        assert len(rows) % 2 == 0


async def test_a_backup_is_for_its_owner_only(tmp_path: Path) -> None:
    with umask(0):
        async with DatabaseManager(tmp_path / "orchestrator.db") as db:
            await db.backup(tmp_path / "copy.db")
            assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.db").write_text("keep")
    (tmp_path / "empty.db").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.db").symlink_to("file.db")
    (tmp_path / "dangling.db").symlink_to("nowhere.db")
    before = names(tmp_path)
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        for name in before:
            assert f"{tmp_path / name} cannot be made: it exists already" in await said(db, tmp_path / name)
        assert "it exists already" in await said(db, tmp_path / "data" / "orchestrator.db")
        assert names(tmp_path) == before | {"data"}
        await db.create_orchestrator_agent("still works")
    assert (tmp_path / "file.db").read_text() == "keep"
    assert (tmp_path / "empty.db").read_bytes() == b""


async def test_two_backups_to_one_path_give_one_whole_copy(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        await db.create_orchestrator_agent("scout")
        results = await asyncio.gather(*(db.backup(tmp_path / "copy.db") for _ in range(4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType", *["OperationError"] * 3]
    assert ask(tmp_path / "copy.db", "SELECT name FROM orchestrator_agents") == [("scout",)]
    assert names(tmp_path) == {"data", "copy.db"}


async def test_a_path_that_cannot_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        assert "No such file or directory" in await said(db, tmp_path / "missing" / "copy.db")
        assert "cannot be made: there is no such user" in await said(db, "~nobody-has-this-name")
        assert "Not a directory" in await said(db, tmp_path / "file" / "copy.db")
        assert "File name too long" in await said(db, tmp_path / ("x" * 300))
        assert "no path" in await said(db, f"{tmp_path}/a\0b")
        with pytest.raises(InvalidValueError, match="must not be empty"):
            await db.backup("")
    assert names(tmp_path) == {"data", "file"}


@pytest.mark.parametrize("wrong", [None, 5, b"copy.db", ["copy.db"]])
async def test_what_is_no_path_is_refused_by_name(tmp_path: Path, wrong: Any) -> None:
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        with pytest.raises(InvalidValueError, match=r"^path: must be text or a path$"):
            await db.backup(wrong)
    assert names(tmp_path) == {"data"}


@pytest.mark.parametrize(
    "name", ["ä ñ.db", "a?b#c%20.db", "file:x.db", "'quoted'.db", os.fsdecode(b"not-utf-8-\xff.db")]
)
async def test_odd_names_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        await db.backup(str(tmp_path / name))
    assert names(tmp_path) == {"data", name}


async def test_a_relative_path_counts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with DatabaseManager("data/orchestrator.db") as db:
        await db.backup("copy.db")
    assert names(tmp_path) == {"data", "copy.db"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    outcome, left = backup_with_little_space(str(tmp_path / "orchestrator.db"), str(tmp_path / "copies" / "copy.db"))
    assert outcome.startswith("OperationError: backup: the disk")
    assert left == []


async def test_a_file_system_without_hard_links_gets_a_backup_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        await db.create_orchestrator_agent("scout")
        await db.backup(tmp_path / "copy.db")
        assert "exists already" in await said(db, tmp_path / "copy.db")
    assert names(tmp_path) == {"data", "copy.db"}
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert ask(tmp_path / "copy.db", "SELECT name FROM orchestrator_agents") == [("scout",)]


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_cancelled_backup_leaves_nothing_behind(tmp_path: Path, turns: int) -> None:
    threads = threading.active_count()
    async with DatabaseManager(tmp_path / "data" / "orchestrator.db") as db:
        row: NewSystemLog = {"log_level": "INFO", "component": "c", "message": "x" * 2000}
        await db.create_system_logs([row] * 5000)
        running = threading.active_count()
        making = asyncio.create_task(db.backup(tmp_path / "copy.db"))
        for _ in range(turns):
            await asyncio.sleep(0)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert names(tmp_path) == {"data"}
        async with asyncio.timeout(10):
            while threading.active_count() > running:
                await asyncio.sleep(0.001)
        await db.backup(tmp_path / "copy.db")
    assert ask(tmp_path / "copy.db", "SELECT count(*) FROM system_logs") == [(5000,)]
    async with asyncio.timeout(10):
        while threading.active_count() > threads:
            await asyncio.sleep(0.001)


async def test_a_read_only_manager_and_one_in_memory_can_be_backed_up(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("scout")
    change(path, "PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    async with DatabaseManager(path, read_only=True) as db:
        await db.backup(tmp_path / "copy.db")
    assert path.read_bytes() == before
    async with DatabaseManager(":memory:") as db:
        await db.create_orchestrator_agent("scout")
        await db.backup(tmp_path / "memory.db")
    for name in ("copy.db", "memory.db"):
        assert ask(tmp_path / name, "SELECT name FROM orchestrator_agents") == [("scout",)]


async def test_a_backup_needs_a_connection(tmp_path: Path) -> None:
    with pytest.raises(NotConnectedError):
        await DatabaseManager(tmp_path / "orchestrator.db").backup(tmp_path / "copy.db")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
async def test_on_postgres_pg_dump_is_pointed_to(tmp_path: Path, postgres_url: str, engine: str) -> None:
    async with DatabaseManager(postgres_url.replace("postgresql://", f"postgresql+{engine}://")) as db:
        assert "pg_dump" in await said(db, tmp_path / "copy.db")
    assert names(tmp_path) == set()

"""The settings of every connection, the file system that the file is on, and the SQLite that reads it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, MissingParentError
from orchdb.sqlite import files
from tests.support.databases import NO_ROW, call
from tests.support.faults import log, seen

BOTH: dict[str, object] = {
    "journal_mode": "wal",
    "foreign_keys": 1,
    "trusted_schema": 0,
    "mmap_size": 0,
    "temp_store": 0,
}
READER = BOTH | {"query_only": 1, "wal_autocheckpoint": 0, "cell_size_check": 1, "busy_timeout": 10_000}
WRITER = BOTH | {"query_only": 0, "wal_autocheckpoint": 4000, "cell_size_check": 1, "busy_timeout": 100}
WRITER |= {"synchronous": 1, "cache_size": -16_000, "journal_size_limit": 67_108_864}


def settings(conn: Any, names: dict[str, object]) -> dict[str, object]:
    connection: sqlite3.Connection = conn._driver._conn
    assert connection.isolation_level is None
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}


async def test_every_connection_has_every_setting(path: Path) -> None:
    async with DatabaseManager(path) as db:
        await audit(db)
        line: Any = {"log_level": "INFO", "component": "test", "message": "one of many"}
        await db.create_system_logs([line] * 1000)  # changes a setting for as long as it takes
        orphan: Any = {"agent_id": NO_ROW, "log_level": "INFO", "log_type": "milestone", "message": "x"}
        with pytest.raises(MissingParentError):
            await db.create_agent_logs([orphan])
        await audit(db)


async def test_while_many_share_a_commit_checkpoints_come_sooner_and_are_shorter(path: Path) -> None:
    async with DatabaseManager(path) as db:
        backend: Any = db._executor.backend

        def pages() -> object:
            return settings(backend._write_queue.conn, {"wal_autocheckpoint": 0})["wal_autocheckpoint"]

        for tasks, expected in ((100, 1000), (5, 4000), (100, 1000), (1, 4000)):
            for _ in range(3):
                await asyncio.gather(*(log(db, "x") for _ in range(tasks)))
            assert pages() == expected


async def audit(db: DatabaseManager) -> None:
    """Look at the settings of the writer's connection, of every reader's, and of the caller's."""
    await asyncio.gather(*(seen(db) for _ in range(20)))
    await log(db, "alone")  # a commit that many shared has changed a setting
    backend: Any = db._executor.backend
    assert len(backend._read_pool.conns) == 4
    for conn in backend._read_pool.conns:
        assert settings(conn, READER) == READER
    assert settings(backend._write_queue.conn, WRITER) == WRITER
    assert db.conn is not None
    found = {name: (await db.conn.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in READER}
    assert found == READER


async def test_after_cancellations_lost_connections_and_a_second_opening_every_connection_has_every_setting(
    path: Path,
) -> None:
    async def own_read(db: DatabaseManager) -> None:
        assert db.conn is not None
        await db.conn.exec_driver_sql("SELECT count(*) FROM system_logs a, system_logs b")

    async def own_write(db: DatabaseManager) -> None:
        async with db.transaction() as tx:
            await tx.conn.exec_driver_sql("UPDATE system_logs SET message = message")

    db = DatabaseManager(path)
    for _ in range(2):  # a connection of the writer's or a reader's is never replaced, but by close() and connect()
        await db.connect()
        await asyncio.gather(*(log(db, "x" * 1000) for _ in range(300)))
        for number in range(30):
            tasks = [asyncio.ensure_future(work(db)) for work in (own_read, own_write, seen, seen, seen)]
            await asyncio.sleep(number * 0.0005)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await audit(db)
        assert db.conn is not None
        await db.conn.invalidate()  # the caller may: SQLAlchemy then opens another one
        await db.conn.rollback()
        await audit(db)
        await db.close()


async def test_a_connection_that_reads_cannot_write(path: Path) -> None:
    async with DatabaseManager(path) as db:
        assert db.conn is not None
        with pytest.raises(Exception, match="readonly"):
            await db.conn.exec_driver_sql("DELETE FROM system_logs")
        with pytest.raises(Exception, match="not authorized"):
            await db.conn.exec_driver_sql("SELECT load_extension('x')")


def test_the_type_of_a_file_system_is_what_the_system_says(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/shm"), Path("/proc/self")):
        shown = subprocess.run(
            ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", place],
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.returncode == 0:
            assert files.file_system(place) == shown.stdout.split()[-1]


MOUNTS = """\
21 1 254:0 / / rw - ext4 /dev/root rw
22 21 0:40 / /data rw - nfs4 server:/export rw
23 22 0:41 / /data/my\\040disk rw - ext4 /dev/sdb rw
24 21 0:42 / /database rw - fuse.sshfs there: rw
25 21 0:43 / /shared rw - 9p host rw
26 21 0:44 / /shared rw - cifs //host/share rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/data/orchestrator.db", "nfs4"),
        ("/data/my disk/orchestrator.db", "ext4"),
        ("/database/orchestrator.db", "fuse.sshfs"),
        ("/shared/orchestrator.db", "cifs"),
        ("/datafile.db", "ext4"),
    ],
)
def test_the_innermost_and_last_mount_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "mountinfo")
    assert files.file_system(Path(place)) == kind


async def test_a_network_file_system_is_warned_of(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with DatabaseManager(path):
        assert not caplog.records
    # None can be mounted here: the kernel's list is made to say so.
    (tmp_path / "mountinfo").write_text(f"22 21 0:40 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "mountinfo")
    async with DatabaseManager(path) as db:
        await log(db, "works all the same")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{path} is on a nfs4 file system" in record.getMessage()


async def test_where_the_system_does_not_tell_there_is_no_warning(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "missing")
    async with DatabaseManager(path):
        assert not caplog.records


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 54, 1), False),
    ],
)
def test_the_wal_reset_bug_is_known_by_the_version(version: tuple[int, ...], affected: bool) -> None:
    assert files.has_wal_reset_bug(version) is affected


async def test_the_wal_reset_bug_is_noted_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files.sqlite3, "sqlite_version_info", (3, 40, 1))  # type: ignore[attr-defined]
    files._note_wal_reset_bug.cache_clear()
    caplog.set_level(logging.INFO, "orchdb")
    for _ in range(2):
        async with DatabaseManager(path):
            pass
    assert [record.levelname for record in caplog.records if "WAL-reset" in record.getMessage()] == ["INFO"]


async def test_a_log_line_is_never_given_the_number_of_a_deleted_one(path: Path) -> None:
    async with DatabaseManager(path) as db:
        last = [await log(db, str(number)) for number in range(3)][-1]
        await call(db, "prune", "9999-01-01")
        assert await log(db, "next") == last + 1

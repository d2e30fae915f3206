"""Places where little can be written: containers, read-only media, disks with room for one more copy of a file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchdb import DatabaseManager, OperationError
from orchdb.schema.revisions import HEAD
from orchdb.sqlite import files
from tests.support.faults import ROOT, log, messages, opened, seen
from tests.support.old_files import OldFile, read


def need_root() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("mounting file systems needs root")


def mount(*arguments: object) -> None:
    if subprocess.run(["mount", *map(str, arguments)], check=False).returncode:
        pytest.skip("this system does not let root mount a file system")


def in_container(prepare: str, *arguments: object, **variables: str) -> Any:
    """What the child says in a mount namespace of its own."""
    need_root()
    environment = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "SQLITE_TMPDIR")}
    child = f"exec {sys.executable} -P -B -m tests.support.children.container"
    script = f'mount --make-rprivate / && {prepare} && {child} "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", *map(str, arguments)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"this system does not let root mount a file system: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


READ_ONLY = "for m in / /tmp /var/tmp /dev/shm; do mount --rbind $m $m && mount -o remount,ro,bind $m; done"


def test_in_memory_there_is_more_room_than_the_64_mb_of_a_container() -> None:
    assert in_container("mount -t tmpfs -o size=64m shm /dev/shm", "fill", ":memory:") == [100, None]


def test_in_memory_where_nothing_can_be_written_it_is_said_what_to_do() -> None:
    stored, said = in_container(READ_ONLY, "fill", ":memory:")
    assert stored == 0
    assert "set TMPDIR" in said


def test_where_only_the_folder_of_the_database_can_be_written_everything_works(tmp_path: Path) -> None:
    need_root()
    (tmp_path / "data").mkdir()
    mount("-t", "tmpfs", "-o", "size=300m", "tmpfs", tmp_path / "data")
    try:
        old = OldFile(tmp_path / "data" / "old.db")
        assert in_container(READ_ONLY, "use", old.path) == [HEAD, None]
    finally:
        subprocess.run(["umount", tmp_path / "data"], check=True)


@pytest.mark.parametrize(
    ("room", "place"),
    [
        ({"/dev/shm": 2 << 30, "T": 9 << 30}, "/dev/shm"),
        ({"/dev/shm": 64 << 20, "T": 9 << 30}, "T"),
        ({"/dev/shm": 64 << 20, "T": 1 << 20}, "/dev/shm"),
        ({"/dev/shm": -1, "T": 1 << 20}, "T"),
    ],
)
def test_a_database_in_memory_goes_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: dict[str, int], place: str
) -> None:
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.setattr(files, "_room", lambda folder: room["T" if folder == str(tmp_path) else folder])
    folder = files.PrivateFolder()
    folder.remove()
    assert str(folder.path.parent) == (str(tmp_path) if place == "T" else place)


def test_temporary_files_go_where_sqlite_finds_room_for_them_or_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.temp_store() == 0
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    free = shutil.disk_usage(tmp_path).free
    assert files.temp_store(free // 2) == 0
    assert files.temp_store(free * 2) == 2
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "missing"))  # then SQLite looks further
    assert files.temp_store() == 0
    monkeypatch.setattr(files.os, "access", lambda *_: False)  # type: ignore[attr-defined]
    assert files.temp_store() == 2


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Medium]:
    """A folder that can be seen a second time as a read-only medium."""
    need_root()
    medium = Medium(tmp_path / "folder", tmp_path / "medium")
    medium.folder.mkdir()
    medium.view.mkdir()
    mount("--bind", medium.folder, medium.view)
    try:
        mount("-o", "remount,ro,bind", medium.view)
        yield medium
    finally:
        subprocess.run(["umount", medium.view], check=True)


class Medium(NamedTuple):
    """The folder as it can be written, and as it cannot."""

    folder: Path
    view: Path


async def filled(path: Path) -> None:
    async with DatabaseManager(path) as db:
        await log(db, "before")


async def test_a_database_on_a_read_only_medium_can_be_read(medium: Medium, tmp_path: Path) -> None:
    await filled(medium.folder / "orchestrator.db")
    async with DatabaseManager(medium.view / "orchestrator.db", read_only=True) as db:
        assert await asyncio.gather(*(seen(db) for _ in range(10))) == [["before"]] * 10
        assert db.conn is not None
        assert (await db.conn.exec_driver_sql("SELECT count(*) FROM system_logs")).scalar() == 1
        lines = db.tail_system_logs(after_id=0)
        assert (await anext(lines))["message"] == "before"
        await lines.aclose()  # type: ignore[attr-defined]
        await db.backup(tmp_path / "copy.db")
    assert messages(tmp_path / "copy.db") == ["before"]
    assert [path.name for path in medium.folder.iterdir()] == ["orchestrator.db"]


async def test_who_wants_to_write_to_a_read_only_medium_is_told_how_it_can_be_read(medium: Medium) -> None:
    await filled(medium.folder / "orchestrator.db")
    with pytest.raises(OperationError, match="read-only medium: with read_only=True it can be read") as caught:
        await DatabaseManager(medium.view / "orchestrator.db").connect()
    assert str(medium.view) in str(caught.value)


async def test_rows_in_a_wal_on_a_read_only_medium_are_not_passed_over(medium: Medium) -> None:
    path = medium.folder / "orchestrator.db"
    await filled(path)
    with opened(path) as connection:
        connection.execute("INSERT INTO system_logs (component, message) VALUES ('fault', 'newest')")
        wal = Path(f"{path}-wal").read_bytes()
    Path(f"{path}-wal").write_bytes(wal)  # as a process leaves it that was killed
    with pytest.raises(OperationError, match="newest rows, which are in its -wal file, cannot be read"):
        await DatabaseManager(medium.view / path.name, read_only=True).connect()


async def test_a_change_from_elsewhere_of_a_file_on_a_read_only_medium_is_noticed(medium: Medium) -> None:
    path = medium.folder / "orchestrator.db"
    await filled(path)
    db = DatabaseManager(medium.view / path.name, read_only=True)
    await db.connect()
    async with DatabaseManager(path) as writer:
        await log(writer, "after")
        with pytest.raises(OperationError, match="was changed while it was open on a read-only medium"):
            await seen(db)
    with pytest.raises(OperationError, match="was changed"):
        await seen(db)
    await db.close()
    async with db:
        assert await seen(db) == ["before", "after"]


async def test_beside_a_writer_a_read_only_view_is_read_as_any_other(medium: Medium) -> None:
    path = medium.folder / "orchestrator.db"
    async with DatabaseManager(path) as writer, DatabaseManager(medium.view / path.name, read_only=True) as db:
        for number in range(3):
            await log(writer, str(number))
            assert len(await seen(db)) == number + 1


@pytest.mark.parametrize("copies", [1.5, 2.2])
async def test_an_upgrade_that_the_disk_has_no_room_for_leaves_the_file_alone_however_often_it_is_tried(
    tmp_path: Path, copies: float, caplog: pytest.LogCaptureFixture
) -> None:
    need_root()
    template, disk = OldFile(tmp_path / "old.db"), tmp_path / "disk"
    size = template.path.stat().st_size
    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={round(size * copies)}", "tmpfs", disk)
    try:
        path = Path(shutil.copy(template.path, disk))
        caplog.set_level(logging.CRITICAL)
        for _ in range(3):
            with pytest.raises(OperationError, match="disk"):
                await DatabaseManager(path).connect()
            assert [found.name for found in disk.iterdir()] == ["old.db"]
        assert read(path) == read(template.path)
        mount("-o", f"remount,size={size * 6}", disk)
        async with DatabaseManager(path) as db:
            assert await db.schema_version() == HEAD
        assert len(list(disk.glob("*.backup"))) == 1
    finally:
        subprocess.run(["umount", disk], check=True)

"""A disk that is full, limited or read-only, files without permission: named, nothing damaged, and it works again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, OperationError
from tests.support.faults import assert_sound, log, messages, run_child, seen

FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR"}
BIG = "x" * 20_000
HUGE = "x" * 40_000_000
"""More than the page cache holds, so that it reaches the disk before the commit."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], check=False).returncode:
        pytest.skip("this system does not let root mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


async def fill(db: DatabaseManager, acknowledged: list[str]) -> OperationError:
    """Write until the disk is full."""
    for number in range(1000):
        try:
            await db.create_system_log("INFO", "fault", f"fill {number}", BIG)
        except OperationError as error:
            return error
        acknowledged.append(f"fill {number}")
    raise AssertionError("the disk never became full")


async def test_a_full_disk_loses_nothing_and_works_again_when_there_is_room(small_disk: Path) -> None:
    path, ballast = small_disk / "orchestrator.db", small_disk / "ballast"
    acknowledged: list[str] = []
    async with DatabaseManager(path) as db:
        ballast.write_bytes(bytes(1 << 20))
        error = await fill(db, acknowledged)
        assert error.code in FULL
        assert "full" in str(error) or "written" in str(error)
        assert await seen(db) == acknowledged
        for _ in range(3):
            with pytest.raises(OperationError):
                await db.create_system_log("INFO", "fault", "refused", BIG)
        ballast.unlink()
        for _ in range(3):
            with suppress(OperationError):
                await log(db, "after")
                break
        assert await seen(db) == [*acknowledged, "after"]
    assert messages(path) == [*acknowledged, "after"]
    assert_sound(path)


async def test_a_full_disk_fails_only_the_write_that_does_not_fit(small_disk: Path) -> None:
    async with DatabaseManager(small_disk / "orchestrator.db") as db:
        results = await asyncio.gather(
            *(log(db, f"{number}") for number in range(20)),
            db.create_system_log("INFO", "fault", "too big", "x" * 8_000_000),
            *(log(db, f"{number}") for number in range(20, 40)),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == ["int"] * 20 + ["OperationError"] + ["int"] * 20
        assert sorted(await seen(db), key=int) == [str(number) for number in range(40)]


async def goes_on(db: DatabaseManager) -> None:
    """A caller who does not care for errors."""
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "before")
        with pytest.raises(OperationError):
            await tx.create_system_log("INFO", "fault", "too big", HUGE)
        with pytest.raises(OperationError):
            await tx.create_system_log("INFO", "fault", "behind")
        with pytest.raises(OperationError):
            await tx.conn.execute(text("INSERT INTO system_logs (component, message) VALUES ('fault', 'own')"))


async def nested(db: DatabaseManager) -> None:
    async with db.transaction() as tx, tx.transaction() as inner:
        await inner.create_system_log("INFO", "fault", "too big", HUGE)


@pytest.mark.parametrize("work", [goes_on, nested])
async def test_a_full_disk_ends_the_transaction_and_nothing_of_it_is_committed(
    small_disk: Path, work: Callable[[DatabaseManager], Awaitable[None]]
) -> None:
    async with DatabaseManager(small_disk / "orchestrator.db") as db:
        with pytest.raises(OperationError):
            await work(db)
        assert await seen(db) == []
        await log(db, "after")
        assert await seen(db) == ["after"]


def test_a_quota_loses_nothing_and_works_again_when_it_is_raised(path: Path) -> None:
    (result,) = run_child("quota", path)
    assert set(result["codes"]) <= FULL
    assert result["codes"]
    assert result["read"] == len(result["acknowledged"])
    assert messages(path) == [*result["acknowledged"], "after"]
    assert_sound(path)


async def test_a_disk_that_is_read_only_is_named_and_works_again_when_it_is_not(small_disk: Path) -> None:
    path = small_disk / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await log(db, "before")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("orchestrator.db", "new.db", "new/folder/new.db"):
        with pytest.raises(OperationError, match=str(small_disk)):
            async with DatabaseManager(small_disk / name) as db:
                await log(db, "refused")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert list(small_disk.iterdir()) == [path]
    async with DatabaseManager(path) as db:
        await log(db, "after")
    assert messages(path) == ["before", "after"]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can enter."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    place = Path(tempfile.mkdtemp(prefix="orchdb-fault-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_what_nobody_may_not_use_is_refused_with_its_path_and_nothing_takes_its_place(public: Path) -> None:
    cases = {"own": (0o777, 0o666), "read-only file": (0o777, 0o444), "read-only folder": (0o755, 0o666)}
    cases |= {"no permission": (0o755, 0o600), "closed folder": (0o700, 0o666)}
    paths = {}
    for name, (folder, file) in cases.items():
        place = public / name
        place.mkdir()
        paths[name] = place / "orchestrator.db"
        asyncio.run(_make(paths[name]))
        paths[name].chmod(file)
        place.chmod(folder)
    paths["new in a read-only folder"] = public / "read-only folder" / "new.db"
    paths["new below it"] = public / "read-only folder" / "new" / "new.db"
    before = sorted(public.rglob("*"))  # with SQLite's companions of the file that can be read
    before = sorted([*before, *(Path(f"{paths['read-only file']}{suffix}") for suffix in ("-shm", "-wal"))])
    results = dict(zip(paths, run_child("unprivileged", *paths.values()), strict=True))
    assert results["own"] == {"reached": "write"}
    for name, result in list(results.items())[1:]:
        assert result["reached"] != "write", name
        assert result["kind"] == "OperationError", name
        if result["reached"] == "nothing":
            assert str(paths[name]) in result["text"], name
    assert sorted(public.rglob("*")) == before
    assert messages(paths["read-only file"]) == ["before"]


async def _make(path: Path) -> None:
    async with DatabaseManager(path) as db:
        await log(db, "before")

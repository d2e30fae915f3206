"""Backups that were tested: made while others write, checked, and brought back."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from orchdb import DatabaseManager, DuplicateError, InvalidValueError, OperationError, SchemaError
from orchdb.transfer import back_up_database, compare_databases, copy_database, restore_database
from tests.conftest import Target
from tests.support.databases import other_program
from tests.transfer.conftest import fill


@pytest.mark.parametrize("name", ["backup.db", "backup.db.gz"])
async def test_a_backup_of_any_engine_comes_back_as_it_was(
    file: Path, target: Target, tmp_path: Path, name: str
) -> None:
    await copy_database(file, target.url)
    async with DatabaseManager(target.url) as db:  # others may have it open
        await back_up_database(target.url, tmp_path / name)
        await db.create_system_log("INFO", "x", "later")
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    restored = await restore_database(tmp_path / name, tmp_path / "restored.db")
    assert restored.kept is None
    assert (await compare_databases(file, restored.place)).equal
    if target.engine != "sqlite":
        with pytest.raises(DuplicateError):
            await restore_database(tmp_path / name, target.url)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


async def test_a_backup_goes_into_an_empty_server(file: Path, postgres_url: str, tmp_path: Path) -> None:
    await back_up_database(file, tmp_path / "backup.db.gz")
    await restore_database(tmp_path / "backup.db.gz", postgres_url)
    assert (await compare_databases(file, postgres_url)).equal


async def test_a_backup_overwrites_nothing(file: Path, tmp_path: Path) -> None:
    for name in ("there.db", "there.db.gz"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OperationError, match="exists already"):
            await back_up_database(file, tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(OperationError, match="no folder"):
        await back_up_database(file, tmp_path / "nowhere" / "backup.db")
    with pytest.raises(InvalidValueError):
        await back_up_database(file, "postgresql://host/name")


async def test_restore_replaces_a_file_only_if_it_may_and_keeps_it(file: Path, tmp_path: Path) -> None:
    await back_up_database(file, tmp_path / "backup.db")
    place = tmp_path / "data.db"
    await fill(place)
    async with DatabaseManager(place) as db:
        await db.create_system_log("INFO", "x", "only here")
        with pytest.raises(OperationError, match="not to be replaced"):
            await restore_database(tmp_path / "backup.db", place)
        with pytest.raises(OperationError, match="in use"):
            await restore_database(tmp_path / "backup.db", place, replace=True)
        assert len(await db.get_system_logs(component="x")) == 1
    restored = await restore_database(tmp_path / "backup.db", place, replace=True)
    assert (await compare_databases(file, place)).equal
    assert restored.kept is not None
    async with DatabaseManager(restored.kept) as db:
        assert [row["message"] for row in await db.get_system_logs(component="x")] == ["only here"]
    assert not [path for path in tmp_path.iterdir() if "restoring" in path.name]


async def test_a_backup_is_checked_before_it_replaces_anything(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "data.db"
    await fill(place)
    await back_up_database(file, tmp_path / "good.db")
    damaged, other, cut, newer = (tmp_path / name for name in ("damaged.db", "other.db", "cut.db.gz", "newer.db"))
    content = bytearray((tmp_path / "good.db").read_bytes())
    newer.write_bytes(content)
    with other_program(newer) as program:
        program.execute("UPDATE orchdb_version SET version_num = '9999'")
    cut.write_bytes(gzip.compress(bytes(content))[:-100])
    content[4096 * 3 : 4096 * 40] = bytes(4096 * 37)
    damaged.write_bytes(content)
    with other_program(other) as program:
        program.execute("CREATE TABLE theirs (x)")
    before = place.read_bytes()
    for backup, error in (
        (damaged, OperationError),
        (cut, OperationError),
        (other, SchemaError),
        (newer, SchemaError),
        (tmp_path / "none.db", OperationError),
    ):
        with pytest.raises(error):
            await restore_database(backup, place, replace=True)
    assert place.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if "replaced" in path.name]

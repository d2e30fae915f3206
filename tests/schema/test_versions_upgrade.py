"""The upgrade of an older database by ``connect()``: what is kept, what is backed up, and what happens if it fails."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from orchdb import DatabaseManager, SchemaError
from orchdb.schema.revisions import HEAD, REVISIONS
from tests.support.alembic_runs import configuration, downgrade, transaction, upgrade
from tests.support.databases import other_program
from tests.support.old_files import TABLES, OldFile, Rows, ask, change, kept, read

OTHERS = ("alembic_version", "hosts", "bookmarks", "audit")


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.backup"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def is_sound(path: Path) -> bool:
    return ask(path, "PRAGMA integrity_check") == [("ok",)] and ask(path, "PRAGMA foreign_key_check") == []


async def connected(path: Path) -> str | None:
    async with DatabaseManager(path) as db:
        return await db.schema_version()


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("others", [True, False], ids=["others", "alone"])
async def test_an_old_file_is_backed_up_beside_itself_and_upgraded(tmp_path: Path, others: bool, mode: str) -> None:
    old = OldFile(tmp_path / "old.db", others=others)
    change(old.path, f"PRAGMA journal_mode = {mode}")
    tables = TABLES + (OTHERS if others else ())
    before = read(old.path, tables)
    assert await connected(old.path) == HEAD

    after = read(old.path, tables)
    promised = old.promised({table: before[table] for table in TABLES})
    assert {table: rows.keys() for table, rows in after.items()} == {
        table: rows.keys() for table, rows in before.items()
    }
    assert kept({table: after[table] for table in TABLES}, promised) == promised
    assert {table: after[table] for table in tables if table not in TABLES} == {
        table: before[table] for table in tables if table not in TABLES
    }
    assert is_sound(old.path)

    (backup,) = backups(old.path)
    assert re.fullmatch(r"old\.db\.unversioned-\d{8}T\d{12}\.backup", backup.name)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert names(tmp_path) == {"old.db", backup.name}
    assert read(backup, tables) == before
    assert is_sound(backup)
    assert "orchdb_version" not in dict(ask(backup, "SELECT name, type FROM sqlite_master"))


@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_every_older_revision_is_upgraded_from_where_it_is(tmp_path: Path, revision: str) -> None:
    old = OldFile(tmp_path / "old.db")
    upgrade(old.path, revision)
    before = read(old.path)
    assert await connected(old.path) == HEAD
    promised = old.promised(before)
    assert kept(read(old.path), promised) == promised
    assert is_sound(old.path)
    (backup,) = backups(old.path)
    assert backup.name.startswith(f"old.db.{revision}-")
    assert read(backup) == before


async def test_a_backup_can_be_connected_to_like_the_old_file(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    await connected(old.path)
    (backup,) = backups(old.path)
    restored = backup.rename(tmp_path / "restored.db")
    assert await connected(restored) == HEAD
    assert read(restored) == read(old.path)


async def test_an_upgraded_file_is_not_backed_up_again(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    for _ in range(3):
        assert await connected(old.path) == HEAD
    assert len(backups(old.path)) == 1


async def test_the_upgrade_follows_a_link_and_stays_beside_its_target(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    old = OldFile(tmp_path / "data" / "old.db")
    link = tmp_path / "link.db"
    link.symlink_to(old.path)
    assert await connected(link) == HEAD
    assert names(tmp_path) == {"data", "link.db"}
    assert len(backups(old.path)) == 1


async def test_what_killed_backups_left_is_cleaned_and_files_of_others_stay(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    left = ".old.db.0001-20240506T070809123456.backup.abc.partial"
    pending = ".old.db.0001-20240506T070809123456.pending.backup.abc.partial"
    others = {".old.db.partial", ".older.db.0001-20240506T070809123456.backup.abc.partial", "old.db.backup"}
    for name in (left, f"{left}-journal", pending, f"{pending}-journal", *others):
        (tmp_path / name).write_text("left over")
    await connected(old.path)
    assert names(tmp_path) == {"old.db", *others, *(path.name for path in backups(old.path))}


async def test_the_backup_of_an_upgrade_that_was_killed_goes_and_one_of_an_upgrade_that_was_committed_stays(
    tmp_path: Path,
) -> None:
    old = OldFile(tmp_path / "old.db")
    upgrade(old.path, "0003")
    killed, committed = "old.db.0003-20240506T070809123456", "old.db.unversioned-20240506T070809123456"
    kept_ones = {"older.db.0003-20240506T070809123456.pending.backup", "old.db.0003-20230101T000000000000.backup"}
    for name in (f"{killed}.pending.backup", f"{committed}.pending.backup", *kept_ones):
        (tmp_path / name).write_text("left over")
    before = {*names(tmp_path)}
    await connected(old.path)
    made = names(tmp_path) - before
    assert made - {f"{committed}.backup"} == {path.name for path in backups(old.path) if path.stat().st_size > 100}
    assert names(tmp_path) == {"old.db", f"{committed}.backup", *kept_ones, *made}


SECRET = "the prompt that nobody may see"


async def test_a_failed_upgrade_leaves_the_file_as_it_was_and_no_backup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = OldFile(tmp_path / "old.db")
    change(old.path, "CREATE TRIGGER trg_system_logs_created_at AFTER INSERT ON agents BEGIN SELECT 1; END")
    before = read(old.path), ask(old.path, "SELECT * FROM sqlite_master")
    for _ in range(2):
        with pytest.raises(SchemaError, match=r"nothing was changed.*trg_system_logs_created_at already exists"):
            await connected(old.path)
        assert (read(old.path), ask(old.path, "SELECT * FROM sqlite_master")) == before
        assert names(tmp_path) == {"old.db"}
    assert "trg_system_logs_created_at" in caplog.text

    change(old.path, "DROP TRIGGER trg_system_logs_created_at")
    assert await connected(old.path) == HEAD


async def test_a_failed_upgrade_quotes_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = OldFile(tmp_path / "old.db")
    change(old.path, "PRAGMA ignore_check_constraints = ON", f"UPDATE agents SET status = '{SECRET}' WHERE rowid = 9")
    with pytest.raises(SchemaError, match=r"nothing was changed.*ck_agents_status") as caught:
        await connected(old.path)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r} {caplog.text}"


async def test_a_failed_upgrade_of_postgres_quotes_no_row(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    upgrade(postgres_url, "0004")
    with transaction(postgres_url) as connection:
        for statement in (
            "ALTER TABLE orchestrator_agents DROP CONSTRAINT uq_orchestrator_agents_name",
            "ALTER TABLE orchestrator_agents ADD CONSTRAINT uq_orchestrator_agents_name UNIQUE (id)",
            "INSERT INTO orchestrator_agents (id, name, agent_type) "
            f"SELECT gen_random_uuid(), '{SECRET}', 'planner' FROM generate_series(1, 2)",
        ):
            connection.execute(text(statement))
    with pytest.raises(SchemaError, match=r"nothing was changed.*uq_orchestrator_agents_name") as caught:
        await DatabaseManager(postgres_url, upgrade=True).connect()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r} {caplog.text}"
    with transaction(postgres_url) as connection:
        assert connection.execute(text("SELECT version_num FROM orchdb_version")).scalar() == "0004"


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("revision", REVISIONS[:-1:3])
async def test_an_older_postgres_database_is_upgraded_when_asked_for(
    postgres_url: str, engine: str, revision: str
) -> None:
    with transaction(postgres_url) as connection:
        command.upgrade(configuration(connection), revision)
        connection.execute(
            text(
                "INSERT INTO orchestrator_agents (id, name, agent_type) "
                "SELECT gen_random_uuid(), 'größe ' || n, 'planner' FROM generate_series(1, 50) n"
            )
        )
    url = postgres_url.replace("postgresql://", f"postgresql+{engine}://")
    async with DatabaseManager(url, upgrade=True) as db:
        assert await db.schema_version() == HEAD
        assert {row["name"] for row in await db.list_orchestrator_agents()} == {f"größe {n}" for n in range(1, 51)}
    with transaction(postgres_url) as connection:
        command.check(configuration(connection))


def rows_of(*files: OldFile) -> list[Rows]:
    return [read(old.path) for old in files]


async def test_two_managers_upgrade_two_files_at_once(tmp_path: Path) -> None:
    first, second = OldFile(tmp_path / "1.db"), OldFile(tmp_path / "2.db", others=False)
    before = rows_of(first, second)
    assert await asyncio.gather(*(connected(path) for path in (first.path, second.path, first.path))) == [HEAD] * 3
    for old, rows, after in zip((first, second), before, rows_of(first, second), strict=True):
        promised = old.promised(rows)
        assert kept(after, promised) == promised
        assert len(backups(old.path)) == 1


def test_two_threads_upgrade_two_files_at_once_in_loops_of_their_own(tmp_path: Path) -> None:
    files = [OldFile(tmp_path / f"{number}.db") for number in range(2)]
    before = rows_of(*files)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda old: asyncio.run(connected(old.path)), files))
    assert found == [HEAD] * 2
    for old, rows, after in zip(files, before, rows_of(*files), strict=True):
        promised = old.promised(rows)
        assert kept(after, promised) == promised


async def test_the_event_loop_goes_on_during_an_upgrade(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    connecting = asyncio.create_task(connected(old.path))
    turns = 0
    while not connecting.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert connecting.result() == HEAD
    assert turns > 10


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2])
async def test_a_connect_that_is_cancelled_during_an_upgrade_leaves_no_thread_and_no_lock(
    tmp_path: Path, after: float
) -> None:
    old = OldFile(tmp_path / "old.db")
    before = read(old.path)
    threads = threading.active_count()
    connecting = asyncio.create_task(DatabaseManager(old.path).connect())
    await asyncio.sleep(after)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    async with asyncio.timeout(10):  # a thread ends a moment after it has closed its connection
        while threading.active_count() > threads:
            await asyncio.sleep(0.001)
    with other_program(old.path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
    assert await connected(old.path) == HEAD
    promised = old.promised(before)
    assert kept(read(old.path), promised) == promised


async def test_a_program_that_reads_meanwhile_does_not_stop_the_upgrade(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    change(old.path, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(old.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        (count,) = reader.execute("SELECT count(*) FROM prompts").fetchone()
        assert await connected(old.path) == HEAD
        assert reader.execute("SELECT count(*) FROM prompts").fetchone() == (count,)


async def test_another_managers_reads_go_on_during_an_upgrade(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    upgrade(old.path)
    async with DatabaseManager(old.path, read_only=True) as db:
        downgrade(old.path, "0007")  # as if an older program had made it
        connecting = asyncio.create_task(connected(old.path))
        while not connecting.done():
            assert len(await db.list_orchestrator_agents()) > 0
        assert connecting.result() == HEAD

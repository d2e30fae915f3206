"""What a prune gives back to the file system."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, OperationError
from orchdb.sqlite import free_space
from tests.support.databases import locked_by_another, other_program

LINE: Any = {"log_level": "INFO", "component": "test", "message": "x" * 2000}
LINES = 5000
"""About 12 MB."""


def ask(path: Path, name: str) -> Any:
    with other_program(path) as connection:
        value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


async def filled(db: DatabaseManager) -> None:
    await db.create_system_logs([LINE] * LINES)


async def test_after_a_prune_the_file_is_as_small_as_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        empty = path.stat().st_size + path.with_name(f"{path.name}-wal").stat().st_size
        await filled(db)
        assert await db.cleanup_old_logs(0) == LINES
        assert ask(path, "freelist_count") == 0
        assert path.stat().st_size == ask(path, "page_count") * ask(path, "page_size") < 2 * empty
        kept = await db.create_system_log("INFO", "test", "kept")
        assert [row["id"] for row in await db.get_system_logs()] == [kept]
    assert ask(path, "integrity_check") == "ok"


async def test_what_stays_between_deleted_lines_is_moved_together(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        levels: list[Any] = [LINE | {"log_level": "ERROR" if number % 100 == 0 else "DEBUG"} for number in range(LINES)]
        await db.create_system_logs(levels)
        large = ask(path, "page_count")
        before = await db.get_system_logs("ERROR")
        assert await db.prune("2999-01-01", log_level="DEBUG") == LINES * 99 // 100
        assert await db.get_system_logs() == before
        assert ask(path, "freelist_count") == 0
        assert ask(path, "page_count") < large / 10


async def test_others_write_between_the_steps(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await filled(db)
        with other_program(path) as connection:
            connection.execute("DELETE FROM system_logs")
        steps = ask(path, "freelist_count") // free_space._PAGES_AT_A_TIME
        assert steps > 5
        written = 0
        pruning = asyncio.create_task(db.prune("2000-01-01"))
        while not pruning.done():
            await db.create_system_log("INFO", "test", "beside")
            written += 1
        assert await pruning == 0
        assert written >= steps
        assert len(await db.get_system_logs()) == written
        assert ask(path, "freelist_count") == 0


async def test_a_prune_that_is_cancelled_leaves_no_lock_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await filled(db)
        with other_program(path) as connection:
            connection.execute("DELETE FROM system_logs")
        free, left = ask(path, "freelist_count"), 0
        for _ in range(3):
            pruning = asyncio.create_task(db.prune("2000-01-01"))
            async with asyncio.timeout(20):
                while (left := ask(path, "freelist_count")) == free:
                    await asyncio.sleep(0)
            pruning.cancel()
            await asyncio.gather(pruning, return_exceptions=True)
            with locked_by_another(path):
                assert ask(path, "freelist_count") <= left
            free = ask(path, "freelist_count")
        await db.prune("2000-01-01")
        assert ask(path, "freelist_count") == 0


async def test_while_somebody_reads_the_past_the_wal_stays_small_and_the_prune_ends(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path, lock_timeout=0.2) as db:
        await db.create_system_logs([LINE] * 4 * LINES)
        with other_program(path) as connection:
            connection.execute("DELETE FROM system_logs WHERE id <= ?", (2 * LINES,))  # the others have to move
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM agents").fetchone()
            await db.prune("2000-01-01")
            wal = path.with_name(f"{path.name}-wal").stat().st_size
            assert free_space._MOST_WAITING_BYTES <= wal < 1.5 * free_space._MOST_WAITING_BYTES
            assert ask(path, "freelist_count") > 0
        await db.prune("2000-01-01")
        assert ask(path, "freelist_count") == 0


async def test_pruning_inside_a_transaction_leaves_the_space_to_the_next_prune(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await filled(db)
        async with db.transaction() as tx:
            assert await tx.cleanup_old_logs(0) == LINES
        assert ask(path, "freelist_count") > 0
        assert await db.cleanup_old_logs(0) == 0
        assert ask(path, "freelist_count") == 0


async def test_a_failure_to_give_back_does_not_hide_how_many_lines_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OperationError("the disk could not be read or written")

    monkeypatch.setattr(free_space.GiveBack, "__call__", fails)
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        await filled(db)
        assert await db.cleanup_old_logs(0) == LINES
    assert "cleanup_old_logs" in caplog.text


async def test_a_file_of_an_older_program_gives_back_after_a_vacuum(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    with other_program(path) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    for emptied in (False, True):
        async with DatabaseManager(path) as db:
            await filled(db)
            assert await db.cleanup_old_logs(0) == LINES
        assert (ask(path, "freelist_count") == 0) is emptied
        with other_program(path) as connection:  # as the documentation says
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")
        assert ask(path, "freelist_count") == 0

"""The process dies in the middle of its work: what was acknowledged is there; the rest is there as a whole or not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchdb import DatabaseManager
from orchdb.schema.revisions import HEAD
from tests.support.faults import Child, ask, assert_sound, lock_is_free, messages, run_child
from tests.support.old_files import OldFile, read


@pytest.mark.parametrize(("durability", "rounds"), [("normal", 30), ("full", 5)])
@pytest.mark.slow
def test_kill_9_in_the_middle_of_load_loses_nothing_acknowledged(path: Path, durability: str, rounds: int) -> None:
    acknowledged: set[str] = set()
    with Child("crashing", path, durability, rounds) as child:
        for _ in range(rounds):
            acknowledged.update(child.line())
            visible = messages(path)
            assert len(visible) == len(set(visible))
            assert acknowledged - set(visible) == set()
            # Each transaction of the load wrote one prompt and one line.
            prompts = {row[0] for row in ask(path, "SELECT prompt_text FROM prompts")}
            assert prompts == {name for name in visible if int(name.split("-")[1]) >= 3}
            assert_sound(path)
            child.tell("next")
        child.end()
    assert len(acknowledged) > rounds


async def test_after_a_crash_the_next_start_works_at_once(path: Path) -> None:
    with Child("crashing", path, "normal", 1) as child:
        acknowledged = child.line()
        started = time.monotonic()
        async with DatabaseManager(path) as db:
            assert time.monotonic() - started < 5
            assert {row["message"] for row in await db.get_system_logs()} >= set(acknowledged)
            await db.create_system_log("INFO", "fault", "after the crash")
        child.tell("next")
    assert "after the crash" in messages(path)


@pytest.mark.slow
async def test_an_upgrade_that_is_killed_anywhere_leaves_the_old_or_the_new_version_and_is_completed(
    tmp_path: Path,
) -> None:
    old = OldFile(tmp_path / "old.db", size=0)
    before = read(old.path)
    (tmp_path / "killed").mkdir()
    upgraded = 0
    for name in run_child("migrating", old.path, tmp_path / "killed", 20):
        path = Path(name)
        assert ask(path, "PRAGMA integrity_check") == [("ok",)]
        tables = {row[0] for row in ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert not any(table.startswith("_orchdb_new") for table in tables)
        if "orchdb_version" in tables and ask(path, "SELECT version_num FROM orchdb_version"):
            upgraded += 1
            assert ask(path, "SELECT version_num FROM orchdb_version") == [(HEAD,)]
        else:
            assert read(path) == before
        async with DatabaseManager(path) as db:
            assert len(await db.list_agents(include_deleted=True)) == len(before["agents"])
        assert ask(path, "SELECT version_num FROM orchdb_version") == [(HEAD,)]
        assert {table: len(rows) for table, rows in read(path).items()} == {
            table: len(rows) for table, rows in before.items()
        }
        assert lock_is_free(path)
    assert upgraded < 20

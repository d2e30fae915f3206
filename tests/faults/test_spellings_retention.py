"""Retention among what other programs wrote: only what is certainly old goes, in whatever spelling."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.schema import spellings
from orchdb.sqlite import settings
from tests.support.databases import other_program
from tests.support.foreign_rows import NOT_UNDERSTOOD, PLACES, NoUtf8, drop_triggers, insert, spellings_of, update


@pytest.mark.parametrize("triggers", [True, False], ids=["triggers", "no triggers"])
@pytest.mark.parametrize("how", ["inserted", "updated"])
@pytest.mark.parametrize("table", ["agent_logs", "system_logs"])
async def test_only_what_is_certainly_old_is_deleted(
    file_db: DatabaseManager, path: Path, table: str, how: str, triggers: bool
) -> None:
    place = PLACES[table]
    now = datetime.now(UTC)
    with other_program(path) as connection:
        if not triggers:
            drop_triggers(connection)
        groups = {
            "fresh": [value for days in (0, 1, 29) for value in spellings_of(now - timedelta(days=days))],
            "old": [value for days in (31, 45, 400, 5000) for value in spellings_of(now - timedelta(days=days))],
            "who knows": NOT_UNDERSTOOD,
        }
        for group, values in groups.items():
            for number, value in enumerate(values):
                mark = f"{group} {number}"
                insert(connection, place, mark, **({"created_at": value} if how == "inserted" else {}))
                if how == "updated":
                    update(connection, place, mark, created_at=value)
    deleted = await file_db.cleanup_old_logs(30)
    left = {row["message"] for row in await place.forward[0](file_db)}
    kept = {f"{group} {number}" for group in ("fresh", "who knows") for number in range(len(groups[group]))}
    assert left == kept
    assert deleted == len(groups["old"])
    assert await file_db.cleanup_old_logs(30) == 0


async def test_old_lines_in_another_spelling_go_in_batches_and_only_those_of_the_level(
    file_db: DatabaseManager, path: Path
) -> None:
    place = PLACES["system_logs"]
    with other_program(path) as connection:
        drop_triggers(connection)
        connection.execute("BEGIN")
        for number in range(2500):
            level = "DEBUG" if number % 2 else "INFO"
            insert(connection, place, str(number), created_at="2020W01", log_level=level)
            insert(connection, place, f"like it {number}", created_at=NoUtf8(b"2018-\xff"), log_level=level)
            insert(connection, place, f"after it {number}", created_at="2019-06-01 00:00:00", log_level=level)
        connection.execute("COMMIT")
    before = datetime(2020, 1, 1, tzinfo=UTC)  # behind which 2020W01 stands, and before which it is
    assert await file_db.prune(before, log_level="DEBUG") == 2500
    assert await file_db.prune(before) == 2500
    assert len(await file_db.get_system_logs()) == 2500


async def test_each_old_line_is_looked_at_about_once_however_many_there_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def counted(value: Any) -> str | None:
        looks.append(value)
        return spellings.one_form(value)

    monkeypatch.setattr(settings, "one_form", counted)
    async with DatabaseManager(path) as db:
        with other_program(path) as connection:
            drop_triggers(connection)
            connection.execute("BEGIN")
            for number in range(5500):
                insert(connection, PLACES["system_logs"], str(number), created_at="2019-06-01 00:00:00")
            connection.execute("COMMIT")
        assert await db.prune(datetime(2020, 1, 1, tzinfo=UTC)) == 5500
    assert len(looks) < 2 * 5500


async def test_lines_that_another_program_keeps_do_not_hold_up_retention(file_db: DatabaseManager, path: Path) -> None:
    with other_program(path) as connection:
        drop_triggers(connection)
        connection.execute("CREATE TRIGGER keep BEFORE DELETE ON system_logs BEGIN SELECT RAISE(IGNORE); END")
        insert(connection, PLACES["system_logs"], "x", created_at="2020W01")
    async with asyncio.timeout(20):
        assert await file_db.prune(datetime(2020, 1, 1, tzinfo=UTC)) == 0

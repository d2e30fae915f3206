"""Files whose times were spelled in other ways before they were upgraded."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, cursor_of
from tests.support.alembic_runs import downgrade, upgrade
from tests.support.databases import other_program
from tests.support.foreign_rows import NOT_UNDERSTOOD, PLACES, UNDERSTOOD, drop_triggers, insert, parents, update
from tests.support.old_files import SCHEMA as OLD_SCHEMA
from tests.support.old_files import ask

WRITTEN = [*UNDERSTOOD, *NOT_UNDERSTOOD]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
async def test_a_file_of_the_first_class_is_adopted_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.executescript(OLD_SCHEMA)
        connection.execute("INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('größe', 'd', 'utility')")
        connection.execute("ALTER TABLE agents ADD COLUMN created_at INTEGER")
        for number in range(40):
            moment = 1_700_000_000 + number
            connection.execute(
                "INSERT INTO agents (id, orchestrator_agent_id, session_id, created_at, started_at) "
                "VALUES (?, 'größe', 's', ?, datetime(?, 'unixepoch'))",
                (f"ß{number:02}", moment if number % 2 else None, moment),
            )
            connection.execute("INSERT INTO system_logs (component, message) VALUES ('x', ?)", (str(number),))
        connection.execute("UPDATE system_logs SET created_at = datetime(1700000000 + id, 'unixepoch')")
    async with DatabaseManager(path) as db:
        rows = await db.list_agents(limit=7)
        while page := await db.list_agents(limit=7, after=cursor_of(rows[-1])):
            rows += page
        assert [row["id"] for row in rows] == [f"ß{number:02}" for number in reversed(range(40))]
        assert len(await db.get_system_logs(since=datetime.fromtimestamp(1_700_000_021, UTC))) == 20
        assert await db.prune(datetime.fromtimestamp(1_700_000_021, UTC)) == 20
    for table, column in (("agents", "created_at"), ("agents", "started_at"), ("system_logs", "created_at")):
        form = "????-??-??T??:??:??.000000"
        assert ask(path, f"SELECT count(*) FROM {table} WHERE {column} NOT GLOB ?", form) == [(0,)]


def old_revision(path: Path) -> None:
    """A file of the revision before, with a row of each spelling in each table."""
    upgrade(path, "0008")
    with other_program(path) as connection:
        drop_triggers(connection)
        parents(connection)
        for place in PLACES.values():
            for number, value in enumerate(WRITTEN):
                key = {} if place.numbered else {"id": f"{number:036}"}
                insert(connection, place, str(number), created_at=value, **key)
        connection.execute("UPDATE agents SET started_at = '20261125T101112', completed_at = '2026-W48-3'")


def test_an_upgrade_brings_what_is_understood_into_the_one_form_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old_revision(path)
    kept = _spelled(path)
    upgrade(path)
    for place, found in _spelled(path).items():
        for number, value in enumerate(WRITTEN):
            assert found[number] == (UNDERSTOOD[value] if value in UNDERSTOOD else kept[place][number]), (place, value)
    times = ask(path, "SELECT DISTINCT started_at, completed_at FROM agents")
    assert times == [("2026-11-25T10:11:12.000000", "2026-11-25T00:00:00.000000")]
    downgrade(path, "0008")
    upgrade(path)


def _spelled(path: Path) -> dict[str, dict[int, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        return {
            place.table: {
                int(mark): (value if kind == b"blob" else value.decode(errors="surrogateescape"))
                for mark, value, kind in connection.execute(
                    f"SELECT {place.mark}, created_at, typeof(created_at) FROM {place.table} "
                    f"WHERE {place.mark} <> 'parent'"
                )
            }
            for place in PLACES.values()
        }


def test_an_upgrade_runs_no_trigger_of_another_program_and_keeps_each(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old_revision(path)
    with other_program(path) as connection:
        connection.execute("CREATE TABLE audit (what TEXT)")
        connection.execute("CREATE TRIGGER audit AFTER UPDATE ON prompts BEGIN INSERT INTO audit VALUES (NEW.id); END")
        connection.execute("CREATE TRIGGER never AFTER UPDATE ON agents BEGIN SELECT RAISE(ABORT, 'never'); END")
    upgrade(path)
    assert ask(path, "SELECT count(*) FROM audit") == [(0,)]
    names = {name for (name,) in ask(path, "SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
    assert {"audit", "never"} < names


def test_the_triggers_end_where_they_may_call_themselves(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    upgrade(path)
    with other_program(path) as connection:
        connection.execute("PRAGMA recursive_triggers = ON")
        parents(connection)
        for place in PLACES.values():
            for number, value in enumerate(WRITTEN):
                insert(
                    connection, place, str(number), created_at=value, **({} if place.numbered else {"id": str(number)})
                )
                update(connection, place, str(number), created_at="2026-11-25 10:11:12 +0200")
                update(connection, place, str(number), created_at=value)

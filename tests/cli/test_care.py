"""The commands that change a database on purpose, and the one that looks for what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.looking import Finding
from orchdb.schema.revisions import HEAD, REVISIONS
from tests.cli.conftest import Recorded
from tests.conftest import Target
from tests.support.command_line import done, refused, run


def findings(url: str, *options: str) -> dict[str, tuple[str, str]]:
    """What doctor says of each check: how grave it is, and what to do."""
    result = run("doctor", "--json", "--db", url, *options)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[0].keys() == asdict(Finding("", "ok", "")).keys()
    assert result.exit_code == any(row["gravity"] in ("warning", "error") for row in rows), result.output
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        assert row["message"]
        assert row["advice"] or row["gravity"] in ("ok", "note"), "a finding says what to do"
        found[row["check"]] = (row["gravity"], row["advice"] or row["message"])
    return found


def test_init_makes_the_tables_once_and_doctor_finds_nothing(target: Target) -> None:
    for _ in range(2):
        made = json.loads(done("init", "--json", "--db", target.url))
        assert made["revision"] == HEAD
        assert "postgres@" not in made["place"]
    found = findings(target.url)
    # The server of the tests does not wait for the disk, which doctor tells.
    assert {check for check, (gravity, _) in found.items() if gravity in ("warning", "error")} <= {"server"}
    assert {"revision", "indexes", "triggers", "foreign keys", "sequences"} <= found.keys()
    assert ("integrity" in found) == (target.engine == "sqlite")
    assert ("role" in found) == (target.engine != "sqlite")
    if target.engine == "sqlite":
        assert "Nothing is wrong" in done("doctor", "--db", target.url, FORCE_COLOR="1")


async def _spoil(url: str) -> None:
    async with DatabaseManager(url) as db, db.transaction() as tx:
        for statement in (
            "DROP INDEX idx_prompts_agent",
            "UPDATE agent_logs SET created_at = '2999-01-01 00:00:00'",
        ):
            await tx.conn.exec_driver_sql(statement)


def test_doctor_finds_what_is_wrong_with_the_schema_and_the_rows(recorded: Recorded) -> None:
    asyncio.run(_spoil(recorded.url))
    found = findings(recorded.url)
    assert found["indexes"][0] == "warning"
    assert found["future rows"][0] == "warning"
    assert "idx_prompts_agent" in run("doctor", "--plain", "--db", recorded.url).stdout


def test_doctor_finds_what_is_wrong_with_a_file(recorded_file: Recorded) -> None:
    path = Path(recorded_file.url)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("CREATE TRIGGER theirs AFTER INSERT ON agents BEGIN SELECT 1; END")
    connection.execute("DROP TRIGGER trg_agents_updated_at")
    connection.execute("UPDATE prompts SET created_at = 'long ago', agent_id = 'nobody'")
    connection.commit()
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    path.chmod(0o644)
    found = findings(recorded_file.url)
    expected = {"foreign keys": "error", "triggers": "warning", "times": "warning", "wal": "warning"}
    assert {check: found[check][0] for check in expected} == expected
    assert found["permissions"] == ("warning", f"chmod 600 '{path}'*")


def test_doctor_tells_a_damaged_file_from_one_that_is_not_there(recorded_file: Recorded, tmp_path: Path) -> None:
    path = Path(recorded_file.url)
    damaged = bytearray(path.read_bytes())
    size = int.from_bytes(damaged[16:18], "big")
    damaged[2 * size : 8 * size] = os.urandom(6 * size)
    path.write_bytes(damaged)
    assert findings(recorded_file.url)["integrity"][0] == "error"
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 1000)
    assert [*findings(str(notes))] == ["integrity"]
    assert notes.read_text() == "my notes\n" * 1000


def test_doctor_says_so_where_the_tables_of_a_database_are_not_there(target: Target) -> None:
    if target.engine == "sqlite":
        sqlite3.connect(target.path).close()
        target.path.touch()
    assert findings(target.url)["revision"] == ("error", "orchdb init makes them")


@pytest.mark.parametrize("command", ["status", "doctor", "history", "upgrade", "reap", "sessions", "reprice", "top"])
def test_a_database_without_tables_stays_without(target: Target, command: str) -> None:
    if target.engine == "sqlite":
        target.path.touch()
    assert run(command, "--db", target.url).exit_code in (0, 1, 4)
    assert findings(target.url)["revision"][1] == "orchdb init makes them"


def test_a_schema_goes_back_and_forth_by_commands(recorded: Recorded) -> None:
    db = ("--db", recorded.url)
    states = [json.loads(line)["state"] for line in done("history", "--json", *db).splitlines()]
    assert states == ["applied"] * (len(REVISIONS) - 1) + ["current"]
    assert f"undo {HEAD}" in done("downgrade", "0009", "--dry-run", *db)
    refused_once = run("downgrade", "0009", *db)
    assert (refused_once.exit_code, "--yes" in refused_once.stderr) == (4, True)
    assert "which is not newer" in refused(4, "downgrade", HEAD, "--yes", *db)
    assert "there is no revision 000x" in refused(4, "downgrade", "000x", "--yes", *db)
    back = run("downgrade", "0005", "--yes", *db)
    assert (back.exit_code, "Lost: " in back.stderr) == (0, True), back.output
    states = [json.loads(line)["state"] for line in done("history", "--json", *db).splitlines()]
    assert states.index("current") == REVISIONS.index("0005")
    assert states.count("missing") == len(REVISIONS) - 5
    assert findings(recorded.url)["revision"] == ("warning", "orchdb upgrade")
    assert HEAD in done("upgrade", "--dry-run", *db)
    assert run("agents", *db).exit_code == 4
    assert run("upgrade", *db).stderr.splitlines()[-1] == f"Upgraded from 0005 to {HEAD}."
    assert "has the newest" in run("upgrade", *db).stderr
    assert len(done("agents", *db).splitlines()) == 3


def test_reap_ends_those_that_nobody_works_at(recorded: Recorded) -> None:
    db = ("--db", recorded.url)
    nobody = run("reap", *db)
    assert (nobody.exit_code, nobody.stdout) == (0, "")
    assert "--idle-for: must be a span" in refused(2, "reap", "--idle-for", "long", *db)
    assert [json.loads(line) for line in done("reap", "--idle-for", "0s", "--json", *db).splitlines()] == [
        {"id": recorded.lead}
    ]
    assert "owner lost" in done("show", recorded.lead, *db)


@pytest.mark.parametrize("command", ["init", "reap", "upgrade", "sessions", "status"])
def test_the_database_of_another_program_is_left_as_it_is(command: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    connection: Any = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    assert run(command, "--db", str(path)).exit_code == (0 if command == "status" else 4)
    assert path.read_bytes() == before

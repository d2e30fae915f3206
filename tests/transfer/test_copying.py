"""Whole databases on their way: what arrives is what was there, whatever was in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import orchdb
from orchdb import DatabaseManager, DuplicateError, InvalidValueError, OperationError, SchemaError, SchemaOutOfDateError
from orchdb.schema.tables import metadata
from orchdb.transfer import TransferProgress, TransferReport, compare_databases, copy_database
from tests.conftest import Target
from tests.support.databases import other_program, run_elsewhere
from tests.transfer.conftest import fill


def contents(report: TransferReport) -> dict[str, tuple[int, str | None]]:
    """What the source of a copy held."""
    return {name: (table.rows_from, table.hash_from) for name, table in report.tables.items()}


async def shown(url: Any) -> dict[str, list[Any]]:
    """All rows, as orchdb returns them."""
    async with DatabaseManager(url, read_only=True) as db:
        agents = await db.list_agents(include_deleted=True)
        return {
            "definitions": sorted(await db.list_orchestrator_agents(include_deleted=True), key=lambda row: row["id"]),
            "agents": sorted(agents, key=lambda row: row["id"]),
            "prompts": sorted(await db.list_prompts(include_deleted=True), key=lambda row: row["id"]),
            "lines": await db.list_recent_agent_logs(limit=10_000),
            "system": await db.list_recent_system_logs(limit=10_000),
        }


async def test_a_copy_holds_what_the_source_holds_and_comes_back_the_same(
    file: Path, target: Target, tmp_path: Path
) -> None:
    there = await copy_database(file, target.url)
    assert there.verified
    assert there.equal
    assert there.copied == sum(table.rows_from for table in there.tables.values()) > 10
    assert {name for name, table in there.tables.items() if not table.rows_from} == {"leases"}
    assert there.rules == {}
    back = await copy_database(target.url, tmp_path / "back.db")
    assert back.equal
    assert contents(back) == contents(there)
    assert await shown(file) == await shown(target.url) == await shown(tmp_path / "back.db")
    assert (await compare_databases(file, tmp_path / "back.db")).equal


async def test_ids_go_on_behind_the_highest_that_was_ever_given(file: Path, target: Target) -> None:
    async with DatabaseManager(file) as db:
        await db.create_system_log("INFO", "x", "the last one")
        await db.prune("2999-01-01")
        newest = await db.create_system_log("INFO", "x", "left")
    await copy_database(file, target.url)
    async with DatabaseManager(target.url) as db:
        assert await db.create_system_log("INFO", "x", "new") > newest
        agent = (await db.list_agents(limit=1))[0]["id"]
        assert await db.create_agent_log(agent, "INFO", "x", "new") > 4


async def test_indexes_triggers_and_keys_are_there_again(file: Path, target: Target) -> None:
    async def parts() -> Any:
        if target.engine == "sqlite":
            return run_elsewhere(target.url, "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")
        return [
            run_elsewhere(target.url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
            run_elsewhere(
                target.url,
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid <> 0 "
                "AND connamespace = 'public'::regnamespace ORDER BY 1",
            ),
            run_elsewhere(target.url, "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"),
        ]

    async with DatabaseManager(target.url):
        pass
    before = await parts()
    await copy_database(file, target.url)
    assert await parts() == before


async def test_one_changed_value_is_found(file: Path, target: Target) -> None:
    await copy_database(file, target.url)
    run_elsewhere(
        target.url, "UPDATE prompts SET latency_ms = 8 WHERE id IN (SELECT id FROM prompts ORDER BY id LIMIT 1)"
    )
    for one, other in ((file, target.url), (target.url, file)):
        found = await compare_databases(one, other)
        assert not found.equal
        assert [name for name, table in found.tables.items() if not table.equal] == ["prompts"]
        assert found.tables["prompts"].rows_from == found.tables["prompts"].rows_to == 3


async def test_what_is_written_meanwhile_is_not_in_the_copy(file: Path, target: Target) -> None:
    written = list[int]()

    def write(progress: TransferProgress) -> None:
        if progress.doing == "copying" and not written:
            with other_program(file) as other:
                other.execute("UPDATE prompts SET response_text = 'changed'")
                other.execute("INSERT INTO system_logs (component, message) VALUES ('late', 'too late')")
            written.append(1)

    report = await copy_database(file, target.url, progress=write)
    assert report.equal
    assert written
    async with DatabaseManager(target.url) as db:
        assert await db.get_system_logs(component="late") == []
        assert {row["response_text"] for row in await db.list_prompts()} == {"Done"}


async def test_progress_comes_to_its_end(file: Path, target: Target) -> None:
    told = list[TransferProgress]()
    report = await copy_database(file, target.url, progress=told.append)
    assert [*dict.fromkeys(each.doing for each in told)] == ["copying", "indexing", "verifying"]
    last = [each for each in told if each.doing == "copying"][-1]
    assert last.done == last.total == report.copied
    assert last.rate > 0
    assert last.seconds_left == 0


# -- broken off ------------------------------------------------------------------------------------------------------


class BrokenOffError(Exception):
    """As if the process had been killed."""


async def broken_off(source: Any, place: Any, rows: int) -> None:
    """A copy that ends when so many rows have been committed."""

    def end(progress: TransferProgress) -> None:
        if progress.doing == "copying" and progress.done >= rows:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        await copy_database(source, place, progress=end)


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at a time."""
    monkeypatch.setattr("orchdb.transfer.reading._FIRST_ROWS", 2)
    monkeypatch.setattr("orchdb.transfer.reading.ROWS_AT_A_TIME", 2)


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize("direction", ["there", "back"])
@pytest.mark.parametrize("rows", [0, 5, 12])
async def test_a_copy_that_was_broken_off_goes_on_where_it_was(
    file: Path, target: Target, tmp_path: Path, direction: str, rows: int
) -> None:
    source, place = file, target.url
    if direction == "back":
        await copy_database(file, target.url)
        source, place = target.url, tmp_path / "back.db"  # type: ignore[assignment]
    await broken_off(source, place, rows)
    report = await copy_database(source, place)
    assert report.resumed
    assert report.equal
    everything = sum(table.rows_from for table in report.tables.values())
    assert everything - rows - 2 <= report.copied < everything or rows == 0
    assert await shown(source) == await shown(place)
    assert (await compare_databases(source, place)).equal


_KILLED = """
import asyncio, os, signal, sys
import orchdb.transfer.reading as reading
from orchdb.transfer import copy_database

reading._FIRST_ROWS = reading.ROWS_AT_A_TIME = 2

def end(progress):
    if progress.done >= 10:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(copy_database(*sys.argv[1:], progress=end))
"""


async def test_a_copy_that_was_killed_goes_on_where_it_was(file: Path, target: Target) -> None:
    command = [sys.executable, "-c", _KILLED, str(file), target.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1])}
    killed = await asyncio.to_thread(subprocess.run, command, env=environment, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    report = await copy_database(file, target.url)
    assert report.resumed
    assert report.equal
    assert report.copied <= sum(table.rows_from for table in report.tables.values()) - 10
    assert await shown(file) == await shown(target.url)


@pytest.mark.usefixtures("small_portions")
async def test_what_changed_behind_a_copy_that_was_broken_off_is_copied_anew(file: Path, target: Target) -> None:
    await broken_off(file, target.url, 12)
    with other_program(file) as other:
        other.execute("UPDATE agents SET status = 'failed'")
        other.execute("DELETE FROM prompts WHERE rowid = 1")
    report = await copy_database(file, target.url)
    assert report.resumed
    assert report.equal
    assert await shown(file) == await shown(target.url)


async def test_a_copy_that_was_broken_off_belongs_to_its_source(file: Path, target: Target, tmp_path: Path) -> None:
    await broken_off(file, target.url, 1)
    await fill(tmp_path / "other.db")
    with pytest.raises(DuplicateError, match="another database"):
        await copy_database(tmp_path / "other.db", target.url)


# -- refused ---------------------------------------------------------------------------------------------------------


async def test_a_target_with_rows_is_refused_and_stays_as_it_is(file: Path, target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        await db.create_system_log("INFO", "x", "mine")
    with pytest.raises(DuplicateError, match="holds rows already"):
        await copy_database(file, target.url)
    async with DatabaseManager(target.url) as db:
        assert [row["message"] for row in await db.get_system_logs()] == ["mine"]
        assert await db.list_agents() == []


async def test_another_revision_is_refused_on_either_side(file: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    await fill(old)
    with other_program(old) as other:
        other.execute("UPDATE orchdb_version SET version_num = '0011'")
    before = old.read_bytes()
    for one, place in ((old, tmp_path / "new.db"), (file, old)):
        with pytest.raises(SchemaOutOfDateError):
            await copy_database(one, place)
    assert old.read_bytes() == before


async def test_places_that_cannot_be_are_refused_before_anything_is_made(file: Path, tmp_path: Path) -> None:
    for one, other in ((file, file), (file, f"sqlite:///{file}"), (":memory:", file), (file, ":memory:")):
        with pytest.raises(InvalidValueError):
            await copy_database(one, other)
        with pytest.raises(InvalidValueError):
            await compare_databases(one, other)
    with pytest.raises(OperationError):
        await copy_database(tmp_path / "none.db", tmp_path / "new.db")
    with pytest.raises(OperationError, match="findings"):
        await copy_database(file, tmp_path / "new.db", findings=tmp_path / "nowhere" / "findings")
    assert not (tmp_path / "new.db").exists()
    connection = sqlite3.connect(tmp_path / "theirs.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(SchemaError):
        await copy_database(file, tmp_path / "theirs.db")


async def test_a_role_that_does_not_own_the_tables_is_told_so_before_anything_is_changed(
    file: Path, target: Target
) -> None:
    if target.engine == "sqlite":
        return
    role = f"orchdb_test_copier_{os.getpid()}"
    async with DatabaseManager(target.url):
        pass
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    before = run_elsewhere(target.url, indexes)
    run_elsewhere(
        target.url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
    )
    try:
        url = make_url(target.url).set(username=role).render_as_string(hide_password=False)
        with pytest.raises(OperationError, match="does not own the tables"):
            await copy_database(file, url)
        assert run_elsewhere(target.url, indexes) == before
        assert (await copy_database(file, target.url)).equal
        assert (await copy_database(url, file.with_name("back.db"))).equal  # to read is enough
    finally:
        run_elsewhere(target.url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


# -- what a server cannot hold ---------------------------------------------------------------------------------------

ODD = (
    "PRAGMA foreign_keys = OFF",
    "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('adw-orchestrator', 'adw', 'utility')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id) VALUES ('a1', 'adw-orchestrator', 's')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id, parent_agent_id) "
    "VALUES ('A1A1A1A1-0000-7000-8000-000000000001', 'adw-orchestrator', 's', 'a1')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id, parent_agent_id) "
    "VALUES ('a3', 'adw-orchestrator', 's', 'nobody')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id) VALUES ('a4', 'nothing', 's')",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text, completed_at, latency_ms) "
    "VALUES ('p1', 'a1', 'adw', 'a' || char(0) || 'b', 'yesterday', 'quick')",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text) VALUES ('p2', 'a4', 'adw', 'x')",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text) VALUES ('p3', 'a1', 'adw', CAST(x'ff41' AS TEXT))",
    "INSERT INTO agent_logs (agent_id, log_type, message, details, created_at) "
    "VALUES ('a1', 't', x'41', '{\"x\": 1e2, \"y\": -0.0, \"z\": \"\\u0000\"}', '2026-02-31T00:00:00.000000')",
    "INSERT INTO agent_logs (agent_id, log_type, message, details, created_at) "
    "VALUES ('a1', 't', 'm', 'no JSON', '2026-11-25 12:11:12+02')",
    "INSERT INTO agent_logs (agent_id, log_type, message) VALUES ('nobody', 't', 'm')",
    "INSERT INTO system_logs (component, message) VALUES (printf('%.3000c', 'x'), 'm')",
    "UPDATE agents SET cost_usd = 9e999 WHERE id = 'a1'",
)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A file with what a server cannot hold, in nearly every row."""
    path = tmp_path / "odd.db"
    asyncio.run(_make(path))
    with other_program(path) as other:
        for statement in ODD:
            other.execute(statement)
    return path


async def _make(path: Path) -> None:
    async with DatabaseManager(path):
        pass


async def test_what_the_target_cannot_hold_is_changed_by_a_rule_and_told(
    odd: Path, target: Target, tmp_path: Path
) -> None:
    findings = tmp_path / "findings.jsonl"
    report = await copy_database(odd, target.url, findings=findings)
    assert report.equal
    assert (await compare_databases(odd, target.url)).equal
    if target.engine == "sqlite":  # which holds everything
        assert report.rules == {}
        assert not findings.exists()
        assert await shown(odd) == await shown(target.url)
        return
    told = [json.loads(line) for line in findings.read_text().splitlines()]
    assert {line["rule"] for line in told} == report.rules.keys()
    assert report.rules.keys() == {"id", "spelling", "text", "time", "parent", "orphan", "word"}
    assert report.left_out == 3
    assert {(line["table"], line["id"]) for line in told if line["rule"] == "orphan"} == {
        ("agents", "a4"),
        ("prompts", "p2"),
        ("agent_logs", 3),
    }
    assert {"table": "agents", "id": "a3", "column": "parent_agent_id", "rule": "parent", "value": "nobody"} in told
    assert len(told) == report.changed + report.left_out
    assert findings.stat().st_mode & 0o777 == 0o600
    async with DatabaseManager(target.url) as db:
        agents = {row["id"]: row for row in await db.list_agents()}
        assert len(agents) == 3
        assert {row["parent_agent_id"] for row in agents.values()} - {None} <= agents.keys()
        assert agents["a1a1a1a1-0000-7000-8000-000000000001"]["parent_agent_id"] in agents
        (prompt, other) = sorted(await db.list_prompts(), key=lambda row: row["prompt_text"])
        assert (prompt["prompt_text"], prompt["completed_at"], prompt["latency_ms"]) == ("a\ufffdb", None, None)
        assert other["prompt_text"] == "\ufffdA"
        first, second = await db.get_agent_logs(prompt["agent_id"])
        assert first["details"] == {"x": 100.0, "y": 0.0, "z": "\ufffd"}
        assert (first["message"], first["created_at"]) == ("A", "1970-01-01T00:00:00.000000")
        assert (second["details"], second["created_at"]) == ("no JSON", "2026-11-25T10:11:12.000000")
    await copy_database(target.url, tmp_path / "back.db")
    assert await shown(target.url) == await shown(tmp_path / "back.db")


async def test_times_that_no_datetime_can_be_come_back(target: Target, tmp_path: Path) -> None:
    if target.engine == "sqlite":
        return
    async with DatabaseManager(target.url) as db:
        await db.create_system_logs([{"log_level": "INFO", "component": "x", "message": "m"}] * 4)
    times = ("infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12345-06-07 08:09:10.5+00")
    for number, time in enumerate(times, 1):
        run_elsewhere(target.url, f"UPDATE system_logs SET created_at = '{time}' WHERE id = {number}")
    report = await copy_database(target.url, tmp_path / "file.db")
    assert report.equal
    assert report.changed == 0
    run_elsewhere(target.url, "TRUNCATE system_logs")
    again = await copy_database(tmp_path / "file.db", target.url)
    assert again.equal
    assert again.changed == 0
    assert contents(again) == contents(report)


def test_every_table_is_copied() -> None:
    from orchdb.transfer.reading import TABLES

    assert {table.name for table in TABLES} == metadata.tables.keys()

"""What the commands that look show: on each engine the same."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.inspection.identifiers import SHORTEST
from orchdb.inspection.sessions import SessionRow
from orchdb.inspection.status import Status
from orchdb.rows import AgentLogRow, AgentRow, PromptRow, SystemLogRow
from tests.cli.conftest import Recorded
from tests.support.command_line import done, refused, run

LISTS = ("sessions", "agents", "prompts", "logs", "top")


def objects(*arguments: str) -> list[Any]:
    """What a command writes for programs: one object a line."""
    return [json.loads(line) for line in done(*arguments, "--json").splitlines()]


def test_lists_for_programs_have_the_rows_of_the_library_an_object_a_line(recorded: Recorded) -> None:
    db = ("--db", recorded.url)
    sessions = objects("sessions", *db)
    assert [row["session_id"] for row in sessions] == ["now", "before"]
    assert sessions[0].keys() == SessionRow.__annotations__.keys()
    numbers = {"agents": 2, "running": 1, "failed": 1, "prompts": 1, "tokens_input": 1000, "cost_usd": 1.5}
    assert numbers.items() <= sessions[0].items()
    assert sessions[1]["cost_usd"] == 0.25
    agents = objects("agents", *db)
    assert [row["id"] for row in agents][:2] == [recorded.lead, recorded.helper]
    assert agents[0].keys() == {*AgentRow.__annotations__, "definition_name"}
    assert agents[0]["definition_name"] == "scout"
    (prompt,) = objects("prompts", *db)
    assert prompt.keys() == PromptRow.__annotations__.keys()
    lines = objects("logs", *db)
    assert [row["message"] for row in lines][:1] == ["begun"], "the newest comes last"
    assert lines[0].keys() == AgentLogRow.__annotations__.keys()
    (line,) = objects("logs", "--system", *db)
    assert line.keys() == SystemLogRow.__annotations__.keys()
    (status,) = objects("status", *db)
    assert status.keys() == Status.__annotations__.keys()
    assert (status["decided_by"], status["rows"]["agents"], status["revision"]) == (
        "--db",
        3,
        status["newest_revision"],
    )
    (at_work,) = objects("top", *db)
    assert (at_work["id"], at_work["sign"], at_work["last_message"]) == (recorded.lead, "working", "begun")


def test_filters_are_those_of_the_library(recorded: Recorded) -> None:
    db = ("--db", recorded.url)
    assert [row["id"] for row in objects("agents", "--status", "failed,cancelled", "-s", "no", *db)] == [
        recorded.helper
    ]
    assert [row["id"] for row in objects("agents", "--root", "--since", "1h", *db)] == [recorded.lead]
    assert len(objects("agents", "-n", "1", *db)) == 1
    assert len(objects("agents", "--all", "-n", "1", *db)) == 3
    assert [row["session_id"] for row in objects("sessions", "--until", "2021-01-01", *db)] == ["before"]
    assert objects("prompts", "--model", "small", *db) == []
    assert (
        len(objects("prompts", "--agent", recorded.lead[:30], "--type", "command", "--status", "completed", *db)) == 1
    )
    assert [row["log_level"] for row in objects("logs", "--level", "warning+", *db)] == ["ERROR"]
    assert len(objects("logs", "--level", "info,error+", *db)) == 2
    assert [row["component"] for row in objects("logs", "--system", "--component", "watchdog", *db)] == ["watchdog"]
    assert "--level: bad" in refused(2, "logs", "--level", "bad", *db)
    assert "status" in refused(2, "agents", "--status", "asleep", *db)
    assert "--session nothing: there is none" in refused(2, "prompts", "--session", "nothing", *db)
    assert "--since: " in refused(2, "sessions", "--since", "soon", *db)
    assert "--agent" in refused(2, "logs", "--system", "--agent", "x", *db)


def test_show_finds_what_an_id_or_its_beginning_leads_to(recorded: Recorded) -> None:
    db = ("--db", recorded.url)
    (agent,) = objects("show", recorded.lead, *db)
    assert (agent["table"], agent["row"]["definition_name"]) == ("agents", "scout")
    assert [row["id"] for row in agent["prompts"]] == [recorded.prompt]
    assert [row["message"] for row in agent["logs"]] == ["begun"]
    (prompt,) = objects("show", recorded.prompt.upper(), *db)
    assert (prompt["table"], prompt["row"]["response_text"]) == ("prompts", "Seen: 漢字")
    (session,) = objects("show", "bef", *db)
    assert (session["table"], session["row"]["session_id"], len(session["agents"])) == ("sessions", "before", 1)
    (definition,) = objects("show", recorded.definition, *db)
    assert (definition["table"], len(definition["agents"])) == ("orchestrator_agents", 3)
    (line,) = (
        objects("show", "1", "--table", "agent_logs", *db) if recorded.lead[0] != "1" else [{"table": "agent_logs"}]
    )
    assert line["table"] == "agent_logs"
    assert "nothing has the id zz" in refused(1, "show", "zz", *db)
    assert "is the beginning of" in refused(1, "show", recorded.lead[0], *db)


def test_an_id_that_was_shortened_finds_its_row(recorded: Recorded) -> None:
    terminal = {"FORCE_COLOR": "1", "NO_COLOR": "1"}
    table = re.sub(r"\x1b\[[\d;]*m", "", done("prompts", "--db", recorded.url, **terminal))
    short = table.splitlines()[2].split()[0]
    assert SHORTEST <= len(short) < 36
    assert objects("show", short, "--db", recorded.url)[0]["row"]["id"] == recorded.prompt
    assert recorded.prompt in done("prompts", "--full", "--db", recorded.url, **terminal)


def test_lines_for_awk_have_tabs_between_and_one_row_each(recorded: Recorded) -> None:
    (line,) = done("prompts", "--db", recorded.url, "--utc", "--plain").splitlines()
    fields = line.split("\t")
    assert fields[:6] == [recorded.prompt, recorded.lead, "command", "completed", "large", "1234"]
    assert fields[6] == "1.5"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", fields[8])
    assert r"\x1b[31mred" in fields[9]
    assert r"\ttab\nsecond line\r\x9b1m" in fields[9]
    assert len(done("logs", "--db", recorded.url).splitlines()) == 2


def test_an_empty_database_is_no_error(target: Any) -> None:
    assert run("init", "--db", target.url).exit_code == 0
    for command in LISTS:
        result = run(command, "--db", target.url)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.count("\n") == 1
        assert objects(command, "--db", target.url) == []
    (status,) = objects("status", "--db", target.url)
    assert (status["rows"]["prompts"], status["last_at"]) == (0, None)


def test_a_query_of_ones_own_reads_and_cannot_write(recorded: Recorded) -> None:
    db = ("--db", recorded.url)
    query = "SELECT status, count(*) AS number, 1.5 AS x, NULL AS gap FROM agents GROUP BY status ORDER BY status"
    assert objects("sql", query, *db)[0] == {"status": "completed", "number": 1, "x": 1.5, "gap": None}
    assert done("sql", query, "-n", "1", *db) == "completed\t1\t1.5\t\n"
    assert objects("sql", "SELECT 1 AS a, 2 AS a", *db) == [{"a": 1, "a_2": 2}]
    assert objects("sql", "SELECT count(*) AS n FROM agents WHERE session_id LIKE 'n%'", *db) == [{"n": 2}]
    for writes in ("DELETE FROM agents", "CREATE TABLE mine (id INTEGER)", "UPDATE agents SET status = 'failed'"):
        assert "only reads" in refused(4, "sql", writes, *db)
    assert "sql: " in refused(2, "sql", "SELECT FROM WHERE", *db)
    assert "no statement" in refused(2, "sql", " ", *db)
    assert len(objects("agents", *db)) == 3


@pytest.mark.parametrize(
    "command", [*LISTS, "status", "doctor", "history", "reap", "upgrade", "show", "sql", "downgrade"]
)
def test_what_is_not_there_is_not_made(command: str, tmp_path: Any) -> None:
    argument = {"show": ["x"], "sql": ["SELECT 1"], "downgrade": ["0009"]}.get(command, [])
    assert "does not exist" in refused(3, command, *argument, "--db", str(tmp_path / "none.db"))
    assert "secret" not in refused(3, command, *argument, "--db", "postgresql://me:secret@127.0.0.1:1/none")
    assert list(tmp_path.iterdir()) == []


def test_status_says_what_decided_and_looks_at_an_older_schema(recorded_file: Recorded) -> None:
    assert '"decided_by": "ORCHESTRATOR_DB_PATH"' in done("status", "--json", ORCHESTRATOR_DB_PATH=recorded_file.url)
    assert run("downgrade", "0004", "--yes", "--db", recorded_file.url).exit_code == 0
    (status,) = objects("status", "--db", recorded_file.url)
    assert (status["revision"], status["rows"]["agents"], status["last_at"]) == ("0004", 3, None)
    assert "run orchdb upgrade" in refused(4, "agents", "--db", recorded_file.url)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM agents; SELECT 1",
        "SET default_transaction_read_only = off; DELETE FROM agents",
        "SET TRANSACTION READ WRITE; DELETE FROM agents; COMMIT",
        "COMMIT; BEGIN READ WRITE; DELETE FROM agents; COMMIT",
        "SELECT 1; DELETE FROM agents",
        "DELETE FROM agents RETURNING id",
        "WITH gone AS (DELETE FROM agents RETURNING id) SELECT * FROM gone",
        "DO $$BEGIN SET TRANSACTION READ WRITE; DELETE FROM agents; END$$",
        "PRAGMA query_only = 0",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA locking_mode = EXCLUSIVE",
        "VACUUM INTO '{made}'",
        "ATTACH DATABASE '{made}' AS other",
        "COPY agents TO '{made}'",
        "COPY (SELECT 1) TO PROGRAM 'cat > {made}'",
        "SELECT setval(pg_get_serial_sequence('agent_logs', 'id'), 1000000)",
    ],
)
def test_no_query_finds_a_way_to_write(recorded: Recorded, tmp_path: Path, statement: str) -> None:
    made = tmp_path / "made"
    tmp_path.chmod(0o777)
    run("sql", statement.format(made=made) if "{made}" in statement else statement, "--db", recorded.url)
    assert not made.exists()
    assert len(objects("agents", "--db", recorded.url)) == 3
    asyncio.run(_write_a_line(recorded))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_notify('a', 'b')",
        "SELECT PG_RELOAD_CONF ()",
        "SELECT pg_stat_reset/* a comment */()",
        'SELECT pg_catalog."pg_switch_wal"()',
        'SELECT U&"\\0070g_switch_wal"()',
        "SELECT pg_create_physical_replication_slot('theirs')",
        "SELECT lo_export(1, '/tmp/theirs')",
        "SELECT set_config('role', 'postgres', false)",
        "SELECT query_to_xml('SELECT 1', true, true, '')",
        "SELECT mine()",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA optimize",
        "PRAGMA writable_schema = 1",
    ],
)
def test_a_query_does_not_act_on_the_server_or_the_file_either(recorded: Recorded, target: Any, statement: str) -> None:
    if statement.startswith("PRAGMA") != (target.engine == "sqlite"):
        return
    if "mine" in statement:
        asyncio.run(_make(recorded.url, "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"))
    assert "only reads" in refused(4, "sql", statement, "--db", recorded.url)


async def _make(url: str, statement: str) -> None:
    async with DatabaseManager(url) as db, db.transaction() as tx:
        await tx.conn.exec_driver_sql(statement)


def test_a_query_may_call_what_only_reads(recorded: Recorded, target: Any) -> None:
    db = ("--db", recorded.url)
    sized = "pg_size_pretty(pg_total_relation_size('agents')) <> '', now() > '2020-01-01', random() < 2"
    values = "1, 1, 1" if target.engine == "sqlite" else sized
    assert done("sql", f"SELECT count(*), coalesce(max(cost_usd), 0) > 0, {values} FROM agents -- all", *db)
    if target.engine == "sqlite":
        assert "session_id" in done("sql", "PRAGMA table_info(agents)", *db)
        assert done("sql", "PRAGMA query_only", *db) == "1\n"


def test_a_text_that_is_no_utf_8_is_shown_all_the_same(recorded_file: Recorded) -> None:
    connection = sqlite3.connect(recorded_file.url)
    connection.execute("UPDATE orchestrator_agents SET name = CAST(x'61ff' AS TEXT)")
    connection.commit()
    connection.close()
    assert objects("sql", "SELECT name FROM orchestrator_agents", "--db", recorded_file.url) == [{"name": "a\ufffd"}]


async def _write_a_line(recorded: Recorded) -> None:
    async with DatabaseManager(recorded.url) as db:
        assert await db.create_agent_log(recorded.lead, "INFO", "milestone", "next") < 100

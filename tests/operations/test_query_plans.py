"""How the engines find the rows of each operation: by an index that has the order too, and never by reading a table.

The statements are those that the operations would run; the engine is asked for its plan instead. Postgres plans by what
it knows of the rows, so there are enough of them, analysed, for its own choice to show.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Table

from orchdb import AgentStatus, DatabaseManager, cursor_of
from orchdb.backend import Backend, HighWatermark, StatementResult
from orchdb.database import Database
from orchdb.postgres.backend import PostgresBackend
from orchdb.schema.spellings import one_form
from orchdb.schema.sql_functions import TIME_FUNCTION
from orchdb.schema.tables import metadata
from orchdb.sqlite.backend import SqliteBackend
from orchdb.statements import CompiledPair, CompiledStatement, Parameters, Statement

LOGS = 100_000
MANY_LOGS = 1_000_000
ID = "01900000-0000-7000-8000-{:012x}"
AGENT, DEFINITION, PROMPT, PARENT, SESSION = ID.format(7), ID.format(3), ID.format(11), ID.format(5), "session-9"
SESSIONS, MODELS = ("session-9", "session-3"), ("small", "rare")
SOME_STATUSES: tuple[AgentStatus, ...] = ("failed", "cancelled", "executing")
SINCE, UNTIL = "2025-01-01T06:00:00", "2025-01-01T12:00:00"
MOMENT = "2025-01-01T08:00:00.000000"
OLD = datetime(2025, 1, 1, 0, 20, tzinfo=UTC)
MESSAGE = "a line of a log, of the usual length" * 6


def _cursor(**names: Any) -> str:
    return cursor_of({"id": ID.format(9), "created_at": MOMENT, **names})  # type: ignore[arg-type]


DEFINITIONS_CURSOR = _cursor(agent_type="utility")
AGENTS_CURSOR = _cursor(session_id="s")
PROMPTS_CURSOR = _cursor(prompt_type="command")
AGENT_LOGS_CURSOR = _cursor(log_type="error", id=900)
SYSTEM_LOGS_CURSOR = _cursor(component="api", id=900)

Call = Callable[[DatabaseManager], Awaitable[Any]]

WHOLE: dict[str, Call] = {
    "definitions": lambda db: db.list_orchestrator_agents(limit=100),
    "definitions, deleted too": lambda db: db.list_orchestrator_agents(include_deleted=True, limit=100),
    "definitions, every one": lambda db: db.list_orchestrator_agents(),
    "agents": lambda db: db.list_agents(limit=100),
    "recent agent logs": lambda db: db.list_recent_agent_logs(),
    "recent agent logs, offset": lambda db: db.list_recent_agent_logs(limit=20, offset=100),
    "system logs": lambda db: db.get_system_logs(limit=100),
    "recent system logs": lambda db: db.list_recent_system_logs(),
    "prompts of all agents": lambda db: db.list_prompts(limit=100),
    "completed prompts": lambda db: db.list_prompts(status="completed", limit=100),
    "completed and failed prompts": lambda db: db.list_prompts(status=("completed", "failed"), limit=100),
    "recent agent logs of a usual level": lambda db: db.list_recent_agent_logs(log_level="INFO"),
    "recent agent logs from a usual level on": lambda db: db.list_recent_agent_logs(min_level="INFO"),
    "usage since": lambda db: db.usage((), since=SINCE),
    "definitions of some types": lambda db: db.list_orchestrator_agents(agent_type=("utility", "planner"), limit=100),
}
"""Lists without a filter, or with one that most of the rows fit: they walk an index in its order."""

CHOSEN: dict[str, Call] = {
    "definitions since": lambda db: db.list_orchestrator_agents(since=SINCE, limit=100),
    "definitions, next page": lambda db: db.list_orchestrator_agents(after=DEFINITIONS_CURSOR, limit=100),
    "agents of a session": lambda db: db.list_agents(SESSION),
    "agents of a session since": lambda db: db.list_agents(SESSION, since=SINCE),
    "agents of a session, next page": lambda db: db.list_agents(SESSION, after=AGENTS_CURSOR, limit=20),
    "agents by status": lambda db: db.list_agents(status="executing", limit=100),
    "agents of a session by status": lambda db: db.list_agents(SESSION, status="executing"),
    "agents of a definition": lambda db: db.list_agents(orchestrator_agent_id=DEFINITION, limit=20),
    "agents of a parent": lambda db: db.list_agents(parent_agent_id=PARENT),
    "agents between": lambda db: db.list_agents(since=SINCE, until=UNTIL, limit=100),
    "agents, next page": lambda db: db.list_agents(after=AGENTS_CURSOR, limit=100),
    "prompts": lambda db: db.list_prompts(AGENT),
    "prompts by status": lambda db: db.list_prompts(AGENT, status="completed", limit=50),
    "prompts, next page": lambda db: db.list_prompts(AGENT, after=PROMPTS_CURSOR, limit=50),
    "agent logs": lambda db: db.get_agent_logs(AGENT),
    "agent logs, a page": lambda db: db.get_agent_logs(AGENT, limit=100),
    "agent logs, an offset": lambda db: db.get_agent_logs(AGENT, limit=100, offset=50),
    "agent logs, next page": lambda db: db.get_agent_logs(AGENT, after=AGENT_LOGS_CURSOR, limit=100),
    "agent logs by level": lambda db: db.get_agent_logs(AGENT, "ERROR", limit=20),
    "agent logs by type and time": lambda db: db.get_agent_logs(AGENT, None, "error", SINCE, UNTIL, limit=20),
    "agent logs since": lambda db: db.get_agent_logs(AGENT, since=SINCE, limit=100),
    "an agent's logs by type": lambda db: db.get_agent_logs_by_type(AGENT, "error"),
    "an agent's logs by type, next page": lambda db: db.get_agent_logs_by_type(AGENT, "error", after=AGENT_LOGS_CURSOR),
    "an agent's new logs": lambda db: anext(db.tail_agent_logs(AGENT, "ERROR", after_id=500)),
    "new system logs": lambda db: anext(db.tail_system_logs(component="api", after_id=500)),
    "logs by type": lambda db: db.get_logs_by_type("error"),
    "logs by type, next page": lambda db: db.get_logs_by_type("error", after=AGENT_LOGS_CURSOR),
    "recent agent logs, next page": lambda db: db.list_recent_agent_logs(after=AGENT_LOGS_CURSOR),
    "system logs by level": lambda db: db.get_system_logs("ERROR", limit=100),
    "system logs by component": lambda db: db.get_system_logs(component="api", limit=100),
    "system logs by both": lambda db: db.get_system_logs("ERROR", "api", limit=100),
    "system logs between": lambda db: db.get_system_logs(since=SINCE, until=UNTIL, limit=100),
    "system logs of a component since": lambda db: db.get_system_logs(component="api", since=SINCE, limit=100),
    "system logs, next page": lambda db: db.get_system_logs(after=SYSTEM_LOGS_CURSOR, limit=100),
    "recent system logs, next page": lambda db: db.list_recent_system_logs(after=SYSTEM_LOGS_CURSOR),
    "agents of some sessions": lambda db: db.list_agents(SESSIONS, limit=100),
    "agents of some sessions, next page": lambda db: db.list_agents(SESSIONS, after=AGENTS_CURSOR, limit=20),
    "agents with some statuses": lambda db: db.list_agents(status=SOME_STATUSES, limit=100),
    "agents with some statuses since": lambda db: db.list_agents(status=SOME_STATUSES, since=SINCE, limit=100),
    "agents of some definitions": lambda db: db.list_agents(orchestrator_agent_id=(DEFINITION, AGENT), limit=20),
    "agents of some parents": lambda db: db.list_agents(parent_agent_id=(PARENT, AGENT), limit=20),
    "root agents": lambda db: db.list_agents(root=True, limit=20),
    "root agents, next page": lambda db: db.list_agents(root=True, after=AGENTS_CURSOR, limit=20),
    "an agent's newest prompts": lambda db: db.list_prompts(AGENT, newest_first=True, limit=20),
    "prompts of some agents": lambda db: db.list_prompts((AGENT, PARENT), limit=50),
    "prompts by model": lambda db: db.list_prompts(model_used="small", limit=100),
    "prompts by models": lambda db: db.list_prompts(model_used=("small", "rare", "none"), limit=100),
    "prompts by models, next page": lambda db: db.list_prompts(model_used=MODELS, after=PROMPTS_CURSOR, limit=100),
    "prompts by model and status": lambda db: db.list_prompts(model_used="large", status="failed", limit=100),
    "prompts by model since": lambda db: db.list_prompts(model_used="rare", since=SINCE, newest_first=True),
    "prompts by type": lambda db: db.list_prompts(prompt_type="correction", limit=100),
    "prompts by types": lambda db: db.list_prompts(prompt_type=("correction", "adw"), limit=100),
    "unfinished prompts": lambda db: db.list_prompts(status="streaming", limit=100),
    "prompts with some statuses": lambda db: db.list_prompts(status=("failed", "streaming"), limit=100),
    "prompts since": lambda db: db.list_prompts(since=SINCE, until=UNTIL, limit=100),
    "prompts, next page of all": lambda db: db.list_prompts(after=PROMPTS_CURSOR, limit=100),
    "an agent's newest logs": lambda db: db.get_agent_logs(AGENT, newest_first=True, limit=100),
    "an agent's logs by types": lambda db: db.get_agent_logs_by_type(AGENT, ("error", "milestone")),
    "some agents' logs": lambda db: db.get_agent_logs((AGENT, PARENT), limit=100),
    "some agents' logs by type": lambda db: db.get_agent_logs_by_type((AGENT, PARENT), "error"),
    "logs by types": lambda db: db.get_logs_by_type(("error", "milestone")),
    "recent logs by type from a level on": lambda db: db.list_recent_agent_logs(log_type="error", min_level="ERROR"),
    "recent logs of a grave level": lambda db: db.list_recent_agent_logs(log_level="ERROR"),
    "recent logs from a grave level on": lambda db: db.list_recent_agent_logs(min_level="WARNING"),
    "recent grave logs, next page": lambda db: db.list_recent_agent_logs(min_level="ERROR", after=AGENT_LOGS_CURSOR),
    "recent grave logs between": lambda db: db.list_recent_agent_logs(min_level="ERROR", since=SINCE, until=UNTIL),
    "recent logs of an agent": lambda db: db.list_recent_agent_logs(agent_id=AGENT, session_id=SESSION),
    "system logs from a level on": lambda db: db.list_recent_system_logs(min_level="WARNING"),
    "recent system logs of components": lambda db: db.list_recent_system_logs(component=("api", "none")),
    "new logs of a session": lambda db: anext(db.tail_agent_logs(session_id=SESSION, min_level="INFO", after_id=500)),
    "new logs of some agents": lambda db: anext(db.tail_agent_logs((AGENT, PARENT), ("ERROR", "DEBUG"), after_id=500)),
}
"""Lists of chosen rows: they search an index, and it has their order."""

SORTED: dict[str, Call] = {
    "recent logs of a session": lambda db: db.list_recent_agent_logs(session_id=SESSION),
    "recent logs of a session, next page": lambda db: db.list_recent_agent_logs(
        session_id=SESSION, after=AGENT_LOGS_CURSOR
    ),
    "recent logs of a session, offset": lambda db: db.list_recent_agent_logs(session_id=SESSION, offset=50),
    "recent grave logs of a session": lambda db: db.list_recent_agent_logs(session_id=SESSION, min_level="ERROR"),
    "recent logs of some sessions": lambda db: db.list_recent_agent_logs(session_id=SESSIONS),
    "logs of a session": lambda db: anext(db.iter_agent_logs(session_id=SESSION), None),
    "prompts of a session": lambda db: db.list_prompts(session_id=SESSION, limit=100),
    "prompts of a session by model": lambda db: db.list_prompts(session_id=SESSION, model_used=MODELS, limit=100),
    "definitions of some names": lambda db: db.list_orchestrator_agents(name=("agent 7", "agent 9"), limit=10),
    "agents of some sessions with some statuses": lambda db: db.list_agents(SESSIONS, status=SOME_STATUSES, limit=100),
    "root agents of a session": lambda db: db.list_agents(SESSION, root=True, limit=20),
    "an agent's logs from a level on": lambda db: db.get_agent_logs(AGENT, min_level="WARNING", limit=100),
    "all prompts of a session": lambda db: db.list_prompts(session_id=SESSION),
}
"""Lists that search indexes, and may sort: so many rows of each agent of a session, one of each name, or those of a
scope that a second filter makes so few that an engine rather takes both indexes."""

UNORDERED: dict[str, Call] = {
    "a definition": lambda db: db.get_orchestrator_agent(DEFINITION),
    "an agent": lambda db: db.get_agent(AGENT),
    "a prompt": lambda db: db.get_prompt(PROMPT),
    "update a definition": lambda db: db.update_orchestrator_agent(DEFINITION, description="new"),
    "update an agent": lambda db: db.update_agent(AGENT, status="completed", error_message=None),
    "update an agent if": lambda db: db.update_agent(AGENT, if_status="executing", status="completed"),
    "update a prompt": lambda db: db.update_prompt(PROMPT, response_text="done", tokens_output=3),
    "complete a prompt": lambda db: db.complete_prompt(PROMPT, "done", cost_usd=0.1),
    "append to a response": lambda db: db.append_prompt_response(PROMPT, "done"),
    "get a definition by its name": lambda db: db.get_or_create_orchestrator_agent("agent 7"),
    "a line that may be there": lambda db: db.create_agent_log(AGENT, "INFO", "error", "m", event_id="e"),
    "add a cost": lambda db: db.add_agent_cost(AGENT, 0.1),
    "delete a definition": lambda db: db.delete_orchestrator_agent(DEFINITION),
    "delete an agent": lambda db: db.delete_agent(AGENT),
    "delete a prompt softly": lambda db: db.delete_prompt(PROMPT, soft=True),
    "restore an agent": lambda db: db.restore_agent(AGENT),
    "prune": lambda db: db.prune(OLD),
    "prune a level": lambda db: db.prune(OLD, log_level="DEBUG"),
    "clean up": lambda db: db.cleanup_old_logs((datetime.now(UTC) - OLD) / timedelta(days=1)),
}
"""One row by its id, and deletions in batches."""

SUMS: dict[str, Call] = {
    "usage of a session": lambda db: db.usage("agent", session_id=SESSION),
    "usage of a session by model": lambda db: db.usage(("definition", "model"), session_id=SESSION),
    "usage of agents since": lambda db: db.usage((), agent_id=(AGENT, PARENT), since=SINCE),
    "usage of a subtree": lambda db: db.usage("session", agent_id=PARENT, subtree=True),
    "the tree of a session": lambda db: db.agent_tree(SESSION),
    "the tree of an agent": lambda db: db.agent_tree(agent_id=AGENT),
}
"""Sums over the prompts of some agents; where there are only a few thousand, Postgres rather reads them all."""

NEEDED_BY = {
    "idx_orchestrator_agents_created": "definitions",
    "idx_agents_created": "agents",
    "idx_agents_session": "agents of a session",
    "idx_agents_orch": "agents of a definition",
    "idx_agents_parent": "agents of a parent",
    "idx_agents_status": "agents by status",
    "idx_agents_deleted": "usage since",
    "idx_prompts_agent": "prompts",
    "idx_prompts_created": "prompts of all agents",
    "idx_prompts_model": "prompts by model",
    "idx_prompts_type": "prompts by type",
    "idx_prompts_status": "unfinished prompts",
    "idx_agent_logs_level": "recent logs of a grave level",
    "idx_agent_logs_created": "recent agent logs",
    "idx_agent_logs_type": "logs by type",
    "idx_agent_logs_agent": "agent logs",
    "idx_system_logs_created": "recent system logs",
    "idx_system_logs_level": "system logs by level",
    "idx_system_logs_component": "system logs by component",
}
"""For each index an operation that reads or sorts a table without it."""
RULES = {"uq_orchestrator_agents_name", "uq_agent_logs_event", "uq_system_logs_event", "idx_agents_lease"}
"""Indexes that are a rule of the table or of a foreign key, and need no reader."""


@dataclass(frozen=True)
class Asked:
    """A statement that an operation would have run."""

    sql: str
    parameters: Parameters


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What the operations would run; they change nothing, and find nothing but where a batch of deletions ends."""
    found: list[Asked] = []

    async def keep(self: Backend, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        if isinstance(compiled, CompiledPair):
            first, parameters = parameters
            found.append(Asked(compiled.first.sql, first))
        found.append(Asked(compiled.sql, parameters))
        if "edge_time" not in compiled.sql.partition("FROM")[0] or len(found) > 3:
            return StatementResult([], 0)
        edge = "2025-01-01T00:10:00.000000"
        return StatementResult(
            [{"edge_time": edge if self.dialect.name == "sqlite" else datetime.fromisoformat(f"{edge}Z"), "id": 900}], 0
        )

    async def keep_newest(self: Database, operation: str, statement: Statement[Any], values: Any) -> list[Any]:
        compiled = statement.compiled(self.dialect)
        found.append(Asked(compiled.sql, compiled.parameters(values)))
        return [{"id": 900}]

    async def high_watermark(self: Database, operation: str, table: Table) -> HighWatermark:
        return HighWatermark(900)

    monkeypatch.setattr(Database, "fetch_newest", keep_newest)
    monkeypatch.setattr(Database, "high_watermark", high_watermark)
    for backend in (SqliteBackend, PostgresBackend):
        monkeypatch.setattr(backend, "read", keep)
        monkeypatch.setattr(backend, "write", keep)
    return found


async def statements_of(db: DatabaseManager, call: Call, asked: list[Asked]) -> list[Asked]:
    """The statements of one operation."""
    asked.clear()
    await call(db)
    assert asked, "the operation ran no statement"
    return list(asked)


# -- rows, the same on both engines ----------------------------------------------------------------------------------

_ROWS = {
    "orchestrator_agents": ("id, name, agent_type, created_at", "{id}, 'agent ' || {n}, 'utility', {time}", 0.02),
    "agents": (
        "id, orchestrator_agent_id, session_id, parent_agent_id, status, created_at",
        "{id}, {parent_20}, 'session-' || ({n} % 20), CASE WHEN {n} > 100 THEN {parent_20} END, "
        "CASE {n} % 10 WHEN 0 THEN 'executing' WHEN 1 THEN 'failed' ELSE 'completed' END, {time}",
        0.1,
    ),
    "prompts": (
        "id, agent_id, prompt_type, prompt_text, status, model_used, created_at",
        "{id}, {parent_50}, CASE {n} % 50 WHEN 0 THEN 'correction' WHEN 1 THEN 'adw' ELSE 'command' END, 'text', "
        "CASE {n} % 30 WHEN 0 THEN 'streaming' WHEN 1 THEN 'failed' ELSE 'completed' END, "
        "CASE WHEN {n} % 97 = 0 THEN 'rare' WHEN {n} % 3 = 0 THEN 'small' ELSE 'large' END, {time}",
        0.4,
    ),
    "agent_logs": (
        "agent_id, log_level, log_type, message, created_at",
        "{parent_20}, CASE ({n} / 20) % 20 WHEN 0 THEN 'ERROR' WHEN 1 THEN 'DEBUG' ELSE 'INFO' END, "
        "CASE ({n} / 100) % 8 WHEN 0 THEN 'error' WHEN 1 THEN 'milestone' ELSE 'tool_call' END, '{message}', {time}",
        1.0,
    ),
    "system_logs": (
        "log_level, component, message, created_at",
        "CASE {n} % 20 WHEN 0 THEN 'ERROR' ELSE 'INFO' END, CASE {n} % 9 WHEN 0 THEN 'api' ELSE 'worker' END, "
        "'{message}', {time}",
        1.0,
    ),
}


def sqlite_rows(logs: int) -> Iterator[str]:
    """The statements that make the rows on SQLite."""
    for table, (columns, template, share) in _ROWS.items():
        count = int(logs * share)
        values = template.format(
            n="n",
            id="printf('01900000-0000-7000-8000-%012x', n)",
            message=MESSAGE,
            time=f"strftime('%Y-%m-%dT%H:%M:%f000', 1735689600 + n * 86400.0 / {count}, 'unixepoch')",
            **{f"parent_{k}": f"printf('01900000-0000-7000-8000-%012x', 1 + n % {k})" for k in (20, 50)},
        )
        numbers = f"WITH RECURSIVE s(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s LIMIT {count})"
        yield f"{numbers} INSERT INTO {table} ({columns}) SELECT {values} FROM s"


def postgres_rows(logs: int) -> Iterator[str]:
    """The statements that make the rows on Postgres."""
    key = "('01900000-0000-7000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"
    for table, (columns, template, share) in _ROWS.items():
        count = int(logs * share)
        values = template.format(
            n="n",
            id=key.format("n"),
            message=MESSAGE,
            time=f"timestamptz '2025-01-01 00:00:00+00' + n * interval '24 hours' / {count}",
            **{f"parent_{k}": key.format(f"1 + n % {k}") for k in (20, 50)},
        )
        yield f"INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series(1, {count}) AS s(n)"


# -- SQLite ----------------------------------------------------------------------------------------------------------


OF_STATEMENTS = ("sums", "below", "usage")
"""What a statement has found already."""


def sqlite_faults(connection: sqlite3.Connection, statement: Asked, *, chosen: bool, ordered: bool = True) -> list[str]:
    """What the plan reads or sorts without an index; ``json_each`` reads what the caller gave."""
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters).fetchall()
    steps = [str(row[-1]) for row in plan if not row[-1].startswith(("SCAN CONSTANT ROW", "SCAN json_each "))]
    return [
        step
        for step in steps
        if ("TEMP B-TREE" in step and ordered)
        or (step.startswith("SCAN") and step[5:] not in OF_STATEMENTS and (chosen or "INDEX" not in step))
    ]


async def sqlite_database(path: Path, logs: int) -> sqlite3.Connection:
    """A connection to a new database with the rows; it has been analysed."""
    async with DatabaseManager(path):
        pass
    connection = sqlite3.connect(path)
    connection.create_function(TIME_FUNCTION, 1, one_form, deterministic=True)
    for statement in sqlite_rows(logs):
        connection.execute(statement)
    connection.execute("ANALYZE")
    connection.commit()
    return connection


@pytest.mark.parametrize("analysed", [False, True])
async def test_every_operation_has_its_index_on_sqlite(tmp_path: Path, asked: list[Asked], analysed: bool) -> None:
    """Without statistics, as the planner sees most files, and with those of real rows."""
    await _check_sqlite(tmp_path, asked, 1000 if not analysed else LOGS, analysed=analysed)


@pytest.mark.soak
async def test_every_operation_has_its_index_among_a_million_rows(tmp_path: Path, asked: list[Asked]) -> None:
    await _check_sqlite(tmp_path, asked, MANY_LOGS, analysed=True)


async def _check_sqlite(folder: Path, asked: list[Asked], logs: int, *, analysed: bool) -> None:
    connection = await sqlite_database(folder / "orchestrator.db", logs)
    if not analysed:
        connection.execute("DROP TABLE sqlite_stat1")
        connection.commit()
    faults: dict[str, list[str]] = {}
    async with DatabaseManager(folder / "orchestrator.db") as db:
        for name, call in (WHOLE | CHOSEN | SORTED | UNORDERED | SUMS).items():
            for statement in await statements_of(db, call, asked):
                ordered = name not in SORTED | SUMS
                found = sqlite_faults(connection, statement, chosen=name not in WHOLE, ordered=ordered)
                if found:
                    faults[name] = found
    connection.close()
    assert not faults


async def test_every_index_is_needed(tmp_path: Path, asked: list[Asked]) -> None:
    """Without it, the operation that it is there for reads a table or sorts."""
    connection = await sqlite_database(tmp_path / "orchestrator.db", 1000)
    indexes = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"))
    assert indexes.keys() == NEEDED_BY.keys() | RULES
    idle: list[str] = []
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        for index, operation in NEEDED_BY.items():
            (statement,) = await statements_of(db, (WHOLE | CHOSEN)[operation], asked)
            connection.execute(f"DROP INDEX {index}")
            if not sqlite_faults(connection, statement, chosen=operation in CHOSEN):
                idle.append(index)
            connection.execute(indexes[index])
    connection.close()
    assert not idle, "no operation misses these indexes"


def test_every_foreign_key_has_an_index() -> None:
    """A deleted parent's children are looked for, also by the engine itself."""
    for table in metadata.tables.values():
        leading = {next(iter(index.columns)).name for index in table.indexes}
        for key in table.foreign_keys:
            assert key.parent.name in leading, f"{table.name}.{key.parent.name}"


# -- Postgres --------------------------------------------------------------------------------------------------------


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def postgres_faults(connection: Any, statement: Asked, *, ordered: bool) -> list[str]:
    """The sequential scans in the plan, and for an ordered list the sorts.

    A list without a limit returns every row that it sorts; the planner may take them in the order of the disk. That it
    need not is seen when it is asked to avoid that.
    """
    choice = "on" if "LIMIT" in statement.sql else "off"
    for way in ("sort", "bitmapscan", "seqscan"):
        await connection.execute(f"SET enable_{way} = {choice if ordered else 'on'}")
    (text,) = await connection.fetchrow(f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.parameters)
    found: list[str] = []
    for node in nodes(json.loads(text)[0]["Plan"]):
        if node["Node Type"] == "Seq Scan":
            found.append(f"reads all of {node['Relation Name']}")
        if ordered and "Sort" in node["Node Type"]:
            found.append(f"sorts by {node['Sort Key']}")
    return found


async def _check_postgres(url: str, asked: list[Asked], logs: int) -> None:
    async with DatabaseManager(url):
        pass
    connection = await asyncpg.connect(url)
    for rows in postgres_rows(logs):
        await connection.execute(rows)
    await connection.execute("VACUUM ANALYZE")
    faults: dict[str, list[str]] = {}
    async with DatabaseManager(url) as db:
        for name, call in (WHOLE | CHOSEN | SORTED | UNORDERED).items():
            for statement in await statements_of(db, call, asked):
                found = await postgres_faults(connection, statement, ordered=name not in SORTED | UNORDERED)
                if found:
                    faults[name] = found
    await connection.close()
    assert not faults


async def test_every_operation_has_its_index_on_postgres(postgres_url: str, asked: list[Asked]) -> None:
    """The planner's own choice among real rows."""
    await _check_postgres(postgres_url, asked, LOGS)


@pytest.mark.soak
async def test_every_operation_has_its_index_among_a_million_rows_on_postgres(
    postgres_url: str, asked: list[Asked]
) -> None:
    await _check_postgres(postgres_url, asked, MANY_LOGS)

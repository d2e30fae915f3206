"""The work that every contestant does: the rows, the sizes of a round, and the raw SQL on orchdb's own tables."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = Path(__file__).parent.parent / "schema" / "schema_orchestrator.sql"
DEFINITION_ID = "01900000-0000-7000-8000-00000000000d"
MISSING_ID = "01900000-0000-7000-8000-0000000000ff"
AGENTS = 10
PREPARED_LOGS = 100_000
TASKS = 100
BULK = 10_000
INVALID_EVERY = 25
"""In the round with errors every 25th row, 4 %, names an agent that does not exist."""
LATEST = 100

LOG_COLUMNS = ("id", "agent_id", "log_level", "log_type", "message", "details", "created_at")
AGENT_JSON = ("context", "config", "metadata")

INSERT_LOG = (
    "INSERT INTO agent_logs (agent_id, log_level, log_type, message, details, created_at) VALUES (?, ?, ?, ?, ?, ?)"
)
UPDATE_AGENT = (
    "UPDATE agents SET cost_usd = ?, error_message = ?, metadata = ?, updated_at = ? "
    "WHERE id = ? AND deleted_at IS NULL"
)
GET_AGENT = "SELECT * FROM agents WHERE id = ? AND deleted_at IS NULL"
LATEST_LOGS = (
    "SELECT id, agent_id, log_level, log_type, message, details, created_at FROM agent_logs "
    "WHERE agent_id = ? AND log_type = ? ORDER BY created_at DESC, id DESC LIMIT ?"
)
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON")


class Log(NamedTuple):
    """One line of a log, as a caller has it in hand."""

    agent_id: str
    log_level: str
    log_type: str
    message: str
    details: dict[str, Any]


class Change(NamedTuple):
    """One change of an agent."""

    agent_id: str
    cost_usd: float
    error_message: str
    metadata: dict[str, Any]


def log(number: int, *, valid: bool = True) -> Log:
    """The line of this number; an invalid one names an agent that does not exist."""
    details = {
        "step": number,
        "tool": "search",
        "arguments": {"query": "how to write a group commit", "limit": 20, "exact": False},
        "tokens": {"input": 1200 + number % 100, "output": 310},
        "seconds": 0.731,
    }
    agent_id = AGENT_IDS[number % AGENTS] if valid else MISSING_ID
    return Log(agent_id, "INFO", "tool_call", f"step {number}: searched, and found 20 results", details)


def change(number: int) -> Change:
    """The change of this number."""
    metadata = {"step": number, "phase": "executing", "labels": ["a", "b"]}
    return Change(AGENT_IDS[number % AGENTS], number / 1000, f"message {number}", metadata)


def now_text() -> str:
    """The present in the one form of a time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")[:26]


def log_parameters(line: Log) -> tuple[Any, ...]:
    """The line as the raw drivers take it."""
    return (line.agent_id, line.log_level, line.log_type, line.message, json.dumps(line.details), now_text())


def change_parameters(made: Change) -> tuple[Any, ...]:
    """The change as the raw drivers take it."""
    return (made.cost_usd, made.error_message, json.dumps(made.metadata), now_text(), made.agent_id)


def decoded_agent(row: dict[str, Any]) -> dict[str, Any]:
    """An agent's row with its JSON columns decoded."""
    for name in AGENT_JSON:
        if row[name] is not None:
            row[name] = json.loads(row[name])
    return row


def decoded_log(row: dict[str, Any]) -> dict[str, Any]:
    """A log's row with its details decoded."""
    if row["details"] is not None:
        row["details"] = json.loads(row["details"])
    return row


def agent_id(number: int) -> str:
    """The id of an agent."""
    return f"01900000-0000-7000-8000-{number:012x}"


AGENT_IDS = [agent_id(number) for number in range(AGENTS)]


def prepared_agents(count: int = AGENTS) -> list[tuple[Any, ...]]:
    """The agents: id, definition, session, status, context, config, metadata, created_at."""
    context = json.dumps({"goal": "write a benchmark", "files": ["a.py", "b.py"], "depth": 2})
    config = json.dumps({"model": "large", "temperature": 0.2, "tools": ["search", "edit", "run"]})
    return [
        (agent_id(number), DEFINITION_ID, "session-1", "executing", context, config, "{}", "2025-01-01T00:00:00.000000")
        for number in range(count)
    ]


def prepared_logs(count: int, first: int = 0) -> list[tuple[Any, ...]]:
    """Lines of the past, a second apart: what the raw inserts take."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    lines = (log(number) for number in range(first, first + count))
    return [
        (*line[:4], json.dumps(line.details), (start + timedelta(seconds=first + index)).isoformat()[:19] + ".000000")
        for index, line in enumerate(lines)
    ]


INSERT_DEFINITION = "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES (?, 'scout', 'utility')"
INSERT_AGENT = (
    "INSERT INTO agents (id, orchestrator_agent_id, session_id, status, context, config, metadata, created_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def prepare_file(path: Path, logs: int = PREPARED_LOGS, agents: int = AGENTS) -> None:
    """Make an SQLite file with orchdb's schema, some agents and many logs."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    connection.executescript(SCHEMA.read_text(encoding="utf-8"))
    connection.execute(INSERT_DEFINITION, (DEFINITION_ID,))
    connection.executemany(INSERT_AGENT, prepared_agents(agents))
    for first in range(0, logs, 50_000):
        connection.executemany(INSERT_LOG, prepared_logs(min(50_000, logs - first), first))
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()

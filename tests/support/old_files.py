"""Files as the first class made them, filled over years by it and by other programs."""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

Rows = dict[str, dict[Any, dict[str, Any]]]

TABLES = ("orchestrator_agents", "agents", "prompts", "agent_logs", "system_logs")
TIMES = {
    "orchestrator_agents": ("created_at", "updated_at"),
    "agents": ("started_at", "completed_at"),
    "prompts": ("created_at", "completed_at"),
    "agent_logs": ("created_at",),
    "system_logs": ("created_at",),
}

# Constraints inside the columns and without names, and a trigger of another name: nobody promised how it is written.
SCHEMA = """\
CREATE TABLE IF NOT EXISTS orchestrator_agents (
    id TEXT PRIMARY KEY,  -- a UUID, mostly
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    agent_type TEXT NOT NULL CHECK(agent_type IN ('planner','builder','reviewer','tester','orchestrator','utility')),
    capabilities TEXT, /* JSON, or (what people typed) */
    default_model TEXT,
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    updated_at TEXT NOT NULL DEFAULT (datetime('now'))
);
CREATE TABLE IF NOT EXISTS agents (
    id TEXT PRIMARY KEY,
    orchestrator_agent_id TEXT NOT NULL REFERENCES orchestrator_agents(id) ON DELETE CASCADE,
    session_id TEXT NOT NULL,
    parent_agent_id TEXT REFERENCES agents(id) ON DELETE SET NULL,
    status TEXT NOT NULL DEFAULT 'initializing',
    context TEXT,
    config TEXT,
    started_at TEXT NOT NULL DEFAULT (datetime('now')),
    completed_at TEXT,
    cost_usd REAL DEFAULT 0.0,
    error_message TEXT,
    CHECK (status IN ('initializing','planning','executing','reviewing','completed','failed','cancelled'))
);
CREATE TABLE IF NOT EXISTS prompts (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    prompt_type TEXT NOT NULL CHECK(prompt_type IN ('adw','command','followup','correction','tool_call')),
    prompt_name TEXT,
    prompt_text TEXT NOT NULL,
    response_text TEXT,
    status TEXT NOT NULL DEFAULT 'pending' CHECK(status IN ('pending','streaming','completed','failed','cancelled')),
    model_used TEXT,
    tokens_input INTEGER DEFAULT 0,
    tokens_output INTEGER DEFAULT 0,
    cost_usd REAL DEFAULT 0.0,
    latency_ms INTEGER,
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    completed_at TEXT,
    error_message TEXT,
    FOREIGN KEY (agent_id) REFERENCES agents(id) ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS agent_logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id TEXT NOT NULL,
    log_level TEXT NOT NULL DEFAULT 'INFO' CHECK(log_level IN ('DEBUG','INFO','WARNING','ERROR','CRITICAL')),
    log_type TEXT NOT NULL
        CHECK(log_type IN ('state_change','milestone','error','performance','tool_call','cost_update')),
    message TEXT NOT NULL,
    details TEXT,
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    FOREIGN KEY (agent_id) REFERENCES agents(id) ON DELETE CASCADE
);
CREATE TABLE IF NOT EXISTS system_logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    log_level TEXT NOT NULL DEFAULT 'INFO' CHECK(log_level IN ('DEBUG','INFO','WARNING','ERROR','CRITICAL')),
    component TEXT NOT NULL,
    message TEXT NOT NULL,
    details TEXT,
    created_at TEXT NOT NULL DEFAULT (datetime('now'))
);
CREATE INDEX IF NOT EXISTS idx_agents_session ON agents(session_id);
CREATE INDEX IF NOT EXISTS idx_agents_orch ON agents(orchestrator_agent_id);
CREATE INDEX IF NOT EXISTS idx_prompts_agent ON prompts(agent_id);
CREATE INDEX IF NOT EXISTS idx_prompts_status ON prompts(status);
CREATE INDEX IF NOT EXISTS idx_agent_logs_agent ON agent_logs(agent_id);
CREATE INDEX IF NOT EXISTS idx_system_logs_level ON system_logs(log_level);
CREATE TRIGGER IF NOT EXISTS update_orchestrator_agents_timestamp
AFTER UPDATE ON orchestrator_agents
FOR EACH ROW
BEGIN
    UPDATE orchestrator_agents SET updated_at = datetime('now') WHERE id = NEW.id;
END;
"""

# What other programs did to the same file.
OTHERS = """\
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('f00dfeedcafe');
CREATE TABLE hosts (name TEXT PRIMARY KEY);
INSERT INTO hosts VALUES ('büro'), ('keller');
CREATE TABLE bookmarks (
    id INTEGER PRIMARY KEY,
    prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    note TEXT
);
CREATE TABLE audit (what TEXT NOT NULL);
ALTER TABLE agents ADD COLUMN "host, or (place)" TEXT COLLATE NOCASE REFERENCES hosts (name)
    CHECK (length("host, or (place)") < 99);
ALTER TABLE prompts ADD COLUMN rating INTEGER DEFAULT 3 CHECK (rating BETWEEN 1 AND 5);
ALTER TABLE prompts ADD COLUMN total INTEGER GENERATED ALWAYS AS (tokens_input + tokens_output) VIRTUAL;
CREATE INDEX dashboard_latest ON prompts (created_at DESC, lower(model_used)) WHERE rating > 3;
CREATE TRIGGER audit_prompts AFTER UPDATE ON prompts BEGIN INSERT INTO audit VALUES ('prompt; ' || NEW.id); END;
CREATE TRIGGER audit_logs AFTER DELETE ON agent_logs BEGIN INSERT INTO audit VALUES ('log'); END;
CREATE VIEW spending AS
    SELECT a.session_id, sum(p.cost_usd) AS cost FROM agents a JOIN prompts p ON p.agent_id = a.id GROUP BY 1;
"""
VOCABULARY = {
    "agent_type": ("planner", "builder", "reviewer", "tester", "orchestrator", "utility"),
    "agent_status": ("initializing", "planning", "executing", "reviewing", "completed", "failed", "cancelled"),
    "prompt_type": ("adw", "command", "followup", "correction", "tool_call"),
    "prompt_status": ("pending", "streaming", "completed", "failed", "cancelled"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    "log_type": ("state_change", "milestone", "error", "performance", "tool_call", "cost_update"),
}
TEXTS = ("Schöne Grüße, 世界", "line one\nline two; -- 'quoted'", "🚀 émile", "plain", "")
DOCUMENTS = (
    None,
    json.dumps({"größe": "ñandú", "n": [1, 2.5, None]}),
    json.dumps({"größe": "ñandú"}, ensure_ascii=False),
    "just what somebody typed",
    '{"not": finished',
    "[1, 2]",
)
INDIA = timezone(timedelta(hours=5, minutes=30))
START = datetime(2024, 2, 28, 23, 59, 59, 987654)


def old_times(randomness: random.Random) -> tuple[str, str]:
    """A time in one of the old forms, and the same in the one form; some texts are no time and stay."""
    moment = START + timedelta(seconds=randomness.randrange(50_000_000), microseconds=randomness.randrange(1_000_000))
    whole = moment.replace(microsecond=0)
    one_form = moment.isoformat(timespec="microseconds")
    return randomness.choice(
        (
            (whole.isoformat(" "), whole.isoformat(timespec="microseconds")),
            (whole.isoformat(), whole.isoformat(timespec="microseconds")),
            (one_form, one_form),
            (one_form + "Z", one_form),
            (one_form + "+00:00", one_form),
            (moment.replace(tzinfo=UTC).astimezone(INDIA).isoformat(timespec="microseconds"), one_form),
            (moment.isoformat(" ", "milliseconds"), moment.isoformat(timespec="milliseconds") + "000"),
            ("yesterday", "yesterday"),
        )
    )


class OldFile:
    """An old database and what its times have to become."""

    def __init__(self, path: Path, *, seed: int = 1, size: int = 1, others: bool = True) -> None:
        self.path = path
        content = _content(seed, size, others)
        self.times = content.times
        path.write_bytes(content.image)

    def promised(self, rows: Rows) -> Rows:
        """What an upgrade makes of the rows of the file: their times in the one form."""
        return {
            table: {
                number: row | {column: self.times.get(row[column], row[column]) for column in TIMES[table]}
                for number, row in found.items()
            }
            for table, found in rows.items()
        }


def read(path: Path, tables: tuple[str, ...] = TABLES) -> Rows:
    """Every row with its row number and its other programs' columns."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: {row["number"]: dict(row) for row in connection.execute(f"SELECT rowid AS number, * FROM {table}")}
            for table in tables
        }


def same_rows(path: Path, other: Path) -> bool:
    """Whether two files hold the same rows under the same row numbers."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ATTACH ? AS other", (str(other),))
        for table in TABLES:
            here, there = (f"SELECT rowid, * FROM {schema}.{table}" for schema in ("main", "other"))
            for query in (f"{here} EXCEPT {there}", f"{there} EXCEPT {here}"):
                if connection.execute(f"{query} LIMIT 1").fetchone() is not None:
                    return False
    return True


def ask(path: Path, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, parameters).fetchall()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def kept(rows: Rows, promised: Rows) -> Rows:
    """The rows with no more than the promised columns."""
    return {
        table: {number: {name: row[name] for name in promised[table][number]} for number, row in found.items()}
        for table, found in rows.items()
    }


@cache
def _content(seed: int, size: int, others: bool) -> _Content:
    return _Content(seed, size, others)


class _Content:
    """What an old file holds, made once for all tests."""

    def __init__(self, seed: int, size: int, others: bool) -> None:
        self.times: dict[str, str] = {"": ""}
        self._random = random.Random(seed)
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(SCHEMA)
            if others:
                connection.executescript(OTHERS)
            self._fill(connection, size)
            if others:
                self._fill_others(connection)
            connection.commit()
            self.image = connection.serialize()

    def _time(self) -> str:
        old, new = old_times(self._random)
        self.times[old] = new
        return old

    def _perhaps_time(self) -> str | None:
        return self._time() if self._random.random() < 0.5 else None

    def _one_of(self, vocabulary: str) -> str:
        return self._random.choice(VOCABULARY[vocabulary])

    def _id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _fill(self, connection: sqlite3.Connection, size: int) -> None:
        choice = self._random.choice
        definitions = [self._id() for _ in range(20 * size)] + ["adw-orchestrator", "ñ'; --"]
        for number, key in enumerate(definitions):
            connection.execute(
                "INSERT INTO orchestrator_agents VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    f"{choice(TEXTS)} {number}",
                    choice(TEXTS),
                    self._one_of("agent_type"),
                    choice(DOCUMENTS),
                    None,
                    self._time(),
                    self._time(),
                ),
            )
        agents = [self._id() for _ in range(500 * size)] + ["agent-1"]
        for number, key in enumerate(agents):
            row = (
                key,
                choice(definitions),
                f"session-{number % 7}",
                choice(agents[:number]) if number % 3 == 2 else None,
                self._one_of("agent_status"),
                choice(DOCUMENTS),
                choice(DOCUMENTS),
                self._time(),
                self._perhaps_time(),
                self._random.random(),
                choice(TEXTS),
            )
            blanks = ", NULL" * self._added_columns(connection)
            connection.execute(f"INSERT INTO agents VALUES ({', '.join('?' * len(row))}{blanks})", row)
        self._fill_prompts_and_logs(connection, agents, size)

    def _added_columns(self, connection: sqlite3.Connection) -> int:
        return len(connection.execute("PRAGMA table_info(agents)").fetchall()) - 11

    def _fill_prompts_and_logs(self, connection: sqlite3.Connection, agents: list[str], size: int) -> None:
        choice = self._random.choice
        for _ in range(3000 * size):
            connection.execute(
                "INSERT INTO prompts (id, agent_id, prompt_type, prompt_name, prompt_text, response_text, status, "
                "model_used, tokens_input, tokens_output, cost_usd, latency_ms, created_at, completed_at, "
                "error_message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._id(),
                    choice(agents),
                    self._one_of("prompt_type"),
                    choice(TEXTS),
                    choice(TEXTS),
                    choice(TEXTS),
                    self._one_of("prompt_status"),
                    "model-x",
                    self._random.randrange(10**6),
                    0,
                    0.1 + 0.2,
                    None,
                    self._time(),
                    self._perhaps_time(),
                    None,
                ),
            )
        for _ in range(6000 * size):
            connection.execute(
                "INSERT INTO agent_logs (agent_id, log_level, log_type, message, details, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    choice(agents),
                    self._one_of("log_level"),
                    self._one_of("log_type"),
                    choice(TEXTS),
                    choice(DOCUMENTS),
                    self._time(),
                ),
            )
        for _ in range(1500 * size):
            connection.execute(
                "INSERT INTO system_logs (log_level, component, message, details, created_at) VALUES (?, ?, ?, ?, ?)",
                (self._one_of("log_level"), "wächter", choice(TEXTS), choice(DOCUMENTS), self._time()),
            )
        # Gaps in the row numbers, and a counter that is ahead of the largest id.
        connection.execute("DELETE FROM prompts WHERE rowid % 10 = 3")
        connection.execute("DELETE FROM agent_logs WHERE id % 10 = 3 OR id > ?", (6000 * size - 5,))

    def _fill_others(self, connection: sqlite3.Connection) -> None:
        connection.execute("""UPDATE agents SET "host, or (place)" = 'büro' WHERE rowid % 2""")
        connection.execute("UPDATE prompts SET rating = 5 WHERE rowid % 4 = 0")
        connection.execute("INSERT INTO bookmarks (prompt_id, note) SELECT id, 'gut' FROM prompts WHERE rowid % 50 = 0")

"""One form of time: UTC, YYYY-MM-DDTHH:MM:SS.ffffff.

It holds in every time column and in every default. SQLite compares times as text, and the three forms that the files
hold (``YYYY-MM-DD HH:MM:SS``, and with a ``T``, with and without a fraction or an offset) do not sort together. A text
that is no time is kept as it is. The tables are made anew for their defaults, and on the way every constraint gets the
name that later revisions call it by. A row without an id, which the first schema let pass, gets one. On Postgres times
were never text: nothing changes.

Downgrade: the defaults of the first schema come back. The times keep the one form, which the first schema allows too:
to cut them to whole seconds would lose something and gain nothing.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

from alembic import op

from orchdb.schema.rebuilding import add_function, drop_triggers, rebuild

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NEW = {
    "id": "TEXT NOT NULL",
    "number": "INTEGER NOT NULL",
    "now": "(strftime('%Y-%m-%dT%H:%M:%f000', 'now'))",
}
OLD = {"id": "TEXT", "number": "INTEGER", "now": "(datetime('now'))"}

TABLES = {
    "orchestrator_agents": """\
CREATE TABLE orchestrator_agents (
    id {id},
    name TEXT NOT NULL,
    description TEXT,
    agent_type TEXT NOT NULL,
    capabilities TEXT,
    default_model TEXT,
    created_at TEXT NOT NULL DEFAULT {now},
    updated_at TEXT NOT NULL DEFAULT {now},
    PRIMARY KEY (id),
    CONSTRAINT uq_orchestrator_agents_name UNIQUE (name),
    CONSTRAINT ck_orchestrator_agents_agent_type
        CHECK (agent_type IN ('planner', 'builder', 'reviewer', 'tester', 'orchestrator', 'utility'))
)""",
    "agents": """\
CREATE TABLE agents (
    id {id},
    orchestrator_agent_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    parent_agent_id TEXT,
    status TEXT NOT NULL DEFAULT 'initializing',
    context TEXT,
    config TEXT,
    started_at TEXT NOT NULL DEFAULT {now},
    completed_at TEXT,
    cost_usd REAL DEFAULT 0.0,
    error_message TEXT,
    PRIMARY KEY (id),
    CONSTRAINT fk_agents_orchestrator_agent_id
        FOREIGN KEY (orchestrator_agent_id) REFERENCES orchestrator_agents (id) ON DELETE CASCADE,
    CONSTRAINT fk_agents_parent_agent_id FOREIGN KEY (parent_agent_id) REFERENCES agents (id) ON DELETE SET NULL,
    CONSTRAINT ck_agents_status CHECK (status IN
        ('initializing', 'planning', 'executing', 'reviewing', 'completed', 'failed', 'cancelled'))
)""",
    "prompts": """\
CREATE TABLE prompts (
    id {id},
    agent_id TEXT NOT NULL,
    prompt_type TEXT NOT NULL,
    prompt_name TEXT,
    prompt_text TEXT NOT NULL,
    response_text TEXT,
    status TEXT NOT NULL DEFAULT 'pending',
    model_used TEXT,
    tokens_input INTEGER DEFAULT 0,
    tokens_output INTEGER DEFAULT 0,
    cost_usd REAL DEFAULT 0.0,
    latency_ms INTEGER,
    created_at TEXT NOT NULL DEFAULT {now},
    completed_at TEXT,
    error_message TEXT,
    PRIMARY KEY (id),
    CONSTRAINT fk_prompts_agent_id FOREIGN KEY (agent_id) REFERENCES agents (id) ON DELETE CASCADE,
    CONSTRAINT ck_prompts_prompt_type
        CHECK (prompt_type IN ('adw', 'command', 'followup', 'correction', 'tool_call')),
    CONSTRAINT ck_prompts_status CHECK (status IN ('pending', 'streaming', 'completed', 'failed', 'cancelled'))
)""",
    "agent_logs": """\
CREATE TABLE agent_logs (
    id {number} PRIMARY KEY AUTOINCREMENT,
    agent_id TEXT NOT NULL,
    log_level TEXT NOT NULL DEFAULT 'INFO',
    log_type TEXT NOT NULL,
    message TEXT NOT NULL,
    details TEXT,
    created_at TEXT NOT NULL DEFAULT {now},
    CONSTRAINT fk_agent_logs_agent_id FOREIGN KEY (agent_id) REFERENCES agents (id) ON DELETE CASCADE,
    CONSTRAINT ck_agent_logs_log_level CHECK (log_level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')),
    CONSTRAINT ck_agent_logs_log_type CHECK
        (log_type IN ('state_change', 'milestone', 'error', 'performance', 'tool_call', 'cost_update'))
)""",
    "system_logs": """\
CREATE TABLE system_logs (
    id {number} PRIMARY KEY AUTOINCREMENT,
    log_level TEXT NOT NULL DEFAULT 'INFO',
    component TEXT NOT NULL,
    message TEXT NOT NULL,
    details TEXT,
    created_at TEXT NOT NULL DEFAULT {now},
    CONSTRAINT ck_system_logs_log_level CHECK (log_level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'))
)""",
}
TIMES = {
    "orchestrator_agents": ("created_at", "updated_at"),
    "agents": ("started_at", "completed_at"),
    "prompts": ("created_at", "completed_at"),
    "agent_logs": ("created_at",),
    "system_logs": ("created_at",),
}

TRIGGER = """\
CREATE TRIGGER trg_orchestrator_agents_updated_at AFTER UPDATE ON orchestrator_agents
BEGIN
    UPDATE orchestrator_agents SET updated_at = {now} WHERE id = NEW.id;
END"""
# The first class's own trigger, whatever it was called: all it does is to set the time, in the old form.
SETS_THE_TIME = re.compile(
    r"""\bBEGIN \s+ UPDATE \s+ ["`[]?orchestrator_agents["`\]]? \s+ SET \s+ ["`[]?updated_at["`\]]? \s* = [^;]*
        \b(?:datetime|strftime|CURRENT_TIMESTAMP)\b [^;]* ; \s* END\b""",
    re.IGNORECASE | re.VERBOSE,
)
A_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\S+)?", re.ASCII)


def one_form(value: bytes | None) -> str | None:
    """The time in the one form; ``None`` for what is no time, which stays as it is."""
    try:
        text = (value or b"").decode().strip()
        if not A_TIME.fullmatch(text):
            return None
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat(timespec="microseconds")[:26]


def some_id(_nothing: None) -> str:
    """An id for a row that has none."""
    return str(uuid.uuid4())


def upgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        return
    connection = op.get_bind()
    add_function(connection, "orchdb_one_form", one_form)
    add_function(connection, "orchdb_some_id", some_id)
    drop_triggers(connection, "orchestrator_agents", SETS_THE_TIME)
    for table, definition in TABLES.items():
        # As bytes, because another program may have written text that is no UTF-8: it stays as well.
        values = {column: f"coalesce(orchdb_one_form(CAST({column} AS BLOB)), {column})" for column in TIMES[table]}
        if "{id}" in definition:
            values["id"] = "coalesce(id, orchdb_some_id(NULL))"
        rebuild(connection, table, definition=definition.format(**NEW), values=values)
    connection.exec_driver_sql(TRIGGER.format(now=NEW["now"]))


def downgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        return
    connection = op.get_bind()
    drop_triggers(connection, "orchestrator_agents", SETS_THE_TIME)
    for table, definition in TABLES.items():
        rebuild(connection, table, definition=definition.format(**OLD))
    connection.exec_driver_sql(TRIGGER.format(now="datetime('now')"))

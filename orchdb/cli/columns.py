"""The columns of the lists, and which of them a narrow terminal can do without."""

from __future__ import annotations

from orchdb.cli.view import Column

SESSIONS = (
    Column("session", "session_id", "id"),
    Column("agents", "agents", "count"),
    Column("running", "running", "count"),
    Column("failed", "failed", "count"),
    Column("cost", "cost_usd", "money"),
    Column("tokens", "tokens", "count"),
    Column("prompts", "prompts", "count", spare=2),
    Column("duration", "seconds", "duration", spare=1),
    Column("last seen", "last_at", "time"),
)
AGENTS = (
    Column("agent", "id", "id"),
    Column("name", "definition_name", grows=True),
    Column("status", "status", "word"),
    Column("cost", "cost_usd", "money"),
    Column("session", "session_id", "id", spare=3),
    Column("duration", "seconds", "duration", spare=1),
    Column("created", "created_at", "time"),
    Column("error", "error_message", spare=2, grows=True),
)
PROMPTS = (
    Column("prompt", "id", "id"),
    Column("agent", "agent_id", "id", spare=4),
    Column("type", "prompt_type", spare=2),
    Column("status", "status", "word"),
    Column("model", "model_used", spare=3),
    Column("tokens", "tokens", "count"),
    Column("cost", "cost_usd", "money"),
    Column("ms", "latency_ms", "count", spare=1),
    Column("created", "created_at", "time", spare=1),
    Column("text", "prompt_text", grows=True),
)
LINES = (
    Column("time", "created_at", "time"),
    Column("level", "log_level", "word"),
    Column("agent", "agent_id", "id"),
    Column("type", "log_type", spare=1),
    Column("message", "message", grows=True),
    Column("details", "details", "json", spare=2, grows=True),
)
SYSTEM_LINES = (
    Column("time", "created_at", "time"),
    Column("level", "log_level", "word"),
    Column("component", "component"),
    Column("message", "message", grows=True),
    Column("details", "details", "json", spare=1, grows=True),
)
BOARD = (
    Column("", "sign", "word"),
    Column("agent", "id", "id"),
    Column("name", "definition_name", grows=True),
    Column("status", "status", "word"),
    Column("age", "seconds", "duration"),
    Column("idle", "idle_seconds", "duration", spare=1),
    Column("cost", "cost_usd", "money", spare=2),
    Column("last line", "last_message", grows=True),
)

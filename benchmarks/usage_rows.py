"""A million prompts of 40,000 agents in 2,000 sessions, three months of them: the same rows on each engine."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from benchmarks.workload import SCHEMA

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 90
PROMPTS_AN_AGENT = 25
LARGE_SESSION, LARGE = "session-000007", 200
MODELS = ("claude-opus-4-1", "claude-sonnet-4-5", "claude-haiku-4-5", "gpt-5", "gpt-5-mini", "gemini-2.5-pro")
TEXT = "Read the module and say what it does, then write a test for each of its functions. " * 2
CONTEXT = '{"goal": "write a benchmark", "files": ["a.py", "b.py"], "depth": 2}'

DEFINITION_COLUMNS = ("id", "name", "agent_type")
AGENT_COLUMNS = (
    *("id", "orchestrator_agent_id", "session_id", "parent_agent_id", "status", "context", "cost_usd", "created_at"),
)
PROMPT_COLUMNS = (
    *("id", "agent_id", "prompt_type", "prompt_text", "status", "model_used", "tokens_input", "tokens_output"),
    *("tokens_cache_read", "tokens_cache_write", "cost_usd", "latency_ms", "created_at"),
)


class Size(NamedTuple):
    """How much there is.

    Attributes:
        agents: Of which each has ``PROMPTS_AN_AGENT`` prompts.
        sessions: One of which has ``LARGE`` agents.
    """

    agents: int = 40_000
    sessions: int = 2_000


def row_id(kind: int, number: int) -> str:
    """The id of a row."""
    return f"0190000{kind}-0000-7000-8000-{number:012x}"


def definitions() -> list[tuple[Any, ...]]:
    """The definitions."""
    return [(row_id(1, number), f"definition-{number}", "utility") for number in range(40)]


def agents(size: Size) -> Iterator[tuple[Any, ...]]:
    """The agents, each behind its parent, from one session to the next."""
    chance = random.Random(1)
    others = (size.agents - LARGE) // (size.sessions - 1)
    number = 0
    for session in range(size.sessions):
        first = number
        name = f"session-{session:06}"
        created = START + timedelta(days=DAYS) * session / size.sessions
        for place in range(LARGE if name == LARGE_SESSION else others):
            parent = row_id(2, chance.randrange(first, number)) if place else None
            cost = chance.choice((0.0, 0.0, 0.0, 40.0))
            yield (
                *(row_id(2, number), row_id(1, chance.randrange(40)), name, parent, "completed", CONTEXT, cost),
                created + timedelta(seconds=place),
            )
            number += 1


def prompts(size: Size) -> Iterator[tuple[Any, ...]]:
    """The prompts, in time."""
    chance = random.Random(2)
    number = 0
    for agent in agents(size):
        for place in range(PROMPTS_AN_AGENT):
            yield (
                *(row_id(3, number), agent[0], "command", TEXT, "failed" if chance.random() < 0.05 else "completed"),
                *(chance.choice(MODELS), chance.randrange(5_000), chance.randrange(1_000), chance.randrange(50_000)),
                *(chance.randrange(500), round(chance.random() / 3, 9), chance.randrange(200, 20_000)),
                agent[-1] + timedelta(seconds=30 * place, microseconds=chance.randrange(10**6)),
            )
            number += 1


def fill_file(path: Path, size: Size) -> None:
    """Make an SQLite file with the rows."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(SCHEMA.read_text(encoding="utf-8"))
    tables = (
        ("orchestrator_agents", DEFINITION_COLUMNS, iter(definitions())),
        ("agents", AGENT_COLUMNS, agents(size)),
        ("prompts", PROMPT_COLUMNS, prompts(size)),
    )
    for table, columns, rows in tables:
        marks = ", ".join("?" * len(columns))
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
            ([_text(value) for value in row] for row in rows),
        )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _text(value: Any) -> Any:
    return value.isoformat(timespec="microseconds")[:26] if isinstance(value, datetime) else value


async def fill_server(connection: asyncpg.Connection, size: Size) -> None:
    """Add the rows to a database with empty tables."""
    await connection.copy_records_to_table("orchestrator_agents", records=definitions(), columns=DEFINITION_COLUMNS)
    await connection.copy_records_to_table("agents", records=agents(size), columns=AGENT_COLUMNS)
    await connection.copy_records_to_table("prompts", records=prompts(size), columns=PROMPT_COLUMNS)
    await connection.execute("VACUUM ANALYZE")

"""What several test files share: a view of the database from outside, and a call of each operation."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url, text

from orchdb import DatabaseManager, Transaction
from orchdb.operations import Operations

TABLES = ("orchestrator_agents", "agents", "prompts", "agent_logs", "system_logs")
NO_ROW = "01890000-0000-7000-8000-000000000000"
"""An id that is well formed and that no row has."""

ONE_FORM = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}"
"""The one form of a time."""

OPERATIONS: Mapping[str, tuple[object, ...]] = {
    "create_orchestrator_agent": ("scout",),
    "get_orchestrator_agent": (NO_ROW,),
    "list_orchestrator_agents": (),
    "update_orchestrator_agent": (NO_ROW,),
    "delete_orchestrator_agent": (NO_ROW,),
    "restore_orchestrator_agent": (NO_ROW,),
    "get_or_create_orchestrator_agent": ("builder",),
    "create_agent": (NO_ROW, "session-1"),
    "get_agent": (NO_ROW,),
    "list_agents": (),
    "update_agent": (NO_ROW,),
    "add_agent_cost": (NO_ROW, 0.5),
    "delete_agent": (NO_ROW,),
    "restore_agent": (NO_ROW,),
    "create_prompt": (NO_ROW, "adw", "Plan it"),
    "create_prompts": ([],),
    "get_prompt": (NO_ROW,),
    "list_prompts": (NO_ROW,),
    "update_prompt": (NO_ROW,),
    "add_prompt_usage": (NO_ROW,),
    "complete_prompt": (NO_ROW,),
    "append_prompt_response": (NO_ROW, "text"),
    "delete_prompt": (NO_ROW,),
    "restore_prompt": (NO_ROW,),
    "create_agent_log": (NO_ROW, "INFO", "milestone", "Half way"),
    "create_agent_logs": ([],),
    "get_agent_logs": (NO_ROW,),
    "get_agent_logs_by_type": (NO_ROW, "milestone"),
    "get_logs_by_type": ("milestone",),
    "list_recent_agent_logs": (),
    "get_recent_logs": (),
    "cleanup_old_logs": (),
    "prune": ("2026-01-01",),
    "create_system_log": ("INFO", "scheduler", "Started"),
    "create_system_logs": ([],),
    "get_system_logs": (),
    "list_recent_system_logs": (),
    "usage": (),
    "agent_tree": ("session-1",),
}
"""Each operation that raises when it cannot run, with arguments that are in order."""


async def call(db: Operations, operation: str, *arguments: Any, **options: Any) -> Any:
    """Call an operation by its name, with arguments that a type checker would refuse."""
    return await getattr(db, operation)(*arguments, **options)


async def dump(db: DatabaseManager | Transaction) -> dict[str, list[dict[str, Any]]]:
    """Everything that is stored, as the engine gives it."""
    assert db.conn is not None
    tables: dict[str, list[dict[str, Any]]] = {}
    for table in TABLES:
        result = await db.conn.execute(text(f"SELECT * FROM {table} ORDER BY id"))
        tables[table] = [dict(row) for row in result.mappings()]
    return tables


async def count(db: DatabaseManager, table: str) -> int:
    """How many rows a table has."""
    return len((await dump(db))[table])


@contextmanager
def other_program(path: Path) -> Iterator[sqlite3.Connection]:
    """A program that works on the file with plain SQL, each statement committed at once."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    connection.execute("PRAGMA foreign_keys = ON")
    try:
        yield connection
    finally:
        connection.close()


def run_elsewhere(url: str, *statements: str) -> list[Any]:
    """What another program, on either engine, does with plain SQL, each statement committed; the rows of the last."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        with other_program(Path(address.database or "")) as connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as server:
        cursors = [server.execute(statement.encode()) for statement in statements]
        return cursors[-1].fetchall() if cursors[-1].description else []


@contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    """A program that holds the write lock of the file."""
    with other_program(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def complaints(stderr: str) -> str:
    """What a program wrote there, but for the slow steps that asyncio reports in its debug mode."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("Executing <"))


async def collected(rows: AsyncIterator[Any]) -> list[Any]:
    """All that an async iterator gives."""
    return [row async for row in rows]


async def taken(rows: AsyncIterator[Any], number: int) -> list[Any]:
    """The next ones that an async iterator gives."""
    async with asyncio.timeout(20):
        return [await anext(rows) for _ in range(number)]


async def line_of(db: DatabaseManager, length: int) -> list[str]:
    """Agents of which each is the parent of the next."""
    definition = await db.create_orchestrator_agent("scout")
    agents = [await db.create_agent(definition, "session-1")]
    while len(agents) < length:
        agents.append(await db.create_agent(definition, "session-1", parent_agent_id=agents[-1]))
    return agents


async def parents(db: DatabaseManager) -> dict[str, str | None]:
    """The parent of each agent, deleted ones included."""
    return {row["id"]: row["parent_agent_id"] for row in await db.list_agents(include_deleted=True)}


async def has_circle(db: DatabaseManager) -> bool:
    """Whether somebody is their own ancestor."""
    above = await parents(db)
    for start in above:
        agent, steps = above[start], 0
        while agent is not None and steps <= len(above):
            agent, steps = above[agent], steps + 1
        if agent is not None:
            return True
    return False

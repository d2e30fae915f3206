"""Postgres: orchdb, the raw drivers with a pool of ten, and stock SQLAlchemy, all on the same table."""

# ruff: noqa: PLC0415  # each process imports only its own contestant

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from benchmarks import workload
from benchmarks.contestants.base import Contestant
from benchmarks.contestants.sqlite_drivers import Orchdb, SqlAlchemyCore, core_tables
from benchmarks.workload import AGENT_JSON, Change, Log, decoded_agent, decoded_log

POOL = 10


def numbered(statement: str) -> str:
    """The statement with Postgres' own parameters."""
    parts = statement.split("?")
    return "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]


def log_values(line: Log) -> tuple[Any, ...]:
    """The line as the drivers take it."""
    return (line.agent_id, line.log_level, line.log_type, line.message, json.dumps(line.details), datetime.now(UTC))


def change_values(made: Change) -> tuple[Any, ...]:
    """The change as the drivers take it."""
    return (made.cost_usd, made.error_message, json.dumps(made.metadata), datetime.now(UTC), made.agent_id)


class OnPostgres(Contestant):
    """Counts by a connection of its own."""

    async def count(self) -> int:
        import asyncpg

        connection = await asyncpg.connect(self.place)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM agent_logs"))
        finally:
            await connection.close()


class OrchdbAsyncpg(OnPostgres, Orchdb):
    title = "orchdb"
    needs = ("sqlalchemy", "asyncpg", "orjson")


class OrchdbPsycopg(OnPostgres, Orchdb):
    title = "orchdb on psycopg"
    needs = ("sqlalchemy", "psycopg", "asyncpg", "orjson")

    async def open(self) -> None:
        from orchdb import DatabaseManager

        self.db = DatabaseManager(self.place.replace("postgresql://", "postgresql+psycopg://"))
        await self.db.connect()


class RawAsyncpg(OnPostgres):
    title = "asyncpg"
    needs = ("asyncpg",)
    how = "a pool of ten, each statement commits by itself; `fetchval` with RETURNING id, `executemany`; JSON by `json`"
    INSERT = numbered(workload.INSERT_LOG) + " RETURNING id"
    UPDATE = numbered(workload.UPDATE_AGENT)
    GET = numbered(workload.GET_AGENT)
    LATEST = numbered(workload.LATEST_LOGS)

    async def open(self) -> None:
        import asyncpg

        self.pool = await asyncpg.create_pool(self.place, min_size=POOL, max_size=POOL)

    async def close(self) -> None:
        await self.pool.close()

    async def append(self, line: Log) -> None:
        await self.pool.fetchval(self.INSERT, *log_values(line))

    async def update(self, made: Change) -> None:
        await self.pool.execute(self.UPDATE, *change_values(made))

    async def bulk(self, lines: Sequence[Log]) -> None:
        await self.pool.executemany(numbered(workload.INSERT_LOG), [log_values(line) for line in lines])

    async def get(self, agent_id: str) -> dict[str, Any]:
        row = dict(await self.pool.fetchrow(self.GET, agent_id))
        return decoded_agent(row)

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        return [decoded_log(dict(row)) for row in await self.pool.fetch(self.LATEST, agent_id, "tool_call", count)]


class AsyncpgCopy(RawAsyncpg):
    """The same with COPY for the bulk."""

    title = "asyncpg, `copy_records_to_table`"
    how = "as asyncpg, but the bulk goes by COPY"

    async def bulk(self, lines: Sequence[Log]) -> None:
        columns = workload.LOG_COLUMNS[1:]
        async with self.pool.acquire() as connection:
            await connection.copy_records_to_table(
                "agent_logs", records=[log_values(line) for line in lines], columns=columns
            )


class RawPsycopg(OnPostgres):
    title = "psycopg"
    needs = ("psycopg", "asyncpg")
    how = "ten connections in a queue, autocommit; `executemany` in a transaction; JSON decoded by the driver"
    INSERT = workload.INSERT_LOG.replace("?", "%s") + " RETURNING id"

    async def open(self) -> None:
        import psycopg
        from psycopg.rows import dict_row

        self.idle: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(POOL):
            connect = psycopg.AsyncConnection.connect
            self.idle.put_nowait(await connect(self.place, autocommit=True, row_factory=dict_row))  # type: ignore[arg-type]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        connection = await self.idle.get()
        try:
            yield connection
        finally:
            self.idle.put_nowait(connection)

    async def close(self) -> None:
        for _ in range(POOL):
            await (await self.idle.get()).close()

    async def append(self, line: Log) -> None:
        async with self.connection() as connection:
            await (await connection.execute(self.INSERT, log_values(line))).fetchone()

    async def update(self, made: Change) -> None:
        async with self.connection() as connection:
            await connection.execute(workload.UPDATE_AGENT.replace("?", "%s"), change_values(made))

    async def bulk(self, lines: Sequence[Log]) -> None:
        async with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(workload.INSERT_LOG.replace("?", "%s"), [log_values(line) for line in lines])

    async def get(self, agent_id: str) -> dict[str, Any]:
        async with self.connection() as connection:
            found = await connection.execute(workload.GET_AGENT.replace("?", "%s"), (agent_id,))
            row: dict[str, Any] = await found.fetchone()
        assert all(row[name] is None or isinstance(row[name], dict) for name in AGENT_JSON)
        return row

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        async with self.connection() as connection:
            found = await connection.execute(workload.LATEST_LOGS.replace("?", "%s"), (agent_id, "tool_call", count))
            rows: Sequence[Any] = await found.fetchall()
        return rows


class CoreAsyncpg(OnPostgres, SqlAlchemyCore):
    title = "SQLAlchemy Core"
    needs = ("sqlalchemy", "asyncpg")

    async def open(self) -> None:
        from sqlalchemy import make_url
        from sqlalchemy.ext.asyncio import create_async_engine

        url = make_url(self.place).set(drivername="postgresql+asyncpg")
        self.engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
        self.logs, self.agents = core_tables(postgres=True)

    def present(self) -> Any:
        return datetime.now(UTC)

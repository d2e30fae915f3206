"""SQLite: orchdb, the raw drivers and stock SQLAlchemy, all on the same table."""

# ruff: noqa: PLC0415  # each process imports only its own contestant

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import workload
from benchmarks.contestants.base import Contestant
from benchmarks.workload import Change, Log, change_parameters, decoded_agent, decoded_log, log_parameters


class Orchdb(Contestant):
    title = "orchdb"
    needs = ("sqlalchemy", "aiosqlite", "orjson")
    how = "`create_agent_log`, `update_agent`, `create_agent_logs`, `get_agent`, `get_agent_logs_by_type`"

    async def open(self) -> None:
        from orchdb import DatabaseManager

        self.db = DatabaseManager(self.place)
        await self.db.connect()

    async def close(self) -> None:
        await self.db.close()

    async def append(self, line: Log) -> None:
        await self.db.create_agent_log(*line)  # type: ignore[arg-type]

    async def update(self, made: Change) -> None:
        agent_id, cost, message, metadata = made
        await self.db.update_agent(agent_id, cost_usd=cost, error_message=message, metadata=metadata)

    async def bulk(self, lines: Sequence[Log]) -> None:
        await self.db.create_agent_logs(line._asdict() for line in lines)  # type: ignore[misc]

    async def get(self, agent_id: str) -> dict[str, Any]:
        row = await self.db.get_agent(agent_id)
        assert row is not None
        return dict(row)

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        return await self.db.get_agent_logs_by_type(agent_id, "tool_call", count)


class RawAiosqlite(Contestant):
    title = "aiosqlite"
    needs = ("aiosqlite",)
    how = "`execute`, `commit` (after a failure `rollback`) on one shared connection, `async with execute` and `fetch…`"

    async def open(self) -> None:
        import aiosqlite

        self.db = await aiosqlite.connect(self.place)
        self.db.row_factory = sqlite3.Row
        for pragma in workload.PRAGMAS:
            await self.db.execute(pragma)

    async def close(self) -> None:
        await self.db.close()

    async def append(self, line: Log) -> None:
        try:
            await self.db.execute(workload.INSERT_LOG, log_parameters(line))
            await self.db.commit()
        except sqlite3.Error:
            await self.db.rollback()
            raise

    async def update(self, made: Change) -> None:
        await self.db.execute(workload.UPDATE_AGENT, change_parameters(made))
        await self.db.commit()

    async def bulk(self, lines: Sequence[Log]) -> None:
        await self.db.executemany(workload.INSERT_LOG, [log_parameters(line) for line in lines])
        await self.db.commit()

    async def get(self, agent_id: str) -> dict[str, Any]:
        async with self.db.execute(workload.GET_AGENT, (agent_id,)) as cursor:
            row = await cursor.fetchone()
        assert row is not None
        return decoded_agent(dict(row))

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        async with self.db.execute(workload.LATEST_LOGS, (agent_id, "tool_call", count)) as cursor:
            rows = await cursor.fetchall()
        return [decoded_log(dict(row)) for row in rows]


class ShortcutAiosqlite(RawAiosqlite):
    """The same with the driver's own short cuts, which few programs use."""

    title = "aiosqlite, `execute_fetchall`"
    how = "as aiosqlite, but reads with the one-hop `execute_fetchall`"

    async def get(self, agent_id: str) -> dict[str, Any]:
        (row,) = await self.db.execute_fetchall(workload.GET_AGENT, (agent_id,))
        return decoded_agent(dict(row))

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        rows = await self.db.execute_fetchall(workload.LATEST_LOGS, (agent_id, "tool_call", count))
        return [decoded_log(dict(row)) for row in rows]


class RawSqlite(Contestant):
    title = "sqlite3"
    how = "synchronous: every call blocks the event loop"

    async def open(self) -> None:
        self.db = sqlite3.connect(self.place)
        self.db.row_factory = sqlite3.Row
        for pragma in workload.PRAGMAS:
            self.db.execute(pragma)

    async def close(self) -> None:
        self.db.close()

    async def append(self, line: Log) -> None:
        with self.db:
            self.db.execute(workload.INSERT_LOG, log_parameters(line))

    async def update(self, made: Change) -> None:
        with self.db:
            self.db.execute(workload.UPDATE_AGENT, change_parameters(made))

    async def bulk(self, lines: Sequence[Log]) -> None:
        with self.db:
            self.db.executemany(workload.INSERT_LOG, [log_parameters(line) for line in lines])

    async def get(self, agent_id: str) -> dict[str, Any]:
        return decoded_agent(dict(self.db.execute(workload.GET_AGENT, (agent_id,)).fetchone()))

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        rows = self.db.execute(workload.LATEST_LOGS, (agent_id, "tool_call", count)).fetchall()
        return [decoded_log(dict(row)) for row in rows]


class Apsw(Contestant):
    title = "apsw `async_run`"
    needs = ("apsw",)
    how = "the whole operation, its transaction and its JSON in one call in the connection's thread"

    async def open(self) -> None:
        import apsw

        self.db: Any = await apsw.Connection.as_async(self.place)
        for pragma in workload.PRAGMAS:
            await self.db.async_run(lambda text: self.db.execute(text).fetchall(), pragma)

    async def close(self) -> None:
        await self.db.aclose()

    async def append(self, line: Log) -> None:
        await self.db.async_run(self._write, workload.INSERT_LOG, log_parameters, line)

    async def update(self, made: Change) -> None:
        await self.db.async_run(self._write, workload.UPDATE_AGENT, change_parameters, made)

    def _write(self, statement: str, parameters: Callable[[Any], tuple[Any, ...]], values: Any) -> None:
        with self.db:
            self.db.execute(statement, parameters(values))

    async def bulk(self, lines: Sequence[Log]) -> None:
        def run() -> None:
            with self.db:
                self.db.executemany(workload.INSERT_LOG, [log_parameters(line) for line in lines])

        await self.db.async_run(run)

    async def get(self, agent_id: str) -> dict[str, Any]:
        (row,) = await self.db.async_run(self._read, workload.GET_AGENT, (agent_id,))
        return decoded_agent(row)

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        rows = await self.db.async_run(self._read, workload.LATEST_LOGS, (agent_id, "tool_call", count))
        return [decoded_log(row) for row in rows]

    def _read(self, statement: str, parameters: tuple[Any, ...]) -> list[dict[str, Any]]:
        cursor = self.db.execute(statement, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    async def count(self) -> int:
        # Never by the standard library's SQLite: two of them in one process on one file break its locks.
        return int((await self.db.async_run(self._read, "SELECT count(*) AS n FROM agent_logs", ()))[0]["n"])


class SqlAlchemyCore(Contestant):
    title = "SQLAlchemy Core"
    needs = ("sqlalchemy", "aiosqlite")
    how = "stock engine and pool, `async with engine.begin()`; its tables with SQLAlchemy's own types"

    async def open(self) -> None:
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine

        self.engine = create_async_engine(f"sqlite+aiosqlite:///{self.place}")

        @event.listens_for(self.engine.sync_engine, "connect")
        def on_connect(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 30000")
            for pragma in workload.PRAGMAS:
                cursor.execute(pragma)
            cursor.close()

        self.logs, self.agents = core_tables()

    async def close(self) -> None:
        await self.engine.dispose()

    async def append(self, line: Log) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(self.logs.insert(), self.values(line))

    def values(self, line: Log) -> dict[str, Any]:
        return {**line._asdict(), "created_at": self.present()}

    async def update(self, made: Change) -> None:
        agent_id, cost, message, metadata = made
        table = self.agents
        changes = {"cost_usd": cost, "error_message": message, "metadata": metadata, "updated_at": self.present()}
        async with self.engine.begin() as connection:
            await connection.execute(
                table.update().where(table.c.id == agent_id, table.c.deleted_at.is_(None)).values(changes)
            )

    def present(self) -> Any:
        return workload.now_text()

    async def bulk(self, lines: Sequence[Log]) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(self.logs.insert(), [self.values(line) for line in lines])

    async def get(self, agent_id: str) -> dict[str, Any]:
        table = self.agents
        async with self.engine.connect() as connection:
            found = await connection.execute(table.select().where(table.c.id == agent_id, table.c.deleted_at.is_(None)))
            return dict(found.mappings().one())

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        columns = self.logs.c
        statement = (
            self.logs.select()
            .where(columns.agent_id == agent_id, columns.log_type == "tool_call")
            .order_by(columns.created_at.desc(), columns.id.desc())
            .limit(count)
        )
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(statement)).mappings()]


def core_tables(*, postgres: bool = False) -> tuple[Any, Any]:
    """The two tables in SQLAlchemy's own types."""
    from sqlalchemy import JSON, BigInteger, Column, Float, MetaData, Table, Text
    from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID

    metadata = MetaData()
    key: Any = UUID(as_uuid=False) if postgres else Text()
    moment: Any = TIMESTAMP(timezone=True) if postgres else Text()
    document: Any = JSONB() if postgres else JSON()
    logs = Table(
        "agent_logs",
        metadata,
        Column("id", BigInteger(), primary_key=True, autoincrement=True),
        Column("agent_id", key),
        *(Column(name, Text()) for name in ("log_level", "log_type", "message")),
        Column("details", document),
        Column("created_at", moment),
    )
    agents = Table(
        "agents",
        metadata,
        Column("id", key, primary_key=True),
        *(Column(name, key) for name in ("orchestrator_agent_id", "parent_agent_id")),
        *(Column(name, Text()) for name in ("session_id", "status", "error_message")),
        *(Column(name, document) for name in workload.AGENT_JSON),
        *(Column(name, moment) for name in ("started_at", "completed_at", "created_at", "updated_at", "deleted_at")),
        Column("cost_usd", Float()),
    )
    return logs, agents

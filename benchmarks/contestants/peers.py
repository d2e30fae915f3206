"""SQLite: what people install today to keep what their agents did, each as it comes.

The two object mappers work on orchdb's tables; the session stores have tables of their own, and what of theirs comes
nearest to an operation stands in ``how``.
"""

# ruff: noqa: PLC0415  # each process imports only its own contestant

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks import workload
from benchmarks.contestants.base import Contestant, multiply
from benchmarks.workload import AGENT_IDS, PREPARED_LOGS, Change, Log


class SqlModel(Contestant):
    title = "sqlmodel"
    needs = ("sqlmodel", "aiosqlite")
    share = 0.5
    how = "`AsyncSession.add` and `commit`, `session.get`, `select(…)`; WAL, NORMAL"

    async def open(self) -> None:
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine

        from benchmarks.contestants.sqlmodel_tables import Agent, AgentLog

        self.Agent, self.AgentLog = Agent, AgentLog
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{self.place}")

        @event.listens_for(self.engine.sync_engine, "connect")
        def on_connect(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 30000")
            for pragma in workload.PRAGMAS:
                cursor.execute(pragma)
            cursor.close()

    def session(self) -> Any:
        from sqlmodel.ext.asyncio.session import AsyncSession

        return AsyncSession(self.engine, expire_on_commit=False)

    async def close(self) -> None:
        await self.engine.dispose()

    async def append(self, line: Log) -> None:
        async with self.session() as session:
            session.add(self.AgentLog(**line._asdict(), created_at=workload.now_text()))
            await session.commit()

    async def update(self, made: Change) -> None:
        agent_id, cost, message, metadata = made
        async with self.session() as session:
            agent = await session.get(self.Agent, agent_id)
            agent.cost_usd, agent.error_message, agent.metadata_ = cost, message, metadata
            agent.updated_at = workload.now_text()
            await session.commit()

    async def bulk(self, lines: Sequence[Log]) -> None:
        async with self.session() as session:
            session.add_all([self.AgentLog(**line._asdict(), created_at=workload.now_text()) for line in lines])
            await session.commit()

    async def get(self, agent_id: str) -> dict[str, Any]:
        async with self.session() as session:
            agent = await session.get(self.Agent, agent_id)
        row: dict[str, Any] = agent.model_dump()
        return row

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        from sqlmodel import col, select

        log = self.AgentLog
        statement = (
            select(log)
            .where(log.agent_id == agent_id, log.log_type == "tool_call")
            .order_by(col(log.created_at).desc(), col(log.id).desc())
            .limit(count)
        )
        async with self.session() as session:
            return [row.model_dump() for row in (await session.exec(statement)).all()]


class Tortoise(Contestant):
    title = "tortoise-orm"
    needs = ("tortoise-orm", "aiosqlite")
    share = 0.5
    how = "`Model.create`, `filter(…).update`, `bulk_create`, `filter(…).values`; WAL, NORMAL"

    async def open(self) -> None:
        from tortoise import Tortoise as Orm

        from benchmarks.contestants import tortoise_tables

        self.models = tortoise_tables
        await Orm.init(
            db_url=f"sqlite://{self.place}?synchronous=NORMAL&busy_timeout=30000",
            modules={"models": ["benchmarks.contestants.tortoise_tables"]},
            _enable_global_fallback=True,
        )

    async def close(self) -> None:
        from tortoise.connection import get_connections

        await get_connections().close_all()

    async def append(self, line: Log) -> None:
        await self.models.AgentLog.create(**line._asdict(), created_at=workload.now_text())

    async def update(self, made: Change) -> None:
        agent_id, cost, message, metadata = made
        await self.models.Agent.filter(id=agent_id, deleted_at=None).update(
            cost_usd=cost, error_message=message, metadata=metadata, updated_at=workload.now_text()
        )

    async def bulk(self, lines: Sequence[Log]) -> None:
        moment = workload.now_text()
        await self.models.AgentLog.bulk_create(
            [self.models.AgentLog(**line._asdict(), created_at=moment) for line in lines]
        )

    async def get(self, agent_id: str) -> dict[str, Any]:
        (row,) = await self.models.Agent.filter(id=agent_id, deleted_at=None).values()
        return dict(row)

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        found = self.models.AgentLog.filter(agent_id=agent_id, log_type="tool_call")
        return await found.order_by("-created_at", "-id").limit(count).values()


class AgentsSession(Contestant):
    """One session for each agent, and an item for each line."""

    title = "openai-agents `SQLiteSession`"
    needs = ("openai-agents",)
    same_table = False
    fails = False
    table = "agent_messages"
    share = 0.25
    how = "`add_items([item])`, `add_items` of all, `get_items(limit=100)`; its own tables and settings"

    async def open(self) -> None:
        self.sessions = {agent_id: self.session(agent_id) for agent_id in AGENT_IDS}

    def session(self, agent_id: str) -> Any:
        from agents import SQLiteSession

        return SQLiteSession(agent_id, self.place)

    async def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    async def prepare(self) -> None:
        lines = [workload.log(number) for number in range(PREPARED_LOGS)]
        for agent_id, session in self.sessions.items():
            await session.add_items([item(line) for line in lines if line.agent_id == agent_id])

    async def append(self, line: Log) -> None:
        await self.sessions[line.agent_id].add_items([item(line)])

    async def bulk(self, lines: Sequence[Log]) -> None:
        await self.sessions[AGENT_IDS[0]].add_items([item(line) for line in lines])

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        found: Sequence[Any] = await self.sessions[agent_id].get_items(limit=count)
        return found


class AgentsSqlAlchemySession(AgentsSession):
    title = "openai-agents `SQLAlchemySession`"
    needs = ("openai-agents", "sqlalchemy", "aiosqlite")
    share = 0.1

    async def open(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        self.engine = create_async_engine(f"sqlite+aiosqlite:///{self.place}")
        await super().open()
        await self.sessions[AGENT_IDS[0]].get_items(limit=1)  # makes the tables before many tasks would

    def session(self, agent_id: str) -> Any:
        from agents.extensions.memory import SQLAlchemySession

        return SQLAlchemySession(agent_id, engine=self.engine, create_tables=True)

    async def close(self) -> None:
        await self.engine.dispose()


def item(line: Log) -> Any:
    """The line as an item of a conversation."""
    return {"role": "assistant", "type": line.log_type, "content": line.message, "details": line.details}


class Langgraph(Contestant):
    """One thread for each agent, and a checkpoint for each line."""

    title = "langgraph `AsyncSqliteSaver`"
    needs = ("langgraph-checkpoint-sqlite",)
    same_table = False
    fails = False
    table = "checkpoints"
    share = 0.25
    how = "`aput`, `aget_tuple` by id, `alist(limit=100)`; its own tables and settings"

    async def open(self) -> None:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        self.manager = AsyncSqliteSaver.from_conn_string(self.place)
        self.saver = await self.manager.__aenter__()
        self.known: dict[str, str] = {}

    async def close(self) -> None:
        await self.manager.__aexit__(None, None, None)

    async def prepare(self) -> None:
        seeds = PREPARED_LOGS // 100
        for number in range(seeds):
            await self.append(workload.log(number))
        multiply(self.place, "checkpoints", "checkpoint_id", 99)

    async def append(self, line: Log) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        config: Any = {"configurable": {"thread_id": line.agent_id, "checkpoint_ns": ""}}
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"line": line._asdict()}
        await self.saver.aput(config, checkpoint, {"source": "loop", "step": 1}, {})
        self.known[line.agent_id] = checkpoint["id"]

    async def get(self, agent_id: str) -> dict[str, Any]:
        key = {"thread_id": agent_id, "checkpoint_ns": "", "checkpoint_id": self.known[agent_id]}
        found: Any = await self.saver.aget_tuple({"configurable": key})
        values: dict[str, Any] = found.checkpoint["channel_values"]["line"]
        return values

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        config: Any = {"configurable": {"thread_id": agent_id, "checkpoint_ns": ""}}
        return [found async for found in self.saver.alist(config, limit=count)]


class Adk(Contestant):
    """One session for each agent, and an event for each line."""

    title = "google-adk `DatabaseSessionService`"
    needs = ("google-adk", "sqlalchemy", "aiosqlite")
    same_table = False
    fails = False
    table = "events"
    share = 0.05
    how = "`append_event`, `get_session(num_recent_events=100)`; its own tables and settings"

    async def open(self) -> None:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        from google.adk.sessions import DatabaseSessionService

        self.service = DatabaseSessionService(db_url=f"sqlite+aiosqlite:///{self.place}")
        self.sessions = {
            agent_id: await self.service.create_session(app_name="bench", user_id="user", session_id=agent_id)
            for agent_id in AGENT_IDS
        }

    async def close(self) -> None:
        await self.service.close()

    async def prepare(self) -> None:
        seeds = PREPARED_LOGS // 1000
        for number in range(seeds):
            await self.append(workload.log(number))
        multiply(self.place, "events", "id", 999)

    async def append(self, line: Log) -> None:
        from google.adk.events import Event
        from google.genai.types import Content, Part

        event = Event(
            id=str(uuid.uuid4()),
            author="agent",
            content=Content(role="model", parts=[Part(text=line.message)]),
            custom_metadata=line.details,
            timestamp=datetime.now(UTC).timestamp(),
        )
        session = self.sessions[line.agent_id]
        session.events.clear()  # the service keeps every event in memory too; that is not what is measured
        await self.service.append_event(session, event)

    async def latest(self, agent_id: str, count: int) -> Sequence[Any]:
        from google.adk.sessions.base_session_service import GetSessionConfig

        found = await self.service.get_session(
            app_name="bench", user_id="user", session_id=agent_id, config=GetSessionConfig(num_recent_events=count)
        )
        assert found is not None
        return found.events

"""orchdb's tables as sqlmodel sees them."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class AgentLog(SQLModel, table=True):
    """A line of a log."""

    __tablename__ = "agent_logs"

    id: int | None = Field(default=None, primary_key=True)
    agent_id: str
    log_level: str
    log_type: str
    message: str
    details: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    created_at: str


class Agent(SQLModel, table=True):
    """An agent."""

    __tablename__ = "agents"

    id: str = Field(primary_key=True)
    orchestrator_agent_id: str
    session_id: str
    parent_agent_id: str | None = None
    status: str
    context: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    config: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    started_at: str | None = None
    completed_at: str | None = None
    cost_usd: float | None = None
    error_message: str | None = None
    created_at: str
    updated_at: str
    metadata_: dict[str, Any] | None = Field(default=None, sa_column=Column("metadata", JSON))
    deleted_at: str | None = None

"""Pydantic models: one per table, each validates a row as the manager returns it and serialises to the same row.

In Python an id is a ``uuid.UUID`` and a time an aware ``datetime`` in UTC; ``model_dump(mode="json")`` gives back the
very row, also one that went through JSON. A row's time that another program wrote and nobody understands is an
``UnreadableTime``: SQLite may hold any text there, so none is refused.

Not imported by ``orchdb`` itself, so that only those who use the models pay for their import.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer, WithJsonSchema

from orchdb.rows import AgentStatus, LogLevel, PromptStatus
from orchdb.schema.values import MAX_INTEGER, moment, time_text

__all__ = ["Agent", "AgentLog", "OrchestratorAgent", "Prompt", "SystemLog", "UnreadableTime"]


class _StoredUUID(uuid.UUID):
    """A UUID that remembers its text: SQLite compares ids as text, and ``uuidgen`` writes capitals on some systems."""

    __slots__ = ("text",)
    text: str

    def __init__(self, text: str) -> None:
        super().__init__(text)
        object.__setattr__(self, "text", text)  # a UUID refuses to be changed, also by itself

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[_StoredUUID], tuple[str]]:
        return _StoredUUID, (self.text,)


def _read_id(value: object) -> object:
    if isinstance(value, str):
        # Other spellings (braces, "urn:uuid:", no hyphens) would find no row on one engine and one row on the other.
        if len(value) != 36 or [index for index, letter in enumerate(value) if letter == "-"] != [8, 13, 18, 23]:
            raise ValueError("must be a UUID as text of 36 characters")
        return _StoredUUID(value)
    if isinstance(value, uuid.UUID):
        return value
    raise ValueError("must be a UUID")


class UnreadableTime(datetime):
    """What another program wrote in the place of a time: as a ``datetime`` the last there is, so that it is never old.

    Attributes:
        text: What is shown for it.
    """

    text: str

    def __new__(cls, text: str) -> UnreadableTime:
        last = super().__new__(cls, 9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
        last.text = text
        return last

    def __reduce_ex__(self, protocol: object) -> tuple[type[UnreadableTime], tuple[str]]:
        return UnreadableTime, (self.text,)


def _read_time(value: object) -> object:
    if isinstance(value, UnreadableTime):
        return value
    try:
        return moment(value, "time")
    except ValueError:
        if isinstance(value, str):
            return UnreadableTime(value)
        raise


def _time_text(value: datetime) -> str:
    return str(value.text) if isinstance(value, UnreadableTime) else time_text(value)


_Id = Annotated[
    uuid.UUID,
    BeforeValidator(_read_id),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
_Time = Annotated[
    datetime,
    BeforeValidator(_read_time),
    PlainSerializer(_time_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["2026-02-04T10:30:00.000000"]}),
]
_Count = Annotated[int, Field(strict=True, ge=-MAX_INTEGER - 1, le=MAX_INTEGER)]  # another program's may be below 0
_Cost = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_LogId = Annotated[int, Field(strict=True)]


class _Row(BaseModel):
    """A row of a table: exactly its columns, no more and no fewer."""

    # Prompts are private: what is wrong is said without the value. ``model_used`` is a column, not Pydantic's own.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())


class OrchestratorAgent(_Row):
    """A definition of an agent, as ``get_orchestrator_agent`` returns it: the fields of ``OrchestratorAgentRow``."""

    id: _Id
    name: str
    description: str | None
    agent_type: str
    capabilities: str | None
    default_model: str | None
    created_at: _Time
    updated_at: _Time
    metadata: JsonValue
    deleted_at: _Time | None


class Agent(_Row):
    """A running instance of an agent, as ``get_agent`` returns it: the fields of ``AgentRow``."""

    id: _Id
    orchestrator_agent_id: _Id
    session_id: str
    parent_agent_id: _Id | None
    status: AgentStatus
    context: JsonValue
    config: JsonValue
    started_at: _Time | None
    completed_at: _Time | None
    cost_usd: _Cost | None
    error_message: str | None
    created_at: _Time
    updated_at: _Time
    metadata: JsonValue
    deleted_at: _Time | None


class Prompt(_Row):
    """A prompt and its response, as ``get_prompt`` returns it: the fields of ``PromptRow``."""

    id: _Id
    agent_id: _Id
    prompt_type: str
    prompt_name: str | None
    prompt_text: str
    response_text: str | None
    status: PromptStatus
    model_used: str | None
    tokens_input: _Count | None
    tokens_output: _Count | None
    cost_usd: _Cost | None
    latency_ms: _Count | None
    created_at: _Time
    completed_at: _Time | None
    error_message: str | None
    metadata: JsonValue
    deleted_at: _Time | None
    tokens_cache_read: _Count | None
    tokens_cache_write: _Count | None


class AgentLog(_Row):
    """One line of an agent's log, as ``get_agent_logs`` returns it: the fields of ``AgentLogRow``."""

    id: _LogId
    agent_id: _Id
    log_level: LogLevel
    log_type: str
    message: str
    details: JsonValue
    created_at: _Time
    event_id: str | None


class SystemLog(_Row):
    """One line of the system's log, as ``get_system_logs`` returns it: the fields of ``SystemLogRow``."""

    id: _LogId
    log_level: LogLevel
    component: str
    message: str
    details: JsonValue
    created_at: _Time
    event_id: str | None

"""What comes back and what goes in: vocabularies, and the TypedDicts of rows, changes and bulk items.

Rows are plain dictionaries that ``json.dumps`` takes as they are. Times are text, UTC, ``YYYY-MM-DDTHH:MM:SS.ffffff``;
costs are US dollars; tokens are counts; ids are 36 characters of UUID.
"""

# Annotations are not postponed here: a TypedDict would compile each of them from its text, at every import.

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NotRequired, TypeAlias, TypedDict, get_args

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
JsonObject: TypeAlias = Mapping[str, JsonValue]
Time: TypeAlias = str | datetime

AgentStatus = Literal[
    "pending", "initializing", "planning", "executing", "reviewing", "completed", "failed", "cancelled"
]
PromptStatus = Literal["pending", "streaming", "completed", "failed", "cancelled"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

AGENT_STATUSES: tuple[AgentStatus, ...] = get_args(AgentStatus)
PROMPT_STATUSES: tuple[PromptStatus, ...] = get_args(PromptStatus)
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)

# Lifecycles are closed, taxonomies are open: these are the values the first programs used, not a limit.
KNOWN_AGENT_TYPES = ("planner", "builder", "reviewer", "tester", "orchestrator", "utility")
KNOWN_PROMPT_TYPES = ("adw", "command", "followup", "correction", "tool_call")
KNOWN_LOG_TYPES = ("state_change", "milestone", "error", "performance", "tool_call", "cost_update")

RUNNING_STATUSES = ("planning", "executing", "reviewing")
"""The statuses of an agent that has started and not ended: entering one sets ``started_at``."""
ENDED_STATUSES = ("completed", "failed", "cancelled")
"""The statuses, of an agent or a prompt, that set ``completed_at``."""


class OrchestratorAgentRow(TypedDict):
    """A definition of an agent."""

    id: str
    name: str
    description: str | None
    agent_type: str
    capabilities: str | None
    default_model: str | None
    created_at: str
    updated_at: str
    metadata: JsonObject | None
    deleted_at: str | None


class AgentRow(TypedDict):
    """A running instance of an agent."""

    id: str
    orchestrator_agent_id: str
    session_id: str
    parent_agent_id: str | None
    status: AgentStatus
    context: JsonObject | None
    config: JsonObject | None
    started_at: str | None
    completed_at: str | None
    cost_usd: float | None
    error_message: str | None
    created_at: str
    updated_at: str
    metadata: JsonObject | None
    deleted_at: str | None


class PromptRow(TypedDict):
    """A prompt and, once it has come, its response with tokens and cost."""

    id: str
    agent_id: str
    prompt_type: str
    prompt_name: str | None
    prompt_text: str
    response_text: str | None
    status: PromptStatus
    model_used: str | None
    tokens_input: int | None
    tokens_output: int | None
    cost_usd: float | None
    latency_ms: int | None
    created_at: str
    completed_at: str | None
    error_message: str | None
    metadata: JsonObject | None
    deleted_at: str | None
    tokens_cache_read: int | None
    tokens_cache_write: int | None


class AgentLogRow(TypedDict):
    """One line of an agent's log."""

    id: int
    agent_id: str
    log_level: LogLevel
    log_type: str
    message: str
    details: JsonValue
    created_at: str


class SystemLogRow(TypedDict):
    """One line of the system's log."""

    id: int
    log_level: LogLevel
    component: str
    message: str
    details: JsonValue
    created_at: str


class OrchestratorAgentChanges(TypedDict, total=False):
    """What ``update_orchestrator_agent`` can change."""

    name: str
    description: str | None
    agent_type: str
    capabilities: str | None
    default_model: str | None
    metadata: JsonObject | None
    updated_at: Time


class AgentChanges(TypedDict, total=False):
    """What ``update_agent`` can change."""

    session_id: str
    parent_agent_id: str | None
    status: AgentStatus
    context: JsonObject | str | None
    config: JsonObject | str | None
    metadata: JsonObject | None
    started_at: Time | None
    completed_at: Time | None
    updated_at: Time
    cost_usd: float | None
    error_message: str | None


class PromptChanges(TypedDict, total=False):
    """What ``update_prompt`` can change."""

    prompt_type: str
    prompt_name: str | None
    prompt_text: str
    response_text: str | None
    status: PromptStatus
    model_used: str | None
    tokens_input: int | None
    tokens_output: int | None
    tokens_cache_read: int | None
    tokens_cache_write: int | None
    cost_usd: float | None
    latency_ms: int | None
    completed_at: Time | None
    error_message: str | None
    metadata: JsonObject | None


class NewPrompt(TypedDict):
    """One item of ``create_prompts``: the parameters of ``create_prompt``."""

    agent_id: str
    prompt_type: str
    prompt_text: str
    prompt_name: NotRequired[str | None]
    status: NotRequired[PromptStatus]
    model_used: NotRequired[str | None]
    metadata: NotRequired[JsonObject | None]


class NewAgentLog(TypedDict):
    """One item of ``create_agent_logs``: the parameters of ``create_agent_log``."""

    agent_id: str
    log_level: LogLevel
    log_type: str
    message: str
    details: NotRequired[JsonValue]


class NewSystemLog(TypedDict):
    """One item of ``create_system_logs``: the parameters of ``create_system_log``."""

    log_level: LogLevel
    component: str
    message: str
    details: NotRequired[JsonValue]

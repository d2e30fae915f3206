"""What comes back and what goes in: vocabularies, and the TypedDicts of rows, changes and bulk items.

Rows are plain dictionaries that ``json.dumps`` takes as they are. Times are text, UTC, ``YYYY-MM-DDTHH:MM:SS.ffffff``;
costs are US dollars; tokens are counts; ids are 36 characters of UUID.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NotRequired, TypeAlias, TypedDict, TypeVar, get_args
from uuid import UUID

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
JsonObject: TypeAlias = Mapping[str, JsonValue]
Time: TypeAlias = str | datetime
_Value = TypeVar("_Value")
OneOrSeveral: TypeAlias = _Value | Iterable[_Value]
"""The type of a filter: a value, or several of which one has to fit: a list, a tuple, a set or anything to iterate."""

AgentStatus = Literal[
    "pending", "initializing", "planning", "executing", "reviewing", "completed", "failed", "cancelled"
]
"""The type of an agent's ``status``: one of ``AGENT_STATUSES``."""
PromptStatus = Literal["pending", "streaming", "completed", "failed", "cancelled"]
"""The type of a prompt's ``status``: one of ``PROMPT_STATUSES``."""
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
"""The type of ``log_level``: one of ``LOG_LEVELS``."""

AGENT_STATUSES: tuple[AgentStatus, ...] = get_args(AgentStatus)
"""The statuses of an agent, in the order of its life; any other one is refused."""
PROMPT_STATUSES: tuple[PromptStatus, ...] = get_args(PromptStatus)
"""The statuses of a prompt, in the order of its life; any other one is refused."""
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
"""The levels of a log line, the least grave first; any other one is refused."""

# Lifecycles are closed, taxonomies are open: these are the values the first programs used, not a limit.
KNOWN_AGENT_TYPES = ("planner", "builder", "reviewer", "tester", "orchestrator", "utility")
"""The usual values of ``agent_type``; any other text is as good."""
KNOWN_PROMPT_TYPES = ("adw", "command", "followup", "correction", "tool_call")
"""The usual values of ``prompt_type``; any other text is as good."""
KNOWN_LOG_TYPES = ("state_change", "milestone", "error", "performance", "tool_call", "cost_update")
"""The usual values of ``log_type``; any other text is as good."""

RUNNING_STATUSES = ("planning", "executing", "reviewing")
"""The statuses of an agent that has started and not ended: entering one sets ``started_at``."""
ENDED_STATUSES = ("completed", "failed", "cancelled")
"""The statuses, of an agent or a prompt, that set ``completed_at``."""


class OrchestratorAgentRow(TypedDict):
    """A definition of an agent.

    Attributes:
        id: UUID, 36 characters.
        name: Unique among the definitions that are not deleted.
        description: What it is for.
        agent_type: Any text; ``KNOWN_AGENT_TYPES`` holds the usual ones.
        capabilities: What it can do, as text.
        default_model: The model that its instances use if nothing else is said.
        created_at: Time.
        updated_at: Time of the last change.
        metadata: A JSON object.
        deleted_at: Time of the soft deletion; ``None`` while it is living.
    """

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
    """A running instance of an agent.

    Attributes:
        id: UUID, 36 characters.
        orchestrator_agent_id: The definition that it is an instance of.
        session_id: The session that it belongs to.
        parent_agent_id: The agent that started it; ``None`` at the root.
        status: One of ``AGENT_STATUSES``.
        context: A JSON object.
        config: A JSON object.
        started_at: Time; ``None`` while it has not started to run.
        completed_at: Time; ``None`` while it has not ended.
        cost_usd: US dollars.
        error_message: What went wrong.
        created_at: Time.
        updated_at: Time of the last change.
        metadata: A JSON object.
        deleted_at: Time of the soft deletion; ``None`` while it is living.
    """

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
    """A prompt and, once it has come, its response with tokens and cost.

    Attributes:
        id: UUID, 36 characters.
        agent_id: The agent that asked.
        prompt_type: Any text; ``KNOWN_PROMPT_TYPES`` holds the usual ones.
        prompt_name: A name for people.
        prompt_text: What was asked.
        response_text: What came back; ``None`` while there is nothing.
        status: One of ``PROMPT_STATUSES``.
        model_used: The model that was asked.
        tokens_input: Tokens that were read afresh, without those of the cache.
        tokens_output: Tokens that were written.
        cost_usd: US dollars.
        latency_ms: Milliseconds.
        created_at: Time.
        completed_at: Time; ``None`` while it has not ended.
        error_message: What went wrong.
        metadata: A JSON object.
        deleted_at: Time of the soft deletion; ``None`` while it is living.
        tokens_cache_read: Tokens that were read from the provider's cache.
        tokens_cache_write: Tokens that were written to the provider's cache.
    """

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
    """One line of an agent's log.

    Attributes:
        id: A number that grows.
        agent_id: The agent that the line is about.
        log_level: One of ``LOG_LEVELS``.
        log_type: Any text; ``KNOWN_LOG_TYPES`` holds the usual ones.
        message: Free text.
        details: Any JSON value.
        created_at: Time.
        event_id: What its writer called it, so that it can be sent again; ``None`` if nothing was said.
    """

    id: int
    agent_id: str
    log_level: LogLevel
    log_type: str
    message: str
    details: JsonValue
    created_at: str
    event_id: str | None


class SystemLogRow(TypedDict):
    """One line of the system's log.

    Attributes:
        id: A number that grows.
        log_level: One of ``LOG_LEVELS``.
        component: What the line is about.
        message: Free text.
        details: Any JSON value.
        created_at: Time.
        event_id: What its writer called it, so that it can be sent again; ``None`` if nothing was said.
    """

    id: int
    log_level: LogLevel
    component: str
    message: str
    details: JsonValue
    created_at: str
    event_id: str | None


COLUMNS_OF: Mapping[str, frozenset[str]] = {
    "orchestrator_agents": OrchestratorAgentRow.__required_keys__,
    "agents": AgentRow.__required_keys__,
    "prompts": PromptRow.__required_keys__,
    "agent_logs": AgentLogRow.__required_keys__,
    "system_logs": SystemLogRow.__required_keys__,
}
"""The columns that a row of each table has."""


class OrchestratorAgentChanges(TypedDict, total=False):
    """What ``update_orchestrator_agent`` can change.

    Attributes:
        name: Unique among the definitions that are not deleted: at most 500 characters.
        description: What it is for; ``None`` for nothing.
        agent_type: Any non-empty text of at most 500 characters.
        capabilities: What it can do, as text; ``None`` for nothing.
        default_model: The model that its instances use; ``None`` for none.
        metadata: A JSON object, which takes the place of the old one; ``None`` for none.
        updated_at: ISO 8601 text or ``datetime``; now, if it is not given.
    """

    name: str
    description: str | None
    agent_type: str
    capabilities: str | None
    default_model: str | None
    metadata: JsonObject | None
    updated_at: Time


class AgentChanges(TypedDict, total=False):
    """What ``update_agent`` can change.

    Attributes:
        session_id: Any text of at most 500 characters.
        parent_agent_id: The agent above it, which must not be below it; ``None`` for the root.
        status: One of ``AGENT_STATUSES``.
        context: A JSON object, as a mapping or as text; ``None`` for none.
        config: A JSON object, as a mapping or as text; ``None`` for none.
        metadata: A JSON object, which takes the place of the old one; ``None`` for none.
        started_at: ISO 8601 text or ``datetime``; ``None`` for not yet.
        completed_at: ISO 8601 text or ``datetime``; ``None`` for not yet.
        updated_at: ISO 8601 text or ``datetime``; now, if it is not given.
        cost_usd: US dollars; ``None`` for unknown.
        error_message: What went wrong; ``None`` for nothing.
    """

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
    """What ``update_prompt`` can change.

    Attributes:
        prompt_type: Any non-empty text of at most 500 characters.
        prompt_name: A name for people; ``None`` for none.
        prompt_text: What is asked.
        response_text: What came back; ``None`` for nothing.
        status: One of ``PROMPT_STATUSES``.
        model_used: The model that was asked, at most 500 characters; ``None`` for unknown.
        tokens_input: Tokens that were read afresh, a whole number from 0; ``None`` for unknown, here and below.
        tokens_output: Tokens that were written.
        tokens_cache_read: Tokens that were read from the provider's cache.
        tokens_cache_write: Tokens that were written to the provider's cache.
        cost_usd: US dollars.
        latency_ms: Milliseconds, a whole number from 0.
        completed_at: ISO 8601 text or ``datetime``; ``None`` for not yet.
        error_message: What went wrong; ``None`` for nothing.
        metadata: A JSON object, which takes the place of the old one; ``None`` for none.
    """

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
    """One item of ``create_prompts``: the parameters of ``create_prompt``.

    Attributes:
        agent_id: The agent that asks.
        prompt_type: Any non-empty text of at most 500 characters.
        prompt_text: What is asked.
        prompt_name: A name for people; it may be left out, as may all that follow.
        status: One of ``PROMPT_STATUSES``; ``"pending"`` if it is left out.
        model_used: The model that is asked.
        metadata: A JSON object.
        response_text: What came back.
        tokens_input: Tokens that were read afresh.
        tokens_output: Tokens that were written.
        tokens_cache_read: Tokens that were read from the provider's cache.
        tokens_cache_write: Tokens that were written to the provider's cache.
        cost_usd: US dollars.
        latency_ms: Milliseconds.
        completed_at: ISO 8601 text or ``datetime``.
        error_message: What went wrong.
        deleted_at: ISO 8601 text or ``datetime``, for a copy of a row that was deleted softly.
        id: Any UUID; a new one if it is left out.
        created_at: ISO 8601 text or ``datetime``; now if it is left out.
    """

    agent_id: str
    prompt_type: str
    prompt_text: str
    prompt_name: NotRequired[str | None]
    status: NotRequired[PromptStatus]
    model_used: NotRequired[str | None]
    metadata: NotRequired[JsonObject | None]
    response_text: NotRequired[str | None]
    tokens_input: NotRequired[int | None]
    tokens_output: NotRequired[int | None]
    tokens_cache_read: NotRequired[int | None]
    tokens_cache_write: NotRequired[int | None]
    cost_usd: NotRequired[float | None]
    latency_ms: NotRequired[int | None]
    completed_at: NotRequired[Time | None]
    error_message: NotRequired[str | None]
    deleted_at: NotRequired[Time | None]
    id: NotRequired[str | UUID | None]
    created_at: NotRequired[Time | None]


class NewAgentLog(TypedDict):
    """One item of ``create_agent_logs``: the parameters of ``create_agent_log``.

    Attributes:
        agent_id: The agent that the line is about.
        log_level: One of ``LOG_LEVELS``.
        log_type: Any non-empty text of at most 500 characters.
        message: Free text.
        details: Any JSON value; it may be left out, as may all that follow.
        event_id: What the line is called by its writer: a line that is sent again is not written again.
        created_at: ISO 8601 text or ``datetime``; now if it is left out.
    """

    agent_id: str
    log_level: LogLevel
    log_type: str
    message: str
    details: NotRequired[JsonValue]
    event_id: NotRequired[str | None]
    created_at: NotRequired[Time | None]


class NewSystemLog(TypedDict):
    """One item of ``create_system_logs``: the parameters of ``create_system_log``.

    Attributes:
        log_level: One of ``LOG_LEVELS``.
        component: What the line is about.
        message: Free text.
        details: Any JSON value; it may be left out, as may all that follow.
        event_id: What the line is called by its writer: a line that is sent again is not written again.
        created_at: ISO 8601 text or ``datetime``; now if it is left out.
    """

    log_level: LogLevel
    component: str
    message: str
    details: NotRequired[JsonValue]
    event_id: NotRequired[str | None]
    created_at: NotRequired[Time | None]

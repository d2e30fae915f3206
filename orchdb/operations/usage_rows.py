"""What usage and trees of agents come back as."""

from typing import Literal, NotRequired, TypedDict

# With what the annotations of its rows name: they are read where a row is derived.
from orchdb.rows import AgentRow, JsonValue  # noqa: F401  # pyright: ignore[reportUnusedImport]

UsageKey = Literal["session", "agent", "definition", "model", "prompt_type", "status", "day", "hour"]
"""What usage can be grouped by."""


class UsageRow(TypedDict):
    """What a group of prompts has used, and what it has cost.

    Attributes:
        session: The session, where it is grouped by that; so are the others up to ``hour``.
        agent: The id of the agent.
        definition: The id of the definition.
        definition_name: Its name.
        model: The model; ``None`` where none is known, and for what agents carry beyond their prompts.
        prompt_type: The type of the prompts; ``None`` likewise.
        status: The status of the prompts; ``None`` likewise.
        day: ``YYYY-MM-DD`` in the zone that was asked for; ``None`` for a time that nobody understands.
        hour: ``YYYY-MM-DDTHH:00`` in that zone; ``None`` likewise.
        prompts: How many prompts there are.
        failed: How many of them have failed.
        unpriced: How many of them have an unknown cost: ``NULL``, not 0.
        tokens_input: Tokens that were read afresh.
        tokens_output: Tokens that were written.
        tokens_cache_read: Tokens that were read from the provider's cache.
        tokens_cache_write: Tokens that were written to the provider's cache.
        cost_usd: US dollars, exact to 1e-9: those of the prompts and ``unattributed_usd``.
        unattributed_usd: Of it, what agents carry beyond the sum of their prompts.
        latency_ms_mean: Milliseconds, of the prompts that have a latency; ``None`` if none has.
        latency_ms_max: Milliseconds.
        latency_ms_p50: Milliseconds that half of the prompts took at most; with ``percentiles``, as are those below.
        latency_ms_p90: Milliseconds that 90 of 100 took at most.
        latency_ms_p95: Milliseconds that 95 of 100 took at most.
        latency_ms_p99: Milliseconds that 99 of 100 took at most.
        first_at: When the first prompt was created; ``None`` without prompts.
        last_at: When the last one was.
    """

    session: NotRequired[str]
    agent: NotRequired[str]
    definition: NotRequired[str]
    definition_name: NotRequired[str | None]
    model: NotRequired[str | None]
    prompt_type: NotRequired[str | None]
    status: NotRequired[str | None]
    day: NotRequired[str | None]
    hour: NotRequired[str | None]
    prompts: int
    failed: int
    unpriced: int
    tokens_input: int
    tokens_output: int
    tokens_cache_read: int
    tokens_cache_write: int
    cost_usd: float
    unattributed_usd: float
    latency_ms_mean: float | None
    latency_ms_max: int | None
    latency_ms_p50: NotRequired[int | None]
    latency_ms_p90: NotRequired[int | None]
    latency_ms_p95: NotRequired[int | None]
    latency_ms_p99: NotRequired[int | None]
    first_at: str | None
    last_at: str | None


class AgentNode(AgentRow):
    """An agent in a tree: its row, what it has used, and the agents below it.

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
        definition_name: The name of its definition.
        usage: What it has used itself.
        subtree_usage: What it and all agents below it have used.
        children: The agents right below it, oldest first.
    """

    definition_name: str | None
    usage: UsageRow
    subtree_usage: UsageRow
    children: list["AgentNode"]

"""The sessions of a database: what their agents do, what they have cost, when they were last at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from sqlalchemy import case, func, select, type_coerce
from sqlalchemy.sql.elements import ColumnElement

from orchdb.manager import DatabaseManager
from orchdb.rows import RUNNING_STATUSES, Time
from orchdb.schema.column_types import Timestamp
from orchdb.tables import agent_logs, agents, prompts

_LIVING = agents.c.deleted_at.is_(None)


class SessionRow(TypedDict):
    """A session: the agents that say they belong to it, and what they have done.

    Attributes:
        session_id: What it is called.
        agents: How many agents it has.
        running: How many of them are planning, executing or reviewing.
        failed: How many of them have failed.
        prompts: How many prompts they asked.
        tokens_input: Tokens that were read afresh.
        tokens_output: Tokens that were written.
        tokens_cache_read: Tokens that were read from the provider's cache.
        tokens_cache_write: Tokens that were written to the provider's cache.
        cost_usd: US dollars: of each agent the sum of its prompts, or what it carries itself if that is more.
        first_at: Time of its first agent.
        last_at: Time of the last change of an agent, or of the last log line or prompt.
    """

    session_id: str
    agents: int
    running: int
    failed: int
    prompts: int
    tokens_input: int
    tokens_output: int
    tokens_cache_read: int
    tokens_cache_write: int
    cost_usd: float
    first_at: str
    last_at: str


_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("prompts", "tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write"), 0),
    "cost_usd": 0.0,
}
"""What a session has used of which ``usage`` says nothing: it has neither a prompt nor a cost."""


async def list_sessions(
    db: DatabaseManager,
    *,
    session_id: Sequence[str] | None = None,
    since: Time | None = None,
    until: Time | None = None,
    limit: int | None = None,
) -> list[SessionRow]:
    """List the sessions that have an agent which is not deleted.

    Args:
        db: The database.
        session_id: Only these.
        since: Only those with an agent that was created at this time or later.
        until: Only those with an agent that was created before this time.
        limit: The most rows. By default all.

    Returns:
        The rows; the one whose newest agent is the newest comes first.
    """
    newest = func.max(agents.c.created_at)
    page = select(agents.c.session_id).where(_LIVING).group_by(agents.c.session_id)
    if session_id is not None:
        page = page.where(agents.c.session_id.in_(session_id))
    if since is not None:
        page = page.where(agents.c.created_at >= since)
    if until is not None:
        page = page.where(agents.c.created_at < until)
    page = page.order_by(newest.desc(), agents.c.session_id).limit(limit)
    names = [str(name) for (name,) in await db.conn.execute(page)]
    found = await _agents_of(db, names)
    spent: dict[Any, Any] = {row.get("session"): row for row in await db.usage("session", session_id=names)}
    # One that has ended to exist between the two queries is left out.
    rows = [{**_NOTHING, **spent.get(name, {}), **found[name]} for name in names if name in found]
    return [cast(SessionRow, {key: row[key] for key in SessionRow.__annotations__}) for row in rows]


async def _agents_of(db: DatabaseManager, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What the agents of each session are and were last seen doing."""
    each = (
        select(
            agents.c.session_id,
            agents.c.status,
            agents.c.created_at,
            latest(agents.c.updated_at, last_of(agent_logs.c.created_at), last_of(prompts.c.created_at)).label("at"),
        )
        .where(agents.c.session_id.in_(names), _LIVING)
        .subquery()
    )
    statement = select(
        each.c.session_id,
        func.count().label("agents"),
        _number_with(each.c.status.in_(RUNNING_STATUSES)).label("running"),
        _number_with(each.c.status == "failed").label("failed"),
        type_coerce(func.min(each.c.created_at), Timestamp()).label("first_at"),
        type_coerce(func.max(each.c.at), Timestamp()).label("last_at"),
    ).group_by(each.c.session_id)
    return {row["session_id"]: dict(row) for row in (await db.conn.execute(statement)).mappings()}


def _number_with(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def last_of(column: Any) -> ColumnElement[Any]:
    """The newest row of an agent, found at the end of its index."""
    return (
        select(column)
        .where(column.table.c.agent_id == agents.c.id)
        .order_by(column.desc())
        .limit(1)
        .correlate(agents)
        .scalar_subquery()
    )


def latest(first: Any, *others: ColumnElement[Any]) -> ColumnElement[Any]:
    latest = first
    for other in others:
        latest = case((other > latest, other), else_=latest)
    return type_coerce(latest, Timestamp())

"""The agents that are at work now: what each of them did last, and which of them nobody works at any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict, cast

from sqlalchemy import case, select

from orchdb.inspection.sessions import last_of, latest
from orchdb.manager import DatabaseManager
from orchdb.operations.leases import HAS_RUN_OUT
from orchdb.rows import RUNNING_STATUSES, AgentStatus, LogLevel
from orchdb.schema.tables import leases
from orchdb.tables import agent_logs, agents, orchestrator_agents, prompts

STUCK_SECONDS = 300.0
"""Without a sign of life for so long, an agent is taken for stuck."""

Sign = Literal["working", "stuck", "stale"]
_BEGUN = ("initializing", *RUNNING_STATUSES)
_MOST = 200


class BoardRow(TypedDict):
    """An agent that is at work.

    Attributes:
        id: Its id.
        definition_name: What it is an instance of.
        session_id: Its session.
        status: Its status.
        sign: ``working``; ``stuck``, if nothing was seen of it for so long; ``stale``, if its run's lease has run out,
            so that its process has died.
        seconds: How long it has been at work.
        idle_seconds: How long nothing was seen of it: no change, no log line, no prompt.
        cost_usd: US dollars that it carries.
        last_level: The level of its newest log line; ``None`` without one.
        last_message: The message of that line; ``None`` without one.
        last_at: Time of the last sign of life.
    """

    id: str
    definition_name: str
    session_id: str
    status: AgentStatus
    sign: Sign
    seconds: float
    idle_seconds: float
    cost_usd: float
    last_level: LogLevel | None
    last_message: str | None
    last_at: str


async def get_board(
    db: DatabaseManager, *, session_id: Sequence[str] | None = None, stuck_seconds: float = STUCK_SECONDS
) -> list[BoardRow]:
    """List the agents that have begun and not ended.

    Args:
        db: The database.
        session_id: Only those of these sessions.
        stuck_seconds: For how long nothing must have been seen of one that is stuck.

    Returns:
        The rows: those that ask for attention first, stale before stuck; then the one that has begun last.
    """
    moment = datetime.now(UTC)
    last = latest(agents.c.updated_at, last_of(agent_logs.c.created_at), last_of(prompts.c.created_at))
    statement = (
        select(
            agents.c.id,
            orchestrator_agents.c.name.label("definition_name"),
            *(agents.c[name] for name in ("session_id", "status", "started_at", "created_at", "cost_usd")),
            case((HAS_RUN_OUT, 1), else_=0).label("run_out"),
            last.label("last_at"),
        )
        .join_from(agents, orchestrator_agents, orchestrator_agents.c.id == agents.c.orchestrator_agent_id)
        .outerjoin(leases, leases.c.id == agents.c.lease_id)
        .where(agents.c.status.in_(_BEGUN), agents.c.deleted_at.is_(None))
        .order_by(agents.c.created_at.desc(), agents.c.id.desc())
        .limit(_MOST)
    )
    if session_id is not None:
        statement = statement.where(agents.c.session_id.in_(session_id))
    found = [dict(row) for row in (await db.conn.execute(statement)).mappings()]
    lines = await _last_lines(db, [row["id"] for row in found])
    rows = [_row(row, lines.get(row["id"], {}), moment, stuck_seconds) for row in found]
    order: dict[Sign, int] = {"stale": 0, "stuck": 1, "working": 2}
    return sorted(rows, key=lambda row: order[row["sign"]])


async def _last_lines(db: DatabaseManager, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    newest = (
        select(agent_logs.c.id)
        .where(agent_logs.c.agent_id == agents.c.id)
        .order_by(agent_logs.c.created_at.desc(), agent_logs.c.id.desc())
        .limit(1)
        .correlate(agents)
        .scalar_subquery()
    )
    lines = select(agent_logs.c.agent_id, agent_logs.c.log_level, agent_logs.c.message).join(
        agents, agent_logs.c.id == newest
    )
    found = (await db.conn.execute(lines.where(agents.c.id.in_(ids)))).mappings()
    return {row["agent_id"]: dict(row) for row in found}


def _row(agent: Mapping[str, Any], line: Mapping[str, Any], moment: datetime, stuck_seconds: float) -> BoardRow:
    idle = _seconds(agent["last_at"], moment)
    sign: Sign = "stale" if agent["run_out"] else "stuck" if idle > stuck_seconds else "working"
    row = {
        **{name: agent[name] for name in ("id", "definition_name", "session_id", "status", "last_at")},
        "sign": sign,
        "seconds": _seconds(agent["started_at"] or agent["created_at"], moment),
        "idle_seconds": idle,
        "cost_usd": agent["cost_usd"] or 0.0,
        "last_level": line.get("log_level"),
        "last_message": line.get("message"),
    }
    return cast(BoardRow, {name: row[name] for name in BoardRow.__annotations__})


def _seconds(since: str, moment: datetime) -> float:
    """How long ago that was; 0 where another program wrote a time that nobody understands."""
    try:
        return round(max((moment - datetime.fromisoformat(since).replace(tzinfo=UTC)).total_seconds(), 0.0), 3)
    except ValueError:
        return 0.0

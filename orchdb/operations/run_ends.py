"""How the agent of a run ends: by its block, with the manager that held it, or lost and reaped.

A run holds a lease, and only who still holds it may write its end: a reaper takes the lease away together with the end
that it writes, so neither overwrites the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, bindparam, case, delete, func, literal_column, null, select, update

from orchdb.database import Database
from orchdb.executor import Executor
from orchdb.rows import ENDED_STATUSES, AgentStatus, Time
from orchdb.schema.column_types import Identifier, Timestamp, later
from orchdb.schema.tables import agents, leases
from orchdb.schema.values import now
from orchdb.statements import Statement

OWNER_LOST = "owner lost"
"""The ``error_message`` of an agent that was reaped."""
_MOST_CHARACTERS = 100_000
"""Of the text of an exception: it is to be read by people."""


@dataclass(frozen=True)
class End:
    """What the block of a run leaves behind.

    Attributes:
        agent_id: The run's agent.
        lease_id: The lease that it must still hold.
        status: What it becomes.
        error_message: Why it failed; ``None`` leaves what is there.
        moment: When the block ended.
    """

    agent_id: str
    lease_id: str
    status: AgentStatus
    error_message: str | None = None
    moment: datetime = field(default_factory=now)


def end_by(error: BaseException | None, agent_id: str, lease_id: str) -> End:
    """The end of a block that raised this, or nothing."""
    if error is None:
        return End(agent_id, lease_id, "completed")
    if isinstance(error, Exception):
        return End(agent_id, lease_id, "failed", told(error))
    return End(agent_id, lease_id, "cancelled")  # a task, a generator or the whole program was told to end


def told(error: BaseException) -> str:
    """The type and the text of an exception; of a group also those of what is in it."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # an exception of the caller's, which may be of any quality
        text = ""
    if issubclass(type(error), BaseExceptionGroup):
        inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
        text = "; ".join([text, *map(told, inner)])
    return (f"{name}: {text}" if text else name)[:_MOST_CHARACTERS]


def bound(name: str, kind: Any) -> BindParameter[Any]:
    """A value that is looked for or written, by the type of its column."""
    return bindparam(name, type_=kind.looked_up() if isinstance(kind, Identifier) else kind)


def has_status(*words: str) -> ColumnElement[bool]:
    """Whether an agent has one of them."""
    # Spelled out: a list of values would be one statement for each length of it, and compiled anew each time.
    return agents.c.status.in_([literal_column(f"'{word}'") for word in words])


NOT_ENDED = ~has_status(*ENDED_STATUSES)
_BY_ID = agents.c.id == bound("agent_id", agents.c.id.type)
_HELD = agents.c.lease_id == bound("lease_id", agents.c.lease_id.type)
_MOMENT = bound("moment", agents.c.updated_at.type)
_TOUCHED = later(agents.c.updated_at, _MOMENT)
_END: Statement[Any] = Statement(
    agents,
    update(agents)
    .where(_BY_ID, _HELD, NOT_ENDED)
    .values(
        status=bound("status", agents.c.status.type),
        completed_at=func.coalesce(agents.c.completed_at, _MOMENT),
        error_message=func.coalesce(bound("error_message", agents.c.error_message.type), agents.c.error_message),
        updated_at=_TOUCHED,
        lease_id=null(),
    ),
    changes_one=True,
)
_LET_GO: Statement[Any] = Statement(agents, update(agents).where(_BY_ID, _HELD).values(lease_id=null()))
_LOOK: Statement[Any] = Statement(agents, select(agents.c.status, agents.c.error_message).where(_BY_ID))
_HELD_AGENTS: Statement[Any] = Statement(
    # In an order, and locked: two who end several agents never wait for each other in a circle.
    agents,
    select(agents.c.id).where(_HELD, NOT_ENDED).order_by(agents.c.id).with_for_update(key_share=True),
)
_SIGN = bound("sign_of_life", Timestamp())
_FAIL_ALL: Statement[Any] = Statement(
    agents,
    update(agents)
    .where(_HELD, NOT_ENDED)
    .values(
        status=literal_column("'failed'"),
        completed_at=case((agents.c.updated_at > _SIGN, agents.c.updated_at), else_=_SIGN),
        error_message=bound("error_message", agents.c.error_message.type),
        updated_at=_TOUCHED,
    ),
)
# Whoever still names the lease, because it has ended before, lets go of it by the foreign key.
_DELETE: Statement[Any] = Statement(leases, delete(leases).where(leases.c.id == bound("lease_id", leases.c.id.type)))


async def write_end(database: Database, end: End) -> bool:
    """Give the agent this end, if it holds the lease and has none; False if somebody has taken the lease away."""
    values = {name: getattr(end, name) for name in ("agent_id", "lease_id", "status", "error_message", "moment")}
    if await database.execute("agent_run", _END, values) or await database.execute("agent_run", _LET_GO, values):
        return True
    found = await database.fetch_newest("agent_run", _LOOK, values)
    if not found:
        return True  # it was deleted
    row = found[0]
    return row["status"] in ENDED_STATUSES and row["error_message"] != OWNER_LOST  # it had an end of its own


async def fail_all(
    executor: Executor, operation: str, lease_id: str, error_message: str, sign_of_life: Time
) -> list[str]:
    """Fail the agents that hold a lease and have not ended, and delete the lease; their ids.

    Args:
        executor: What to do it with; a transaction, so that no other end comes in between.
        operation: The public method.
        lease_id: The lease.
        error_message: Why.
        sign_of_life: When the owner was last there: ``completed_at``, unless the agent has changed later.
    """
    values = {"lease_id": lease_id, "error_message": error_message, "sign_of_life": sign_of_life, "moment": now()}
    found = await executor.fetch_all(operation, _HELD_AGENTS, values)
    if found:
        await executor.execute(operation, _FAIL_ALL, values)
    await executor.execute(operation, _DELETE, values)
    return [row["id"] for row in found]

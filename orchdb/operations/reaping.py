"""Ending the agents of those who have died, once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import exists, func, literal_column, or_, select, type_coerce, update

from orchdb.database import Database
from orchdb.executor import Executor
from orchdb.operations.leases import ANY_EXPIRED, EXPIRED, Leases
from orchdb.operations.run_ends import NOT_ENDED, OWNER_LOST, bound, fail_all, has_status
from orchdb.schema.column_types import Timestamp, later
from orchdb.schema.sql_functions import is_understood
from orchdb.schema.tables import agent_logs, agents, prompts
from orchdb.schema.values import now
from orchdb.statements import Statement

_OPERATION = "reap_agents"
_ONE_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", re.ASCII)
_BEGUN = ("initializing", "planning", "executing", "reviewing")
"""The statuses of agents that somebody works at, or has left: one that is ``pending`` waits for somebody."""

_BEFORE = bound("before", Timestamp())
_LINES = agent_logs.c.agent_id == agents.c.id
_ASKED = prompts.c.agent_id == agents.c.id
_FREE = (agents.c.lease_id.is_(None), agents.c.deleted_at.is_(None))
_IDLE: Statement[Any] = Statement(
    agents,
    select(
        agents.c.id,
        agents.c.updated_at,
        *(
            type_coerce(select(func.max(column)).where(belongs).scalar_subquery(), Timestamp()).label(name)
            for name, column, belongs in (
                ("line", agent_logs.c.created_at, _LINES),
                ("asked", prompts.c.created_at, _ASKED),
                ("answered", prompts.c.completed_at, _ASKED),
            )
        ),
    )
    .where(
        *_FREE,
        has_status(*_BEGUN),
        agents.c.updated_at < _BEFORE,
        is_understood(agents.c.updated_at, "<", _BEFORE),
        ~exists().where(_LINES, agent_logs.c.created_at >= _BEFORE),
        ~exists().where(_ASKED, or_(prompts.c.created_at >= _BEFORE, prompts.c.completed_at >= _BEFORE)),
    )
    .order_by(agents.c.id)
    .with_for_update(key_share=True),
)
_FAIL: Statement[Any] = Statement(
    agents,
    update(agents)
    .where(agents.c.id == bound("agent_id", agents.c.id.type), *_FREE, NOT_ENDED)
    .values(
        status=literal_column("'failed'"),
        completed_at=bound("sign_of_life", agents.c.completed_at.type),
        error_message=bound("error_message", agents.c.error_message.type),
        updated_at=later(agents.c.updated_at, bound("moment", agents.c.updated_at.type)),
    ),
)


async def reaped(database: Database, leases: Leases, idle_for: float | None) -> list[str]:
    """End those whose lease has run out, and those that have been idle for so many seconds; their ids, in order."""
    database.check(_OPERATION, EXPIRED, {})
    await leases.renew()  # who calls this is alive, however long its event loop was blocked
    if idle_for is None and not await database.fetch_newest(_OPERATION, ANY_EXPIRED, {}):
        return []  # nobody was kept from writing
    async with database.transaction() as tx:
        lost: list[str] = []
        for lease in await tx.fetch_all(_OPERATION, EXPIRED, {}):
            lost += await fail_all(tx, _OPERATION, lease["id"], OWNER_LOST, lease["renewed_at"])
        if idle_for is not None:
            lost += await _fail_idle(tx, idle_for)
    return sorted(lost)


async def _fail_idle(executor: Executor, seconds: float) -> list[str]:
    moment = now()
    try:
        before = moment - timedelta(seconds=seconds)
    except OverflowError:  # before the first year
        before = datetime.min.replace(tzinfo=UTC)
    idle = await executor.fetch_all(_OPERATION, _IDLE, {"before": before})
    for row in idle:
        signs = (row["updated_at"], row["line"], row["asked"], row["answered"])
        # Another program may have written anything there.
        sign = max((sign for sign in signs if sign is not None and _ONE_FORM.fullmatch(sign)), default=moment)
        values = {"agent_id": row["id"], "error_message": OWNER_LOST, "sign_of_life": sign, "moment": moment}
        await executor.execute(_OPERATION, _FAIL, values)
    return [row["id"] for row in idle]

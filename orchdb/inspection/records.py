"""One row of any table, with what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sqlalchemy import select

from orchdb.inspection.identifiers import Place
from orchdb.inspection.sessions import list_sessions
from orchdb.manager import DatabaseManager
from orchdb.tables import agent_logs, system_logs

_LINES = {table.name: table for table in (agent_logs, system_logs)}


class Record(TypedDict):
    """A row and what belongs to it.

    Attributes:
        table: The name of its table; ``"sessions"`` for a session.
        row: The row, as the library gives it; that of an agent has a ``definition_name``.
        agents: Of a session or a definition its newest agents, the newest first; of others an empty list.
        prompts: Of an agent its newest prompts, the newest first.
        logs: Of an agent its newest log lines, the newest first.
    """

    table: str
    row: Mapping[str, Any]
    agents: Sequence[Mapping[str, Any]]
    prompts: Sequence[Mapping[str, Any]]
    logs: Sequence[Mapping[str, Any]]


async def get_record(db: DatabaseManager, place: Place, *, limit: int = 10) -> Record | None:
    """Get a row with what belongs to it, also one that was deleted softly.

    Args:
        db: The database.
        place: Where it is.
        limit: The most rows of each kind that belong to it.

    Returns:
        The row; ``None`` if it is not there any more.
    """
    row: Mapping[str, Any] | None
    record: Record = {"table": place.table, "row": {}, "agents": [], "prompts": [], "logs": []}
    if place.table == "orchestrator_agents":
        row = await db.get_orchestrator_agent(place.id, include_deleted=True)
        record["agents"] = await db.list_agents(orchestrator_agent_id=place.id, limit=limit)
    elif place.table == "agents":
        agent = await db.get_agent(place.id, include_deleted=True)
        definition = agent and await db.get_orchestrator_agent(agent["orchestrator_agent_id"], include_deleted=True)
        row = agent and {**agent, "definition_name": definition["name"] if definition else None}
        record["prompts"] = await db.list_prompts(place.id, newest_first=True, limit=limit)
        record["logs"] = await db.list_recent_agent_logs(limit, agent_id=place.id)
    elif place.table == "prompts":
        row = await db.get_prompt(place.id, include_deleted=True)
    elif place.table == "sessions":
        row = next(iter(await list_sessions(db, session_id=[place.id])), None)
        record["agents"] = await db.list_agents(place.id, limit=limit)
    else:
        table = _LINES[place.table]
        found = (await db.conn.execute(select(table).where(table.c.id == int(place.id)))).mappings().one_or_none()
        row = None if found is None else dict(found)
    return None if row is None else {**record, "row": row}

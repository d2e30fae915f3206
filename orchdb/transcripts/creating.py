"""The agents that a transcript tells of, and their definitions, made once."""

from __future__ import annotations

from orchdb import DatabaseManager, DuplicateError, Transaction
from orchdb.transcripts.claude_rows import clean
from orchdb.transcripts.events import AgentSeen
from orchdb.transcripts.mapping import agent_id, definition_of


async def made(db: DatabaseManager | Transaction, source: str, seen: AgentSeen) -> bool:
    """Make an agent if it is not there, with what is known first; the batch corrects it.

    Args:
        db: The database, or a transaction.
        source: The format.
        seen: The agent.

    Returns:
        Whether it is new.
    """
    if seen.only_if_known or await db.get_agent(agent_id(seen.key), include_deleted=True) is not None:
        return False
    await db.create_agent(
        await defined(db, source, seen),
        clean(seen.session),
        None if seen.parent is None else agent_id(seen.parent),
        "completed",
        metadata={"source": source, "key": seen.key, "project": seen.project},
        started_at=seen.at,
        completed_at=seen.at,
        id=agent_id(seen.key),
        created_at=seen.at,
        exist_ok=True,
    )
    return True


async def defined(db: DatabaseManager | Transaction, source: str, seen: AgentSeen) -> str:
    """Find or make the definition of an agent.

    Args:
        db: The database, or a transaction.
        source: The format.
        seen: The agent.

    Returns:
        Its id: that of another one, if somebody has taken the name.
    """
    wanted = definition_of(source, seen)
    try:
        return await db.create_orchestrator_agent(**wanted, exist_ok=True)
    except DuplicateError:
        return await db.get_or_create_orchestrator_agent(wanted["name"])

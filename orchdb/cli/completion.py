"""What a shell completes: ids of sessions and agents that are there. It never fails, and is never long about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from orchdb.cli.running import located, reading

if TYPE_CHECKING:
    from orchdb.manager import DatabaseManager

_SECONDS = 2.0
_MOST = 30


def sessions(db: str | None, incomplete: str) -> list[tuple[str, str]]:
    """The newest sessions that begin so, each with what it is."""
    return _completed(db, incomplete, _sessions)


def agents(db: str | None, incomplete: str) -> list[tuple[str, str]]:
    """The newest agents whose id begins so, each with what it is."""
    return _completed(db, incomplete, _agents)


def ids(db: str | None, incomplete: str) -> list[tuple[str, str]]:
    """The newest sessions, then the newest agents, that begin so."""
    return sessions(db, incomplete) + agents(db, incomplete)


async def _sessions(db: DatabaseManager, incomplete: str) -> list[tuple[str, str]]:
    from orchdb.inspection.identifiers import find_sessions
    from orchdb.inspection.sessions import list_sessions

    begun = await find_sessions(db, incomplete) if incomplete else None
    found = await list_sessions(db, session_id=begun, limit=_MOST)
    return [(row["session_id"], f"{row['agents']} agents, {row['running']} running") for row in found]


async def _agents(db: DatabaseManager, incomplete: str) -> list[tuple[str, str]]:
    from orchdb.inspection.identifiers import find_agents, names_of_definitions

    if incomplete:
        begun = [await db.get_agent(name) for name in await find_agents(db, incomplete)]
        found = [row for row in begun if row is not None]
    else:
        found = await db.list_agents(limit=_MOST)
    names = await names_of_definitions(db, (row["orchestrator_agent_id"] for row in found))
    return [(row["id"], f"{names.get(row['orchestrator_agent_id'], '')} {row['status']}") for row in found]


def _completed(
    db: str | None, incomplete: str, find: Callable[[DatabaseManager, str], Awaitable[list[tuple[str, str]]]]
) -> list[tuple[str, str]]:
    from orchdb.cli.cells import visible

    async def look() -> list[tuple[str, str]]:
        async with asyncio.timeout(_SECONDS), reading(located(db)) as manager:
            return await find(manager, incomplete)

    try:
        found: Any = asyncio.run(look())
    except Exception:  # whatever it is, the shell is no place to tell it
        return []
    # What a shell would split or expand is no completion of one word.
    plain = [
        (name, visible(told)) for name, told in found if name.isprintable() and not set(name) & set(" \"'`$\\;&|<>()*?")
    ]
    return [(name, told) for name, told in plain if name.startswith(incomplete)]

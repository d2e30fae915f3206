"""Where a database is, and what is in it, whatever its schema."""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy import Connection, func, inspect, literal, select, table, type_coerce, union_all

from orchdb.engines import look_at
from orchdb.location import Location
from orchdb.looking import Look
from orchdb.schema.column_types import Timestamp
from orchdb.schema.revisions import HEAD, examine
from orchdb.tables import agent_logs, agents, orchestrator_agents, prompts, system_logs

_TABLES = (orchestrator_agents, agents, prompts, agent_logs, system_logs)
_MOVED = (agents.c.updated_at, prompts.c.created_at, agent_logs.c.created_at, system_logs.c.created_at)
"""What shows when something was last done."""


class Status(TypedDict):
    """What there is to say of a database.

    Attributes:
        place: Where it is: the path of the file, or host, port and name; never a user or a password.
        decided_by: What said so: an option, a variable of the environment, or ``default``.
        engine: Which program keeps it, with its version.
        revision: The revision of its schema; ``None`` for a file of the first class, which has no stamp.
        newest_revision: The one that this version of orchdb works with.
        rows: How many rows each table has; a table that is missing is left out.
        size_bytes: What it takes on the disk.
        wal_bytes: Of an SQLite file what its WAL takes besides; ``None`` on a server.
        last_at: Time of the last change; ``None`` if there is none, or the schema is older.
    """

    place: str
    decided_by: str
    engine: str
    revision: str | None
    newest_revision: str
    rows: dict[str, int]
    size_bytes: int | None
    wal_bytes: int | None
    last_at: str | None


async def get_status(location: Location, decided_by: str) -> Status:
    """Look at a database, without making or changing anything.

    Args:
        location: Where it is.
        decided_by: What said so.

    Returns:
        What there is to say of it.

    Raises:
        OperationError: It is not there, or cannot be read.
    """
    async with look_at(location) as look:
        facts = await look.facts()
        found = await examine(look.connection)
        present = await look.connection.run_sync(tables_of)
        return {
            "place": facts.place,
            "decided_by": decided_by,
            "engine": facts.engine,
            "revision": found.revision,
            "newest_revision": HEAD,
            "rows": await _rows(look, present),
            "size_bytes": facts.size_bytes,
            "wal_bytes": facts.wal_bytes,
            "last_at": await _last(look) if found.revision == HEAD else None,
        }


def tables_of(connection: Connection) -> set[str]:
    """The names of the tables."""
    return {*inspect(connection).get_table_names()}


async def _rows(look: Look, present: set[str]) -> dict[str, int]:
    counted = {
        each.name: select(func.count()).select_from(table(each.name)) for each in _TABLES if each.name in present
    }
    return {name: int((await look.connection.execute(count)).scalar_one()) for name, count in counted.items()}


async def _last(look: Look) -> str | None:
    each = union_all(*(select(func.max(column).label("at"), literal(1)) for column in _MOVED)).subquery()
    found = await look.connection.execute(select(type_coerce(func.max(each.c.at), Timestamp())))
    last: str | None = found.scalar_one()
    return last

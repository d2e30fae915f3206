"""Ids as people handle them: found by their beginning, and shown only as long as they need to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import String, cast, column, select, values
from sqlalchemy.sql.elements import ColumnElement

from orchdb.manager import DatabaseManager
from orchdb.tables import agent_logs, agents, orchestrator_agents, prompts, system_logs

TABLES = (orchestrator_agents, agents, prompts)
"""Those whose ids are UUIDs."""
SHORTEST = 8
"""Of a shortened id: what looks random enough not to be taken for a number."""
MOST = 20
"""How many are told where a beginning is that of several."""
_AT_A_TIME = 200
_DIGITS = 19
"""The number of a log line has fewer, so that it fits 64 bits."""
_LOWEST = "00000000-0000-0000-0000-000000000000"
_BEGINNING = re.compile(r"[0-9a-f]{1,8}|(?=.{9,36}\Z)[0-9a-f]{8}(?:-[0-9a-f]{4}){0,3}(?:-[0-9a-f]{0,12})?")


class Place(NamedTuple):
    """A row that an id leads to.

    Attributes:
        table: The name of its table; ``"sessions"`` for a session.
        id: The whole id.
    """

    table: str
    id: str


async def find(db: DatabaseManager, beginning: str) -> list[Place]:
    """Find what an id, or the beginning of one, leads to.

    Args:
        db: The database.
        beginning: Of the id of a definition, an agent or a prompt, or of a session; or the whole number of a log line.

    Returns:
        The one with exactly this id; or else the rows whose id begins with it, at most ``MOST``; or else the sessions;
        or else the log lines.
    """
    found = [Place(table.name, name) for table in TABLES for name in await _rows(db, table, beginning)]
    sessions = [Place("sessions", name) for name in await find_sessions(db, beginning)]
    exact = [place for place in found + sessions if place.id.lower() == beginning.lower()]
    return exact or found[:MOST] or sessions or await _log_lines(db, beginning)


async def find_agents(db: DatabaseManager, beginning: str) -> list[str]:
    """Find the agents whose id is this, or else begins with it; at most ``MOST`` ids, in their order."""
    return _exact(await _rows(db, agents, beginning), beginning)


async def find_sessions(db: DatabaseManager, beginning: str) -> list[str]:
    """Find the sessions whose id is this, or else begins with it; at most ``MOST`` ids, in their order."""
    if not _can_be_stored(beginning):
        return []
    name = agents.c.session_id
    statement = select(name).distinct().where(name.startswith(beginning, autoescape=True)).order_by(name).limit(MOST)
    exact = select(name).where(name == beginning).limit(1)
    known = [str(found) for (found,) in await db.conn.execute(exact)]
    return known or [str(found) for (found,) in await db.conn.execute(statement) if found.startswith(beginning)]


async def shortened(db: DatabaseManager, ids: Iterable[str]) -> dict[str, str]:
    """Shorten ids to what no other row of the database begins with.

    Args:
        db: The database.
        ids: Of definitions, agents and prompts.

    Returns:
        For each one its shortest beginning of at least ``SHORTEST`` characters that ``find`` takes it for.
    """
    wanted = sorted(set(ids))
    lengths = dict.fromkeys(wanted, SHORTEST)
    for start in range(0, len(wanted), _AT_A_TIME):
        part = wanted[start : start + _AT_A_TIME]
        for row in await db.conn.execute(_neighbours(part)):
            own = str(row[0])
            for other in row[1:]:
                if other is not None:
                    lengths[own] = max(lengths[own], _differs_at(own, str(other)))
    return {name: name[: _whole(name, lengths[name])] for name in wanted}


async def shortened_sessions(db: DatabaseManager, names: Iterable[str]) -> dict[str, str]:
    """Shorten ids of sessions that are UUIDs to what no other session begins with; other names stay as they are."""
    short: dict[str, str] = {}
    session = agents.c.session_id
    for name in sorted(set(names)):
        short[name] = name
        if len(name) == len(_LOWEST) and _BEGINNING.fullmatch(name):
            length = SHORTEST
            for condition, order in ((session < name, session.desc()), (session > name, session.asc())):
                for (other,) in await db.conn.execute(select(session).where(condition).order_by(order).limit(1)):
                    length = max(length, _differs_at(name, str(other)))
            short[name] = name[: _whole(name, length)]
    return short


async def names_of_definitions(db: DatabaseManager, ids: Iterable[str]) -> dict[str, str]:
    """Look up the names of definitions, also of deleted ones, by their ids."""
    table = orchestrator_agents.c
    found = await db.conn.execute(select(table.id, table.name).where(table.id.in_(sorted(set(ids)))))
    return {str(name): str(told) for name, told in found}


def _differs_at(name: str, other: str) -> int:
    """How many characters tell the one from the other."""
    same = (place for place, (mine, theirs) in enumerate(zip(name, other, strict=False)) if mine != theirs)
    return next(same, min(len(name), len(other))) + 1


def _whole(name: str, length: int) -> int:
    """The length without a hyphen at the end, which would tell nothing."""
    return length + 1 if name[length - 1 : length] == "-" else length


def _neighbours(ids: Sequence[str]) -> Any:
    """For each id those that stand before and after it, in each of the tables."""
    kind = agents.c.id.type
    given = values(column("id", kind), name="given_ids").data([(name,) for name in ids]).cte("given")
    beside: list[ColumnElement[Any]] = []
    for table in TABLES:
        for condition, order in (
            (table.c.id < given.c.id, table.c.id.desc()),
            (table.c.id > given.c.id, table.c.id.asc()),
        ):
            beside.append(select(table.c.id).where(condition).order_by(order).limit(1).scalar_subquery())
    return select(given.c.id, *beside)


async def _rows(db: DatabaseManager, table: Any, beginning: str) -> list[str]:
    """The ids of a table that begin so."""
    if not beginning or not _can_be_stored(beginning):
        return []
    text = beginning.lower()
    name = table.c.id
    if _BEGINNING.fullmatch(text):  # as a range, which is read from the index on both engines
        lowest, highest = text + _LOWEST[len(text) :], text + _LOWEST.replace("0", "f")[len(text) :]
        condition = name.between(lowest, highest)
    else:  # of an adopted file, which may hold ids of any kind
        condition = cast(name, String).startswith(beginning, autoescape=True)
    statement = select(name).where(condition).order_by(name).limit(MOST)
    return [str(found) for (found,) in await db.conn.execute(statement)]


async def _log_lines(db: DatabaseManager, number: str) -> list[Place]:
    if not (number.isascii() and number.isdigit() and len(number) < _DIGITS):
        return []
    found: list[Place] = []
    for table in (agent_logs, system_logs):
        ids = await db.conn.execute(select(table.c.id).where(table.c.id == int(number)))
        found += [Place(table.name, str(line)) for (line,) in ids]
    return found


def _can_be_stored(name: str) -> bool:
    """Whether a row can have such a name; neither database takes any other one, not even to look for it."""
    return "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def _exact(found: list[str], beginning: str) -> list[str]:
    exact = [name for name in found if name.lower() == beginning.lower()]
    return exact or found

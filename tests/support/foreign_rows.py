"""Rows as another program writes them into an SQLite file, whatever it likes to put into a column."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.models import Agent, AgentLog, OrchestratorAgent, Prompt, SystemLog

DEFINITION = "01890000-0000-7000-8000-00000000000d"
AGENT = "01890000-0000-7000-8000-00000000000a"


@dataclass(frozen=True)
class NoUtf8:
    """Text of the database that is no UTF-8."""

    content: bytes


MODELS: dict[str, Any] = {
    "orchestrator_agents": OrchestratorAgent,
    "agents": Agent,
    "prompts": Prompt,
    "agent_logs": AgentLog,
    "system_logs": SystemLog,
}
UNDERSTOOD: dict[Any, str] = {
    "2026-11-25T12:11:12+0200": "2026-11-25T10:11:12.000000",
    "2026-11-25 12:11:12+02": "2026-11-25T10:11:12.000000",
    "2026-11-25T04:41:12.5-05:30": "2026-11-25T10:11:12.500000",
    "2026-11-25t10:11:12z": "2026-11-25T10:11:12.000000",
    "2026-11-25T10:11:12,25": "2026-11-25T10:11:12.250000",
    "2026-11-25 10:11:12.123456789": "2026-11-25T10:11:12.123456",
    "2026-11-25 10:11": "2026-11-25T10:11:00.000000",
    "2026-11-25": "2026-11-25T00:00:00.000000",
    "20261125T101112": "2026-11-25T10:11:12.000000",
    "20261125T101112.5Z": "2026-11-25T10:11:12.500000",
    "20261125T121112+0200": "2026-11-25T10:11:12.000000",
    "20261125": "2026-11-25T00:00:00.000000",
    "20261125101112": "2026-11-25T10:11:12.000000",
    "20261125101112250": "2026-11-25T10:11:12.250000",
    "2026-W48-3T10:11:12": "2026-11-25T10:11:12.000000",
    "2026W483": "2026-11-25T00:00:00.000000",
    "2026-11-25 10:11:12 UTC": "2026-11-25T10:11:12.000000",
    "2026-11-25 12:11:12.5 +0200 CEST m=+0.012": "2026-11-25T10:11:12.500000",
    " 2026-11-25T10:11:12 ": "2026-11-25T10:11:12.000000",
    1795601472: "2026-11-25T10:11:12.000000",
    "1795601472": "2026-11-25T10:11:12.000000",
    1795601472.25: "2026-11-25T10:11:12.250000",
    1795601472123: "2026-11-25T10:11:12.123000",
    "1795601472123456": "2026-11-25T10:11:12.123456",
    1795601472123456789: "2026-11-25T10:11:12.123456",
    "2461369.5": "2026-11-25T00:00:00.000000",
    b"2026-11-25T10:11:12Z": "2026-11-25T10:11:12.000000",
}
"""Spellings that mean one time only."""
NOT_UNDERSTOOD: tuple[Any, ...] = (
    "11/25/2026",
    "25.11.2026 10:11",
    "",
    " ",
    "yesterday",
    "now",
    "2026",
    "2026-11",
    "2026-02-31T10:11:12",
    "2026-02-31T10:11:12.000000",
    "0000-00-00 00:00:00",
    "10:11:12",
    "2461369",
    "202611251011",
    "1771011202359.x",
    "-1795601472",
    "9999-12-31T23:59:59.999999-01:00",
    "0001-01-01T00:00:00+05:00",
    "\u0662\u0660\u0662\u0666-11-25",
    "Grüße",
    "a\0b",
    "\ud7ff\uffff\U0010ffff",
    0,
    -1.5,
    1e300,
    float("inf"),
    b"",
    b"\xff\x00\x80",
    b"a BLOB",
    NoUtf8(b"Gr\xfc\xdfe"),
    NoUtf8(b"\xed\xa0\x80"),
    NoUtf8(b"\xff\xff"),
)


def spellings_of(moment: datetime) -> list[Any]:
    """The same time, to the second, in every spelling that is understood; one with a fraction more."""
    east = moment + timedelta(hours=2)
    seconds = int(moment.timestamp())
    year, week, day = moment.isocalendar()
    return [
        moment.strftime("%Y-%m-%dT%H:%M:%S.%f"),
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        moment.strftime("%Y-%m-%dT%H:%M:%Sz"),
        east.strftime("%Y-%m-%dT%H:%M:%S+0200"),
        east.strftime("%Y-%m-%d %H:%M:%S+02"),
        east.strftime("%Y-%m-%d %H:%M:%S.000 +0200 CEST"),
        moment.strftime("%Y%m%dT%H%M%SZ"),
        moment.strftime("%Y%m%d%H%M%S"),
        moment.strftime(f"{year:04}-W{week:02}-{day}T%H:%M:%S"),
        seconds,
        str(seconds),
        seconds + 0.25,
        seconds * 1000,
        seconds * 1_000_000,
        f"{seconds / 86400 + 2440587.5:.9f}",
        moment.strftime("%Y-%m-%d %H:%M:%S").encode(),
    ]


Call = Callable[..., Awaitable[list[Any]]]


@dataclass(frozen=True)
class Place:
    """A table, the text column that tells its rows apart, what else they need, and the lists that show them."""

    table: str
    mark: str
    needed: dict[str, Any]
    forward: tuple[Call, ...]
    backward: tuple[Call, ...]

    @property
    def numbered(self) -> bool:
        return self.table.endswith("_logs")


def _definitions(db: DatabaseManager, **page: Any) -> Awaitable[list[Any]]:
    return db.list_orchestrator_agents(**page)


PLACES = {
    place.table: place
    for place in (
        Place("orchestrator_agents", "name", {"agent_type": "utility"}, (), (_definitions,)),
        Place(
            "agents",
            "session_id",
            {"orchestrator_agent_id": DEFINITION, "parent_agent_id": AGENT},
            (),
            (
                lambda db, **page: db.list_agents(parent_agent_id=AGENT, **page),
                lambda db, **page: db.list_agents(status="initializing", parent_agent_id=AGENT, **page),
            ),
        ),
        Place(
            "prompts",
            "prompt_text",
            {"agent_id": AGENT, "prompt_type": "adw"},
            (lambda db, **page: db.list_prompts(AGENT, **page),),
            (),
        ),
        Place(
            "agent_logs",
            "message",
            {"agent_id": AGENT, "log_type": "x"},
            (lambda db, **page: db.get_agent_logs(AGENT, **page),),
            (
                lambda db, **page: db.list_recent_agent_logs(**{"limit": None, **page}),
                lambda db, **page: db.get_logs_by_type("x", **{"limit": None, **page}),
            ),
        ),
        Place(
            "system_logs",
            "message",
            {"component": "x"},
            (lambda db, **page: db.get_system_logs(**page),),
            (lambda db, **page: db.list_recent_system_logs(**{"limit": None, **page}),),
        ),
    )
}

every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())


def parents(connection: sqlite3.Connection) -> None:
    """The rows that the others hang on."""
    connection.execute(
        "INSERT OR IGNORE INTO orchestrator_agents (id, name, agent_type) VALUES (?, 'parent', 'utility')",
        (DEFINITION,),
    )
    connection.execute(
        "INSERT OR IGNORE INTO agents (id, orchestrator_agent_id, session_id) VALUES (?, ?, 'parent')",
        (AGENT, DEFINITION),
    )


def empty(connection: sqlite3.Connection) -> None:
    """Delete every row but the parents."""
    connection.execute("DELETE FROM orchestrator_agents WHERE id <> ?", (DEFINITION,))
    connection.execute("DELETE FROM agents WHERE id <> ?", (AGENT,))
    for table in ("prompts", "agent_logs", "system_logs"):
        connection.execute(f"DELETE FROM {table}")


def drop_triggers(connection: sqlite3.Connection) -> None:
    """Take orchdb's triggers from the file, as programs do that make a table anew."""
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")


def insert(connection: sqlite3.Connection, place: Place, mark: str, **columns: Any) -> None:
    """Insert a row."""
    values = {place.mark: mark, **place.needed, **columns}
    connection.execute(
        f"INSERT INTO {place.table} ({', '.join(values)}) VALUES ({', '.join(map(_term, values.values()))})",
        [_plain(value) for value in values.values()],
    )


def update(connection: sqlite3.Connection, place: Place, mark: str, **columns: Any) -> None:
    """Change a row."""
    changes = ", ".join(f"{name} = {_term(value)}" for name, value in columns.items())
    connection.execute(
        f"UPDATE {place.table} SET {changes} WHERE {place.mark} = ?", [*map(_plain, columns.values()), mark]
    )


def _term(value: Any) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, NoUtf8) else "?"


def _plain(value: Any) -> Any:
    return value.content if isinstance(value, NoUtf8) else value


def of_tests(rows: list[Any], place: Place) -> list[Any]:
    """The rows without the parents."""
    return [row for row in rows if row[place.mark] != "parent"]

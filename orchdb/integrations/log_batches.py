"""Log records on their way to the database: written together, and once, whatever happens to the connection."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from orjson import loads
from sqlalchemy import select

from orchdb.errors import ConnectionLostError, ConstraintError
from orchdb.manager import DatabaseManager, Transaction
from orchdb.rows import LogLevel
from orchdb.schema.values import MAX_WORD, UNPORTABLE, new_id
from orchdb.tables import agent_logs, system_logs

logger = logging.getLogger("orchdb")

Details = tuple[Any, ...]
"""Names and values by turns: scalars as they are, and of whatever else the bytes of its JSON."""
Line = tuple[int, str, str, float, Details | None, str | None]
"""What is made of a record by its caller: the level's number, the logger's name, the message, the time in seconds since
1970, the details and the agent. Tuples of texts and numbers, which Python's collector of cycles passes over: as many as
may wait cost the program none of its long pauses."""
_LOG_TYPE = "log"


class LogBatch:
    """Some records, in order, and what is known of their fate."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = [*lines]
        self._id = f"logging:{new_id()}"
        """The ``event_id`` of the first row, by which it can be told whether all are there."""
        self._uncertain = False
        self._singly: list[LogBatch] | None = None

    async def store(self, db: DatabaseManager) -> int:
        """Write them, unless they are there; how many were refused, and are given up.

        Args:
            db: Where to.
        """
        if self._singly is None:
            try:
                await self._store_together(db)
            except ConstraintError:
                if len(self._lines) == 1:
                    return await self._refused(db)
                # One of them names an agent that is gone, or is too large: the others are not lost with it.
                half = len(self._lines) // 2
                self._singly = [LogBatch(self._lines[:half]), LogBatch(self._lines[half:])]
            else:
                return 0
        refused = 0
        while self._singly:
            refused += await self._singly[0].store(db)
            del self._singly[0]
        return refused

    async def _store_together(self, db: DatabaseManager) -> None:
        if self._uncertain and await self._is_there(db):
            return
        self._uncertain = False
        try:
            async with db.transaction() as tx:
                await self._write(tx)
        except ConnectionLostError:
            self._uncertain = True
            raise

    async def _write(self, tx: Transaction) -> None:
        system: list[Any] = []
        agents: list[Any] = []
        for line in self._lines:
            (system if line[5] is None else agents).append(_row(line))
        if system:
            first = system.pop(0)
            await tx.create_system_log(**first, event_id=self._id)
            await tx.create_system_logs(system)
        else:
            first = agents.pop(0)
            await tx.create_agent_log(**first, event_id=self._id)
        if agents:
            await tx.create_agent_logs(agents)

    async def _is_there(self, db: DatabaseManager) -> bool:
        for table in (system_logs, agent_logs):
            found = await db.conn.execute(select(table.c.id).where(table.c.event_id == self._id))
            if found.first() is not None:
                return True
        return False

    async def _refused(self, db: DatabaseManager) -> int:
        """Write the one line without its agent, who is not there."""
        levelno, name, message, created, details, agent_id = self._lines[0]
        if agent_id is None:
            logger.warning("DatabaseHandler: a record was refused, and is dropped")
            return 1
        self._lines = [(levelno, name, message, created, ("agent_id", agent_id, *(details or ())), None)]
        self._id = f"logging:{new_id()}"
        return await self.store(db)


def _row(line: Line) -> dict[str, Any]:
    levelno, name, message, created, given, agent_id = line
    row = {"log_level": _level(levelno), "message": message, "created_at": _moment(created)}
    details = None if given is None else dict(zip(given[::2], map(_value, given[1::2]), strict=True))
    if agent_id is None:
        return row | {"component": UNPORTABLE.sub("\ufffd", name)[:MAX_WORD] or "root", "details": details}
    return row | {"agent_id": agent_id, "log_type": _LOG_TYPE, "details": {"logger": name, **(details or {})}}


def _moment(created: Any) -> datetime:
    """When a record was made; now, if it says what is no time."""
    try:
        return datetime.fromtimestamp(created, UTC)
    except (ArithmeticError, OSError, TypeError, ValueError):
        return datetime.now(UTC)


def _value(given: Any) -> Any:
    return loads(given) if type(given) is bytes else given


def _level(levelno: int) -> LogLevel:
    """The gravest level that is not above it."""
    if levelno < logging.INFO:
        return "DEBUG"
    if levelno < logging.WARNING:
        return "INFO"
    if levelno < logging.ERROR:
        return "WARNING"
    return "ERROR" if levelno < logging.CRITICAL else "CRITICAL"

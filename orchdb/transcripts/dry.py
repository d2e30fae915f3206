"""What an import would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select

from orchdb import DatabaseManager
from orchdb.tables import agent_logs, agents, prompts
from orchdb.transcripts.counting import Counting, joined
from orchdb.transcripts.events import AgentSeen, Counted, Line, Response
from orchdb.transcripts.mapping import RowMapping, agent_id
from orchdb.transcripts.report import ImportReport
from orchdb.transcripts.storing import Batch, Store

_KEYS = 400


class DryStore:
    """Takes batches and only counts what would be new.

    Args:
        db: The database; ``None`` for an empty one.
        mapping: Makes rows.
        report: Is told what would be new.
    """

    def __init__(self, db: DatabaseManager | None, mapping: RowMapping, report: ImportReport) -> None:
        self._db = db
        self._mapping = mapping
        self._report = report
        self._agents: dict[str, str | None] = {}
        self._prompts: dict[str, str] = {}
        self._lines: set[str] = set()

    async def places(self, keys: Iterable[str]) -> dict[str, tuple[Mapping[str, Any], bool]]:
        """Find how far the files of agents were read."""
        return {} if self._db is None else await Store(self._db, self._mapping, self._report).places(keys)

    async def apply(self, batch: Batch) -> None:
        """Count what a batch would add.

        Args:
            batch: What was read.
        """
        for event in batch.events:
            if isinstance(event, AgentSeen) and event.key not in self._agents and not event.only_if_known:
                self._report.agents += not await self._there(agents, [agent_id(event.key)])
                self._agents[event.key] = event.parent
        counting = Counting(self._mapping, self._report, lambda agent: self._agents.get(agent) is None)
        responses = joined((event for event in batch.events if isinstance(event, Response)), self._mapping.source)
        there = await self._there(prompts, [*responses])
        for name, response in responses.items():
            owner = self._prompts.setdefault(name, there.get(name, response.agent))
            if owner not in (response.agent, agent_id(response.agent)):
                counting.copy(response)
            elif name not in there and self._prompts.get(f"{name}/counted") is None:
                self._prompts[f"{name}/counted"] = owner
                counting.add(response, self._mapping.cost(response))
        lines = {str(self._mapping.line(line).get("event_id")) for line in batch.events if isinstance(line, Line)}
        new = lines - self._lines - (await self._events([*(lines - self._lines)]))
        self._lines |= new
        self._report.lines += len(new)
        for event in batch.events:
            if isinstance(event, Counted):
                counting.row(event)

    async def _there(self, table: Any, ids: list[str]) -> dict[str, str]:
        """Those rows that are there, of prompts with their agents."""
        found: dict[str, str] = {}
        owner = table.c.agent_id if table is prompts else table.c.id
        for start in range(0, len(ids) if self._db is not None else 0, _KEYS):
            assert self._db is not None
            statement = select(table.c.id, owner.label("owner")).where(table.c.id.in_(ids[start : start + _KEYS]))
            found |= {row["id"]: row["owner"] for row in (await self._db.conn.execute(statement)).mappings()}
        return found

    async def _events(self, names: list[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(names) if self._db is not None else 0, _KEYS):
            assert self._db is not None
            some = names[start : start + _KEYS]
            statement = select(agent_logs.c.event_id).where(agent_logs.c.event_id.in_(some))
            found |= {*(await self._db.conn.execute(statement)).scalars()}
        return found

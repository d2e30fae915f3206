"""The sessions of the Claude Agent SDK in orchdb: ``OrchdbSessionStore``, its ``SessionStore``.

Each entry of a transcript is a log line of its agent, as it came; what the entries say is mapped to agents, prompts and
log lines as ``orchdb.transcripts`` maps a file, in the same transaction. It needs the extra ``claude``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from orchdb import DatabaseManager, InvalidValueError, NewAgentLog, OperationError, Transaction
from orchdb.tables import agent_logs, agents, orchestrator_agents
from orchdb.transcripts.claude_code import ClaudeCodeReader
from orchdb.transcripts.claude_rows import clean, dictionary, moment, storable, words
from orchdb.transcripts.claude_threads import Place
from orchdb.transcripts.creating import made
from orchdb.transcripts.events import PLACEHOLDER, AgentSeen, Counted, Event
from orchdb.transcripts.mapping import Prices, RowMapping, agent_id, definition_of
from orchdb.transcripts.storing import PLACES, Application, Batch, Deleted, in_transaction

if TYPE_CHECKING:
    from claude_agent_sdk.types import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )

ENTRY = "transcript_entry"
"""The ``log_type`` of the lines that hold the entries."""
_PLACE = "sdk"
_FIRST = {"offset": 0, "end": 0, "head": "", "size": 0, "changed": 0}


class OrchdbSessionStore:
    """Stores the sessions of the Claude Agent SDK: ``ClaudeAgentOptions(session_store=OrchdbSessionStore(db))``.

    A project is a definition, a session and each of its sub-agents an agent, with the ids that ``orchdb import`` would
    give them: a session that is mirrored and imported is there once. Several processes may write to a session.

    Args:
        db: A connected manager, which the caller closes.
    """

    def __init__(self, db: DatabaseManager) -> None:
        self._db = db
        self._mapping = RowMapping("claude", content=True, prices=Prices())

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Store a batch of entries, all of them or none; what is there already, by its ``uuid``, is not stored again.

        Args:
            key: Which transcript.
            entries: Its next entries.

        Raises:
            InvalidValueError: The key is not usable.
            OperationError: The agent of the transcript was deleted softly.
        """
        if not entries:
            return
        place = _place_of(key)
        at = next((found for entry in entries if (found := moment(entry.get("timestamp")))), None)
        begun = at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        meta = next((entry for entry in reversed(entries) if entry.get("type") == "agent_metadata"), None)
        place = place._replace(meta=None if meta is None else dict(meta))

        async def write(tx: Transaction) -> None:
            await _Append(tx, self._mapping, place, key, begun).run(entries)

        try:
            await in_transaction(self._db, write)
        except Deleted:
            deleted = True
        else:
            deleted = False
        if deleted:
            raise OperationError("the session was deleted softly: restore its agent, or delete it for good")

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Load the entries of a transcript.

        Args:
            key: Which transcript.

        Returns:
            The entries, in the order in which they were stored; ``None`` if nothing was.
        """
        name = agent_id(_place_of(key).key())
        statement = (
            select(agent_logs.c.details)
            .join(agents, agents.c.id == agent_logs.c.agent_id)
            .where(agent_logs.c.agent_id == name, agent_logs.c.log_type == ENTRY, agents.c.deleted_at.is_(None))
            .order_by(agent_logs.c.id)
        )
        found = [*(await self._db.conn.execute(statement)).scalars()]
        return [json.loads(entry) if isinstance(entry, str) else entry for entry in found] or None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """List the sessions of a project.

        Args:
            project_key: The project.

        Returns:
            Their ids, with the milliseconds since 1970 of the last change of each.
        """
        rows = await self._sessions(project_key)
        return [{"session_id": session, "mtime": int(kept["mtime"])} for session, kept in rows]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """List the summaries of the sessions of a project, which are kept as entries come.

        Args:
            project_key: The project.

        Returns:
            A summary for each session.
        """
        rows = await self._sessions(project_key)
        return [
            {"session_id": session, "mtime": int(kept["mtime"]), "data": dict(dictionary(kept.get("summary")))}
            for session, kept in rows
        ]

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with its sub-agents, or one sub-agent: agents, prompts and log lines.

        Args:
            key: Which one.
        """
        if key.get("subpath") is not None:
            await self._db.delete_agent(agent_id(_place_of(key).key()))
            return

        async def remove(tx: Transaction) -> None:
            for row in await _agents_of(tx, key["project_key"], key["session_id"]):
                await tx.delete_agent(row["id"])

        await in_transaction(self._db, remove)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """List the transcripts of a session beside its own.

        Args:
            key: The session.

        Returns:
            Their subpaths.
        """
        rows = await _agents_of(self._db, key["project_key"], key["session_id"])
        kept = [_kept(row["metadata"]) for row in rows if row["deleted_at"] is None]
        return sorted(str(each["subpath"]) for each in kept if each.get("subpath"))

    async def _sessions(self, project_key: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The sessions of a project that something was stored of, and what is kept of each."""
        name = definition_of("claude", AgentSeen("", "", project_key, "", None, PLACEHOLDER, ""))["name"]
        statement = (
            select(agents.c.session_id, agents.c.metadata)
            .join(orchestrator_agents, orchestrator_agents.c.id == agents.c.orchestrator_agent_id)
            .where(orchestrator_agents.c.name == name, agents.c.deleted_at.is_(None))
            .order_by(agents.c.created_at, agents.c.id)
        )
        rows = (await self._db.conn.execute(statement)).mappings()
        found = [(str(_kept(row["metadata"]).get("session")), _kept(row["metadata"])) for row in rows]
        return [(session, kept) for session, kept in found if kept and not kept.get("subpath")]


class _Append:
    """One batch of entries in one transaction."""

    def __init__(self, tx: Transaction, mapping: RowMapping, place: Place, key: SessionKey, at: str) -> None:
        self._tx = tx
        self._mapping = mapping
        self._place = place
        self._key = key
        self._at = at
        self._agent = agent_id(place.key())

    async def run(self, entries: Sequence[SessionStoreEntry]) -> None:
        begin = [*ClaudeCodeReader(self._place, None, self._at).begin()]
        metadata = await self._lock()
        if not metadata:
            await self._make(begin)
            metadata = await self._lock()
        kept, base = _kept(metadata), dictionary(dictionary(metadata.get(PLACES)).get(_PLACE)) or None
        new = await self._write(entries)
        if not new:
            return
        reader = ClaudeCodeReader(self._place, base["state"] if base else None, self._at)
        events = [*reader.begin(), *await self._read(reader, base, new), *reader.finish()]
        await self._make(events[len(begin) if self._place.meta is None else 0 :])
        restart = reader.restart()
        reached = {**_FIRST, "offset": restart.offset, "end": new[-1][0], "state": restart.state}
        await Application(self._tx, self._mapping, Batch(self._place.key(), _PLACE, base, reached, events)).run()
        await self._keep(kept, [entry for _, entry in new])

    async def _lock(self) -> Mapping[str, Any]:
        """Lock the session's own agent first, then this one: everybody in this order."""
        metadata: Mapping[str, Any] = {}
        for name in dict.fromkeys((agent_id(self._place.key("")), self._agent)):
            statement = select(agents.c.metadata).where(agents.c.id == name).with_for_update(key_share=True)
            metadata = dictionary((await self._tx.conn.execute(statement)).scalar())
        return metadata

    async def _make(self, events: Sequence[Event]) -> None:
        """Make the agents that are not there yet."""
        for event in events:
            if isinstance(event, AgentSeen):
                await made(self._tx, "claude", event)

    async def _write(self, entries: Sequence[SessionStoreEntry]) -> list[tuple[int, SessionStoreEntry]]:
        """Write the entries that are not there; with their numbers. Of a batch that is sent again, none is written."""
        names = [words(entry.get("uuid")) for entry in entries]
        lines: list[NewAgentLog] = [
            {
                "agent_id": self._agent,
                "log_level": "DEBUG",
                "log_type": ENTRY,
                "message": clean(str(entry.get("type")), 200),
                "details": _kept_whole(dict(entry)),
                "event_id": None if name is None else clean(f"sdk:{self._agent}:{name}"),
            }
            for entry, name in zip(entries, names, strict=True)
        ]
        before = (await self._tx.conn.execute(select(func.max(agent_logs.c.id)))).scalar() or 0
        named = [line for line in lines if line.get("event_id")]
        if named and len(named) < len(lines):
            # Those without a name cannot be known again; with the others they are.
            wanted = {str(line.get("event_id")) for line in named}
            known = await self._known([*wanted])
            if known == wanted:
                return []
        numbers = await self._tx.create_agent_logs(lines)
        fresh = {number: entry for number, entry in zip(numbers, entries, strict=True) if number > before}
        return sorted(fresh.items())

    async def _known(self, names: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(names), 400):
            statement = select(agent_logs.c.event_id).where(agent_logs.c.event_id.in_(names[start : start + 400]))
            found |= {*(await self._tx.conn.execute(statement)).scalars()}
        return found

    async def _read(
        self, reader: ClaudeCodeReader, base: Mapping[str, Any] | None, new: Sequence[tuple[int, SessionStoreEntry]]
    ) -> list[Event]:
        """What the entries say, from the last exchange on."""
        rows: list[tuple[int, Mapping[str, Any]]] = []
        if base and base["offset"] <= base["end"]:
            statement = (
                select(agent_logs.c.id, agent_logs.c.details)
                .where(agent_logs.c.agent_id == self._agent, agent_logs.c.log_type == ENTRY)
                .where(agent_logs.c.id >= base["offset"], agent_logs.c.id < new[0][0])
                .order_by(agent_logs.c.id)
            )
            found = [(number, details) for number, details in await self._tx.conn.execute(statement)]
            rows += [(number, json.loads(row) if isinstance(row, str) else row) for number, row in found]
        rows += [(number, dict(entry)) for number, entry in new]
        events: list[Event] = []
        for number, row in rows:
            if row.get("type") != "agent_metadata":
                try:
                    told = reader.read(row, number, number + 1)
                    events += [event for event in told if not isinstance(event, Counted)]
                except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
                    continue  # the entry is stored; what it means is not understood
        return events

    async def _keep(self, kept: Mapping[str, Any], entries: list[SessionStoreEntry]) -> None:
        """Keep when the session was last written to, and its summary, beside the entries."""
        from claude_agent_sdk import fold_session_summary  # noqa: PLC0415  # only those who use it have it

        subpath = self._key.get("subpath")
        written = max(time.time_ns() // 1_000_000, int(kept.get("mtime", 0)) + 1)
        keep: dict[str, Any] = {"mtime": written, "session": self._key["session_id"]}
        if subpath is not None:
            keep["subpath"] = subpath
        else:
            before: Any = {
                "session_id": self._key["session_id"],
                "mtime": int(kept.get("mtime", 0)),
                "data": dict(dictionary(kept.get("summary"))),
            }
            keep["summary"] = fold_session_summary(before if kept else None, self._key, entries)["data"]
        statement = select(agents.c.metadata).where(agents.c.id == self._agent)
        metadata = dictionary((await self._tx.conn.execute(statement)).scalar())
        changed = {**metadata, _PLACE: keep}
        await self._tx.conn.execute(update(agents).where(agents.c.id == self._agent).values(metadata=changed))


def _kept_whole(entry: dict[str, Any]) -> dict[str, Any] | str:
    """The entry, or its text where no column takes its numbers or its depth."""
    return entry if storable(entry) == entry else json.dumps(entry)


def _place_of(key: SessionKey) -> Place:
    subpath = key.get("subpath")
    if subpath == "" or not key["project_key"] or not key["session_id"]:
        raise InvalidValueError("key: its parts must not be empty", column="key")
    agent, workflow = "", None
    if subpath is not None:
        parts = subpath.split("/")
        if parts[0] == "subagents" and parts[-1].startswith("agent-"):
            agent = parts[-1].removeprefix("agent-")
            workflow = parts[2] if len(parts) == 4 and parts[1] == "workflows" else None
        else:
            agent = f"({subpath})"
    return Place(key["project_key"], key["session_id"], agent, None, workflow)


async def _agents_of(db: DatabaseManager | Transaction, project: str, session: str) -> list[Mapping[str, Any]]:
    columns = (agents.c.id, agents.c.metadata, agents.c.deleted_at)
    rows = await db.conn.execute(select(*columns).where(agents.c.session_id == clean(session)).order_by(agents.c.id))
    found = [dict(row) for row in rows.mappings()]
    return [row for row in found if dictionary(row["metadata"]).get("project") == project]


def _kept(metadata: object) -> Mapping[str, Any]:
    return dictionary(dictionary(metadata).get(_PLACE))

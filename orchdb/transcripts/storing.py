"""What a reader has told, into the database: a batch of events and how far the reader has come, in one transaction.

How far a file was read stands in its agent's ``metadata``. That row is locked first and looked at: whoever has come
further meanwhile, in this process or another one, wins, and the batch is dropped. So each row of a file is applied
once, whenever a process is killed and however many import at a time; what stands in several files is found by its id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError, StatementError

from orchdb import (
    DatabaseManager,
    InvalidValueError,
    NewPrompt,
    OperationError,
    OrchdbError,
    Transaction,
)
from orchdb.driver_errors import CONFLICTS
from orchdb.money import NANO, nanos
from orchdb.tables import agent_logs, agents, prompts
from orchdb.transcripts.claude_rows import dictionary, storable
from orchdb.transcripts.counting import Counting, joined
from orchdb.transcripts.creating import defined, made
from orchdb.transcripts.events import PLACEHOLDER, AgentSeen, Counted, Event, Fact, Line, Response, Usage
from orchdb.transcripts.mapping import RowMapping, agent_id, definition_of
from orchdb.transcripts.report import ImportReport

PLACES = "import"
"""Where in an agent's metadata it stands how far its files were read."""
_TRIES = 5
_KEYS = 400
_T = TypeVar("_T")
_NONE = PLACEHOLDER + 1
_TOKENS = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")


@dataclass
class Batch:
    """What was read of one file in one go.

    Attributes:
        owner: The key of the agent whose file it is.
        place: What the file is called in the agent's metadata.
        base: What has to stand there now; ``None`` for nothing.
        reached: What will stand there.
        events: What was told.
    """

    owner: str
    place: str
    base: Mapping[str, Any] | None
    reached: Mapping[str, Any]
    events: list[Event] = field(default_factory=lambda: list[Event]())


class Overtaken(Exception):  # noqa: N818  # it is no error
    """Somebody else has read the file meanwhile; ``reached`` is how far, ``None`` for not at all."""

    def __init__(self, reached: Mapping[str, Any] | None) -> None:
        super().__init__("overtaken")
        self.reached = reached


class Deleted(Exception):  # noqa: N818
    """The agent was deleted softly: what somebody has hidden stays as it is."""


class Store:
    """Applies batches.

    Args:
        db: The database.
        mapping: Makes rows.
        report: Is told what was new.
    """

    def __init__(self, db: DatabaseManager, mapping: RowMapping, report: ImportReport) -> None:
        self._db = db
        self._mapping = mapping
        self._report = report
        self._there: set[str] = set()

    async def places(self, keys: Iterable[str]) -> dict[str, tuple[Mapping[str, Any], bool]]:
        """Find how far the files of agents were read: by the agent's key, and whether it was deleted softly."""
        by_id = {agent_id(key): key for key in keys}
        found: dict[str, tuple[Mapping[str, Any], bool]] = {}
        ids = [*by_id]
        for start in range(0, len(ids), _KEYS):
            some = ids[start : start + _KEYS]
            statement = select(agents.c.id, agents.c.metadata, agents.c.deleted_at).where(agents.c.id.in_(some))
            for row in (await self._db.conn.execute(statement)).mappings():
                places = dictionary(row["metadata"]).get(PLACES)
                found[by_id[row["id"]]] = (dictionary(places), row["deleted_at"] is not None)
        return found

    async def apply(self, batch: Batch) -> None:
        """Apply a batch, all of it or nothing.

        Args:
            batch: What was read.

        Raises:
            Overtaken: Something else than ``base`` stands in the agent's metadata.
            Deleted: The agent was deleted softly.
        """
        await self._make_agents(batch.events)

        async def run(tx: Transaction) -> Application:
            applied = Application(tx, self._mapping, batch)
            await applied.run()
            return applied

        try:
            applied = await in_transaction(self._db, run)
        except Overtaken:
            self._there.clear()
            raise
        applied.tell(self._report)

    async def _make_agents(self, events: Iterable[Event]) -> None:
        for seen in events:
            if isinstance(seen, AgentSeen) and seen.key not in self._there:
                self._report.agents += await made(self._db, self._mapping.source, seen)
                self._there.add(seen.key)


async def in_transaction(db: DatabaseManager, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
    """Do something in a transaction, again if the server ends it because two of them wait for each other.

    Args:
        db: The database.
        work: What to do.

    Returns:
        What it gives.

    Raises:
        OperationError: It could not be done.
    """
    for tries in range(_TRIES):
        failure: OrchdbError
        try:
            async with db.transaction() as tx:
                return await work(tx)
        except OperationError as error:
            failure = error
        except DBAPIError as error:  # of our own statements, in SQLAlchemy's words; those of the driver are not told on
            code = getattr(error.orig, "sqlstate", None)
            failure = OperationError("a statement of the import failed", operation="import", code=code)
        except StatementError as error:  # a column refuses its value
            if not isinstance(error.orig, OrchdbError):
                raise
            failure = error.orig
        if failure.code not in CONFLICTS or tries == _TRIES - 1:
            raise failure
    raise AssertionError("unreachable")


class Application:
    """One batch in one transaction.

    Args:
        tx: The transaction.
        mapping: Makes rows.
        batch: What was read.
    """

    def __init__(self, tx: Transaction, mapping: RowMapping, batch: Batch) -> None:
        self._tx = tx
        self._mapping = mapping
        self._batch = batch
        self._rows: dict[str, dict[str, Any]] = {}
        self._report = ImportReport()
        self._counting = Counting(mapping, self._report, self._is_top)

    def _is_top(self, agent: str) -> bool:
        return self._rows.get(agent_id(agent), {}).get("parent_agent_id") is None

    def tell(self, report: ImportReport) -> None:
        """Add what was new to a report, once the transaction has ended well."""
        report.merge(self._report)

    async def run(self) -> None:
        """Apply the batch.

        Raises:
            Overtaken: Something else than ``base`` stands in the agent's metadata.
            Deleted: The agent was deleted softly.
        """
        await self._lock()
        await self._prompts([event for event in self._batch.events if isinstance(event, Response)])
        await self._lines([event for event in self._batch.events if isinstance(event, Line)])
        await self._agents()
        for event in self._batch.events:
            if isinstance(event, Counted):
                self._counting.row(event)

    async def _lock(self) -> None:
        """Lock the rows of all agents concerned, in an order that is the same for everybody, and look how far it is."""
        keys = {
            event.key if isinstance(event, AgentSeen) else event.agent
            for event in self._batch.events
            if not isinstance(event, Counted)
        }
        ids = sorted({agent_id(key) for key in (*keys, self._batch.owner)})
        columns = (
            agents.c.id,
            agents.c.orchestrator_agent_id,
            agents.c.parent_agent_id,
            agents.c.started_at,
            agents.c.completed_at,
            agents.c.created_at,
            agents.c.metadata,
            agents.c.deleted_at,
        )
        for start in range(0, len(ids), _KEYS):
            statement = select(*columns).where(agents.c.id.in_(ids[start : start + _KEYS])).order_by(agents.c.id)
            found = await self._tx.conn.execute(statement.with_for_update(key_share=True))
            self._rows |= {row["id"]: dict(row) for row in found.mappings()}
        owner = self._rows.get(agent_id(self._batch.owner))
        if owner is None:  # somebody has just deleted it for good
            raise Overtaken(None)
        if owner["deleted_at"] is not None:
            raise Deleted
        reached = dictionary(dictionary(owner["metadata"]).get(PLACES)).get(self._batch.place)
        if _stand(reached) != _stand(self._batch.base):
            raise Overtaken(reached)

    async def _prompts(self, responses: Sequence[Response]) -> None:
        wanted = joined(responses, self._mapping.source)
        stored = await self._stored([*wanted])
        new: list[NewPrompt] = []
        for name, response in wanted.items():
            row = stored.get(name)
            if row is None:
                new.append(self._mapping.prompt(response))
            elif row["agent_id"] != agent_id(response.agent):
                self._counting.copy(response)
            else:
                await self._correct(name, row, response)
        if not new:
            return
        await self._tx.create_prompts(new, exist_ok=True)
        kept = await self._stored([str(row.get("id")) for row in new])
        costs: dict[str, int] = {}
        for row in new:
            response = wanted[str(row.get("id"))]
            if kept[str(row.get("id"))]["agent_id"] != row["agent_id"]:  # another import was quicker
                self._counting.copy(response)
                continue
            cost = row.get("cost_usd")
            self._counting.add(response, cost)
            costs[row["agent_id"]] = costs.get(row["agent_id"], 0) + nanos(cost or 0.0)
        for agent, cost in sorted(costs.items()):
            if cost:
                await self._tx.add_agent_cost(agent, cost / NANO)

    async def _stored(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        names = ("id", "agent_id", *_TOKENS, "cost_usd", "metadata")
        columns = [prompts.c[name] for name in names]
        for start in range(0, len(ids), _KEYS):
            statement = select(*columns).where(prompts.c.id.in_(ids[start : start + _KEYS]))
            found |= {row["id"]: row for row in (await self._tx.conn.execute(statement)).mappings()}
        return found

    async def _correct(self, name: str, row: Mapping[str, Any], response: Response) -> None:
        """More of a response has come: its tokens, and its text if it was read from its beginning."""
        known = dictionary(row["metadata"])
        whole = response.whole and known.get("first") == response.first
        more = whole and int(response.facts.get("parts", 0)) > int(known.get("parts", 0))
        usage = response.usage
        stored = row["tokens_output"] or 0
        larger = usage is not None and (usage.tokens_output > stored or (more and usage.tokens_output == stored))
        if not more and not larger:
            return
        target = self._mapping.prompt(response)
        counts = usage if larger else None
        metadata = {**known, **self._mapping.metadata(response)} if whole else dict(known)
        if larger and not whole:
            metadata["usage"] = storable(response.raw_usage or {})
        await self._tx.complete_prompt(
            name,
            target.get("response_text") if whole else None,
            status=response.status,
            tokens_input=counts and counts.tokens_input,
            tokens_output=counts and counts.tokens_output,
            tokens_cache_read=counts and counts.tokens_cache_read,
            tokens_cache_write=counts and counts.tokens_cache_write,
            cost_usd=target.get("cost_usd") if larger else None,
            metadata=metadata,
        )
        if whole:
            await self._tx.update_prompt(name, completed_at=response.ended)
        self._report.prompts_corrected += 1
        if larger:
            self._counting.corrected(response, target.get("cost_usd"), _counts(row), row["cost_usd"])

    async def _lines(self, lines: Sequence[Line]) -> None:
        if not lines:
            return
        before = (await self._tx.conn.execute(select(func.max(agent_logs.c.id)))).scalar() or 0
        numbers = await self._tx.create_agent_logs([self._mapping.line(line) for line in lines])
        self._report.lines += len({number for number in numbers if number > before})

    async def _agents(self) -> None:
        """Bring the agents up to date, the owner's place included."""
        changes: dict[str, dict[str, Any]] = {}
        parents: dict[str, str] = {}
        for event in self._batch.events:
            if isinstance(event, Counted):
                continue
            name = agent_id(event.key if isinstance(event, AgentSeen) else event.agent)
            row = self._rows.get(name)
            if row is None:
                continue
            change = changes.setdefault(name, {"metadata": dict(dictionary(row["metadata"]))})
            if isinstance(event, AgentSeen):
                await self._place(event, row, change, parents)
            elif isinstance(event, Fact):
                change["metadata"] |= storable(event.facts | (event.content if self._mapping.content else {}))
            else:
                _move_end(row, change, event.ended if isinstance(event, Response) else event.at)
        owner = agent_id(self._batch.owner)
        metadata = changes.setdefault(owner, {"metadata": dict(dictionary(self._rows[owner]["metadata"]))})["metadata"]
        metadata[PLACES] = {**dictionary(metadata.get(PLACES)), self._batch.place: self._batch.reached}
        for name, change in changes.items():
            if change != {"metadata": self._rows[name]["metadata"]}:
                await self._tx.conn.execute(update(agents).where(agents.c.id == name).values(change))
        for name, parent in parents.items():
            try:
                await self._tx.update_agent(name, parent_agent_id=parent)
            except InvalidValueError:
                self._report.find(f"agent {name}: what is said of the agents above it goes in a circle")

    async def _place(
        self, seen: AgentSeen, row: Mapping[str, Any], change: dict[str, Any], parents: dict[str, str]
    ) -> None:
        """Take what is better known than before: where it hangs, what kind it is, when it began."""
        metadata = change["metadata"]
        if seen.own:
            metadata |= seen.facts
            change |= (
                {"created_at": seen.at, "started_at": seen.at} if row["created_at"] != _stored_time(seen.at) else {}
            )
        known = dict(dictionary(metadata.get("evidence")))
        if seen.parent is not None and seen.evidence < known.get("parent", _NONE):
            metadata |= seen.facts
            known["parent"] = seen.evidence
            if agent_id(seen.parent) != row["parent_agent_id"]:
                parents[row["id"]] = agent_id(seen.parent)
        if seen.kind is not None and seen.evidence < known.get("kind", _NONE):
            known["kind"] = seen.evidence
            if definition_of(self._mapping.source, seen)["id"] != row["orchestrator_agent_id"]:
                change["orchestrator_agent_id"] = await defined(self._tx, self._mapping.source, seen)
        metadata["evidence"] = known


def _stand(place: Mapping[str, Any] | None) -> list[Any] | None:
    """What tells two places apart; the rest of it may have been stored in other words."""
    return None if place is None else [place.get(name) for name in ("offset", "end", "head", "size", "changed")]


def _counts(row: Mapping[str, Any]) -> Usage:
    """The tokens of a prompt that is stored."""
    metadata = dictionary(row["metadata"])
    counts = {name: int(row[name] or 0) for name in _TOKENS}
    return Usage(**counts, tokens_cache_write_1h=int(metadata.get("tokens_cache_write_1h", 0)))


def _move_end(row: Mapping[str, Any], change: dict[str, Any], at: str) -> None:
    ended = _stored_time(at)
    if ended > (change.get("completed_at") or row["completed_at"] or ""):
        change["completed_at"] = ended


def _stored_time(at: str) -> str:
    moment = datetime.fromisoformat(at)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")

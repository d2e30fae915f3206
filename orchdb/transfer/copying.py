"""Copying a whole database into an empty one, and comparing two."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import URL, Table

from orchdb.clocks import steady
from orchdb.engines import is_sqlite, source_of, target_of
from orchdb.errors import DuplicateError
from orchdb.location import MEMORY, Location, locate
from orchdb.manager import DatabaseManager
from orchdb.schema.column_types import RowNumber
from orchdb.streams import Position, RowSource, RowTarget
from orchdb.transfer.findings import Findings
from orchdb.transfer.portable import RULES
from orchdb.transfer.progress import Tell, Telling
from orchdb.transfer.reading import TABLES, Part, Reader, hashes
from orchdb.transfer.report import TableReport, TableSum, TransferReport

_SOURCE, _TABLE = "source", "table "
Database = str | os.PathLike[str] | URL


async def copy_database(
    from_: Database,
    to: Database,
    *,
    verify: bool = True,
    findings: str | os.PathLike[str] | None = None,
    progress: Tell | None = None,
) -> TransferReport:
    """Copy everything into an empty database, whichever engine each of the two has, and compare both.

    The source is read as it was at one moment, whatever others write meanwhile. A copy that was broken off, also by
    ``kill -9``, goes on where it was when it is called again with the same two; what has changed in the source since
    is noticed, and the table copied anew. Nobody else may write to the target before the copy is complete.

    What the target cannot hold is changed by a rule, or left out, and told: see ``TransferReport.rules``.

    Args:
        from_: The database to read: a path or a URL, as ``DatabaseManager`` takes them. Its schema is current.
        to: The database to fill. It is made if it is not there.
        verify: Whether to read both sides and compare what orchdb returns of them, table by table.
        findings: A file to tell each changed value and each row that was left out in, as a JSON object a line:
            ``table``, ``id``, ``column``, ``rule``, ``value``. It is made when there is something to tell, for its
            owner only, and added to.
        progress: Is called now and then with how far it is.

    Returns:
        What was copied, and whether both sides are equal: look at ``report.equal``.

    Raises:
        InvalidValueError: A place is not usable, or both are the same.
        DuplicateError: The target holds rows already, or a part of another copy.
        SchemaError: One of the two has another revision, or is no database of orchdb's.
        OperationError: One of the two cannot be reached, read or written.
    """
    source_at, target_at = _two_places(from_, to)
    told = Findings(findings)
    told.check()
    await _require_current(source_at)
    await _prepare(target_at)
    async with _opened(source_at) as source, _filled(target_at) as target:
        copy = _Copy(source, target, told, Telling(progress), hashing=verify)
        await copy.run()
    return await copy.verified(target_at) if verify else copy.report({})


async def compare_databases(from_: Database, to: Database, *, progress: Tell | None = None) -> TransferReport:
    """Compare what orchdb returns of two databases, table by table; nothing is written.

    Both are read as they were at one moment each. Where one of them takes less than the other, its rules hold for both,
    so that a copy equals what it was made from.

    Args:
        from_: A database: a path or a URL, as ``DatabaseManager`` takes them. Its schema is current.
        to: The other one.
        progress: Is called now and then with how far it is.

    Returns:
        How many rows each table has on both sides, and the hash of their content: look at ``report.equal``.

    Raises:
        InvalidValueError: A place is not usable, or both are the same.
        SchemaError: One of the two has another revision, or is no database of orchdb's.
        OperationError: One of the two cannot be reached or read.
    """
    places = _two_places(from_, to)
    for place in places:
        await _require_current(place)
    started, telling = steady(), Telling(progress)
    async with _opened(places[0]) as source, _opened(places[1]) as target:
        strict = source.strict or target.strict
        readers = [Reader(each, strict=strict) for each in (source, target)]
        counts = [[await reader.source.count(table) for table in TABLES] for reader in readers]
        telling.begin("verifying", sum(map(sum, counts)))
        one, other = [await _sums(reader, telling) for reader in readers]
        tables = {name: _compared(found, other[name]) for name, found in one.items()}
        return TransferReport(source.place, target.place, tables, seconds=steady() - started)


async def _sums(reader: Reader, telling: Telling) -> dict[str, TableSum]:
    await reader.look_for_strangers()
    return {table.name: await reader.sum_of(table, told=telling.of(table.name)) for table in TABLES}


def _compared(source: TableSum, target: TableSum, changed: int = 0, left_out: int = 0) -> TableReport:
    return TableReport(source.rows, target.rows, source.content, target.content, changed, left_out)


@dataclass
class _TableState:
    """How far the copy of a table is: what the target keeps of it."""

    position: Position | None = None
    sum: TableSum = field(default_factory=TableSum)
    hashed: bool = True
    read: int = 0
    changed: int = 0
    left_out: int = 0
    rules: set[str] = field(default_factory=set[str])

    def plus(self, part: Part, *, hashing: bool) -> _TableState:
        rules = self.rules.union([change.rule for change in part.changes], ["orphan"] if part.left_out else [])
        return _TableState(
            part.position,
            self.sum.plus(part.rows, hashes(part.shown) if hashing else 0),
            self.hashed and hashing,
            self.read + part.read,
            self.changed + len(part.changes),
            self.left_out + len(part.left_out),
            rules,
        )

    def kept(self) -> str:
        told = [self.position, self.sum.rows, self.sum.content, self.hashed, self.read, self.changed, self.left_out]
        return orjson.dumps([*told, sorted(self.rules)]).decode()

    @classmethod
    def of(cls, kept: str) -> _TableState:
        position, rows, content, hashed, read, changed, left_out, rules = orjson.loads(kept)
        total = TableSum(rows, int(content, 16))
        return cls(position, total, hashed, read, changed, left_out, set(rules))


class _Copy:
    """One call: from a source that is open into a target that is."""

    def __init__(
        self, source: RowSource, target: RowTarget, findings: Findings, telling: Telling, *, hashing: bool
    ) -> None:
        self._reader = Reader(source, strict=target.strict)
        self._source = source
        self._target = target
        self._findings = findings
        self._telling = telling
        self._hashing = hashing
        self._states: dict[str, _TableState] = {}
        self._copied = 0
        self._resumed = False
        self._started = steady()
        self._copying_seconds = 0.0

    async def run(self) -> None:
        """Copy all tables, and make again what was put away meanwhile."""
        await self._begin()
        await self._reader.look_for_strangers()
        before = dict(self._states)
        total = sum([await self._source.count(table) for table in TABLES])
        self._telling.begin("copying", total, sum(state.read for state in before.values()))
        for table in TABLES:
            await self._fill(table)
        if self._resumed and self._hashing:
            for table in TABLES:
                await self._check(table, before[table.name])
        self._telling.begin("indexing", 0)
        numbers = {
            table.name: await self._source.last_number(table)
            for table in TABLES
            if isinstance(table.c.id.type, RowNumber)
        }
        await self._target.finish(TABLES, numbers)
        self._copying_seconds = steady() - self._started

    async def _begin(self) -> None:
        kept = await self._target.state()
        if kept and kept.get(_SOURCE) != self._source.place:
            raise DuplicateError(
                f"{self._target.place} holds a part of a copy of another database: go on with that, or drop it"
            )
        self._states = {
            table.name: _TableState.of(kept[name]) if (name := _TABLE + table.name) in kept else _TableState()
            for table in TABLES
        }
        self._resumed = bool(kept)
        if kept:
            return
        for table in TABLES:
            if not await self._target.is_empty(table):
                raise DuplicateError(
                    f"{self._target.place} holds rows already: copy into an empty database", table=table.name
                )
        await self._target.prepare(TABLES, {_SOURCE: self._source.place})

    async def _fill(self, table: Table) -> None:
        tell = self._telling.of(table.name)
        async with aclosing(self._reader.parts(table, self._states[table.name].position)) as parts:
            async for part in parts:
                state = self._states[table.name].plus(part, hashing=self._hashing)
                self._findings.tell(table.name, part)
                await self._target.write(table, part.columns, part.rows, {_TABLE + table.name: state.kept()})
                self._states[table.name] = state
                self._copied += part.rows
                tell(part.read)

    async def _check(self, table: Table, before: _TableState) -> None:
        """Copy a table anew, if what an earlier call had copied is no longer what the source has."""
        if before.position is None:
            return
        if before.hashed and await self._reader.sum_of(table, before.position) == before.sum:
            return
        self._states[table.name] = state = _TableState()
        await self._target.clear(table, {_TABLE + table.name: state.kept()})
        self._telling.begin("copying", await self._source.count(table))
        await self._fill(table)

    async def verified(self, place: Location) -> TransferReport:
        """Read the target, and compare it with what was read from the source."""
        self._telling.begin("verifying", sum(state.sum.rows for state in self._states.values()))
        async with _opened(place) as target:
            return self.report(await _sums(Reader(target, strict=self._target.strict), self._telling))

    def report(self, found: dict[str, TableSum]) -> TransferReport:
        """What was copied, and what the target was found to hold."""
        tables = dict[str, TableReport]()
        for name, state in self._states.items():
            if name in found:
                tables[name] = _compared(state.sum, found[name], state.changed, state.left_out)
            else:
                tables[name] = TableReport(state.sum.rows, changed=state.changed, left_out=state.left_out)
        used = set[str]().union(*(state.rules for state in self._states.values()))
        return TransferReport(
            self._source.place,
            self._target.place,
            tables,
            self._copied,
            self._resumed,
            steady() - self._started,
            self._copying_seconds,
            {rule: said for rule, said in RULES.items() if rule in used},
        )


def _two_places(from_: Database, to: Database) -> tuple[Location, Location]:
    """Where the two are.

    Raises:
        InvalidValueError: One of them is not usable, or they are the same.
    """
    places = locate(from_, "from_"), locate(to, "to")
    for place in places:
        if place.url.database == MEMORY:
            place.source.refuse("a database in memory is gone with its manager: name a file or a server")
    if _identity(places[0]) == _identity(places[1]):
        places[1].source.refuse("is the same database as from_")
    return places


def _identity(place: Location) -> tuple[Any, ...]:
    if is_sqlite(place):
        return (os.path.realpath(place.url.database or ""),)
    return place.url.host, place.url.port or 5432, place.url.database, tuple(sorted(place.url.query.items()))


async def _require_current(place: Location) -> None:
    """Refuse what is not there, or has another revision."""
    async with DatabaseManager(place.url, read_only=True):
        pass


async def _prepare(place: Location) -> None:
    """Make the target if there is none; refuse one of another revision."""
    async with DatabaseManager(place.url, upgrade=False):
        pass


@asynccontextmanager
async def _opened(place: Location) -> AsyncGenerator[RowSource]:
    source = await source_of(place)
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def _filled(place: Location) -> AsyncGenerator[RowTarget]:
    target = await target_of(place)
    try:
        yield target
    finally:
        await target.close()

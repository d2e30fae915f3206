"""Importing transcripts: what is new of each file, batch by batch, in bounded memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchdb import DatabaseManager, InvalidValueError
from orchdb.transcripts.dry import DryStore
from orchdb.transcripts.events import Counted, Event, Line
from orchdb.transcripts.files import Transcript, absolute, find_transcripts, found_below
from orchdb.transcripts.lines import Row, document_of, rows_of, shown
from orchdb.transcripts.mapping import SOURCES, Prices, RowMapping
from orchdb.transcripts.places import fingerprint
from orchdb.transcripts.readers import Job, Reader, rollouts_of, sort_of_row
from orchdb.transcripts.report import ImportReport
from orchdb.transcripts.storing import Batch, Deleted, Overtaken, Store

_ROWS = 500
_BYTES = 2**21
_Place = Mapping[str, Any]


class Progress(NamedTuple):
    """How far an import is.

    Attributes:
        done: Bytes that were read, or did not have to be.
        total: Bytes of all files that have something new.
        rows: Rows that were read.
        files_done: Files that are finished.
        files: Files that have something new.
        seconds: How long it has taken so far.
    """

    done: int
    total: int
    rows: int
    files_done: int
    files: int
    seconds: float


async def import_transcripts(
    db: DatabaseManager | None,
    paths: Iterable[str | os.PathLike[str]] | None = None,
    *,
    sources: Sequence[str] | None = None,
    content: bool = True,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Import recorded runs of Claude Code, Codex and SWE-agent: what is new of each file.

    It can be repeated and interrupted at any time, and several can run at once: each row is applied once.

    Args:
        db: Where to; ``None`` with ``dry_run`` only, for a report of what would come into an empty database.
        paths: Files and folders. By default those where Claude Code and Codex keep theirs.
        sources: Only these formats: ``claude``, ``codex``, ``swe``. By default all.
        content: Whether to keep texts: prompts, answers, and what tools were given and gave. Without, there are counts,
            models, times and names only.
        dry_run: Write nothing, only report what would be new.
        progress: Is told now and then how far it is.

    Returns:
        What was new, what could not be read, and why a naive count shows another number.

    Raises:
        InvalidValueError: A path is not there, or is a file that is no transcript, or a format is unknown.
    """
    found = await asyncio.to_thread(find_transcripts, paths, sources=sources)
    run = _Import(db, content=content, dry_run=dry_run, progress=progress)
    await run.files(found)
    return run.report


async def watch_transcripts(
    db: DatabaseManager,
    paths: Iterable[str | os.PathLike[str]] | None = None,
    *,
    sources: Sequence[str] | None = None,
    content: bool = True,
    interval: float = 0.3,
) -> AsyncIterator[ImportReport]:
    """Import, and go on to import what is added to the files, and new files: until the caller stops.

    Args:
        db: Where to.
        paths: Files and folders. By default those where Claude Code and Codex keep theirs.
        sources: Only these formats. By default all.
        content: Whether to keep texts.
        interval: Seconds between two looks at the folders; more, where looking takes long.

    Yields:
        The report of each time that something was new.

    Raises:
        InvalidValueError: At the beginning a path is not there, or is a file that is no transcript, or a format is
            unknown.
    """
    places = None if paths is None else absolute(paths)
    seen: dict[Path, tuple[int, int]] = {}
    while True:
        begun = time.monotonic()
        if places is None or not seen:
            found = await asyncio.to_thread(find_transcripts, places, sources=sources)
        else:  # one that goes away may come again
            found = await asyncio.to_thread(found_below, places, sources or tuple(SOURCES))
        changed = [each for each in found if seen.get(each.path) != (each.size, each.changed)]
        if changed:
            run = _Import(db, content=content, dry_run=False, progress=None)
            await run.files(changed, beside=found)
            seen |= {each.path: (each.size, each.changed) for each in changed}
            if run.report.files_read:
                yield run.report
        await asyncio.sleep(max(interval, 4 * (time.monotonic() - begun) if not changed else 0))


class _Chunk(NamedTuple):
    """What was read of a file in one go."""

    events: list[Event]
    end: int
    report: ImportReport
    finished: bool


class _Import:
    """One import.

    Args:
        db: Where to; ``None`` for nowhere.
        content: Whether texts are kept.
        dry_run: Whether nothing is written.
        progress: Is told how far it is.
    """

    def __init__(
        self,
        db: DatabaseManager | None,
        *,
        content: bool,
        dry_run: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.report = ImportReport(dry_run=dry_run)
        self._prices = Prices()
        self._begun = time.monotonic()
        self._progress = progress
        self._done = self._total = self._files_done = self._files = self._rows = 0
        self._stores: dict[str, Store | DryStore] = {}
        for source in ("claude", "codex", "swe"):
            mapping = RowMapping(source, content=content, prices=self._prices)
            if db is None or dry_run:
                self._stores[source] = DryStore(db, mapping, self.report)
            else:
                self._stores[source] = Store(db, mapping, self.report)

    async def files(self, found: list[Transcript], beside: list[Transcript] | None = None) -> None:
        """Import what is new of files.

        Args:
            found: The files.
            beside: Those that there are besides, for what they say of these.
        """
        self.report.files = len(found)
        jobs = await asyncio.to_thread(self._jobs, found, beside or found)
        known: dict[int, tuple[_Place, bool]] = {}
        for source, store in self._stores.items():
            mine = [job for job in jobs if job.source == source]
            places = await store.places({job.owner for job in mine})
            known |= {id(job): places.get(job.owner, ({}, False)) for job in mine}
        todo = [job for job in jobs if not self._is_done(job, *known[id(job)])]
        self.report.files_unchanged = len(jobs) - len(todo)
        todo = await asyncio.to_thread(_in_order, todo)
        self._files, self._total = len(todo), sum(job.transcript.size for job in todo)
        for job in todo:
            await self._file(job, known[id(job)][0].get(job.name))
            self._files_done += 1
            self._tell()
        self.report.prices_missing = self._prices.missing
        self.report.unknown_models |= self._prices.unknown
        self.report.seconds = time.monotonic() - self._begun

    def _jobs(self, found: list[Transcript], beside: list[Transcript]) -> list[Job]:
        rollouts = rollouts_of(beside)
        jobs: list[Job] = []
        for transcript in found:
            try:
                jobs.append(Job(transcript, rollouts))
            except OSError as error:
                self._unreadable(transcript.path, str(error.strerror))
        return jobs

    def _unreadable(self, path: Path, why: str) -> None:
        self.report.unreadable += 1
        self.report.find(f"{shown(path)}: {why}")

    def _is_done(self, job: Job, places: _Place, deleted: bool) -> bool:
        place = places.get(job.name)
        if deleted:
            self.report.find(f"{job.name}: its agent was deleted softly, and stays so")
            return True
        return bool(
            place and place.get("size") == job.transcript.size and place.get("changed") == job.transcript.changed
        )

    async def _file(self, job: Job, base: _Place | None) -> None:
        """Import what is new of one file, again from where somebody else has come to if there is somebody."""
        while True:
            try:
                await self._rest(job, base)
            except Overtaken as other:  # each time it has come further
                base = other.reached
            except Deleted:
                self.report.find(f"{job.name}: its agent was deleted softly, and stays so")
                return
            except OSError as error:
                self._unreadable(job.path, str(error.strerror))
                return
            except InvalidValueError as error:  # the next file is not to blame; it says no value
                self._unreadable(job.path, str(error))
                return
            else:
                break
        self.report.files_read += 1
        self.report.sessions.add(f"{job.source}/{job.session}")

    async def _rest(self, job: Job, base: _Place | None) -> None:
        offset, seen, state = await asyncio.to_thread(_start, job, base)
        reader = await asyncio.to_thread(job.reader, state)
        rows = _rows(job, offset)
        before, events = self._done, [*reader.begin()]
        end, finished = offset, False
        while not finished:
            chunk = await asyncio.to_thread(_read, job, reader, rows, end, seen)
            end, finished = chunk.end, chunk.finished
            batch = Batch(job.owner, job.name, base, _reached(job, reader, end, seen))
            batch.events = [*events, *chunk.events, *(reader.finish() if finished else ())]
            await self._stores[job.source].apply(batch)
            self.report.merge(chunk.report)
            base, events = batch.reached, []
            self._done = before + end
            self._rows += sum(chunk.report.rows.values())
            self._tell()
        self._done = before + job.transcript.size

    def _tell(self) -> None:
        if self._progress is not None:
            seconds = time.monotonic() - self._begun
            self._progress(Progress(self._done, self._total, self._rows, self._files_done, self._files, seconds))


def _in_order(jobs: list[Job]) -> list[Job]:
    """The sessions by when they began, for the earliest one keeps what is copied; in each, its own file first."""
    orders: dict[int, tuple[str, str, str]] = {}
    tops: dict[str, tuple[str, str, str]] = {}
    for job in jobs:
        try:
            order = job.order()
        except OSError:  # it is gone meanwhile, as reading it will tell
            order = ("", "", str(job.path))
        orders[id(job)] = order
        top = job.place is None or not (job.place.agent or job.place.aside)
        if top or job.session not in tops:
            tops[job.session] = min(tops.get(job.session, order), order) if not top else order
    return sorted(
        jobs,
        key=lambda job: (tops[job.session], bool(job.place and (job.place.agent or job.place.aside)), orders[id(job)]),
    )


def _start(job: Job, base: _Place | None) -> tuple[int, int, Mapping[str, Any] | None]:
    """Where to begin, how much was read before, and what the reader has to know."""
    if base is None or job.source == "swe":
        return 0, 0, None
    end = int(base.get("end", 0))
    if job.path.stat().st_size < end or fingerprint(job.path, end) != base.get("head"):
        return 0, 0, None  # it is another file now
    return int(base.get("offset", 0)), end, base.get("state")


def _rows(job: Job, offset: int) -> Iterator[Row]:
    if job.source == "swe":
        yield document_of(job.path)
    else:
        yield from rows_of(job.path, offset)


def _reached(job: Job, reader: Reader, end: int, seen: int) -> dict[str, Any]:
    restart = reader.restart()
    end = max(end, seen)
    finished = end >= job.transcript.size
    return {
        "offset": restart.offset,
        "end": end,
        "state": restart.state,
        "head": fingerprint(job.path, end),
        "size": job.transcript.size if finished else -1,
        "changed": job.transcript.changed if finished else -1,
    }


def _read(job: Job, reader: Reader, rows: Iterator[Row], end: int, seen: int) -> _Chunk:
    """Read some rows, in a thread.

    Args:
        job: The file.
        reader: Its reader.
        rows: The rows that are left.
        end: Where the first of them begins.
        seen: How much of the file was read before, and is not counted again.
    """
    events: list[Event] = []
    report = ImportReport()
    begin, number = end, 0
    for row in rows:
        end, number = row.end, number + 1
        new, told = row.offset >= seen, list[Event]()
        try:
            told = [*reader.read(row.value, row.offset, row.end)] if row.value is not None else []
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            row = row._replace(value=None, problem=f"not understood ({type(error).__name__})")  # noqa: PLW2901
        if row.value is None:
            told = [_damaged(reader, job, row)]
        if new:
            _count(report, job, row)
        events += told if new else [event for event in told if not isinstance(event, Counted)]
        if number >= _ROWS or end - begin >= _BYTES:
            return _Chunk(events, end, report, finished=False)
    return _Chunk(events, end, report, finished=True)


def _count(report: ImportReport, job: Job, row: Row) -> None:
    if row.problem:
        report.find(f"{job.name}: byte {row.offset}: {row.problem}")
    if row.value is None:
        report.damaged += 1
        return
    sort, known = sort_of_row(job.source, row.value)
    report.rows[sort] += 1
    if not known:
        report.unknown[sort] += 1


def _damaged(reader: Reader, job: Job, row: Row) -> Line:
    """What is damaged is kept as it is."""
    facts = {"offset": row.offset, "bytes": row.end - row.offset}
    text = row.raw.decode("utf-8", "replace")
    at = reader.restart().state.get("at") or job.order()[0]
    return Line(
        reader.key,
        f"{reader.key}/damaged/{row.offset}",
        at,
        "damaged",
        row.problem,
        level="WARNING",
        facts=facts,
        content={"row": text},
    )

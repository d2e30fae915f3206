"""What one operation costs, counted and not timed: calls, thread hops, statements and round trips.

The counts are the same on a busy machine as on an idle one. Each limit is about 1.6 times what is counted today, so a
hot path that becomes twice as heavy fails here.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import BuiltinFunctionType, FrameType
from typing import Any

import aiosqlite.core
import pytest

from orchdb import DatabaseManager, NewAgentLog

pytestmark = pytest.mark.skipif(sys.flags.dev_mode, reason="the event loop's debug mode makes calls of its own")

TASKS = 100
EACH = 10
CALLS = {
    "sqlite": {"append": 132, "update": 149, "get": 190, "latest": 1170, "bulk": 47},
    "asyncpg": {"append": 156, "update": 363, "get": 283, "latest": 2210, "bulk": 62},
}
"""The most calls of Python and C functions, on all threads together, for one operation or one row of a bulk."""


class Counts:
    """What has been called since the last ``start``."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._counting = False

    def hook(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count one call; for ``sys.setprofile``."""
        if not self._counting:
            return
        if event == "call":
            self.calls["calls"] += 1
            if frame.f_code.co_name == "write" and frame.f_code.co_filename.endswith("selector_events.py"):
                self.calls["round trips"] += 1
        elif event == "c_call":
            self.calls["calls"] += 1
            if isinstance(argument, BuiltinFunctionType) and argument.__name__ in {"execute", "executemany"}:
                self.calls["statements"] += isinstance(argument.__self__, (sqlite3.Connection, sqlite3.Cursor))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what this block does, without what the garbage collector happens to run."""
        self.calls.clear()
        gc.collect()
        gc.disable()
        self._counting = True
        sys.setprofile(self.hook)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._counting = False
            gc.enable()

    def each(self, what: str, operations: int) -> float:
        """How many there were for one operation."""
        return self.calls[what] / operations


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Counts every thread that starts from here on; before the database is opened."""
    found = Counts()

    class Hops(SimpleQueue[Any]):
        """The queue in front of a connection's thread."""

        def put_nowait(self, item: Any) -> None:
            found.calls["hops"] += 1
            super().put_nowait(item)

    monkeypatch.setattr(aiosqlite.core, "SimpleQueue", Hops)
    before = threading.getprofile()
    threading.setprofile(found.hook)
    yield found
    threading.setprofile(before)


@pytest.fixture(params=["sqlite", "asyncpg"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engines whose calls can be counted: psycopg's are inside its C library."""
    return str(request.param)


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A new, empty database."""
    if engine == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'orchestrator.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


class Work:
    """The operations that are counted, on an agent with a few hundred log lines."""

    def __init__(self, db: DatabaseManager) -> None:
        self.db = db

    async def prepare(self) -> None:
        """Make the rows, and run everything once: statements are compiled and connections opened on first use."""
        definition = await self.db.create_orchestrator_agent("scout")
        self.agents = [await self.db.create_agent(definition, "session-1") for _ in range(TASKS)]
        for operation in (self.bulk, self.append, self.update, self.get, self.latest):
            await operation()
        await self.together(self.append)

    async def append(self, number: int = 0) -> None:
        await self.db.create_agent_log(self.agents[number], "INFO", "tool_call", "searched", {"step": 1, "found": 20})

    async def update(self, number: int = 0) -> None:
        assert await self.db.update_agent(self.agents[number], error_message="slow", metadata={"step": 1})

    async def get(self, number: int = 0) -> None:
        assert await self.db.get_agent(self.agents[number])

    async def latest(self, number: int = 0) -> None:
        assert len(await self.db.get_agent_logs_by_type(self.agents[0], "tool_call", 100)) == 100

    async def bulk(self) -> None:
        item: NewAgentLog = {
            "agent_id": self.agents[0],
            "log_level": "INFO",
            "log_type": "tool_call",
            "message": "searched",
            "details": {"step": 1},
        }
        await self.db.create_agent_logs([item] * 1000)

    async def together(self, operation: Callable[[int], Awaitable[None]]) -> None:
        """A hundred tasks at once, each with its own agent, one operation after the other."""

        async def task(number: int) -> None:
            for _ in range(EACH):
                await operation(number)

        await asyncio.gather(*(task(number) for number in range(TASKS)))


async def test_calls(engine: str, url: str, counts: Counts) -> None:
    """No operation takes many more calls than it does today."""
    limits, found = CALLS[engine], {}
    async with DatabaseManager(url) as db:
        work = Work(db)
        await work.prepare()
        for name, operation in (("append", work.append), ("update", work.update)):
            with counts.counting():
                await work.together(operation)
            found[name] = counts.each("calls", TASKS * EACH)
        for name, operation in (("get", work.get), ("latest", work.latest)):
            with counts.counting():
                for number in range(TASKS):
                    await operation(number)
            found[name] = counts.each("calls", TASKS)
        with counts.counting():
            await work.bulk()
        found["bulk"] = counts.each("calls", 1000)
    heavy = {name: round(calls, 1) for name, calls in found.items() if calls > limits[name]}
    assert not heavy, f"more calls than {limits}: {heavy}"


async def test_hops_and_statements_on_sqlite(tmp_path: Path, counts: Counts) -> None:
    """A read is one hop and one statement; a hundred appends at once share hop, BEGIN and COMMIT."""
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        work = Work(db)
        await work.prepare()
        with counts.counting():
            for number in range(TASKS):
                await work.get(number)
        assert (counts.each("hops", TASKS), counts.each("statements", TASKS)) == (1, 1)
        with counts.counting():
            await work.append()
        assert counts.each("hops", 1) == 1
        assert counts.each("statements", 1) <= 3
        with counts.counting():
            await work.together(work.append)
        assert counts.each("hops", TASKS * EACH) <= 1 / 50
        assert counts.each("statements", TASKS * EACH) <= 1 / 10
        with counts.counting():
            await work.bulk()
        assert counts.each("hops", 1) == 1
        assert counts.each("statements", 1000) <= 1 / 20


async def test_what_sqlite_runs_after_each_insert_is_small(tmp_path: Path) -> None:
    """SQLite makes room for the whole of a trigger at each insert, also when its condition is false."""
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        assert db.conn is not None
        query = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%AFTER INSERT%'"
        triggers = (await db.conn.exec_driver_sql(query)).scalars().all()
    assert len(triggers) == 5
    assert max(len(sql) for sql in triggers) < 300


async def test_round_trips_on_postgres(postgres_url: str, counts: Counts) -> None:
    """A read and a single write are one round trip each; a hundred appends at once share a few."""
    async with DatabaseManager(postgres_url) as db:
        work = Work(db)
        await work.prepare()
        for operation in (work.get, work.append, work.update):
            with counts.counting():
                for number in range(TASKS):
                    await operation(number)
            assert counts.each("round trips", TASKS) <= 1.1  # a connection prepares a statement when it first runs it
        with counts.counting():
            await work.together(work.append)
        assert counts.each("round trips", TASKS * EACH) <= 1 / 4

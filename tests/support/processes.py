"""Work in other processes: several at once, killed in the middle, or without the rights of the superuser."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from orchdb import DatabaseManager, NewSystemLog, OperationError

# Each process is forked from one that has imported everything and runs no thread.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "alembic.command",
        "orchdb.postgres.backend",
        "orchdb.sqlite.backend",
        "sqlalchemy.dialects.sqlite.aiosqlite",
        "asyncpg",
        __name__,
    ]
)
TIMEOUT = 120
NOBODY = 65534

_together: Barrier


@dataclass(frozen=True)
class Connected:
    """What a process found after ``connect()``."""

    revision: str | None
    definitions: int
    migrations: int
    """How many revisions it ran itself."""


def connect_at_once(url: str, count: int, *, upgrade: bool | None = None) -> list[Connected]:
    """Connect from so many processes at the same moment."""
    barrier = CONTEXT.Barrier(count)
    with ProcessPoolExecutor(count, CONTEXT, _meet_at, (barrier,)) as pool:
        connecting = [pool.submit(_connect, url, upgrade) for _ in range(count)]
        return [one.result(TIMEOUT) for one in connecting]


def _meet_at(barrier: Barrier) -> None:
    global _together  # noqa: PLW0603  # of this process alone
    _together = barrier


def _connect(url: str, upgrade: bool | None) -> Connected:
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("alembic.runtime.migration")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    async def connect() -> Connected:
        async with DatabaseManager(url, upgrade=upgrade) as db:
            definitions = len(await db.list_orchestrator_agents())
            revision = await db.schema_version()
        return Connected(revision, definitions, sum(record.startswith("Running upgrade") for record in records))

    _together.wait(TIMEOUT)
    return asyncio.run(connect())


class Steps:
    """Counts what a process does with databases and files; at the chosen step it is killed."""

    def __init__(self, last: int | None) -> None:
        self.taken = 0
        self._last = last
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.taken += 1
            if self.taken == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def see_event(self, name: str, _arguments: Any) -> None:
        """One of Python's audit events."""
        if name in {"os.link", "os.remove", "tempfile.mkstemp", "sqlite3.connect"}:
            self()


class SteppingConnection(sqlite3.Connection):
    """A connection that takes a step for each thousand of SQLite's own."""

    steps: Steps

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        super().set_progress_handler(self.steps, 1000)

    def set_progress_handler(self, progress_handler: Callable[[], int | None] | None, n: int = 0, /) -> None:
        super().set_progress_handler(lambda: self.steps() or (progress_handler and progress_handler()), 1000)


def _upgrade(url: str, last: int | None, result: Any) -> None:
    steps = SteppingConnection.steps = Steps(last)
    sys.addaudithook(steps.see_event)
    event.listen(Engine, "before_cursor_execute", lambda *_statement: steps())
    sqlite3.connect = partial(sqlite3.connect, factory=SteppingConnection)  # type: ignore[assignment]  # this process's

    async def connect() -> None:
        async with DatabaseManager(url, upgrade=True):
            pass

    asyncio.run(connect())
    result.put(steps.taken)


def steps_of_upgrade(url: str, *, killed_at: int | None = None) -> int | None:
    """Connect in a process of its own; the steps that took, or ``None`` if it was killed on the way."""
    result = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=_upgrade, args=(url, killed_at, result))
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == (0 if killed_at is None else -signal.SIGKILL)
    return None if killed_at is not None else result.get()


def names_of_definitions(path: str) -> list[str] | str:
    """Read them with ``read_only``; what it says if it cannot."""

    async def names() -> list[str]:
        async with DatabaseManager(path, read_only=True) as db:
            return [row["name"] for row in await db.list_orchestrator_agents()]

    try:
        return asyncio.run(names())
    except OperationError as error:
        return str(error)


def backup_with_little_space(source: str, target: str) -> tuple[str, list[str]]:
    """Back up where no file may grow beyond a limit, as on a full disk; what came of it, and what it left."""
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        return pool.submit(_backup_with_little_space, source, Path(target)).result(TIMEOUT)


def _backup_with_little_space(source: str, target: Path) -> tuple[str, list[str]]:
    async def backup() -> None:
        async with DatabaseManager(source) as db:
            row: NewSystemLog = {"log_level": "INFO", "component": "c", "message": "x" * 900}
            await db.create_system_logs([row] * 900)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            try:
                await db.backup(target)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    target.parent.mkdir()
    outcome = "made"
    try:
        asyncio.run(backup())
    except OperationError as error:
        outcome = f"{type(error).__name__}: {error}"
    return outcome, [path.name for path in target.parent.iterdir()]


def without_privileges(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run it in a process that file permissions hold for."""
    with ProcessPoolExecutor(1, CONTEXT, _drop_privileges) as pool:
        return pool.submit(work, *arguments).result(TIMEOUT)


def _drop_privileges() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def definitions_got_at_once(url: str, name: str, *, processes: int, tasks: int) -> list[str]:
    """What so many tasks of so many processes get, at the same moment, for one name."""
    barrier = CONTEXT.Barrier(processes)
    with ProcessPoolExecutor(processes, CONTEXT, _meet_at, (barrier,)) as pool:
        getting = [pool.submit(_get_definitions, url, name, tasks) for _ in range(processes)]
        return [found for one in getting for found in one.result(TIMEOUT)]


def _get_definitions(url: str, name: str, tasks: int) -> list[str]:
    async def get() -> list[str]:
        async with DatabaseManager(url) as db:
            await asyncio.to_thread(_together.wait, TIMEOUT)
            return await asyncio.gather(*(db.get_or_create_orchestrator_agent(name) for _ in range(tasks)))

    return asyncio.run(get())

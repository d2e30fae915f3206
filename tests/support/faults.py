"""What the fault tests share: child processes, the view of another program, and waiting."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager

ROOT = Path(__file__).parents[2]
on_sqlite = pytest.mark.parametrize("target", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("target", ["asyncpg", "psycopg"], indirect=True)


class Child:
    """A process that runs one of the modules in ``tests.support.children`` and talks in lines of JSON.

    It uses the installed orchdb, or the one in ``library``, which comes first on its path.
    """

    def __init__(self, module: str, *arguments: object, library: Path = ROOT, **options: Any) -> None:
        command = [sys.executable, "-P", "-m", f"tests.support.children.{module}", *map(str, arguments)]
        path = os.pathsep.join([str(library), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )

    def line(self) -> Any:
        """The next thing it says."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, f"the child ended with {self.process.wait()}"
        return json.loads(said)

    def tell(self, word: str) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 60) -> list[Any]:
        """Everything it still says, after it has ended well."""
        said, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"the child ended with {self.process.returncode}"
        return [json.loads(line) for line in said.splitlines()]

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()


def run_child(module: str, *arguments: object, timeout: float = 60, **options: Any) -> list[Any]:
    """What a child says until it has ended well."""
    with Child(module, *arguments, **options) as child:
        return child.end(timeout)


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[sqlite3.Connection]:
    """The file as another program opens it."""
    with closing(sqlite3.connect(path, isolation_level=None, **options)) as connection:
        yield connection


@contextmanager
def foreign_lock(path: Path) -> Iterator[None]:
    """The write lock, held by somebody else."""
    with opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def ask(path: Path, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """What another program reads."""
    with opened(path) as connection:
        return connection.execute(sql, parameters).fetchall()


def messages(path: Path) -> list[str]:
    """The messages in the system log, as another program reads them."""
    return [row[0] for row in ask(path, "SELECT message FROM system_logs ORDER BY id")]


def lock_is_free(path: Path) -> bool:
    """Whether another program gets the write lock at once."""
    with opened(path, timeout=0) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
    return True


def assert_sound(path: Path) -> None:
    """The file is whole, and nobody holds its lock."""
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(path, "PRAGMA foreign_key_check") == []
    assert lock_is_free(path)


async def log(db: DatabaseManager, message: str) -> int:
    """Write one line."""
    return await db.create_system_log("INFO", "fault", message)


async def seen(db: DatabaseManager) -> list[str]:
    """All lines that the manager reads."""
    return [row["message"] for row in await db.get_system_logs()]


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait for the condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)

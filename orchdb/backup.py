"""Backups of an SQLite file: consistent copies that SQLite itself makes while others write.

A copy is made under a name of its own and appears under the one it was asked for when it is complete and on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

from orchdb.errors import OperationError, SchemaError
from orchdb.shielding import to_the_end
from orchdb.threads import in_thread

_BUSY_SECONDS = 30
_STEPS = 10_000
"""How many of its own steps SQLite takes between two looks at whether the caller was cancelled."""


async def back_up(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Copy the database to a new file that only its owner can read; if this is cancelled, nothing is left of it.

    Raises:
        OperationError: The target exists, or cannot be made.
        sqlite3.Error: The database cannot be read, or the disk is full.
    """
    stop = threading.Event()
    address = f"{_address(source)}?mode={'ro' if read_only else 'rw'}"
    work = in_thread(partial(_back_up, address, _expanded(target), stop))
    try:
        await asyncio.wait((work,))
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await to_the_end(work)
        raise
    work.result()


@asynccontextmanager
async def backed_up_beside(path: Path, revision: str | None) -> AsyncGenerator[None]:
    """A block that changes the file, which is kept beside it: ``orchestrator.db.0001-20260204T103000000000.backup``.

    The caller holds the write lock, so that no other process is making such a backup. If the block finds that the file
    cannot be changed, the backup goes: each further try would leave one more.
    """
    for left in _left_over(path):
        left.unlink(missing_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = path.with_name(f"{path.name}.{revision or 'unversioned'}-{stamp}.backup")
    await back_up(path, target)
    try:
        yield
    except SchemaError:
        target.unlink(missing_ok=True)
        raise


def _left_over(path: Path) -> list[Path]:
    """What is left of such backups whose process was killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\w+-\d{{8}}T\d{{12}}\.backup\..*\.partial(?:-journal)?", re.ASCII)
    return [found for found in path.parent.iterdir() if pattern.fullmatch(found.name)]


def _expanded(path: Path) -> Path:
    with contextlib.suppress(RuntimeError):  # there is no such user: the name is taken as it is
        path = path.expanduser()
    return path.absolute()


def _back_up(source: str, target: Path, stop: threading.Event) -> None:
    failure = None
    try:
        _copy(source, target, stop)
    except FileExistsError:
        failure = "it exists already"
    except OSError as error:
        failure = error.strerror or "the system refused"
    except ValueError:  # a NUL in the path
        failure = "this is no path"
    if failure is not None:
        raise OperationError(f"the backup {target} cannot be made: {failure}")


def _copy(source: str, target: Path, stop: threading.Event) -> None:
    if os.path.lexists(target):
        raise FileExistsError
    descriptor, name = tempfile.mkstemp(".partial", f".{target.name}.", target.parent)  # for its owner only
    os.close(descriptor)
    partial = Path(name)
    try:
        with contextlib.closing(sqlite3.connect(source, timeout=_BUSY_SECONDS, uri=True)) as connection:
            connection.set_progress_handler(stop.is_set, _STEPS)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("VACUUM INTO ?", (_address(partial),))
        _sync(partial)
        if not stop.is_set():
            _publish(partial, target)
            _sync(target.parent)
    finally:
        for left in (partial, partial.with_name(f"{partial.name}-journal")):
            left.unlink(missing_ok=True)


def _publish(partial: Path, target: Path) -> None:
    """Give the copy its name, unless somebody else has taken that meanwhile."""
    try:
        target.hardlink_to(partial)
        return
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    partial.replace(target)


def _address(path: Path) -> str:
    return f"file:{quote(os.fsencode(path))}"


def _sync(path: Path) -> None:
    """Have the file or the folder on the disk. Nobody else has the copy open, so closing it here drops no locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

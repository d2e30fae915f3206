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

from orchdb.concurrency import in_thread, shielded
from orchdb.errors import OperationError
from orchdb.raising import raised_as
from orchdb.sqlite.files import file_uri

_BUSY_SECONDS = 30
_UNVERSIONED = "unversioned"
_PENDING = ".pending.backup"
_STEPS = 10_000
"""How many of its own steps SQLite takes between two looks at whether the caller was cancelled."""


async def back_up(source: str, target: Path) -> None:
    """Copy the database to a new file that only its owner can read; if this is cancelled, nothing is left of it.

    Args:
        source: Its ``file:`` URI.
        target: The path of the copy.

    Raises:
        OperationError: The target exists, or cannot be made.
        sqlite3.Error: The database cannot be read, or the disk is full.
    """
    stop = threading.Event()
    copying = in_thread(partial(_back_up, source, _expanded(target), stop))
    try:
        await asyncio.wait((copying,))
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await shielded(copying)
        raise
    copying.result()


@asynccontextmanager
async def backed_up_beside(path: Path, revision: str | None) -> AsyncGenerator[None]:
    """A block that changes the file, which is kept beside it: ``orchestrator.db.0001-20260204T103000000000.backup``.

    Until the block has ended well the name says that the change is pending. If the block fails, the file is as it was
    and the backup goes; if the process is killed, the next such block removes it. So however often a change is tried,
    there is one backup of it.

    The caller holds the write lock, so that no other process is making such a backup.
    """
    _clear_away(path, revision)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    pending = path.with_name(f"{path.name}.{revision or _UNVERSIONED}-{stamp}{_PENDING}")
    await back_up(file_uri(path, mode="rw"), pending)
    try:
        yield
    except BaseException:
        pending.unlink(missing_ok=True)
        raise
    _recover(pending)


def _clear_away(path: Path, revision: str | None) -> None:
    """Bring in order what processes left that were killed during such a block."""
    name = re.escape(path.name)
    partial = re.compile(rf"\.{name}\.\w+-\d{{8}}T\d{{12}}(?:\.pending)?\.backup\..*\.partial(?:-journal)?", re.ASCII)
    pending = re.compile(rf"{name}\.(\w+)-\d{{8}}T\d{{12}}{re.escape(_PENDING)}", re.ASCII)
    for found in path.parent.iterdir():
        if partial.fullmatch(found.name):
            found.unlink(missing_ok=True)
        elif match := pending.fullmatch(found.name):
            if match[1] == (revision or _UNVERSIONED):
                found.unlink(missing_ok=True)  # the file is as it was when the backup was made, or newer
            else:
                _recover(found)  # the change was committed, for the file has another revision


def _recover(pending: Path) -> None:
    with contextlib.suppress(OSError):  # the change has been committed, whatever the backup is called
        pending.rename(pending.with_name(pending.name.removesuffix(_PENDING) + ".backup"))


def _expanded(path: Path) -> Path:
    message = f"the backup {path} cannot be made: there is no such user"
    with raised_as(RuntimeError, lambda _: OperationError(message)):
        return path.expanduser().absolute()


def _back_up(source: str, target: Path, stop: threading.Event) -> None:
    with raised_as((OSError, ValueError), partial(_not_made, target)):
        _copy(source, target, stop)


def _not_made(target: Path, error: OSError | ValueError) -> OperationError:
    why = "this is no path"  # a NUL is in it
    if isinstance(error, OSError):
        why = error.strerror or "the system refused"
    if isinstance(error, FileExistsError):
        why = "it exists already"
    return OperationError(f"the backup {target} cannot be made: {why}")


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
            connection.execute("VACUUM INTO ?", (file_uri(partial),))
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


def _sync(path: Path) -> None:
    """Have the file or the folder on the disk. Nobody else has the copy open, so closing it here drops no locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

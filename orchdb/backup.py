"""Backups of an SQLite file: consistent copies that SQLite itself makes while others write."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from orchdb.errors import OperationError

_BUSY_SECONDS = 30


def back_up(source: Path, target: Path) -> None:
    """Copy the database with ``VACUUM INTO`` to a new file that only its owner can read. Blocks; belongs into a thread.

    Raises:
        OperationError: The target exists, or cannot be made; what was begun of it is removed.
    """
    failure = None
    try:
        # The file is made here, empty, for its mode and for O_EXCL: SQLite would fill an existing empty file of others.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        failure = f"the backup {target} cannot be made: {error.strerror}"
    if failure is not None:
        raise OperationError(failure)
    done = False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=rw", _BUSY_SECONDS, uri=True)) as copy:
            copy.execute("PRAGMA trusted_schema = OFF")
            copy.execute("VACUUM INTO ?", (str(target),))
        _sync(target)
        done = True
    finally:
        if not done:
            target.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the copy on the disk. Nobody else has it open, so that closing it here drops nobody's locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

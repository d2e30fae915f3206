"""Putting a copy of a database file in the place of another, which is kept."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from orchdb.concurrency import in_thread, shielded
from orchdb.driver_errors import sqlite_code
from orchdb.errors import OperationError
from orchdb.raising import raised_as
from orchdb.sqlite.backup import back_up
from orchdb.sqlite.files import file_uri, named, require
from orchdb.sqlite.settings import TRY_MS, Pragma

_LEVEL = 3
"""Of compression: more takes twice the time for a tenth less."""
_AT_A_TIME = 1 << 20


async def compress(path: Path, target: Path) -> None:
    """Write a compressed copy of a file that nobody has open as a new one, and have it on the disk.

    Raises:
        OperationError: It cannot be written, or is there already.
    """
    with raised_as(OSError, partial(_not_made, target)):
        await shielded(in_thread(partial(_compress, path, target)))


def _compress(path: Path, target: Path) -> None:
    partial_, descriptor = _beside(target)
    try:
        with path.open("rb") as plain, os.fdopen(descriptor, "wb") as file:
            with gzip.GzipFile("", "wb", _LEVEL, file, 0) as packed:
                shutil.copyfileobj(plain, packed, _AT_A_TIME)
            file.flush()
            os.fsync(file.fileno())
        target.hardlink_to(partial_)
    finally:
        partial_.unlink(missing_ok=True)


@asynccontextmanager
async def unpacked(path: Path) -> AsyncGenerator[Path]:
    """The file itself, or what a compressed one holds, as long as the block lasts.

    Raises:
        OperationError: It is not there, or is damaged.
    """
    require(path, "there is nothing to restore")
    if path.suffix != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="orchdb-") as folder:
        plain = Path(folder) / "backup.db"
        with raised_as((OSError, EOFError), lambda _: OperationError(f"{path} cannot be unpacked")):
            await shielded(in_thread(partial(_unpack, path, plain)))
        yield plain


def _unpack(path: Path, plain: Path) -> None:
    with gzip.open(path) as packed, plain.open("wb") as file:
        shutil.copyfileobj(packed, file, _AT_A_TIME)


async def put_in_place(backup: Path, path: Path) -> Path | None:
    """Put a copy of a backup in the place of a file, which gets another name; that name, if there was one.

    Raises:
        OperationError: The file is in use, or cannot be renamed.
    """
    path = await shielded(in_thread(partial(_with_its_folder, path)))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    coming, kept = (path.with_name(f"{path.name}.{stamp}.{what}") for what in ("restoring", "replaced"))
    await back_up(file_uri(backup, mode="ro", immutable="1"), coming)
    try:
        with raised_as((OSError, sqlite3.Error), partial(_not_replaced, path)):
            return await shielded(in_thread(partial(_exchange, coming, path, kept)))
    finally:
        coming.unlink(missing_ok=True)


def _with_its_folder(path: Path) -> Path:
    found = Path(os.path.realpath(path))  # a link stays, and leads to the new file
    found.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def _exchange(coming: Path, path: Path, kept: Path) -> Path | None:
    replaced = path.exists()
    if replaced:
        _require_unused(path)
        path.rename(kept)
    try:
        coming.rename(path)
    except BaseException:
        if replaced:
            kept.rename(path)
        raise
    return kept if replaced else None


def _require_unused(path: Path) -> None:
    """Make one file of it, without a WAL; SQLite does that only for who is alone with it."""
    with contextlib.closing(sqlite3.connect(file_uri(path, mode="rw"), uri=True, isolation_level=None)) as connection:
        Pragma("busy_timeout", TRY_MS)(connection)
        Pragma("journal_mode", "DELETE")(connection)
        if Pragma("journal_mode")(connection) == "wal":
            raise sqlite3.OperationalError


def _not_replaced(path: Path, error: BaseException) -> OperationError:
    if isinstance(error, OSError):
        return OperationError(f"{path} cannot be replaced: {error.strerror}")
    if sqlite_code(error) in ("SQLITE_BUSY", ""):
        return OperationError(f"{path} is in use: stop every program that has it open", code="SQLITE_BUSY")
    return named(path, error)


def _not_made(target: Path, error: OSError) -> OperationError:
    why = "it exists already" if isinstance(error, FileExistsError) else error.strerror
    return OperationError(f"the backup {target} cannot be made: {why}")


def _beside(target: Path) -> tuple[Path, int]:
    descriptor, name = tempfile.mkstemp(".partial", f".{target.name}.", target.parent)
    return Path(name), descriptor

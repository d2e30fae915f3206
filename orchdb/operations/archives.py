"""Files that keep what a prune takes away: gzipped JSON Lines, each portion on the disk before its rows go."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from orchdb.concurrency import in_thread, shielded
from orchdb.errors import OperationError
from orchdb.raising import raised_as
from orchdb.schema.revisions import HEAD
from orchdb.schema.values import now, time_text

_LEVEL = 5
"""Of compression."""


class Archive:
    """A new file; each portion of rows is a member of the gzip file, so what was cut off later damages none before.

    Args:
        path: Where it is, for messages.
        file: The file, which is empty.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._rows: dict[str, int] = {}

    @classmethod
    async def begun(cls, path: Path, asked: Mapping[str, Any]) -> Self:
        """Make the file, and write what was asked for as its first line.

        Args:
            path: Where it is to be.
            asked: What was asked for.

        Raises:
            OperationError: It exists already, or cannot be written.
        """
        with raised_as((OSError, RuntimeError), partial(_failed, path)):
            archive = cls(path, await shielded(in_thread(partial(_made, path))))
        manifest = {"orchdb_archive": 1, "revision": HEAD, "made_at": time_text(now()), **asked}
        await archive._write([manifest])
        return archive

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._write([{"orchdb_archive_end": True, "rows": self._rows}])
        finally:
            await shielded(in_thread(self._file.close))

    async def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, and return when they are on the disk.

        Args:
            table: The table they are of.
            rows: They, as orchdb returns them.

        Raises:
            OperationError: The disk is full, or gone.
        """
        await self._write([{"table": table, **row} for row in rows])
        self._rows[table] = self._rows.get(table, 0) + len(rows)

    async def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        with raised_as(OSError, partial(_failed, self._path)):
            await shielded(in_thread(partial(self._write_through, lines)))

    def _write_through(self, lines: Sequence[Mapping[str, Any]]) -> None:
        text = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        self._file.write(gzip.compress(text, _LEVEL, mtime=0))
        self._file.flush()
        os.fsync(self._file.fileno())


def _made(path: Path) -> BinaryIO:
    target = path.expanduser().absolute()
    file = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or the file could be without its name after a power cut
    finally:
        os.close(folder)
    return file


def _failed(path: Path, error: OSError | RuntimeError) -> OperationError:
    why = "there is no such user"
    if isinstance(error, OSError):
        why = "it exists already" if isinstance(error, FileExistsError) else error.strerror or "the system refused"
    return OperationError(f"the archive {path} cannot be written: {why}")

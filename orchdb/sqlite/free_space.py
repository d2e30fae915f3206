"""SQLite: giving the pages of deleted rows back to the file system, in steps that let every writer through.

A file that was made with ``auto_vacuum = INCREMENTAL``, as orchdb makes them, can be shortened while it is in use. What
moves goes through the WAL, so a step is short, and none is made while much of the WAL waits for a checkpoint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from orchdb.clocks import pause, steady
from orchdb.sqlite.foreign_triggers import SqliteConnection
from orchdb.sqlite.jobs import Job

_PAGES_AT_A_TIME = 250
_MOST_WAITING_BYTES = 16 * 1024 * 1024
_PAUSE_SECONDS = 0.05
_INCREMENTAL = 2

Run = Callable[[Job], Awaitable[Any]]


class FreePages(Job):
    """How many pages could be given back."""

    def __call__(self, connection: SqliteConnection) -> int:
        if _value(connection, "auto_vacuum") != _INCREMENTAL:
            return 0
        return _value(connection, "freelist_count")


class GiveBack(Job):
    """One step, in a transaction of its own."""

    is_bulk = True

    def __call__(self, connection: SqliteConnection) -> None:
        for _ in range(min(_PAGES_AT_A_TIME, _value(connection, "freelist_count"))):
            # The driver ends the statement after the first page, however many it asks for.
            connection.execute("PRAGMA incremental_vacuum(1)").close()


class Checkpoint(Job):
    """How many bytes of the WAL could not be written to the file, because somebody still reads what was there."""

    def __call__(self, connection: SqliteConnection) -> int:
        if connection.in_transaction:  # of a caller's: the next look will do
            return 0
        ((_, frames, written),) = connection.ask("PRAGMA wal_checkpoint(PASSIVE)")
        waiting: int = (frames - written) * _value(connection, "page_size")
        return waiting


async def give_back(read: Run, write: Run, now: Run, patience: float) -> None:
    """Make the file as small as its rows.

    Args:
        read: Runs a job on a connection that reads.
        write: Runs a job in the write queue.
        now: Runs a job on the connection that writes as soon as its thread is free.
        patience: Seconds to wait, all in all, for those who keep the WAL from being written to the file.
    """
    deadline = steady() + patience
    given = False
    while await read(FreePages()):
        if await now(Checkpoint()) < _MOST_WAITING_BYTES:
            await write(GiveBack())
            given = True
        elif steady() < deadline:
            await pause(_PAUSE_SECONDS)
        else:
            return
    if given:
        await now(Checkpoint())  # only with it the file becomes shorter


def _value(connection: SqliteConnection, name: str) -> int:
    value: int = connection.ask(f"PRAGMA {name}")[0][0]
    return value

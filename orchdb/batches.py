"""What SQLite's one connection that writes does in its thread: the writes of a batch, in one transaction.

Neighbours that are the same statement go through one ``executemany``; if one of them fails, the transaction is undone
and run again with each by itself. So a write that fails is undone alone, and only its caller hears of it. If a
transaction breaks as a whole, each of its writes gets one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from orchdb.errors import OperationError, sqlite_code
from orchdb.files import temp_store
from orchdb.foreign_triggers import COMMIT, ROLLBACK, Connection
from orchdb.work import Failure, Work, attempt

NOT_RUN = object()
"""In place of a result: the lock was not to be had, and the work can be tried again."""


@dataclass(eq=False, repr=False, slots=True)
class Entry:
    """A write that waits for its turn, or a transaction that does."""

    work: Work | None  # None asks for the connection itself
    future: asyncio.Future[Any]
    deadline: float
    tried: bool = False


def run_batch(
    batch: Sequence[Entry], guard: Callable[[], None], connection: Connection, *, merged: bool = True
) -> list[Any]:
    """The results of the entries, all in one transaction; ``NOT_RUN`` for those that did not get the lock.

    Args:
        batch: What to run.
        guard: Raises if nothing may be written.
        connection: Where to run it.
        merged: Whether neighbours that are alike run as one.
    """
    try:
        _undo(connection)  # what should have ended the last one has failed
        lone = _run_lone(batch, guard, connection)
        if lone is not None:
            return [lone]
        connection.execute("BEGIN IMMEDIATE")
        guard()
        results = _run_all(batch, connection, merged=merged)
        if results is not None:
            return results
        _undo(connection)
    except (sqlite3.Error, OperationError) as error:
        _undo(connection)
        if sqlite_code(error) == "SQLITE_BUSY":
            return [NOT_RUN] * len(batch)
        if len(batch) == 1:
            return [Failure(_explained(batch[0].work, error, connection))]
    else:
        if merged:
            return run_batch(batch, guard, connection, merged=False)
    one_by_one: list[Any] = []
    for entry in batch:
        if one_by_one and one_by_one[-1] is NOT_RUN:
            one_by_one.append(NOT_RUN)
        else:
            one_by_one.extend(run_batch([entry], guard, connection))
    return one_by_one


def run_bulk(batch: Sequence[Entry], guard: Callable[[], None], connection: Connection) -> list[Any]:
    """What ``run_batch`` gives, for one work of many rows.

    For each row SQLite keeps the pages as they were, in case that the row fails: in a temporary file from the first
    64 kB on, which was measured to take half the time of a bulk. In memory it is no more than what one row changes.
    Not for all writes: what one deletion takes along may be any number of pages.
    """
    _undo(connection)  # the setting cannot change inside a transaction
    connection.execute("PRAGMA temp_store = 2").close()
    try:
        return run_batch(batch, guard, connection)
    finally:
        with contextlib.suppress(sqlite3.Error):  # what was committed is committed
            connection.execute(f"PRAGMA temp_store = {temp_store()}").close()


def _run_lone(batch: Sequence[Entry], guard: Callable[[], None], connection: Connection) -> Any:
    """The result of one statement; ``NOT_RUN`` if it did not get the lock, ``None`` if it has to be run under it.

    By itself it is a transaction that SQLite begins and commits, which costs two calls less. At the first try only: who
    has waited for another process, and gave up, is asked for under the lock. So is a statement that has a trigger of
    another program's, which may fail and keep what was done: only a transaction of ours undoes that.
    """
    work, triggers = batch[0].work, connection.foreign_triggers
    if len(batch) > 1 or batch[0].tried or work is None or work.several or triggers.found:
        return None
    guard()
    result = attempt(work, connection)
    if triggers.met:
        return None
    if isinstance(result, Failure) and sqlite_code(result.error) == "SQLITE_BUSY":
        return NOT_RUN
    return result


def _explained(work: Work | None, error: Exception, connection: Connection) -> Exception:
    return error if work is None else work.explained(error, connection)


def _undo(connection: Connection) -> None:
    if connection.in_transaction:
        connection.execute(ROLLBACK)


def _run_all(batch: Sequence[Entry], connection: Connection, *, merged: bool) -> list[Any] | None:
    """The results, committed; ``None`` if the transaction has to be run again in another way."""
    results: list[Any] = []
    for _, run in groupby(batch, _alike if merged else id):
        entries = list(run)
        if len(entries) > 1:
            together = _run_together([entry.work for entry in entries], connection)
            if together is None:
                return None
            results.extend(together)
        else:
            work = _wanted(entries[0])
            results.append(None if work is None else attempt(work, connection, alone=True))
        if not connection.in_transaction:  # a full disk, say, rolls the whole transaction back
            return results if len(batch) == 1 else None
    if len(batch) == 1 and isinstance(results[0], Failure):
        connection.execute(ROLLBACK)  # what it did before it failed goes too
    else:
        connection.execute(COMMIT)
    return results


def _run_together(works: Sequence[Any], connection: Connection) -> list[Any] | None:
    try:
        results: list[Any] | None = works[0].together(works, connection)
    except Exception:  # each by itself will tell whose it is
        return None
    return results


def _alike(entry: Entry) -> object:
    work = _wanted(entry)
    return entry if work is None else work.alike or entry


def _wanted(entry: Entry) -> Work | None:
    # Who gave up while the thread was trying for the lock does not want it any more.
    return None if entry.future.cancelled() else entry.work


def with_checkpoints(pages: int, job: Callable[[Connection], Any], connection: Connection) -> Any:
    """The result of the job; from here on a checkpoint follows the commit that fills so many pages of the WAL."""
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").close()
    return job(connection)

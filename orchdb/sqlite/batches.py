"""What SQLite's one connection that writes does in its thread: the writes of a batch, in one transaction.

Neighbours that are the same statement run as one: an ``executemany``, or an insert of many rows. If one of them fails,
the transaction is undone and run again with each by itself. So a write that fails is undone alone, and only its caller
hears of it. If a transaction breaks as a whole, each of its writes gets one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from orchdb.driver_errors import sqlite_code
from orchdb.errors import OperationError
from orchdb.sqlite.files import temp_store
from orchdb.sqlite.foreign_triggers import COMMIT, ROLLBACK, SqliteConnection
from orchdb.sqlite.jobs import Failure, Job, attempt
from orchdb.statements import ROWS_AT_ONCE

NOT_RUN = object()
"""In place of a result: the lock was not to be had, and the job can be tried again."""


@dataclass(eq=False, repr=False, slots=True)
class Entry:
    """A write that waits for its turn, or a transaction that does."""

    job: Job | None  # None asks for the connection itself
    future: asyncio.Future[Any]
    deadline: float
    tried: bool = False


def run_batch(
    batch: Sequence[Entry], guard: Callable[[], None], connection: SqliteConnection, *, merged: bool = True
) -> list[Any]:
    """The results of the entries, all in one transaction; ``NOT_RUN`` for those that did not get the lock.

    Args:
        batch: What to run.
        guard: Raises if nothing may be written.
        connection: Where to run it.
        merged: Whether neighbours with one ``merge_key`` run as one.
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
            return [Failure(_explained(batch[0].job, error, connection))]
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


def adds_many(batch: Sequence[Entry]) -> bool:
    """Whether the batch is one for ``run_bulk``: a job of many rows, or the same insert many times."""
    first = batch[0].job
    if first is None or first.is_bulk or len(batch) < ROWS_AT_ONCE or not first.adds_one:
        return first is not None and first.is_bulk
    return len({entry.job and entry.job.merge_key for entry in batch}) == 1


def run_bulk(batch: Sequence[Entry], guard: Callable[[], None], connection: SqliteConnection) -> list[Any]:
    """What ``run_batch`` gives, for many rows that are added.

    For each statement SQLite keeps the pages as they were, in case that it fails: in a temporary file from the first
    64 kB on, which was measured to take half the time of a bulk. In memory it is no more than what a few rows change.
    Not for all writes: what one deletion takes along may be any number of pages.
    """
    _undo(connection)  # the setting cannot change inside a transaction
    connection.execute("PRAGMA temp_store = 2").close()
    connection.undoes_in_memory = True
    try:
        return run_batch(batch, guard, connection)
    finally:
        connection.undoes_in_memory = False
        with contextlib.suppress(sqlite3.Error):  # what was committed is committed
            connection.execute(f"PRAGMA temp_store = {temp_store()}").close()


def _run_lone(batch: Sequence[Entry], guard: Callable[[], None], connection: SqliteConnection) -> Any:
    """The result of one statement; ``NOT_RUN`` if it did not get the lock, ``None`` if it has to be run under it.

    By itself it is a transaction that SQLite begins and commits, which costs two calls less. At the first try only: who
    has waited for another process, and gave up, is asked for under the lock. So is a statement that has a trigger of
    another program's, which may fail and keep what was done: only a transaction of ours undoes that.
    """
    job, triggers = batch[0].job, connection.foreign_triggers
    if len(batch) > 1 or batch[0].tried or job is None or job.is_bulk or job.is_several or triggers.found:
        return None
    guard()
    result = attempt(job, connection)
    if triggers.met:
        return None
    if isinstance(result, Failure) and sqlite_code(result.error) == "SQLITE_BUSY":
        return NOT_RUN
    return result


def _explained(job: Job | None, error: Exception, connection: SqliteConnection) -> Exception:
    return error if job is None else job.explained(error, connection)


def _undo(connection: SqliteConnection) -> None:
    if connection.in_transaction:
        connection.execute(ROLLBACK)


def _run_all(batch: Sequence[Entry], connection: SqliteConnection, *, merged: bool) -> list[Any] | None:
    """The results, committed; ``None`` if the transaction has to be run again in another way."""
    results: list[Any] = []
    for _, run in groupby(batch, _merge_key if merged else id):
        entries = list(run)
        if len(entries) > 1:
            run_merged = _run_merged([entry.job for entry in entries], connection)
            if run_merged is None:
                return None
            results.extend(run_merged)
        else:
            job = _wanted(entries[0])
            results.append(None if job is None else attempt(job, connection, alone=len(batch) == 1))
        if not connection.in_transaction:  # a full disk, say, rolls the whole transaction back
            return results if len(batch) == 1 else None
    if len(batch) == 1 and isinstance(results[0], Failure):
        connection.execute(ROLLBACK)  # what it did before it failed goes too
    else:
        connection.execute(COMMIT)
    return results


def _run_merged(jobs: Sequence[Any], connection: SqliteConnection) -> list[Any] | None:
    try:
        results: list[Any] | None = jobs[0].run_merged(jobs, connection)
    except Exception:  # each by itself will tell whose it is
        return None
    return results


def _merge_key(entry: Entry) -> object:
    job = _wanted(entry)
    return entry if job is None else job.merge_key or entry


def _wanted(entry: Entry) -> Job | None:
    # Who gave up while the thread was trying for the lock does not want it any more.
    return None if entry.future.cancelled() else entry.job


def with_checkpoints(pages: int, job: Callable[[SqliteConnection], Any], connection: SqliteConnection) -> Any:
    """The result of the job; from here on a checkpoint follows the commit that fills so many pages of the WAL."""
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").close()
    return job(connection)

"""aiosqlite's thread: the one place that knows the private names of that driver."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.concurrency import shielded
from orchdb.errors import NotConnectedError
from orchdb.sqlite.foreign_triggers import SqliteConnection
from orchdb.sqlite.jobs import Failure, Job, attempt


async def driver_connection(connection: AsyncConnection) -> DriverConnection:
    return DriverConnection(connection, (await connection.get_raw_connection()).driver_connection)


CLOSED = "the manager was closed while this waited"


def set_result(future: asyncio.Future[Any], result: Any) -> None:
    """Give the result to the caller, or raise there what it carries; a caller who has given up gets nothing."""
    if future.done():
        return
    if isinstance(result, Failure):
        future.set_exception(result.error)
    else:
        future.set_result(result)


class DriverConnection:
    """A connection of the engine's, and the thread that owns it."""

    def __init__(self, connection: AsyncConnection, driver: Any) -> None:
        self.connection = connection
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.running: asyncio.Future[Any] | None = None

    def post(self, function: Callable[[SqliteConnection], Any], done: Callable[[Any], None]) -> None:
        """Run the function in the thread; then ``done`` in the event loop, with its result or its ``Failure``."""

        def run() -> None:
            try:
                result = function(self._driver._conn)
            except Exception as error:
                result = Failure(error)
            self._loop.call_soon_threadsafe(done, result)

        if self._closed or not self._driver._running:  # its thread has ended, or will before it comes to this
            self._loop.call_soon(done, Failure(closed()))
            return
        # aiosqlite's own queue: its public methods take a future and one more turn of the loop for each call.
        self._driver._tx.put_nowait((None, run))

    async def call(self, job: Job) -> Any:
        """The result of the job, waited for to the end."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.post(partial(attempt, job), partial(set_result, future))
        return await shielded(future)

    @property
    def driver(self) -> SqliteConnection:
        """The driver's connection, whose statements run in the thread alone."""
        found: SqliteConnection = self._driver._conn
        return found

    def interrupt(self) -> None:
        """Stop the statement that is running, if one is."""
        with contextlib.suppress(ValueError, sqlite3.Error):  # the connection may just be closed
            self._driver._conn.interrupt()

    def close(self) -> None:
        """Take nothing more; what has been posted still runs. Whoever opened the connection closes it."""
        self._closed = True


def closed() -> NotConnectedError:
    """The failure of what was still waiting when the manager was closed."""
    return NotConnectedError(CLOSED)

"""aiosqlite: its connection and thread, and the one place that knows private names of that driver."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.concurrency import in_thread, shielded
from orchdb.errors import NotConnectedError
from orchdb.sqlite.foreign_triggers import SqliteConnection
from orchdb.sqlite.jobs import Failure, Job, attempt

CLOSED = "the manager was closed while this waited"


async def connected(*arguments: Any, **options: Any) -> aiosqlite.Connection:
    """A connection of the driver's, whose thread does not keep the program from ending."""
    connection = aiosqlite.connect(*arguments, **options)
    thread = connection._thread  # pyright: ignore[reportPrivateUsage]
    thread.daemon = True
    try:
        return await connection
    except BaseException:
        # It has been told to end. Until then it answers to this event loop, which may be the next thing to end.
        await shielded(in_thread(thread.join))
        raise


def configured(configure: Callable[[SqliteConnection], None], driver: Any) -> Awaitable[None]:
    """Set up a connection of the driver's in one hop: each call through an adapter would be one of its own."""
    done: Awaitable[None] = driver._execute(lambda: configure(driver._conn))
    return done


async def driver_connection(connection: AsyncConnection) -> DriverConnection:
    """The driver's side of a connection of SQLAlchemy's."""
    return DriverConnection(connection, (await connection.get_raw_connection()).driver_connection)


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


def set_result(future: asyncio.Future[Any], result: Any) -> None:
    """Give the result to the caller, or raise there what it carries; a caller who has given up gets nothing."""
    if future.done():
        return
    if isinstance(result, Failure):
        future.set_exception(result.error)
    else:
        future.set_result(result)

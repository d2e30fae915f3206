"""Making a connection to a Postgres server; one that its caller no longer waits for is closed when it is open."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.concurrency import begun, shielded
from orchdb.postgres.drivers import DriverConnection
from orchdb.postgres.settings import PostgresSettings
from orchdb.raising import raised_as

Endings = set[asyncio.Future[None]]
"""Of connections that nobody waits for any more: until they are closed."""


async def open_driver_connection(settings: PostgresSettings, engine: AsyncEngine, endings: Endings) -> DriverConnection:
    """A connection whose statements go straight to the driver, and commit by themselves.

    Raises:
        OperationError: The server cannot be reached or refuses.
    """
    connection = await connect(settings, AsyncConnection(engine), endings)
    try:
        raw: Any = await connection.get_raw_connection()
        limit = settings.options.statement_timeout
        conn = _driver_connection_class(settings)(
            connection, raw.driver_connection, limit + settings.timeout if limit else None
        )
        conn.portals = not settings.pooler
        await conn.set_autocommit(True)
    except BaseException:
        await shielded(connection.close())
        raise
    return conn


async def connect(settings: PostgresSettings, connection: AsyncConnection, endings: Endings) -> AsyncConnection:
    """The connection, open.

    Raises:
        OperationError: The server cannot be reached or refuses; the message says where and why.
    """
    opening = begun(connection.start())
    try:
        with raised_as(Exception, settings.not_connected):
            return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # Cut off while it is made it would leak; the caller does not wait for that.
        ending = begun(_end_when_open(opening, connection))
        endings.add(ending)
        ending.add_done_callback(endings.discard)
        raise


def _driver_connection_class(settings: PostgresSettings) -> type[DriverConnection]:
    """The class for the driver, which alone is loaded."""
    if settings.asyncpg:
        from orchdb.postgres.asyncpg_driver import AsyncpgConnection  # noqa: PLC0415

        return AsyncpgConnection
    from orchdb.postgres.psycopg_driver import PsycopgConnection  # noqa: PLC0415

    return PsycopgConnection


async def _end_when_open(opening: asyncio.Future[AsyncConnection], connection: AsyncConnection) -> None:
    try:
        await opening
    except Exception:  # whoever wanted it has gone
        return
    await connection.invalidate()
    await connection.close()

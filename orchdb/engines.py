"""The choice of the engine: by the URL, and only then is its code loaded, and with that its driver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from orchdb.backend import Backend, Options
from orchdb.location import Location
from orchdb.looking import Look
from orchdb.streams import RowSource, RowTarget


def backend_for(
    location: Location, options: Options, *, replica: Location | None, schema_path: Path | None
) -> Callable[[], Backend]:
    """Check what there is to check before anything is opened, and return what makes the backend.

    Args:
        location: The database.
        options: What its connections may do.
        replica: What reads, on Postgres.
        schema_path: The schema file for a new SQLite database.

    Raises:
        InvalidValueError: The URL, or the replica's, is not usable.
    """
    if replica is not None and (is_sqlite(location) or is_sqlite(replica)):
        replica.source.refuse("is the URL of a Postgres replica, for a Postgres db_path")
    return _sqlite(location, options, schema_path) if is_sqlite(location) else _postgres(location, options, replica)


def is_sqlite(location: Location) -> bool:
    """Whether it is an SQLite file."""
    return location.url.get_backend_name() == "sqlite"


def _sqlite(location: Location, options: Options, schema_path: Path | None) -> Callable[[], Backend]:
    from orchdb.sqlite.backend import SqliteBackend  # noqa: PLC0415

    return partial(SqliteBackend, location.url, options, schema_path)


def _postgres(location: Location, options: Options, replica: Location | None) -> Callable[[], Backend]:
    from orchdb.postgres.backend import PostgresBackend  # noqa: PLC0415
    from orchdb.postgres.settings import PostgresSettings  # noqa: PLC0415

    settings = PostgresSettings.of(location.url, options, location.source.refuse)
    if replica is None:
        return partial(PostgresBackend, settings)
    url = replica.url.set(drivername=location.url.drivername)
    return partial(PostgresBackend, settings, PostgresSettings.of(url, options, replica.source.refuse))


def look_at(location: Location) -> AbstractAsyncContextManager[Look]:
    """Open a database to look at it, whatever its schema; nothing of it is made or changed.

    Args:
        location: The database.

    Returns:
        A context manager for ``async with``, which gives a ``Look``.

    Raises:
        OperationError: It is not there, or cannot be read; at the beginning of the block.
    """
    if is_sqlite(location):
        from orchdb.sqlite.looking import look_at_file  # noqa: PLC0415

        return look_at_file(location.url)
    from orchdb.postgres.looking import look_at_server  # noqa: PLC0415

    return look_at_server(location)


async def source_of(location: Location) -> RowSource:
    """Open a current database, to read whole tables as they are now.

    Args:
        location: The database.

    Returns:
        What is to be closed at the end.

    Raises:
        OperationError: It cannot be read.
    """
    if is_sqlite(location):
        from orchdb.sqlite import streams as files  # noqa: PLC0415

        return await files.open_source(location.url)
    from orchdb.postgres import streams as servers  # noqa: PLC0415

    return await servers.open_source(location)


async def target_of(location: Location) -> RowTarget:
    """Open a current database, to fill whole tables.

    Args:
        location: The database.

    Returns:
        What is to be closed at the end.

    Raises:
        OperationError: It cannot be written.
    """
    if is_sqlite(location):
        from orchdb.sqlite import streams as files  # noqa: PLC0415

        return await files.open_target(location.url)
    from orchdb.postgres import streams as servers  # noqa: PLC0415

    return await servers.open_target(location)


async def compress(path: Path, target: Path) -> None:
    """Write a compressed copy of a database file that nobody has open.

    Args:
        path: The file.
        target: The new one.

    Raises:
        OperationError: It cannot be written, or is there already.
    """
    from orchdb.sqlite import restoring  # noqa: PLC0415

    await restoring.compress(path, target)


def unpacked(path: Path) -> AbstractAsyncContextManager[Path]:
    """Unpack a database file, if it is compressed, as long as a block lasts.

    Args:
        path: The file.

    Returns:
        A context manager for ``async with``, which gives the path of one that SQLite can open.

    Raises:
        OperationError: It is not there, or is damaged; at the beginning of the block.
    """
    from orchdb.sqlite import restoring  # noqa: PLC0415

    return restoring.unpacked(path)


async def put_in_place(backup: Path, path: Path) -> Path | None:
    """Put a copy of a database file in the place of another one, which is kept.

    Args:
        backup: The file to copy.
        path: The one to replace, or to make.

    Returns:
        The new name of the one that was there; ``None`` if there was none.

    Raises:
        OperationError: It is in use, or cannot be renamed.
    """
    from orchdb.sqlite import restoring  # noqa: PLC0415

    return await restoring.put_in_place(backup, path)

"""Where the database is: from a path, a URL or the environment to one SQLAlchemy URL."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchdb.errors import InvalidValueError

DEFAULT_PATH = "data/orchestrator.db"
MEMORY = ":memory:"

_DRIVERS: Mapping[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def resolve(db_path: str | os.PathLike[str] | URL | None = None) -> URL:
    """The URL of the database, with an absolute path where it is a file.

    Args:
        db_path: A path, ``":memory:"`` or a URL. ``None`` asks ``ORCHESTRATOR_DB_URL``, then ``ORCHESTRATOR_DB_PATH``,
            then takes ``data/orchestrator.db``; an empty variable counts as unset.

    Raises:
        InvalidValueError: The path is empty or holds a NUL, or the URL is malformed or names an unknown driver.
    """
    if db_path is None:
        variables = (os.environ.get(name) for name in ("ORCHESTRATOR_DB_URL", "ORCHESTRATOR_DB_PATH"))
        db_path = next((value for value in variables if value), DEFAULT_PATH)
    if isinstance(db_path, URL):
        return _from_url(db_path)
    path = os.fspath(db_path)
    if not isinstance(path, str):
        raise InvalidValueError("db_path: must be text, a path or a URL", column="db_path")
    if not _SCHEME.match(path):
        return _from_path(path)
    url = None
    with contextlib.suppress(ArgumentError, ValueError):  # their text would repeat the URL, password and all
        url = make_url(path)
    if url is None:
        raise InvalidValueError("db_path: is not a URL that SQLAlchemy can read", column="db_path")
    return _from_url(url)


def _from_path(path: str) -> URL:
    if not path or "\0" in path:
        raise InvalidValueError("db_path: must not be empty or hold a NUL", column="db_path")
    if path != MEMORY:
        failure = False
        try:
            path = str(Path(path).expanduser().absolute())
        except RuntimeError:
            failure = True
        if failure:
            raise InvalidValueError("db_path: names the home folder of a user that does not exist", column="db_path")
    return URL.create("sqlite+aiosqlite", database=path)


def _from_url(url: URL) -> URL:
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidValueError(f"db_path: the driver {url.drivername!r} is not one of {', '.join(_DRIVERS)}")
    if "password" in url.query:
        raise InvalidValueError("db_path: the password belongs before the @ of the URL, not into its query")
    if driver.startswith("sqlite"):
        if url.query or url.host:
            raise InvalidValueError("db_path: an SQLite URL is sqlite:///path, with no host and no query")
        return _from_path(url.database or MEMORY)
    return url.set(drivername=driver)

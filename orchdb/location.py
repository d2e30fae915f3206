"""Where the database is: from a path, a URL or the environment to one SQLAlchemy URL."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchdb.errors import InvalidValueError

DEFAULT_PATH = "data/orchestrator.db"
MEMORY = ":memory:"

# What only libpq does, with the values that ask for nothing that asyncpg does not do anyway.
PSYCOPG_ONLY: Mapping[str, tuple[str, ...]] = {
    "channel_binding": ("prefer", "disable"),
    "gssencmode": ("prefer", "disable"),
    "hostaddr": (),
    "keepalives": (),
    "keepalives_count": (),
    "keepalives_idle": (),
    "keepalives_interval": (),
    "require_auth": (),
    "sslsni": ("1",),
    "tcp_user_timeout": (),
}
_DRIVERS: Mapping[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
}

# A URL that was pasted with something around it must not become the name of a file: its password would be that name.
_AROUND = (
    r"\s\"'`<>()\[\]{}"
    r"\u00ab\u00b4\u00bb\u2018-\u201f\u2039\u203a\u300c-\u300f"  # quotes of all kinds
    r"\u200b-\u200f\u2060\ufeff"  # what is not seen
)
_BEFORE = re.compile(
    rf"[{_AROUND}]+ | (?:jdbc|r2dbc): | (?:export|set|psql)\s+ | \$?[a-z_][\w.-]*(?:\s*=|:\s)",
    re.IGNORECASE | re.VERBOSE,
)
_BEHIND = re.compile(rf"[{_AROUND},;]\Z")
_DATABASE = (
    r"(?:postgres(?:ql)?|postgis|pgsql|psql|sqlite3?|aiosqlite|mysql2?|mariadb|mssql|sqlserver|oracle|cockroach(?:db)?|"
    r"redshift|timescale(?:db)?|duckdb|libsql|clickhouse|snowflake|mongodb|redis|db2|firebird)"
)
_SCHEME = re.compile(
    rf"(?P<scheme>(?P<database>{_DATABASE})(?:\+[\w.+-]*)?)\s*(?P<mark>[:\uff1a]|;?[/\\\uff0f]{{2}})|"
    r"(?P<other>[a-z][a-z0-9+._-]*)://",
    re.IGNORECASE,
)
# Text that says of itself that it is a path may hold what it likes. In any other a URL, or who may log in, is the sign
# of something pasted: a line of YAML or of code, an option of a command, what libpq takes in the place of a URL.
_PATH = re.compile(r"\.{0,2}/(?!/)|~|[a-z]:[/\\]", re.IGNORECASE)
_PASTED = re.compile(
    rf"{_DATABASE}(?:\+[\w.+-]*)?:/ | (?::?//|:/)[^/@]*:[^@]*@ | \b(?:password|pwd)\s*=", re.IGNORECASE | re.VERBOSE
)
_NOTHING = re.compile(rf"[{_AROUND}]*")
_NEARLY_MEMORY = re.compile(
    r"[\s\"'`]*(?:file:)?(?: :+\s*[a-z_-]+\s*:+ | :+\s*mem(?:ory)? | mem(?:ory)?\s*:+ )(?:\?.*)?[\s\"'`]*",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_POSTGRES_HINT = "write postgresql://user:password@host:5432/database, a special character in it as %40, %2F, %3A ..."
_SQLITE_HINT = "write the path alone, with ./ before it if it begins like a URL, or sqlite:///path"
_AUTHORITY = re.compile(r"(?P<scheme>[^/?]*://)(?P<user>[^/?]*@)?(?P<hosts>[^/?@]*,[^/?@]*)(?=[/?]|\Z)")
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")


@dataclass(frozen=True)
class Source:
    """Where the text comes from, for messages: they never repeat it, because it may hold a password.

    Attributes:
        parameter: What the caller knows it as.
        variable: The environment variable that holds it.
    """

    parameter: str
    variable: str = ""

    def refuse(self, what: str) -> NoReturn:
        """Raise an ``InvalidValueError`` that names where the text comes from, and says what is wrong with it."""
        name = f"{self.parameter} (from {self.variable})" if self.variable else self.parameter
        raise InvalidValueError(f"{name}: {what}", column=self.parameter)


class Location(NamedTuple):
    """Where a database is.

    Attributes:
        url: As SQLAlchemy takes it, with an absolute path where it is a file.
        source: Where that was said; what is wrong with the query of the URL only the engine knows.
    """

    url: URL
    source: Source


def locate(db_path: str | os.PathLike[str] | URL | None = None, parameter: str = "db_path") -> Location:
    """Find out where the database is.

    Args:
        db_path: A path, ``":memory:"`` or a URL. ``None`` asks ``ORCHESTRATOR_DB_URL``, then ``ORCHESTRATOR_DB_PATH``,
            then takes ``data/orchestrator.db``; an empty variable counts as unset.
        parameter: What the caller knows it as.

    Raises:
        InvalidValueError: It is neither text nor a path, is empty or holds a NUL, is nearly ``":memory:"``, or is meant
            as a URL and malformed, or for an unknown driver.
    """
    source = Source(parameter)
    if db_path is None:
        variables = ((name, os.environ.get(name)) for name in ("ORCHESTRATOR_DB_URL", "ORCHESTRATOR_DB_PATH"))
        variable, db_path = next(((name, value) for name, value in variables if value), ("", DEFAULT_PATH))
        source = Source(parameter, variable)
    return Location(_url_of(db_path, source), source)


def resolve(db_path: str | os.PathLike[str] | URL | None = None, parameter: str = "db_path") -> URL:
    """The URL of what ``locate`` finds."""
    return locate(db_path, parameter).url


def path_of_file(path: str | os.PathLike[str], parameter: str = "path") -> Path:
    """The path of a file that is no database to connect to.

    Raises:
        InvalidValueError: It is neither text nor a path, or is meant as a URL.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        Source(parameter).refuse("must be text or a path")
    if _NOTHING.fullmatch(text):
        Source(parameter).refuse("must not be empty, or of blanks or quotes alone")
    if _meant_as_url(text) is not None or _is_pasted(text):
        Source(parameter).refuse("must be the path of a file, not a URL; write ./ before a name that begins like one")
    return Path(text)


def hosts_in_query(text: str) -> tuple[str, dict[str, str]]:
    """A URL with several hosts before its path, which SQLAlchemy cannot read, and the query that says the same."""
    found = _AUTHORITY.match(text)
    if found is None:
        return text, {}
    hosts = [_HOST.fullmatch(host) for host in found["hosts"].split(",")]
    rest = f"{found['scheme']}{found['user'] or ''}{text[found.end() :]}"
    names = [host["host"].strip("[]") if host else "" for host in hosts]
    ports = [(host["port"] or "") if host else "?" for host in hosts]
    return rest, {"host": ",".join(names), "port": ",".join(ports)}


def needs_libpq(query: Mapping[str, str | Sequence[str]]) -> bool:
    """Whether the query of a URL asks for what only psycopg can do, and psycopg is there."""
    asked = any(key in query and query[key] not in values for key, values in PSYCOPG_ONLY.items())
    return asked and find_spec("psycopg") is not None


def _url_of(db_path: str | os.PathLike[str] | URL, source: Source) -> URL:
    if isinstance(db_path, URL):
        return _from_url(db_path, source, named=db_path.drivername)
    path = os.fspath(db_path) if isinstance(db_path, (str, os.PathLike)) else None
    if not isinstance(path, str):
        source.refuse("must be text, a path or a URL")
    scheme = _meant_as_url(path)
    if scheme is not None:
        return _from_text(path, scheme, source)
    if _is_pasted(path):
        source.refuse(f"holds a URL or a password: {_POSTGRES_HINT}; or {_SQLITE_HINT}")
    return _from_path(path, source)


def _from_path(path: str, source: Source) -> URL:
    if _NOTHING.fullmatch(path) or "\0" in path:
        source.refuse("must not be empty, of blanks or quotes alone, or hold a NUL")
    if path != MEMORY:
        if _NEARLY_MEMORY.fullmatch(path):
            source.refuse(f"a database in memory is {MEMORY}; for a file of this name write ./ before it")
        absolute = None
        with contextlib.suppress(RuntimeError):
            absolute = str(Path(path).expanduser().absolute())
        if absolute is None:
            source.refuse("names the home folder of a user that does not exist")
        path = absolute
    return URL.create("sqlite+aiosqlite", database=path)


def _from_text(text: str, scheme: re.Match[str], source: Source) -> URL:
    name, database = scheme["scheme"] or scheme["other"], (scheme["database"] or "").lower()
    hint = _SQLITE_HINT if "sqlite" in database else _POSTGRES_HINT
    if scheme.start():
        source.refuse(
            f"something stands before the URL (a quote, a blank, a byte order mark, jdbc:, NAME= ...): {hint}"
        )
    if _BEHIND.search(text):
        source.refuse(f"something stands behind the URL (a quote, a blank, the end of a line ...): {hint}")
    if name not in _DRIVERS:
        source.refuse(f"the driver {name[:40]!r} is not one of {', '.join(_DRIVERS)}: {hint}")
    if not text.startswith("://", len(name)):
        source.refuse(f"behind {name} comes ://, so {hint}")
    if database.startswith("postgres") and _CONTROL.search(text):
        source.refuse(f"the URL holds a control character: {hint}")
    url = None
    with contextlib.suppress(ArgumentError, ValueError):  # their text would repeat the URL, password and all
        url = _read(text)
    if url is None:
        source.refuse(f"is not a URL that SQLAlchemy can read: {hint}")
    return _from_url(url, source, named=name)


def _from_url(url: URL, source: Source, *, named: str) -> URL:
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        source.refuse(f"the driver {url.drivername!r} is not one of {', '.join(_DRIVERS)}: {_POSTGRES_HINT}")
    if "password" in url.query:
        source.refuse("the password belongs before the @ of the URL, not into its query")
    if driver.startswith("sqlite"):
        if url.query or url.host:
            source.refuse("an SQLite URL is sqlite:///path, with no host and no query")
        return _from_path(url.database or MEMORY, source)
    if any("\0" in part for part in (url.username, str(url.password or ""), url.host, url.database) if part):
        source.refuse(f"the URL holds a NUL: {_POSTGRES_HINT}")
    if "+" not in named and needs_libpq(url.query):
        driver = "postgresql+psycopg"
    return url.set(drivername=driver)


def _read(text: str) -> URL | None:
    text, hosts = hosts_in_query(text)
    url = make_url(text)
    if not hosts:
        return url
    return None if url.query.keys() & hosts.keys() else url.update_query_dict(hosts)


def _meant_as_url(text: str) -> re.Match[str] | None:
    """The scheme of a URL, also behind what it was pasted with."""
    start = 0
    while (scheme := _SCHEME.match(text, start)) is None:
        before = _BEFORE.match(text, start)
        if before is None:
            return None
        start = before.end()
    return scheme


def _is_pasted(text: str) -> bool:
    """Whether a URL stands further inside, or a password."""
    return _PATH.match(text) is None and _PASTED.search(text) is not None

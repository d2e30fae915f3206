"""Postgres: from the URL and the options to the arguments of SQLAlchemy's engine, the same for both drivers.

The query of the URL takes what libpq takes. psycopg hands it on to libpq; for asyncpg it goes into a DSN of its own,
which asyncpg reads as libpq would. The server's settings travel in the start-up packet, so that a connection is ready
without another round trip.
"""

from __future__ import annotations

import math
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn
from urllib.parse import urlencode

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchdb.backend import Options
from orchdb.driver_errors import sqlstate, why_not_connected
from orchdb.errors import OperationError
from orchdb.location import PSYCOPG_ONLY
from orchdb.postgres.hosts import SESSION_ATTRIBUTES, Host, connect_by_libpq, connect_to_first, hosts_of
from orchdb.postgres.tls import SYSTEM, trusting_the_system, unreadable_file
from orchdb.schema import postgres_times
from orchdb.schema.spellings import decode_json

RECYCLE_SECONDS = 1800

# What both drivers know by libpq's names. A password, also that of a key file, has no place in a query: it is shown.
_COMMON = frozenset(
    {
        "gsslib",
        "krbsrvname",
        "passfile",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
    }
)
_READ_HERE = frozenset(
    {
        "application_name",
        "connect_timeout",
        "host",
        "load_balance_hosts",
        "options",
        "pooler",
        "port",
        "target_session_attrs",
    }
)
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_WORDS: Mapping[str, Sequence[str]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "pooler": ("transaction", "session"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": SESSION_ATTRIBUTES,
}
_FOR_LIBPQ = _COMMON | PSYCOPG_ONLY.keys() | {"load_balance_hosts", "target_session_attrs"}


@dataclass(frozen=True)
class PostgresSettings:
    """What a URL and the options come to.

    Attributes:
        url: User, password and database.
        hosts: Where the server is, or the servers are, of which the first that fits is taken.
        pooler: Whether a pooler in transaction mode stands before the server: nothing may be kept in a session.
        timeout: Seconds after which a connection that is being made to a host is given up.
        schema: The one schema that names without one mean; by default what the server or the role says.
    """

    url: URL
    hosts: tuple[Host, ...]
    options: Options
    query: Mapping[str, str]
    pooler: bool
    timeout: float
    schema: str | None = None

    @classmethod
    def of(cls, url: URL, options: Options, refuse: Callable[[str], NoReturn]) -> PostgresSettings:
        """Check the URL.

        Args:
            refuse: Raises what it is told is wrong with the URL, as a mistake of whoever gave it.

        Raises:
            InvalidValueError: A key of the query is unknown or has no usable value.
        """
        query = _checked_query(url, refuse)
        timeout = options.connect_timeout
        if "connect_timeout" in query:
            timeout = _seconds("connect_timeout", query["connect_timeout"], refuse)
        hosts = hosts_of(url.query, url.host, url.port, refuse)
        address = url.set(query={})._replace(host=None, port=None)
        return cls(address, hosts, options, query, query.get("pooler") == "transaction", timeout)

    @property
    def asyncpg(self) -> bool:
        """Whether the driver is asyncpg."""
        return self.url.drivername.endswith("asyncpg")

    @property
    def address(self) -> str:
        """Host, port and database, for messages: never a user or a password."""
        return f"{','.join(map(str, self.hosts))}/{self.url.database or ''}"

    def not_connected(self, error: BaseException) -> OperationError:
        """What a connection to there failed of, in the words of whoever refused it."""
        reason = why_not_connected(error)
        if self.url.password:  # which a server might repeat
            reason = re.sub(rf"(?<!\w){re.escape(str(self.url.password))}(?!\w)", "***", reason)
        if "startup parameter" in reason and not self.pooler:
            reason += " (a pooler in transaction mode needs pooler=transaction in the URL)"
        return OperationError(f"no connection to {self.address}: {reason}", code=sqlstate(error) or None)

    def without_limit(self) -> PostgresSettings:
        """These settings, for statements that may take as long as they need."""
        return replace(self, options=replace(self.options, statement_timeout=0))

    def in_schema(self, name: str) -> PostgresSettings:
        """These settings, for tables that are in a schema."""
        return replace(self, schema=name)

    def engine(self, size: int, *, read_only: bool = False) -> AsyncEngine:
        """An engine with a pool of this size.

        Raises:
            OperationError: The driver is not installed, or a file that the URL names cannot be read.
        """
        failure = ""
        try:
            engine = create_async_engine(
                self.url,
                pool_size=size,
                max_overflow=0,
                pool_timeout=self.options.pool_timeout,
                pool_pre_ping=True,
                pool_recycle=RECYCLE_SECONDS,
                isolation_level="READ COMMITTED",
                hide_parameters=True,
                json_deserializer=decode_json,
                connect_args=self._asyncpg(read_only) if self.asyncpg else self._psycopg(read_only),
            )
        except ModuleNotFoundError as error:
            failure = str(error.name)
        else:
            event.listen(engine.sync_engine, "connect", partial(self._connected, read_only))
            return engine
        extra = "postgres" if self.asyncpg else "psycopg"
        raise OperationError(f"the driver {failure} is not installed: pip install 'orchdb[{extra}]'")

    def _connected(self, read_only: bool, connection: Any, _record: object) -> None:
        if self.asyncpg:
            connection.run_async(postgres_times.use_in_asyncpg)
        else:
            postgres_times.use_in_psycopg(connection)
        if read_only and self._judges_sessions and not self.pooler:
            cursor = connection.cursor()
            cursor.execute("SET default_transaction_read_only = on")
            cursor.close()
            connection.commit()

    @property
    def _attributes(self) -> str:
        return self.query.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS") or "any"

    @property
    def _judges_sessions(self) -> bool:
        """Whether a host is chosen by the default that its sessions have, which is then not ours to set before."""
        return self._attributes in ("read-write", "read-only")

    def _asyncpg(self, read_only: bool) -> dict[str, Any]:
        limit = self.options.statement_timeout
        arguments: dict[str, Any] = {
            "timeout": self.timeout or None,
            # The server's own time-out comes first, with a clear code; this one is for a server that has gone silent.
            "command_timeout": limit + self.timeout if limit else None,
            "server_settings": self._start_up(read_only),
        }
        libpq = {key: value for key, value in self.query.items() if key in _COMMON}
        unreadable = unreadable_file(libpq)
        if unreadable is not None:
            raise OperationError(f"no connection to {self.address}: the file cannot be read: {unreadable}")
        if libpq.get("sslrootcert") == SYSTEM:
            arguments["ssl"] = trusting_the_system(libpq)
        if libpq:
            arguments["dsn"] = f"postgresql:///?{urlencode(libpq)}"
        if self.pooler:
            # The next transaction may run on another server connection, where a statement prepared here is unknown.
            arguments["statement_cache_size"] = 0
            arguments["prepared_statement_cache_size"] = 0
            arguments["prepared_statement_name_func"] = lambda: f"orchdb_{uuid.uuid4()}"
        shuffled = self.query.get("load_balance_hosts") == "random"
        arguments["async_creator_fn"] = partial(connect_to_first, self.hosts, self._attributes, shuffled=shuffled)
        return arguments

    def _psycopg(self, read_only: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {key: value for key, value in self.query.items() if key in _FOR_LIBPQ}
        arguments |= self._start_up(read_only)
        arguments["async_creator_fn"] = connect_by_libpq
        arguments["connect_timeout"] = math.ceil(self.timeout)
        arguments["client_encoding"] = "utf8"  # asyncpg asks for it by itself
        for key, values in (("host", [each.name for each in self.hosts]), ("port", [each.port for each in self.hosts])):
            if any(values):
                arguments[key] = ",".join(values)
        if self.pooler:
            arguments["prepare_threshold"] = None
        return arguments

    def _start_up(self, read_only: bool) -> dict[str, str]:
        """The settings of the session; behind a pooler only what every pooler takes."""
        settings = {"application_name": self.query.get("application_name", "orchdb")}
        own = {} if self.pooler else self._session(read_only)
        # The caller's come last, so that they win.
        options = " ".join(
            [*(f"-c {name}={_option(value)}" for name, value in own.items()), self.query.get("options", "")]
        )
        if options.strip():
            settings["options"] = options.strip()
        return settings

    def _session(self, read_only: bool) -> dict[str, str | int]:
        settings: dict[str, str | int] = {
            "default_transaction_isolation": "read committed",
            "statement_timeout": _milliseconds(self.options.statement_timeout),
            "lock_timeout": max(1, _milliseconds(self.options.lock_timeout)),  # 0 would wait for ever
            # A transaction that its program forgot holds its locks, and keeps the server from cleaning up.
            "idle_in_transaction_session_timeout": 60_000,
            # What the server, the database or the role says of these would change what a caller's own statement gives.
            "DateStyle": "ISO",
            "IntervalStyle": "postgres",
            "TimeZone": "UTC",
            "extra_float_digits": 1,
            "row_security": "on",
            # What a list costs is over-estimated where it has a part for each agent, and compiling it takes longer than
            # running it: measured at two to four times the whole.
            "jit": "off",
        }
        if self.options.durability == "full":
            settings["synchronous_commit"] = "on"  # the server's own default; with less, a commit may be lost
        if not self._judges_sessions:
            settings["default_transaction_read_only"] = "on" if read_only else "off"
        if self.schema is not None:
            quoted = self.schema.replace('"', '""')
            settings["search_path"] = f'"{quoted}"'
        return settings


def _checked_query(url: URL, refuse: Callable[[str], NoReturn]) -> dict[str, str]:
    if "@" in f"{url.host}{url.database}":
        refuse("there is an @ too many: a special character in user or password is written as %40, %2F, %3A ...")
    known = _READ_HERE | _COMMON | PSYCOPG_ONLY.keys()
    query: dict[str, str] = {}
    for key, value in url.query.items():
        if key not in known:
            refuse(f"the URL has the unknown parameter {key!r}; known are {', '.join(sorted(known))}")
        query[key] = value if isinstance(value, str) else ",".join(value)
    for key, words in _WORDS.items():
        if query.get(key, words[0]) not in words:
            refuse(f"{key} must be one of {', '.join(words)}")
    if query.get("sslrootcert") == SYSTEM and query.setdefault("sslmode", "verify-full") != "verify-full":
        refuse("sslrootcert=system is for sslmode=verify-full")
    if url.drivername.endswith("asyncpg"):
        for key, values in PSYCOPG_ONLY.items():
            if key in query and query.pop(key) not in values:
                refuse(
                    f"asyncpg cannot do what {key} asks for: write postgresql+psycopg://, with pip install "
                    "'orchdb[psycopg]'"
                )
    return query


def _option(value: str | int) -> str:
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")


def _seconds(name: str, text: str, refuse: Callable[[str], NoReturn]) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        refuse(f"{name} must be a number of seconds from 0")
    return seconds


def _milliseconds(seconds: float) -> int:
    """As the server takes it, where 0 is no limit."""
    return min(math.ceil(seconds * 1000), 2**31 - 1)

"""Postgres: from the URL and the options to the arguments of SQLAlchemy's engine, the same for both drivers.

The query of the URL takes what libpq takes. psycopg hands it on to libpq; for asyncpg it goes into a DSN of its own,
which asyncpg reads as libpq would. The server's settings travel in the start-up packet, so that a connection is ready
without another round trip.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchdb.errors import InvalidValueError, OperationError
from orchdb.spellings import read_json

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
        "target_session_attrs",
    }
)
_PSYCOPG_ONLY = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "require_auth",
        "sslsni",
        "tcp_user_timeout",
    }
)
_READ_HERE = frozenset({"application_name", "connect_timeout", "host", "options", "pooler", "port"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


@dataclass(frozen=True)
class PostgresOptions:
    """The options of ``DatabaseManager`` that concern the server; times are seconds."""

    pool_size: int = 10
    pool_timeout: float = 30.0
    connect_timeout: float = 10.0
    statement_timeout: float = 60.0
    lock_timeout: float = 30.0
    durability: str = "normal"

    def __post_init__(self) -> None:
        if isinstance(self.pool_size, bool) or not isinstance(self.pool_size, int) or self.pool_size < 1:
            raise InvalidValueError("pool_size: must be a whole number from 1", column="pool_size")
        for name in ("pool_timeout", "connect_timeout", "statement_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise InvalidValueError(f"{name}: must be a number of seconds from 0", column=name)


@dataclass(frozen=True)
class PostgresSettings:
    """What a URL and the options come to.

    Attributes:
        url: The address, without a query but for the hosts and ports.
        pooler: Whether a pooler in transaction mode stands before the server: nothing may be kept in a session.
        timeout: Seconds after which a connection that is being made is given up.
    """

    url: URL
    options: PostgresOptions
    query: Mapping[str, str]
    pooler: bool
    timeout: float

    @classmethod
    def of(cls, url: URL, options: PostgresOptions) -> PostgresSettings:
        """Check the URL.

        Raises:
            InvalidValueError: A key of the query is unknown or has no usable value.
        """
        query = _checked_query(url)
        if query.get("pooler", "transaction") not in ("transaction", "session"):
            raise InvalidValueError("db_path: pooler must be transaction or session", column="db_path")
        timeout = options.connect_timeout
        if "connect_timeout" in query:
            timeout = _seconds("connect_timeout", query["connect_timeout"])
        address = {key: value for key, value in url.query.items() if key in ("host", "port")}
        return cls(url.set(query=address), options, query, query.get("pooler") == "transaction", timeout)

    @property
    def asyncpg(self) -> bool:
        """Whether the driver is asyncpg."""
        return self.url.drivername.endswith("asyncpg")

    @property
    def place(self) -> str:
        """Host, port and database, for messages: never a user or a password."""
        hosts = self.query.get("host") or self.url.host or "the default host"
        ports = self.query.get("port") or self.url.port
        return f"{hosts}{f':{ports}' if ports else ''}/{self.url.database or ''}"

    def without_limit(self) -> PostgresSettings:
        """These settings, for statements that may take as long as they need."""
        return replace(self, options=replace(self.options, statement_timeout=0))

    def engine(self, size: int, *, read_only: bool = False) -> AsyncEngine:
        """An engine with a pool of this size.

        Raises:
            OperationError: The driver is not installed.
        """
        failure = ""
        try:
            return create_async_engine(
                self.url,
                pool_size=size,
                max_overflow=0,
                pool_timeout=self.options.pool_timeout,
                pool_pre_ping=True,
                pool_recycle=RECYCLE_SECONDS,
                isolation_level="READ COMMITTED",
                hide_parameters=True,
                json_deserializer=read_json,
                connect_args=self._asyncpg(read_only) if self.asyncpg else self._psycopg(read_only),
            )
        except ModuleNotFoundError as error:
            failure = str(error.name)
        extra = "postgres" if self.asyncpg else "psycopg"
        raise OperationError(f"the driver {failure} is not installed: pip install 'orchdb[{extra}]'")

    def _asyncpg(self, read_only: bool) -> dict[str, Any]:
        limit = self.options.statement_timeout
        arguments: dict[str, Any] = {
            "timeout": self.timeout or None,
            # The server's own time-out comes first, with a clear code; this one is for a server that has gone silent.
            "command_timeout": limit + self.timeout if limit else None,
            "server_settings": self._start_up(read_only),
        }
        libpq = {key: value for key, value in self.query.items() if key in _COMMON}
        if libpq:
            arguments["dsn"] = f"postgresql:///?{urlencode(libpq)}"
        if self.pooler:
            # The next transaction may run on another server connection, where a statement prepared here is unknown.
            arguments["statement_cache_size"] = 0
            arguments["prepared_statement_cache_size"] = 0
            arguments["prepared_statement_name_func"] = lambda: f"orchdb_{uuid.uuid4()}"
        return arguments

    def _psycopg(self, read_only: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {key: value for key, value in self.query.items() if key in _COMMON | _PSYCOPG_ONLY}
        arguments |= self._start_up(read_only)
        arguments["connect_timeout"] = math.ceil(self.timeout)
        if self.pooler:
            arguments["prepare_threshold"] = None
        return arguments

    def _start_up(self, read_only: bool) -> dict[str, str]:
        """The settings of the session; behind a pooler only what every pooler takes."""
        settings = {"application_name": self.query.get("application_name", "orchdb")}
        own = {} if self.pooler else self._session(read_only)
        # The caller's come last, so that they win.
        options = " ".join([*(f"-c {name}={value}" for name, value in own.items()), self.query.get("options", "")])
        if options.strip():
            settings["options"] = options.strip()
        return settings

    def _session(self, read_only: bool) -> dict[str, str | int]:
        settings: dict[str, str | int] = {
            "default_transaction_isolation": r"read\ committed",
            "statement_timeout": _milliseconds(self.options.statement_timeout),
            "lock_timeout": max(1, _milliseconds(self.options.lock_timeout)),  # 0 would wait for ever
            # A transaction that its program forgot holds its locks, and keeps the server from cleaning up.
            "idle_in_transaction_session_timeout": 60_000,
        }
        if self.options.durability == "full":
            settings["synchronous_commit"] = "on"  # the server's own default; with less, a commit may be lost
        if read_only:
            settings["default_transaction_read_only"] = "on"
        return settings


def _checked_query(url: URL) -> dict[str, str]:
    if "@" in f"{url.host}{url.database}":
        raise InvalidValueError(
            "db_path: there is an @ too many: a special character in user or password is written as %40, %2F, %3A ...",
            column="db_path",
        )
    known = _READ_HERE | _COMMON | (frozenset[str]() if url.drivername.endswith("asyncpg") else _PSYCOPG_ONLY)
    query: dict[str, str] = {}
    for key, value in url.query.items():
        if key not in known:
            raise InvalidValueError(
                f"db_path: the URL has the unknown parameter {key!r}; known are {', '.join(sorted(known))}",
                column="db_path",
            )
        query[key] = value if isinstance(value, str) else ",".join(value)
    if query.get("sslmode", "prefer") not in _SSL_MODES:
        raise InvalidValueError(f"db_path: sslmode must be one of {', '.join(sorted(_SSL_MODES))}", column="db_path")
    return query


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if 0 <= seconds < math.inf:
        return seconds
    raise InvalidValueError(f"db_path: {name} must be a number of seconds from 0", column="db_path")


def _milliseconds(seconds: float) -> int:
    """As the server takes it, where 0 is no limit."""
    return min(math.ceil(seconds * 1000), 2**31 - 1)

"""Who takes part. Nothing of theirs is imported before it is opened, in a process of its own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from benchmarks.contestants import peers, postgres_drivers, sqlite_drivers
from benchmarks.contestants.base import Contestant

SQLITE: dict[str, type[Contestant]] = {
    "aiosqlite": sqlite_drivers.RawAiosqlite,
    "orchdb": sqlite_drivers.Orchdb,
    "aiosqlite-short": sqlite_drivers.ShortcutAiosqlite,
    "sqlite3": sqlite_drivers.RawSqlite,
    "apsw": sqlite_drivers.Apsw,
    "core": sqlite_drivers.SqlAlchemyCore,
    "sqlmodel": peers.SqlModel,
    "tortoise": peers.Tortoise,
    "agents": peers.AgentsSession,
    "agents-sqlalchemy": peers.AgentsSqlAlchemySession,
    "langgraph": peers.Langgraph,
    "adk": peers.Adk,
}
POSTGRES: dict[str, type[Contestant]] = {
    "asyncpg": postgres_drivers.RawAsyncpg,
    "orchdb": postgres_drivers.OrchdbAsyncpg,
    "orchdb-psycopg": postgres_drivers.OrchdbPsycopg,
    "asyncpg-copy": postgres_drivers.AsyncpgCopy,
    "psycopg": postgres_drivers.RawPsycopg,
    "core": postgres_drivers.CoreAsyncpg,
}


def missing(contestant: type[Contestant]) -> list[str]:
    """The distributions that it needs and that are not installed."""
    absent: list[str] = []
    for name in contestant.needs:
        try:
            version(name)
        except PackageNotFoundError:
            absent.append(name)
    return absent


def contestants(engine: str) -> dict[str, type[Contestant]]:
    """Who takes part on this engine, the raw driver first."""
    return SQLITE if engine == "sqlite" else POSTGRES

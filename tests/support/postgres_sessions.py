"""What a Postgres server knows of a manager: its sessions, and whether a row can be locked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL

from tests.support.postgres_databases import CLEANER

_SESSIONS = f"""
    SELECT pid, state, wait_event, query FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND application_name <> '{CLEANER}'
"""


class Watched:
    """A database, as its administrator sees it on a connection of their own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def ask(self, sql: str, *parameters: object) -> list[Any]:
        """What a statement gives."""
        cursor = self.connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def sessions(self) -> list[Any]:
        """Everybody else's sessions."""
        return self.ask(_SESSIONS)

    def busy(self) -> list[Any]:
        """Those that run a statement or are inside a transaction."""
        return self.ask(f"{_SESSIONS} AND state IS DISTINCT FROM 'idle'")

    def sleeping(self) -> int:
        """How many of them are in ``pg_sleep``."""
        return len(self.ask(f"{_SESSIONS} AND wait_event = 'PgSleep'"))

    def waiting(self) -> int:
        """How many of them wait for a lock."""
        return len(self.ask(f"{_SESSIONS} AND wait_event_type = 'Lock'"))

    def agents_are_free(self) -> bool:
        """Whether each agent's row can be locked at once."""
        try:
            self.ask("SELECT 1 FROM agents FOR UPDATE NOWAIT")
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def end_all(self) -> int:
        """End their sessions."""
        return len(self.ask(f"SELECT pg_terminate_backend(pid) FROM ({_SESSIONS}) AS theirs"))

    def lines(self) -> list[str]:
        """The messages in the system log."""
        return [row[0] for row in self.ask("SELECT message FROM system_logs ORDER BY id")]


def plain(url: URL) -> str:
    """The URL as libpq takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def watched(url: URL) -> Iterator[Watched]:
    """The database, for as long as the block takes."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        yield Watched(connection)

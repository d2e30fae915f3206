"""The databases that the tests of one process use one after the other: made once, emptied after each test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

CLEANER = "cleaner"
"""How the connections call themselves by which the tables are emptied."""

# TRUNCATE makes every file anew, which takes a hundred times as long as to delete a few rows.
_EMPTY_THE_TABLES = """
    DO $$ BEGIN
        IF (SELECT sum(pg_table_size(c.oid)) FROM pg_class AS c
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r') > 1000000 THEN
            TRUNCATE orchestrator_agents, agents, prompts, agent_logs, system_logs, leases RESTART IDENTITY;
        ELSE
            DELETE FROM system_logs;
            DELETE FROM agent_logs;
            DELETE FROM prompts;
            DELETE FROM agents;
            DELETE FROM leases;
            DELETE FROM orchestrator_agents;
            PERFORM setval(pg_get_serial_sequence(name, 'id'), 1, false)
            FROM unnest(ARRAY['agent_logs', 'system_logs']) AS names (name);
        END IF;
    END $$
"""
_DROP_THE_TABLES = """
    DROP SCHEMA IF EXISTS public CASCADE;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC
"""
_LEFT_BESIDE_THEM = """
    SELECT 'schema' FROM pg_namespace WHERE oid >= 16384 AND nspname <> 'public' AND nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'extension' FROM pg_extension WHERE oid >= 16384
    UNION ALL SELECT 'event trigger' FROM pg_event_trigger
    UNION ALL SELECT 'publication' FROM pg_publication
    UNION ALL SELECT 'privilege' FROM pg_default_acl
    UNION ALL SELECT 'large object' FROM pg_largeobject_metadata
    UNION ALL SELECT 'setting' FROM pg_db_role_setting WHERE setdatabase =
        (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'database' FROM pg_database WHERE datname = current_database()
        AND (datacl IS NOT NULL OR datconnlimit <> -1 OR pg_get_userbyid(datdba) <> current_user)
"""


class Databases:
    """Makes databases on a server, and lends them to one test after the other."""

    def __init__(self, server: str) -> None:
        self._server = make_url(server)
        self._admin = psycopg.connect(server, autocommit=True)
        self._numbers = count(1)
        self._made: set[str] = set()
        self._free: dict[bool, list[str]] = {True: [], False: []}
        self._cleaners: dict[str, psycopg.Connection[Any]] = {}

    @contextmanager
    def lent(self, *, tables: bool) -> Iterator[str]:
        """The URL of an empty database, or of one with orchdb's tables, empty, once a manager has made them in it.

        At the end nothing may still be connected to it.
        """
        name = self._free[tables].pop() if self._free[tables] else self._make()
        url = self._server.set(database=name).render_as_string(hide_password=False)
        good = False
        try:
            yield url
            left = self._connections(name)
            assert not left, f"connections are left: {left}"
            good = self._emptied(name, url, tables=tables)
        finally:
            if good:
                self._free[tables].append(name)
            else:
                self._drop(name)

    def close(self) -> None:
        """Drop every database."""
        for name in tuple(self._made):
            self._drop(name)
        self._admin.close()

    def _make(self) -> str:
        name = f"orchdb_test_{os.getpid()}_{next(self._numbers)}"
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self._made.add(name)
        return name

    def _drop(self, name: str) -> None:
        self._made.discard(name)
        if name in self._cleaners:
            self._cleaners.pop(name).close()
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _connections(self, database: str) -> list[Any]:
        query = "SELECT state, query FROM pg_stat_activity WHERE datname = %s AND application_name <> %s"
        deadline = time.monotonic() + 5  # a server process lives on for a moment after its client has gone
        while (left := self._admin.execute(query, (database, CLEANER)).fetchall()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return left

    def _emptied(self, name: str, url: str, *, tables: bool) -> bool:
        """Whether it is again as a test may find it: what a test did beside the tables is not undone."""
        try:
            if not tables:
                with psycopg.connect(url, autocommit=True) as cleaner:
                    cleaner.execute(_DROP_THE_TABLES)
                    return not cleaner.execute(_LEFT_BESIDE_THEM).fetchall()
            # Kept: a new connection has everything to look up again, which takes longer than to empty the tables.
            if name not in self._cleaners or self._cleaners[name].closed:
                self._cleaners[name] = psycopg.connect(url, autocommit=True, application_name=CLEANER)
            self._cleaners[name].execute(_EMPTY_THE_TABLES)
            return not self._cleaners[name].execute(_LEFT_BESIDE_THEM).fetchall()
        except psycopg.Error:
            return False

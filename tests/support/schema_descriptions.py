"""What a database says of its own schema, in a form that can be compared."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, NullPool, create_engine, inspect

OURS = ("orchestrator_agents", "agents", "prompts", "agent_logs", "system_logs", "leases")


def _plain(sql: str | None) -> str:
    """The statement without its layout and its quotes around names."""
    text = re.sub(r"\s+", " ", (sql or "").replace('"', "")).replace("( ", "(").replace(" )", ")")
    return re.sub(r" ?([(),]) ?", r"\1", text).strip()


def describe_sqlite(path: Path) -> dict[str, Any]:
    """Columns in their order, checks, keys, indexes and triggers of orchdb's tables."""
    with closing(sqlite3.connect(path)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        ours = [table for table in OURS if table in there]
        described: dict[str, Any] = {table: _describe_sqlite_table(connection, table) for table in ours}
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        described["triggers"] = {name: _plain(sql) for name, sql in triggers}
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    inspector = inspect(engine)
    for table in ours:
        checks = inspector.get_check_constraints(table)
        described[table]["checks"] = sorted((check["name"], _plain(check["sqltext"])) for check in checks)
        described[table]["foreign keys"] = sorted(
            (key["name"], key["constrained_columns"], key["referred_table"], key["referred_columns"], key["options"])
            for key in inspector.get_foreign_keys(table)
        )
    engine.dispose()
    return described


def _describe_sqlite_table(connection: sqlite3.Connection, table: str) -> dict[str, Any]:
    columns = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
    indexes = {}
    for _, name, unique, origin, partial in connection.execute(f"PRAGMA index_list({table})").fetchall():
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        indexes[name] = (unique, origin, partial, _plain(sql))
    (created,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return {
        "columns": [(name, kind, needed, _plain(default), key) for _, name, kind, needed, default, key, _ in columns],
        "indexes": indexes,
        "counted": "AUTOINCREMENT" in created,
    }


_POSTGRES = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND {ours}
        ORDER BY 1, 2""",
    "constraints": """
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE {ours} ORDER BY 1, 2""",
    "indexes": """
        SELECT c.relname, pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE {ours} ORDER BY 1, 2""",
    "triggers": """
        SELECT c.relname, pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND {ours} ORDER BY 1, 2""",
    "functions": """
        SELECT p.proname, p.prosrc, p.provolatile FROM pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace ORDER BY 1""",
}


def describe_postgres(connection: Connection) -> dict[str, Any]:
    """The same from Postgres's own catalogue."""
    ours = f"c.relnamespace = current_schema()::regnamespace AND c.relname IN {OURS}"
    described: dict[str, Any] = {}
    for kind, query in _POSTGRES.items():
        rows = [tuple(row) for row in connection.exec_driver_sql(query.format(ours=ours))]
        described[kind] = rows
    # Dropped columns leave gaps in the numbers: the order is what counts.
    described["columns"] = [(table, *rest) for table, _, *rest in described["columns"]]
    return described

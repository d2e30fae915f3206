"""What is wrong with a database, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.schema import Table

from orchdb.driver_errors import translate
from orchdb.engines import look_at
from orchdb.errors import OperationError
from orchdb.location import Location
from orchdb.looking import Finding, Look, ok
from orchdb.schema.revisions import HEAD, REVISIONS, Found, examine
from orchdb.schema.tables import TRIGGERS, metadata
from orchdb.tables import agent_logs, prompts

_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_FUTURE = timedelta(minutes=5)


async def examine_database(location: Location, *, quick: bool = False) -> list[Finding]:
    """Look for what is wrong; nothing of the database is made or changed.

    Args:
        location: The database.
        quick: Leave out what reads every page of a file.

    Returns:
        What each check has found, in the order of the checks.

    Raises:
        OperationError: The database is not there, or cannot be reached.
    """
    try:
        async with look_at(location) as look:
            return await _findings(look, quick=quick)
    except (OperationError, DBAPIError) as error:
        known = translate(error, "doctor", None)
        if known.code not in _DAMAGED:
            raise known from None
        message = known.message
    return [Finding("integrity", "error", message, "go back to a backup, or try sqlite3's .recover into a new file")]


async def _findings(look: Look, *, quick: bool) -> list[Finding]:
    found = await examine(look.connection)
    findings = [_revision(found)]
    if found.ours and found.revision == HEAD:
        triggers = await look.triggers()
        indexes: set[tuple[str, str]] = await look.connection.run_sync(_indexes)
        findings += [_indexes_found(indexes), _triggers_found({*triggers}), await _future(look)]
    return findings + await look.findings(quick=quick)


def _revision(found: Found) -> Finding:
    if found.revision == HEAD:
        return ok("revision", HEAD)
    if found.revision is not None and found.revision not in REVISIONS:
        return Finding("revision", "error", f"{found.revision} is newer than this orchdb's {HEAD}", "upgrade orchdb")
    if not found.ours:
        return Finding("revision", "error", "the tables of orchdb are not there", "orchdb init makes them")
    return Finding("revision", "warning", f"{found.revision or 'none'} is older than {HEAD}", "orchdb upgrade")


def _indexes(connection: Connection) -> set[tuple[str, str]]:
    """The indexes on our tables: of each the table and the name."""
    inspector = inspect(connection)
    present = {*inspector.get_table_names()} & {*metadata.tables}
    found = [(table, index) for table in present for index in inspector.get_indexes(table)]
    return {(table, str(index["name"])) for table, index in found if not index.get("duplicates_constraint")}


def _indexes_found(found: set[tuple[str, str]]) -> Finding:
    expected = {str(index.name): table.name for table in metadata.sorted_tables for index in table.indexes}
    present = {name for _, name in found}
    missing = sorted(expected.keys() - present)
    if missing:
        advice = "make them again as schema/schema_orchestrator.sql has them: lists are slow without"
        return Finding("indexes", "warning", f"missing: {', '.join(missing)}", advice)
    foreign = sorted(name for name in present - expected.keys() if not name.startswith("sqlite_autoindex"))
    if foreign:
        return Finding("indexes", "note", f"of another program, which each write pays for: {', '.join(foreign)}")
    return ok("indexes", f"all {len(expected)} are there")


def _triggers_found(found: set[tuple[str, str]]) -> Finding:
    ours = {name for name in TRIGGERS if name.endswith("_updated_at")}  # the others are SQLite's alone
    present = {name for _, name in found}
    missing = sorted(ours - present)
    if missing:
        advice = "make them again as schema/schema_orchestrator.sql has them: plain SQL relies on them"
        return Finding("triggers", "warning", f"missing: {', '.join(missing)}", advice)
    tables = {*metadata.tables}
    foreign = sorted(name for table, name in found if table in tables and name not in TRIGGERS)
    if foreign:
        return Finding("triggers", "note", f"of another program, which run with our writes: {', '.join(foreign)}")
    return ok("triggers", "all are there")


async def _future(look: Look) -> Finding:
    """Rows of the future tell of a clock that was, or is, wrong."""
    limit = datetime.now(UTC) + _FUTURE
    late: list[str] = []
    for table in _TABLES_WITH_TIMES:
        sql: Any = select(func.count()).select_from(table).where(table.c.created_at > limit)
        number = (await look.connection.execute(sql)).scalar_one()
        late += [f"{number} in {table.name}"] if number else []
    if late:
        message = f"rows are of the future: {', '.join(late)}"
        return Finding("future rows", "warning", message, "look at the clock of the machine that wrote them")
    return ok("future rows", "none")


_TABLES_WITH_TIMES: tuple[Table, ...] = (prompts, agent_logs)

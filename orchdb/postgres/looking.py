"""Looking at a Postgres database: read only, whatever its schema, role and server."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import Options
from orchdb.driver_errors import sqlstate
from orchdb.errors import OperationError
from orchdb.location import Location
from orchdb.looking import READ_ONLY, Answer, Facts, Finding, Look, ok
from orchdb.postgres.connecting import Endings, connect
from orchdb.postgres.schema_lookup import look
from orchdb.postgres.settings import PostgresSettings
from orchdb.schema.tables import metadata

_CLOCK_SECONDS = 2.0
_LONG_MINUTES = 10
_SPARE_CONNECTIONS = 11
"""What a manager may take with its usual pool, and the connection for its caller."""
_OURS = ", ".join(f"'{name}'" for name in sorted(metadata.tables))
_SIZE = f"SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(ARRAY[{_OURS}]) AS name"  # noqa: S608
_TRIGGERS = f"""
    SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND pg_class.oid IN (SELECT to_regclass(name) FROM unnest(ARRAY[{_OURS}]) AS name)
"""  # noqa: S608  # our own names
_INVALID = f"""
    SELECT indexrelid::regclass::text FROM pg_index
    WHERE NOT indisvalid AND indrelid IN (SELECT to_regclass(name) FROM unnest(ARRAY[{_OURS}]) AS name)
"""  # noqa: S608
_UNCHECKED = f"""
    SELECT conname FROM pg_constraint
    WHERE NOT convalidated AND conrelid IN (SELECT to_regclass(name) FROM unnest(ARRAY[{_OURS}]) AS name)
"""  # noqa: S608
_RIGHTS = f"""
    SELECT name FROM unnest(ARRAY[{_OURS}]) AS name WHERE to_regclass(name) IS NOT NULL
    AND NOT (has_table_privilege(to_regclass(name), 'SELECT') AND has_table_privilege(to_regclass(name), 'INSERT')
    AND has_table_privilege(to_regclass(name), 'UPDATE') AND has_table_privilege(to_regclass(name), 'DELETE'))
"""  # noqa: S608
_POLICIES = f"""
    SELECT relname FROM pg_class WHERE relrowsecurity AND oid IN
    (SELECT to_regclass(name) FROM unnest(ARRAY[{_OURS}]) AS name)
"""  # noqa: S608
_DEAD = f"""
    SELECT relname, n_dead_tup FROM pg_stat_user_tables
    WHERE n_dead_tup > 100000 AND n_dead_tup > n_live_tup AND relid IN
    (SELECT to_regclass(name) FROM unnest(ARRAY[{_OURS}]) AS name)
"""  # noqa: S608
_LONG = f"""
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND xact_start < now() - interval '{_LONG_MINUTES} minutes' ORDER BY xact_start
"""  # noqa: S608
_USED = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


# What else there is could end the transaction that only reads, or write beside the tables.
_READS = ("select", "with", "values", "table", "show", "explain")
# A transaction that only reads lets pass what acts on the server, its files and its sessions.
_ACTING = """
    SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v' AND proname::text = ANY(CAST(:names AS text[]))
    AND proname !~ '^(random(_normal)?|clock_timestamp|timeofday|gen_random_uuid|uuidv[47]|currval|lastval|pg_sleep.*
        |pg_.*size|pg_stat_get_.*|pg_relation_filepath)$' ORDER BY 1
""".replace("\n        |", "|")
_WORD = r"[^\W\d][\w$]*"
_CALL = re.compile(rf'({_WORD})"?\s*\(')
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*(?P<word>[a-z]+)", re.IGNORECASE | re.DOTALL)


@asynccontextmanager
async def look_at_server(location: Location) -> AsyncGenerator[Look]:
    """Connect to the database to look at it.

    Raises:
        OperationError: The server cannot be reached or refuses.
    """
    settings = PostgresSettings.of(location.url, Options(read_only=True), location.source.refuse)
    endings: Endings = set()
    schema = None
    for _ in range(2):
        reader = settings.engine(1, read_only=True)
        try:
            connection = await connect(settings, AsyncConnection(reader), endings)
            try:
                if schema is None and settings.schema is None and not settings.pooler:
                    _, schema = await look(connection, fixed=False)
                    await connection.rollback()
                    if schema is not None:
                        settings = settings.in_schema(schema)
                        continue
                await connection.execution_options(isolation_level="AUTOCOMMIT")  # a check that fails ends no other
                yield _ServerLook(settings, connection)
                return
            finally:
                await connection.close()
        finally:
            await reader.dispose()


class _ServerLook(Look):
    def __init__(self, settings: PostgresSettings, connection: AsyncConnection) -> None:
        self._settings = settings
        self.connection = connection

    async def facts(self) -> Facts:
        version = str(await self._value("SHOW server_version")).split()[0]
        return Facts(self._settings.address, f"PostgreSQL {version}", int(await self._value(_SIZE) or 0))

    async def triggers(self) -> Collection[tuple[str, str]]:
        return [(str(table), str(name)) for table, name in await self._rows(_TRIGGERS)]

    async def query(self, statement: str, limit: int | None = None) -> Answer:
        word = _FIRST_WORD.match(statement)
        if word is None or word["word"].lower() not in _READS:
            raise OperationError(f"only {', '.join(_READS)} can be run", code=READ_ONLY)
        acting = await self._acting(statement)
        if acting:
            message = f"{', '.join(acting)} may do more than read (a function of your own can be made STABLE)"
            raise OperationError(message, code=READ_ONLY)
        # Of one that is prepared the server takes no second one behind it.
        run = _prepared_by_asyncpg if self._settings.asyncpg else _prepared_by_psycopg
        try:
            raw: Any = await self.connection.get_raw_connection()
            return await run(raw.driver_connection, statement, limit)
        except Exception as error:
            if sqlstate(error) != READ_ONLY:
                raise
        raise OperationError("the statement would write", code=READ_ONLY)

    async def _acting(self, statement: str) -> list[str]:
        """The functions in a statement that may have an effect."""
        if re.search(r"u&\s*\"", statement, re.IGNORECASE):
            return ["a name that is written with U&"]
        # A comment may stand between a name and its parenthesis.
        called = _CALL.findall(statement) if not re.search(r"--|/\*", statement) else re.findall(_WORD, statement)
        names = sorted({*called, *(name.lower() for name in called)})
        return [str(name) for (name,) in await self.connection.execute(text(_ACTING), {"names": names})]

    async def findings(self, *, quick: bool) -> list[Finding]:
        found = [await self._clock(), await self._server(), await self._role(), await self._rows_hidden()]
        found += [await self._connections(), self._pooler(), await self._long_readers()]
        found += [await self._indexes(), await self._foreign_keys(), await self._sequences(), await self._dead_rows()]
        return found

    async def _rows(self, sql: str) -> list[Any]:
        return [*await self.connection.execute(text(sql.replace(":", r"\:")))]

    async def _value(self, sql: str) -> Any:
        return (await self._rows(sql))[0][0]

    async def _names(self, sql: str) -> list[str]:
        return [str(row[0]) for row in await self._rows(sql)]

    async def _clock(self) -> Finding:
        began = time.time()
        server = await self._value("SELECT clock_timestamp()")
        here = (began + time.time()) / 2
        theirs = server if isinstance(server, datetime) else datetime.fromisoformat(str(server))
        apart = (theirs.replace(tzinfo=theirs.tzinfo or UTC)).timestamp() - here
        if abs(apart) > _CLOCK_SECONDS:
            message = f"the server's clock is {apart:+.1f} s from this machine's"
            return Finding("clock", "warning", message, "let both follow NTP: rows have the time of who writes them")
        return ok("clock", f"{abs(apart):.1f} s from the server's")

    async def _server(self) -> Finding:
        names = ("server_encoding", "fsync", "full_page_writes", "synchronous_commit", "default_transaction_read_only")
        settings = {name: str(await self._value(f"SHOW {name}")) for name in names}
        if settings["server_encoding"] != "UTF8":
            message = f"the encoding of the database is {settings['server_encoding']}: not every text can be stored"
            return Finding("server", "error", message, "make a database with ENCODING 'UTF8' and copy the rows")
        if "off" in (settings["fsync"], settings["full_page_writes"]):
            message = "fsync or full_page_writes is off: a crash of the server can damage the database"
            return Finding("server", "error", message, "switch both on in postgresql.conf")
        if await self._value("SELECT pg_is_in_recovery()"):
            return Finding("server", "note", "it is a standby: it can be read, and not written")
        if settings["synchronous_commit"] == "off":
            message = "synchronous_commit is off: a crash of the server may take the last moments"
            return Finding("server", "note", message, "switch it on if that is too much")
        return ok("server", f"UTF8, synchronous_commit {settings['synchronous_commit']}")

    async def _role(self) -> Finding:
        lacking = await self._names(_RIGHTS)
        role = str(await self._value("SELECT current_user"))
        if lacking:
            message = f"the role {role} may not read and write {', '.join(lacking)}"
            advice = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(lacking)} TO {role}"
            return Finding("role", "warning", message, advice)
        if await self._value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            return Finding(
                "role", "note", f"{role} is a superuser, which orchdb has no need of", "use a role of its own"
            )
        return ok("role", f"{role} may read and write each table")

    async def _rows_hidden(self) -> Finding:
        tables = await self._names(_POLICIES)
        if tables:
            message = f"row-level security is on for {', '.join(tables)}: rows may be hidden"
            return Finding("row security", "warning", message, "switch it off, or let the role see every row")
        return ok("row security", "off")

    async def _connections(self) -> Finding:
        most, used = int(await self._value("SHOW max_connections")), int(await self._value(_USED))
        message = f"{used} of max_connections {most} are used; a manager takes up to {_SPARE_CONNECTIONS}"
        if most - used < _SPARE_CONNECTIONS:
            advice = "make pool_size smaller, raise max_connections, or put a pooler between"
            return Finding("connections", "warning", message, advice)
        return ok("connections", message)

    def _pooler(self) -> Finding:
        if self._settings.pooler:
            return Finding("pooler", "note", "the URL says pooler=transaction: nothing is kept in a session")
        return ok("pooler", "none that the URL tells of; one in transaction mode needs pooler=transaction in it")

    async def _long_readers(self) -> Finding:
        found = await self._names(_LONG)
        if found:
            message = f"transactions are open for more than {_LONG_MINUTES} minutes: pid {', '.join(found[:5])}"
            return Finding(
                "long readers",
                "warning",
                message,
                f"look at them in pg_stat_activity, or SELECT pg_terminate_backend({found[0]})",
            )
        return ok("long readers", f"no transaction is older than {_LONG_MINUTES} minutes")

    async def _indexes(self) -> Finding:
        found = await self._names(_INVALID)
        if found:
            return Finding("valid indexes", "error", f"not usable: {', '.join(found)}", f"REINDEX INDEX {found[0]}")
        return ok("valid indexes", "each is usable")

    async def _foreign_keys(self) -> Finding:
        found = await self._names(_UNCHECKED)
        if found:
            message = f"rows from before are not checked: {', '.join(found)}"
            return Finding("foreign keys", "warning", message, "ALTER TABLE ... VALIDATE CONSTRAINT " + found[0])
        return ok("foreign keys", "each is enforced")

    async def _sequences(self) -> Finding:
        behind: list[str] = []
        for name in ("agent_logs", "system_logs"):
            if await self._value(f"SELECT to_regclass('{name}') IS NOT NULL"):
                sql = (
                    f"SELECT coalesce((SELECT max(id) FROM {name}), 0) > "  # noqa: S608
                    f"coalesce(pg_sequence_last_value(pg_get_serial_sequence('{name}', 'id')::regclass), 0)"
                )
                behind += [name] if await self._value(sql) else []
        if behind:
            message = f"the next ids of {', '.join(behind)} are taken: another program wrote ids of its own"
            return Finding("sequences", "note", message, "the next write of orchdb's moves them on")
        return ok("sequences", "the next line has a number of its own")

    async def _dead_rows(self) -> Finding:
        found = [f"{number:,} in {name}" for name, number in await self._rows(_DEAD)]
        if found:
            return Finding(
                "dead rows", "warning", f"more dead rows than living: {', '.join(found)}", "VACUUM ANALYZE them"
            )
        return ok("dead rows", "few")


async def _prepared_by_asyncpg(driver: Any, statement: str, limit: int | None) -> Answer:
    prepared = await driver.prepare(statement)
    names = [str(attribute.name) for attribute in prepared.get_attributes() or ()]
    rows = await prepared.fetch()
    return Answer(names, [tuple(row.values()) for row in rows][:limit])


async def _prepared_by_psycopg(driver: Any, statement: str, limit: int | None) -> Answer:
    cursor = await driver.execute(statement, prepare=True)
    names = [str(column.name) for column in cursor.description or ()]
    if not names:
        return Answer([], [])
    return Answer(names, await cursor.fetchall() if limit is None else await cursor.fetchmany(limit))

"""Whole tables of a Postgres database: read in one snapshot, written by COPY without indexes and foreign keys.

Values cross as text, which both drivers carry the same and quicker than they make objects: the server casts them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from orchdb.backend import Options
from orchdb.concurrency import shielded
from orchdb.driver_errors import translate
from orchdb.errors import OperationError
from orchdb.location import Location
from orchdb.postgres.connecting import connect, open_driver_connection
from orchdb.postgres.copy_text import copy_text
from orchdb.postgres.drivers import DriverConnection
from orchdb.postgres.schema_lookup import look
from orchdb.postgres.settings import PostgresSettings
from orchdb.raising import raised_as
from orchdb.schema.column_types import Identifier, JsonDocument, Timestamp
from orchdb.streams import STATE, STATE_TABLE, Columns, Portion, Position, RowSource, RowTarget

_PUT_AWAY = "made again "
_NO_RIGHT = "42501"
_FOREVER = (
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; "
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO';"
)
# As orchdb gives it: what no datetime can be is the text that the server would show.
_TIME = """CASE WHEN {0} >= '0001-01-01 00:00:00+00' AND {0} < '10000-01-01 00:00:00+00'
    THEN to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
    WHEN NOT isfinite({0}) THEN {0}::text
    ELSE to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || CASE WHEN {0} < '0001-01-01 00:00:00+00' THEN ' BC' ELSE '' END END"""
_INDEXES = """
    SELECT 'index ' || indexrelid::regclass::text, 'DROP INDEX ' || indexrelid::regclass::text,
        pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid = '{0}'::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""
_KEYS = """
    SELECT 'key ' || conname, 'ALTER TABLE ' || conrelid::regclass::text || ' DROP CONSTRAINT ' || quote_ident(conname),
        'ALTER TABLE ' || conrelid::regclass::text || ' ADD CONSTRAINT ' || quote_ident(conname) || ' '
        || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = '{0}'::regclass AND contype = 'f'
"""
_OWNS = "SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE oid IN ({0})"


class _Server:
    def __init__(self, settings: PostgresSettings, engine: AsyncEngine, connection: DriverConnection) -> None:
        self.place = settings.address
        self._engine = engine
        self._connection = connection

    async def _rows(self, sql: str) -> list[Any]:
        with raised_as(Exception, _translated):
            return await self._connection.fetch(sql)

    async def _value(self, sql: str) -> Any:
        return (await self._rows(sql))[0][0]

    async def _script(self, *statements: str) -> None:
        with raised_as(Exception, _translated):
            await self._connection.script("; ".join(statements))

    async def close(self) -> None:
        await shielded(_close(self._connection, self._engine))


class ServerSource(_Server, RowSource):
    """A Postgres database as it was at the first look."""

    strict = True

    async def begin(self) -> None:
        """Take the snapshot."""
        await self._script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", _FOREVER + " SELECT 1")

    async def count(self, table: Table) -> int:
        return int(await self._value(f"SELECT count(*) FROM {table.name}"))  # noqa: S608  # our own names

    async def last_number(self, table: Table) -> int:
        sql = (
            f"SELECT greatest((SELECT max(id) FROM {table.name}), "  # noqa: S608
            f"pg_sequence_last_value(pg_get_serial_sequence('{table.name}', 'id')::regclass), 0)"
        )
        return int(await self._value(sql))

    async def read(self, table: Table, after: Position | None, limit: int) -> Portion | None:
        shown = ", ".join(map(_shown, table.columns))
        where = "" if after is None else f"WHERE id > '{after}'"
        rows = await self._rows(f"SELECT {shown} FROM {table.name} {where} ORDER BY id LIMIT {limit}")  # noqa: S608
        if not rows:
            return None
        columns = [*zip(*rows, strict=True)]
        return Portion(columns, columns[0])  # the id is the first column of every table


class ServerTarget(_Server, RowTarget):
    """A Postgres database that is filled."""

    strict = True

    async def is_empty(self, table: Table) -> bool:
        return bool(await self._value(f"SELECT NOT EXISTS (SELECT FROM {table.name})"))  # noqa: S608

    async def state(self) -> dict[str, str]:
        if not await self._value(f"SELECT to_regclass('{STATE_TABLE}') IS NOT NULL"):
            return {}
        return {str(name): str(value) for name, value in await self._rows(f"SELECT name, value FROM {STATE_TABLE}")}  # noqa: S608

    async def prepare(self, tables: Sequence[Table], state: Mapping[str, str]) -> None:
        names = ", ".join(f"'{table.name}'::regclass" for table in tables)
        if not await self._value(_OWNS.format(names)):
            raise OperationError(
                f"the user does not own the tables in {self.place}: copy as the role that made them", code=_NO_RIGHT
            )
        putting = [STATE]
        for table in tables:
            for found in (_INDEXES, _KEYS):
                for name, away, again in await self._rows(found.format(table.name)):
                    putting += [_kept({f"{_PUT_AWAY}{name}": again}), away]
            putting.append(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
        await self._at_once(*putting, _kept(state))

    async def write(self, table: Table, columns: Columns, count: int, state: Mapping[str, str]) -> None:
        async with self._transaction(state):
            await self._connection.copy_in(table.name, table.columns.keys(), copy_text(columns, count))

    async def clear(self, table: Table, state: Mapping[str, str]) -> None:
        async with self._transaction(state):
            await self._connection.script(f"TRUNCATE {table.name}")

    async def finish(self, tables: Sequence[Table], numbers: Mapping[str, int]) -> None:
        # The indexes first, which a look for parents needs.
        for name, again in sorted((await self.state()).items()):
            if name.startswith(_PUT_AWAY):
                forget = f"DELETE FROM {STATE_TABLE} WHERE name = {_quoted(name)}"  # noqa: S608
                await self._at_once(again, forget)
        ending = [f"ALTER TABLE {table.name} ENABLE TRIGGER USER" for table in tables]
        ending += [
            f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), greatest({number}, "
            f"pg_sequence_last_value(pg_get_serial_sequence('{name}', 'id')::regclass)))"
            for name, number in numbers.items()
            if number
        ]
        await self._at_once(*ending, f"DROP TABLE {STATE_TABLE}", "SET LOCAL synchronous_commit = on")
        await self._script("ANALYZE " + ", ".join(table.name for table in tables))

    async def _at_once(self, *statements: str) -> None:
        await self._script("BEGIN", _FOREVER + " " + "; ".join(statements), "COMMIT")

    @asynccontextmanager
    async def _transaction(self, state: Mapping[str, str]) -> AsyncGenerator[None]:
        # What is not on the disk yet when the server dies is gone with the state of the same transaction.
        with raised_as(Exception, _translated):
            await self._connection.script(f"BEGIN; {_FOREVER} SET LOCAL synchronous_commit = off; {_kept(state)}")
            yield
            await self._connection.script("COMMIT")


async def open_source(location: Location) -> ServerSource:
    """Connect to a database, to read it as it is now.

    Raises:
        OperationError: The server cannot be reached or refuses.
    """
    settings, engine, connection = await _open(location, read_only=True)
    source = ServerSource(settings, engine, connection)
    try:
        await source.begin()
    except BaseException:
        await source.close()
        raise
    return source


async def open_target(location: Location) -> ServerTarget:
    """Connect to a database, to fill it.

    Raises:
        OperationError: The server cannot be reached or refuses.
    """
    return ServerTarget(*await _open(location, read_only=False))


async def _open(location: Location, *, read_only: bool) -> tuple[PostgresSettings, AsyncEngine, DriverConnection]:
    settings = PostgresSettings.of(location.url, Options(read_only=read_only), location.source.refuse)
    settings = settings.without_limit()
    schema = await _schema(settings)
    if schema is not None:
        settings = settings.in_schema(schema)
    engine = settings.engine(1, read_only=read_only)
    try:
        return settings, engine, await open_driver_connection(settings, engine, set())
    except BaseException:
        await shielded(engine.dispose())
        raise


async def _schema(settings: PostgresSettings) -> str | None:
    """The schema that the tables are in, if it is not where the search path leads."""
    if settings.schema is not None or settings.pooler:
        return None
    engine = settings.engine(1, read_only=True)
    try:
        connection = await connect(settings, AsyncConnection(engine), set())
        try:
            _, schema = await look(connection, fixed=False)
        finally:
            await shielded(connection.close())
    finally:
        await shielded(engine.dispose())
    return schema


async def _close(connection: DriverConnection, engine: AsyncEngine) -> None:
    await connection.connection.invalidate()
    await connection.connection.close()
    await engine.dispose()


def _shown(column: Column[Any]) -> str:
    name = f'"{column.name}"'
    if isinstance(column.type, Timestamp):
        return _TIME.format(name)
    if isinstance(column.type, (Identifier, JsonDocument)):
        return f"{name}::text"
    return name


def _kept(state: Mapping[str, str]) -> str:
    rows = ", ".join(f"({_quoted(name)}, {_quoted(value)})" for name, value in state.items())
    return (
        f"INSERT INTO {STATE_TABLE} (name, value) VALUES {rows} "  # noqa: S608  # quoted above
        "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


_translate = partial(translate, operation="copy", table=None)


def _translated(error: Exception) -> Exception:
    return _translate(error)

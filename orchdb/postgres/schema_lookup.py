"""In which schema of a Postgres database orchdb's tables are, whatever the search path of the role says."""

from __future__ import annotations

import contextlib

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.schema import revisions
from orchdb.schema.tables import metadata

# The revision, and whether the tables are where it is: a schema of another program's may stand before it in the search
# path, with tables of the same names.
_CURRENT = f"""
    SELECT version_num, (
        SELECT bool_and(relnamespace = ours.relnamespace) FROM pg_class
        WHERE oid IN ({", ".join(f"to_regclass('{name}')" for name in metadata.tables)})
    ) AS together
    FROM {revisions.VERSION_TABLE} JOIN pg_class AS ours ON ours.oid = to_regclass('{revisions.VERSION_TABLE}')
"""  # noqa: S608  # our own names
# Where a table without a schema would be made, and where ours are, or should be if the search path has no schema.
_SCHEMAS = f"""
    SELECT current_schema() AS first, coalesce(
        (
            SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
            WHERE pg_class.oid = to_regclass('{revisions.VERSION_TABLE}')
        ),
        current_schema(), 'public') AS ours
"""  # noqa: S608


async def look(connection: AsyncConnection, *, fixed: bool) -> tuple[revisions.Found, str | None]:
    """What the database holds, by one query if it is current; and the schema to look in, if it is another one.

    Args:
        connection: In a transaction that may fail and then be rolled back.
        fixed: Whether it is too late for another schema.
    """
    with contextlib.suppress(DBAPIError):  # there is no such table
        row = (await connection.exec_driver_sql(_CURRENT)).one_or_none()
        if row is not None and row.version_num == revisions.HEAD and (row.together or fixed):
            return revisions.Found(revisions.HEAD, empty=False, ours=True), None
    await connection.rollback()
    found = await revisions.examine(connection)
    if fixed:
        return found, None
    row = (await connection.exec_driver_sql(_SCHEMAS)).one()
    return found, None if row.first == row.ours else str(row.ours)

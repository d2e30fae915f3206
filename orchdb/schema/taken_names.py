"""Names that revisions want and that something of another program's has: an upgrade would fail by them, or drop it."""

from __future__ import annotations

from sqlalchemy import Connection, inspect

from orchdb.errors import SchemaError
from orchdb.schema.tables import TRIGGERS, metadata

_MARKS = {"leases": "clock_id"}
"""The tables that the first schema does not have, each with a column that tells it from another program's. (A table of
another program's under one of the first names is refused by the first revision.)"""
_INDEXES = {str(index.name) for table in metadata.tables.values() for index in table.indexes}

_ON_SQLITE = "SELECT type, lower(name), lower(tbl_name) FROM sqlite_master"  # which takes no notice of their case
_ON_POSTGRES = """\
SELECT CASE WHEN relation.relkind IN ('i', 'I') THEN 'index' WHEN relation.relkind IN ('v', 'm') THEN 'view'
            WHEN relation.relkind = 'S' THEN 'sequence' ELSE 'table' END,
       relation.relname, coalesce(indexed.relname, relation.relname)
FROM pg_catalog.pg_class relation
LEFT JOIN pg_catalog.pg_index ON indexrelid = relation.oid
LEFT JOIN pg_catalog.pg_class indexed ON indexed.oid = indrelid
WHERE relation.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())"""


def refuse_taken(connection: Connection) -> None:
    """Make sure, before an upgrade, that what it makes or makes anew is not to be called as something else is.

    Raises:
        SchemaError: It is; the error names it.
    """
    query = _ON_SQLITE if connection.dialect.name == "sqlite" else _ON_POSTGRES
    for kind, name, table in connection.exec_driver_sql(query).all():
        wanted = TRIGGERS if kind == "trigger" else {*_MARKS, *_INDEXES}
        if name in wanted and not _is_ours(connection, kind, name, table):
            place = "" if name == table else f" on {table}"
            raise SchemaError(
                f"nothing was changed: the database has another program's {kind} {name}{place}, and orchdb's own is "
                f"to have that name: rename the other one, then upgrade"
            )


def _is_ours(connection: Connection, kind: str, name: str, table: str) -> bool:
    if name in _MARKS:
        columns = inspect(connection).get_columns(name) if kind == "table" else []
        return _MARKS[name] in [column["name"] for column in columns]
    return kind in ("index", "trigger") and table in metadata.tables

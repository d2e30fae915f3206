"""``orchdb sql``: a query of one's own, which can only read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchdb.cli import options
from orchdb.cli.running import REFUSED, USAGE, fail, reading, run_reading
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError


def sql(
    statement: Annotated[
        str,
        typer.Argument(metavar="SQL", help="One statement, as the database takes it; - reads it from standard input."),
    ],
    db: options.Db = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, metavar="N", help="The most rows to show.", show_default=False),
    ] = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    full: options.Full = False,
) -> None:
    """Run a query of your own; it can only read.

    Values come as they are stored: times in UTC. The text goes to the database as it is, with no parameters.

    Examples:

        orchdb sql "SELECT status, count(*) FROM agents GROUP BY status"

        orchdb sql - < query.sql --json
    """
    view = View.of(db, as_json, plain, full=full)
    text = sys.stdin.read() if statement == "-" else statement
    if not text.strip():
        fail("sql: there is no statement", USAGE)

    async def run() -> tuple[list[str], list[Any]]:  # noqa: RET503  # fail() does not return
        from sqlalchemy.exc import DBAPIError, ResourceClosedError

        failure = "", USAGE
        async with reading(view.location) as manager:
            try:
                result = await manager.conn.exec_driver_sql(_escaped(text, manager.conn.dialect.paramstyle))
                names = [*result.keys()]
                return names, [*(result.fetchall() if limit is None else result.fetchmany(limit))]
            except ResourceClosedError:  # a statement without rows
                return [], []
            except DBAPIError as error:
                failure = _told(error)
        fail(*failure)

    names, found = run_reading(run())
    _print(view, names, found)


def _escaped(text: str, paramstyle: str) -> str:
    """A percent sign is one: psycopg would take it for a parameter's."""
    return text.replace("%", "%%") if paramstyle in ("format", "pyformat") else text


def _told(error: DBAPIError) -> tuple[str, int]:
    """What the database says; the statement is the user's own, so its words may be repeated."""
    from orchdb.driver_errors import translate

    known = translate(error, "sql", None)
    refuses = known.code in ("25006", "42501") or (known.code or "").startswith(("SQLITE_READONLY", "SQLITE_AUTH"))
    if refuses:
        return "sql: the statement would write, and this command only reads", REFUSED
    said = str(error.orig).partition("\n")[0]
    said = said.rpartition(">: ")[2] if said.startswith("<class") else said
    return f"sql: {said}", USAGE


def _print(view: View, names: Sequence[str], found: Sequence[Any]) -> None:
    # Two columns may have one name: in JSON the second is called name_2, and so on.
    keys: list[str] = []
    for name in names:
        same = sum(1 for key in keys if key == name or key.startswith(f"{name}_"))
        keys.append(f"{name}_{same + 1}" if name in keys else name)
    rows: list[Mapping[str, Any]] = [
        {key: _value(value) for key, value in zip(keys, row, strict=True)} for row in found
    ]
    columns = [Column(name, key, _kind(rows, key), grows=True) for name, key in zip(names, keys, strict=True)]
    view.rows(rows, columns, nothing="No rows.")


def _kind(rows: Sequence[Mapping[str, Any]], key: str) -> Any:
    numbers = all(isinstance(row[key], (int, float)) and not isinstance(row[key], bool) for row in rows)
    return "number" if numbers else "json"


def _value(value: object) -> Any:
    """What JSON can hold of a value that a driver gives."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Sequence):
        return [_value(each) for each in cast("Sequence[object]", value)]
    if isinstance(value, Mapping):
        return {str(name): _value(each) for name, each in cast("Mapping[object, object]", value).items()}
    return value.isoformat() if isinstance(value, (date, time)) else str(value)

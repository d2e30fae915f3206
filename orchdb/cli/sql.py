"""``orchdb sql``: a query of one's own, which can only read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchdb.cli import options
from orchdb.cli.running import REFUSED, USAGE, fail, run_reading
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from orchdb.looking import Answer


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

    async def run() -> Answer:
        from orchdb.engines import look_at

        async with look_at(view.location) as look:
            return await look.query(text, limit)

    try:
        answer = run_reading(run())
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
    else:
        _print(view, answer.names, answer.rows)
        return
    fail(*told)


def _told(error: Exception) -> tuple[str, int] | None:
    """What the database says; the statement is the user's own, so its words may be repeated."""
    from sqlalchemy.exc import DBAPIError

    from orchdb.errors import OperationError
    from orchdb.looking import READ_ONLY

    if isinstance(error, OperationError) and error.code == READ_ONLY:
        return f"sql: this command only reads: {error.message}", REFUSED
    # Past the engine it is the driver's own, or with SQLAlchemy's words around it.
    said = error.orig if isinstance(error, DBAPIError) else error
    if type(said).__module__.partition(".")[0] in ("sqlite3", "asyncpg", "psycopg", "sqlalchemy"):
        words = str(said).partition("\n")[0]
        return f"sql: {words.rpartition('>: ')[2] if words.startswith('<class') else words}", USAGE
    return None


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
    view.rows(rows, columns, nothing="No rows.", narrow="records")


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

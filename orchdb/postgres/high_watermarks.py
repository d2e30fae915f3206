"""Postgres: what a log looked like at one moment, and who may still add to it.

Ids are taken from the sequence before their rows can be seen. Whoever takes one gets a lock of the sequence's with it,
and holds it until the transaction ends; the same lock of the table's is of those who write with an id of their own.

In each statement the order counts: the columns are evaluated as they are written, the locks as they are at that moment,
and the rows as they were when the statement began.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Boolean, Table, Text, bindparam, text

from orchdb.backend import HighWatermark, StatementResult
from orchdb.errors import OperationError
from orchdb.statements import Statement

_SEQUENCE = "CAST(pg_get_serial_sequence('{0}', 'id') AS regclass)"
_NEWEST = "coalesce((SELECT max(id) FROM {0}), 0) AS newest"
_WRITERS = f"""coalesce((SELECT string_agg(virtualtransaction, ' ') FROM pg_locks
    WHERE mode = 'RowExclusiveLock' AND relation IN (CAST('{{0}}' AS regclass), {_SEQUENCE})
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())), '') AS writers"""  # noqa: S608
_STANDBY = "pg_is_in_recovery() AS standby"
_LAST = f"""CASE WHEN has_sequence_privilege({_SEQUENCE}, 'USAGE, SELECT')
    THEN coalesce(pg_sequence_last_value({_SEQUENCE}), 0) ELSE 0 END AS last"""
_GAPS = """coalesce((SELECT string_agg(first || ' ' || last, ' ' ORDER BY first) FROM (
    SELECT lag(id, 1, CAST(:after_id AS bigint)) OVER (ORDER BY id) + 1 AS first, id - 1 AS last
    FROM {0} WHERE id > :after_id) AS gaps WHERE first <= last), '') AS gaps"""
_FILLED = """SELECT id FROM {0} JOIN unnest(CAST(string_to_array(:firsts, ' ') AS bigint[]),
    CAST(string_to_array(:lasts, ' ') AS bigint[])) AS gaps (first, last) ON id BETWEEN first AND last ORDER BY id"""


@cache
def high_watermark(table: Table) -> Statement[Any]:
    """The newest id and who may add a lower one: who is not among them has its row there after the newest was read."""
    return _select(table, _NEWEST, _WRITERS, _STANDBY)


@cache
def before_beginning(table: Table) -> Statement[Any]:
    """The last id that was taken, and who may still add it or a lower one: all others take higher ones."""
    return _select(table, _LAST, _WRITERS, _STANDBY)


@cache
def beginning(table: Table) -> Statement[Any]:
    """The newest id, the ids between ``after_id`` and it that have no row, and who may add such a row."""
    return _select(table, _NEWEST, _GAPS, _WRITERS, _STANDBY, parameters=("after_id",))


@cache
def filled(table: Table) -> Statement[Any]:
    """The ids in the ranges between ``firsts`` and ``lasts`` that have a row."""
    core = text(_FILLED.format(table.name)).bindparams(bindparam("firsts", type_=Text), bindparam("lasts", type_=Text))
    return Statement(table, core.columns(id=BigInteger))


def ranges(gaps: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The values for ``filled``."""
    return {
        "firsts": " ".join(str(first) for first, _ in gaps),
        "lasts": " ".join(str(last) for _, last in gaps),
    }


def found(result: StatementResult) -> tuple[int, HighWatermark]:
    """What one of the statements gave: the last id that was taken, and the high watermark.

    Raises:
        OperationError: The server is a standby.
    """
    (row,) = result.rows
    if row["standby"]:
        raise OperationError("the server is a standby: it does not know who is writing")
    numbers = [int(number) for number in row.get("gaps", "").split()]
    gaps = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return row.get("last", 0), HighWatermark(row.get("newest", 0), frozenset(row["writers"].split()), gaps)


def _select(table: Table, *columns: str, parameters: Sequence[str] = ()) -> Statement[Any]:
    core = text(f"SELECT {', '.join(columns)}".format(table.name))  # the table's own name
    core = core.bindparams(*(bindparam(name, type_=BigInteger) for name in parameters))
    types = {"newest": BigInteger, "last": BigInteger, "gaps": Text, "writers": Text, "standby": Boolean}
    names = [column.rpartition(" ")[2] for column in columns]
    return Statement(table, core.columns(**{name: types[name] for name in names}))

"""The ids of the logs on Postgres, where another program wrote rows with ids of its own.

A sequence knows nothing of them (COPY, ``pg_restore --data-only``, INSERT with an id), so it gives ids that are taken
until it has passed them. SQLite goes on behind the highest id that there is; so does orchdb on Postgres: it moves the
sequence, and inserts again.
"""

from __future__ import annotations

from orchdb.driver_errors import sqlstate, translate
from orchdb.errors import OperationError
from orchdb.postgres.drivers import DriverConnection
from orchdb.statements import CompiledStatement

_DUPLICATE, _NO_RIGHT = "23505", "42501"
_JUMP = 100_000
# Ids are taken one by one until none behind them is taken. So nobody's are given twice, however many tasks and programs
# do this at once, and it needs no more rights than an insert. Only a long way is made shorter, up to a distance that
# nobody covers in between.
_CATCH_UP = """
DO $$
DECLARE
    ids CONSTANT regclass := pg_get_serial_sequence('{table}', 'id');
    newest CONSTANT bigint := (SELECT max(id) FROM {table});
BEGIN
    IF newest - coalesce(pg_sequence_last_value(ids), 0) > 2 * {jump} THEN
        PERFORM setval(ids, newest - {jump});
    END IF;
    WHILE nextval(ids) < newest LOOP
    END LOOP;
END $$
"""


def is_behind(compiled: CompiledStatement, error: Exception) -> bool:
    """Whether an insert may have failed because the id that the database gave to its row was taken."""
    if not compiled.is_insert or not compiled.returns_rows or sqlstate(error) != _DUPLICATE:
        return False
    return "pkey" in (translate(error, "", None).constraint or "pkey")  # as Postgres calls it, also in partitions


async def catch_up(conn: DriverConnection, compiled: CompiledStatement) -> None:
    """Move the ids that the database gives behind the highest one that there is; never back.

    The connection may be inside a transaction: the sequence moves at once and for everybody, whatever becomes of it.

    Raises:
        OperationError: The role may not do so; the message says what to grant.
    """
    table = compiled.sql.split(maxsplit=3)[2]
    try:
        await conn.script(_CATCH_UP.format(table=table, jump=_JUMP))
        return
    except Exception as error:
        if sqlstate(error) != _NO_RIGHT:
            raise
    raise OperationError(
        "the ids that the database would give next are taken, and the user may not pass them: grant it SELECT on "
        f"{table}, and USAGE and UPDATE on the sequence pg_get_serial_sequence('{table}', 'id')",
        code=_NO_RIGHT,
    )

"""What runs in the thread of an SQLite connection: one statement, or an insert of many rows.

Where statements have met triggers of other programs, each row goes by itself: only then is it certain which id is
whose, that no row was skipped, and that a trigger which fails and keeps what was done leaves nothing behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from orchdb.backend import Outcome
from orchdb.errors import sqlite_code
from orchdb.foreign_triggers import Connection, trust_known_modules
from orchdb.long_lists import all_rows
from orchdb.prepared import Parameters, Prepared
from orchdb.refusals import explained, skipped
from orchdb.spellings import read_text
from orchdb.work import Failure, Work, attempt


class OneStatement(Work):
    """One statement, and what it gave."""

    def __init__(self, prepared: Prepared, parameters: Parameters) -> None:
        self._prepared = prepared
        self._parameters = parameters
        self.alike = prepared if prepared.changes_one else None

    def __call__(self, connection: Connection) -> Outcome:
        triggers = connection.foreign_triggers
        triggers.ours, triggers.met = True, False
        failure: Exception
        try:
            if triggers.found and self._prepared.table and connection.in_transaction:
                return self._apart(connection)
            return self.run(connection)
        except sqlite3.Error as error:
            failure = error
        finally:
            triggers.ours = False
        if triggers.met and not connection.in_transaction:
            raise failure  # it has not run: whatever a trigger does has to be undone with it, which takes a transaction
        if triggers.met or _allowed_now(failure, connection):
            return self(connection)
        if str(failure).startswith("Could not decode to UTF-8"):
            return self._decoding(connection)
        raise self.explained(failure, connection)

    def run(self, connection: Connection) -> Outcome:
        """Run it, whatever triggers there are."""
        prepared = self._prepared
        cursor = connection.execute(prepared.sql, self._parameters)
        try:
            if prepared.returns_rows:
                return Outcome(all_rows(prepared, cursor.fetchmany), 0)
            changed = cursor.rowcount
            if changed != 1 and prepared.adds_one:
                raise skipped(prepared, connection)
            return Outcome([], changed, cursor.lastrowid)
        finally:
            cursor.close()  # one with rows left would keep its snapshot: later reads would see the past

    def together(self, works: Sequence[OneStatement], connection: Connection) -> list[Outcome] | None:
        triggers = connection.foreign_triggers
        if triggers.found:
            return [work(connection) for work in works]
        triggers.ours = True
        prepared = self._prepared
        try:
            cursor = connection.executemany(prepared.sql, [work._parameters for work in works])
        finally:
            triggers.ours = False
        if cursor.rowcount != len(works):  # one of them found no row
            return None
        if not prepared.numbered:
            return [Outcome([], 1)] * len(works)
        return [Outcome([], 1, number) for number in _last_ids(len(works), connection)]

    def explained(self, error: Exception, connection: Connection) -> Exception:
        return explained(error, self._prepared, [self._parameters], connection)

    def _apart(self, connection: Connection) -> Outcome:
        result = attempt(_Apart(self), connection)
        if isinstance(result, Failure):
            raise result.error
        outcome: Outcome = result
        return outcome

    def _decoding(self, connection: Connection) -> Outcome:
        """The rows, with U+FFFD for what is no UTF-8. Only now, because it costs a call for each text."""
        connection.text_factory = read_text
        try:
            return self.run(connection)
        finally:
            connection.text_factory = str


class _Apart(Work):
    """A statement that is undone as a whole if it fails."""

    several = True

    def __init__(self, statement: OneStatement) -> None:
        self._statement = statement

    def __call__(self, connection: Connection) -> Outcome:
        return self._statement.run(connection)


class ManyRows(Work):
    """An insert of many rows, and the ids that the table's counter gave them."""

    several = True

    def __init__(self, prepared: Prepared, parameters: Sequence[Parameters]) -> None:
        self._prepared = prepared
        self._parameters = parameters

    def __call__(self, connection: Connection) -> list[int]:
        triggers = connection.foreign_triggers
        triggers.ours, triggers.met = True, False
        before = connection.total_changes
        failure: Exception
        try:
            return self._one_by_one(connection) if triggers.found else self._at_once(connection)
        except sqlite3.Error as error:
            failure = error
        finally:
            triggers.ours = False
        if connection.total_changes == before and (triggers.met or _allowed_now(failure, connection)):
            return self(connection)
        raise self.explained(failure, connection)

    def _at_once(self, connection: Connection) -> list[int]:
        connection.executemany(self._prepared.sql, self._parameters)
        return list(_last_ids(len(self._parameters), connection)) if self._prepared.numbered else []

    def _one_by_one(self, connection: Connection) -> list[int]:
        numbers: list[int] = []
        cursor = connection.cursor()
        for parameters in self._parameters:
            cursor.execute(self._prepared.sql, parameters)
            if cursor.rowcount != 1 and self._prepared.adds_one:
                raise skipped(self._prepared, connection)
            numbers.append(cursor.lastrowid or 0)
        return numbers if self._prepared.numbered else []

    def explained(self, error: Exception, connection: Connection) -> Exception:
        return explained(error, self._prepared, self._parameters, connection)


def _allowed_now(error: Exception, connection: Connection) -> bool:
    return sqlite_code(error) == "SQLITE_ERROR" and trust_known_modules(connection)


def _last_ids(count: int, connection: Connection) -> range:
    """The ids of the rows that were inserted last: under the write lock those of AUTOINCREMENT are consecutive.

    Where no trigger of another program has a part in it: one could insert into the same table in between.
    """
    (last,) = connection.execute("SELECT last_insert_rowid()").fetchone()
    return range(last - count + 1, last + 1)

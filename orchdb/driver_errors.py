"""From what a driver raises to the error of orchdb: by SQLite's result codes, by SQLSTATE, by type.

Nothing of the values is taken along: a driver's exception holds them in its text and attributes.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
from collections.abc import Iterator

from orchdb.errors import (
    ConnectionLostError,
    ConstraintError,
    DuplicateError,
    InvalidValueError,
    MissingParentError,
    OperationError,
    OrchdbError,
)

COLUMNS: dict[str, str] = {}
"""The column that each constraint of ours is about, by the constraint's name; ``orchdb.schema.tables`` fills it."""

_SKIPPED = "a trigger or rule of another program skipped the row: it was not written"
_REFERRED = "other rows still refer to it"
_DEFERRED = "a foreign key that is looked at when the transaction ends refuses it"

_SQLITE_CONSTRAINTS: dict[str, tuple[type[OrchdbError], str]] = {
    "SQLITE_CONSTRAINT_UNIQUE": (DuplicateError, "a row with this value exists already"),
    "SQLITE_CONSTRAINT_PRIMARYKEY": (DuplicateError, "a row with this id exists already"),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (MissingParentError, "the row that a foreign key names does not exist"),
    "SQLITE_CONSTRAINT_CHECK": (InvalidValueError, "a value is outside what its column allows"),
    "SQLITE_CONSTRAINT_NOTNULL": (InvalidValueError, "a value is missing"),
}
_SQLITE_MESSAGES: dict[str, str] = {
    "SQLITE_BUSY": "the database is locked by another connection or process",
    "SQLITE_LOCKED": "the database is locked by another connection or process",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk could not be read or written",
    "SQLITE_READONLY": "the database cannot be written",
    "SQLITE_CORRUPT": "the database file is damaged",
    "SQLITE_NOTADB": "the file is not an SQLite database",
    "SQLITE_CANTOPEN": "the database file could not be opened",
    "SQLITE_PERM": "the permissions of the database file do not allow it",
    "SQLITE_AUTH": "the statement is not allowed",
    "SQLITE_TOOBIG": "a text is longer than the database allows",
    "SQLITE_INTERRUPT": "the statement was interrupted",
    "SQLITE_SCHEMA": "the schema changed during the operation",
    "SQLITE_NOMEM": "memory ran out",
}
_SQLSTATES: dict[str, tuple[type[OrchdbError], str]] = {
    "0A000": (OperationError, "the server cannot do this with the table: a rule or view may stand in the way"),
    "23001": (ConstraintError, _REFERRED),
    "23505": (DuplicateError, "a row with this value exists already"),
    "23503": (MissingParentError, "the row that a foreign key names does not exist"),
    "23514": (InvalidValueError, "a value is outside what its column allows"),
    "23502": (InvalidValueError, "a value is missing"),
    "25006": (OperationError, "the database cannot be written"),
    "25P02": (OperationError, "an earlier failure has ended the transaction"),
    "25P03": (OperationError, "the transaction was idle for too long, and the server ended it"),
    "28": (OperationError, "the server refused the user or the password"),
    "3D000": (OperationError, "the server has no such database"),
    "40001": (OperationError, "the transaction conflicts with another one"),
    "40P01": (OperationError, "the transaction was in a deadlock with another one"),
    "42501": (OperationError, "the user lacks the rights for this"),
    "42": (OperationError, "the table, or a trigger or rule on it, is not what it was"),
    "53300": (OperationError, "the server has no connection left"),
    "53": (OperationError, "the server ran out of a resource"),
    "54": (OperationError, "a value is larger than the server allows"),
    "55P03": (OperationError, "a lock was not to be had in time"),
    "57014": (OperationError, "the statement took longer than its time-out"),
    "57P03": (OperationError, "the server is starting up or shutting down"),
    "57": (ConnectionLostError, "the server ended the connection"),
    "08": (ConnectionLostError, "the connection to the server was lost"),
    "22": (InvalidValueError, "a value that its column cannot hold"),
    "P0": (InvalidValueError, "a trigger of another program refuses it"),
    "22P05": (InvalidValueError, "a character that the encoding of the database cannot hold"),
}
CONFLICTS = frozenset({"40001", "40P01"})
"""What was rolled back for certain, because of another transaction: it can be tried again."""
_REMOVING = ("delete_", "prune", "cleanup_")
"""How the names of the operations that remove rows begin."""
# Where it happened, which holds the names of functions and their arguments' types; the language is the server's.
_FUNCTION = re.compile(r"""^PL\S* \S+ ([\w."]+)\(""", re.MULTILINE)
# What the system calls by a number. The rest of OSError says in words what is wrong, TLS and asyncpg among it.
_UNREACHABLE: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "the server did not answer within connect_timeout"),
    (socket.gaierror, "the host is not known"),
    (ConnectionRefusedError, "nothing listens there"),
    (FileNotFoundError, "there is no such socket"),
)
_DRIVERS = frozenset({"asyncpg", "psycopg"})
_LONGEST_REASON = 1000
# asyncpg and psycopg raise these without an SQLSTATE when the socket is gone; importing either here would be eager.
_LOST = frozenset({"ConnectionDoesNotExistError", "InterfaceError", "InternalClientError", "OperationalError"})


def is_conflict(error: OrchdbError, *, waited: bool) -> bool:
    """Tell whether what failed can be tried again, because only another transaction at the same time was in its way.

    Args:
        error: The failure.
        waited: Whether it has waited for locks as long as it may.

    Returns:
        Whether it is a conflict, a deadlock, or a lock that it has not waited for.
    """
    return error.code in CONFLICTS or (error.code == "55P03" and not waited)


def skipped() -> ConstraintError:
    """Make the error for a row that is not there although nothing failed: ``RETURN NULL`` in a trigger.

    Returns:
        The error.
    """
    return ConstraintError(_SKIPPED)


def translate(error: BaseException, operation: str, table: str | None) -> OrchdbError:
    """Translate a driver's exception; never raise, and take nothing of the values along.

    Args:
        error: What was raised; an error of orchdb's own stays the same object.
        operation: The public method that failed.
        table: The table it worked on, if there is one.

    Returns:
        The error to raise in its place, outside the ``except`` block.
    """
    if isinstance(error, OrchdbError):
        return error.at(operation, table)
    for cause in _chain(error):
        name = _text(cause, "sqlite_errorname")
        if name is not None:
            return _from_sqlite(cause, name, operation, table)
        state = _text(cause, "sqlstate")
        if state is not None:
            return _from_sqlstate(cause, state, operation, table)
    return _from_type(error).at(operation, table)


def own(error: Exception) -> Exception:
    """Make an error for one of several callers, whose operation is then written into it.

    A driver's exception can be shared: ``translate`` makes a new one of it for each caller.

    Args:
        error: What all of them failed of.

    Returns:
        A copy of an error of orchdb's own; anything else as it is.
    """
    return type(error)(error.message, code=error.code) if isinstance(error, OrchdbError) else error


def sqlite_code(error: BaseException) -> str:
    """Get the primary name of an SQLite error: ``SQLITE_BUSY`` for ``SQLITE_BUSY_SNAPSHOT``.

    Args:
        error: Any exception.

    Returns:
        The name; empty if it is no SQLite error.
    """
    return _primary(sqlite_errorname(error))


def sqlite_errorname(error: BaseException) -> str:
    """Get the whole name of an SQLite error.

    Args:
        error: Any exception.

    Returns:
        The name; empty if it is no SQLite error.
    """
    return next((name for cause in _chain(error) if (name := _text(cause, "sqlite_errorname")) is not None), "")


def sqlstate(error: BaseException) -> str:
    """Get the SQLSTATE of a Postgres error.

    Args:
        error: Any exception.

    Returns:
        Five characters; empty if it has none.
    """
    return next((state for cause in _chain(error) if (state := _text(cause, "sqlstate")) is not None), "")


def why_not_connected(error: BaseException) -> str:
    """Say why a connection was refused, as the server, the driver or TLS said it: they name no password.

    Only where there is nothing of that, it is told by the kind of the failure.

    Args:
        error: What connecting raised.

    Returns:
        One line, of a bounded length.
    """
    if isinstance(error, OrchdbError):
        return error.message
    causes = list(_chain(error))
    known = (text for kind, text in _UNREACHABLE if any(isinstance(cause, kind) for cause in causes))
    said = (str(cause) for cause in causes if _speaks(cause))
    words = " ".join(next(known, next(said, "")).split())
    return words[:_LONGEST_REASON] or translate(error, "connect", None).message


def _from_sqlite(error: BaseException, name: str, operation: str, table: str | None) -> OrchdbError:
    kind, message = _SQLITE_CONSTRAINTS.get(name, (None, ""))
    if kind is not None:
        if name == "SQLITE_CONSTRAINT_FOREIGNKEY" and operation == "transaction":
            kind, message = ConstraintError, _DEFERRED
        # SQLite names the constraint or the columns after the colon, and never a value.
        subject = str(error).partition(": ")[2]
        owner, _, column = subject.partition(".") if "," not in subject else ("", "", "")
        if column and owner != (table or owner):
            message, column = f"{message}, in the table {owner}: a trigger or foreign key leads there", ""
        constraint = None if column else subject or None
        column = column or COLUMNS.get(subject, "")
        if column and kind is DuplicateError:
            message = _doubled(column)
        return kind(message, table=table, operation=operation, code=name, constraint=constraint, column=column or None)
    if name.startswith("SQLITE_CONSTRAINT"):
        return InvalidValueError("a rule of the table refuses the row", table=table, operation=operation, code=name)
    message = _SQLITE_MESSAGES.get(_primary(name), "the database could not run the statement")
    return OperationError(message, table=table, operation=operation, code=name)


def _from_sqlstate(error: BaseException, state: str, operation: str, table: str | None) -> OrchdbError:
    kind, message = _SQLSTATES.get(state) or _SQLSTATES.get(state[:2]) or (OperationError, "the server refused")
    diagnostics = getattr(error, "diag", error)
    constraint, column = _text(diagnostics, "constraint_name"), _text(diagnostics, "column_name")
    if state.startswith("23"):
        owner = _text(diagnostics, "table_name")
        elsewhere = owner is not None and owner != (table or owner)
        if state == "23503":
            kind, message = _foreign_key(operation, elsewhere=elsewhere)
        if elsewhere:
            message, column = f"{message}, in the table {owner}", None
        elif constraint is not None:
            column = column or COLUMNS.get(constraint)
            if column is not None and kind is MissingParentError:
                message = f"there is no row with the id in {column}"
            elif column is not None and kind is DuplicateError:
                message = _doubled(column)
    elif state[:2] in ("42", "P0"):
        function = _FUNCTION.search(_text(diagnostics, "context") or "")
        message += f" (in the function {function[1]})" if function else ""
    return kind(message, table=table, operation=operation, code=state, constraint=constraint, column=column)


def _doubled(column: str) -> str:
    return f"a row with this {column} exists already"


def _foreign_key(operation: str, *, elsewhere: bool) -> tuple[type[OrchdbError], str]:
    """What Postgres has one code for: a parent that does not exist, or children that still do."""
    if operation == "transaction":
        return ConstraintError, _DEFERRED
    if operation.startswith(_REMOVING) or (elsewhere and not operation.startswith("create_")):
        return ConstraintError, _REFERRED
    return MissingParentError, "the row that a foreign key names does not exist"


def _from_type(error: BaseException) -> OrchdbError:
    kinds = [type(cause) for cause in _chain(error)]
    if any(getattr(cause, "connection_invalidated", False) is True for cause in _chain(error)):
        return ConnectionLostError("the connection to the server was lost")
    if any(issubclass(kind, (TimeoutError, asyncio.TimeoutError)) for kind in kinds):
        return OperationError("the server did not answer in time")
    if any(issubclass(kind, (ConnectionResetError, BrokenPipeError)) for kind in kinds):
        return ConnectionLostError("the connection to the server was lost")
    if any(issubclass(kind, sqlite3.Error) and not issubclass(kind, sqlite3.DataError) for kind in kinds):
        return OperationError("SQLite could not run the statement")  # the driver's own objection: it has no code
    if any(kind.__name__ in _LOST for kind in kinds):
        return ConnectionLostError("the connection to the server was lost")
    if any(issubclass(kind, OSError) for kind in kinds):
        return OperationError("the server or the file could not be reached")
    if any(issubclass(kind, (OverflowError, UnicodeError, sqlite3.DataError)) for kind in kinds):
        return InvalidValueError("a value that its column cannot hold")
    return OperationError(f"the driver failed with {kinds[0].__name__}")


def _speaks(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _DRIVERS


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it wraps, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        wrapped = getattr(current, "orig", None)
        current = wrapped if isinstance(wrapped, BaseException) else current.__cause__


def _primary(name: str) -> str:
    return "_".join(name.split("_", 2)[:2])


def _text(source: object, name: str) -> str | None:
    try:
        value = getattr(source, name, None)
    except Exception:  # a driver's attribute may itself raise; an error about an error helps nobody
        return None
    return value if isinstance(value, str) else None

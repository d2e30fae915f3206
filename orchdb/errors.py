"""What can go wrong: one tree of errors, and the map from a driver's code to an error.

    OrchdbError
    ├─ NotConnectedError       before connect(), after close(), in another event loop or process
    ├─ SchemaError             schema file missing or invalid, revision unknown, not a database of orchdb
    │  └─ SchemaOutOfDateError    an older revision, and nobody asked for the upgrade
    ├─ OperationError          could not run: locked, disk full, read-only, damaged file, no server, pool empty
    │  └─ ConnectionLostError     the connection broke: the write may or may not have been applied
    └─ ConstraintError         the rules of the database refuse the row
       ├─ DuplicateError          unique
       ├─ MissingParentError      foreign key
       └─ InvalidValueError       check, not null, vocabulary, malformed value; also a ValueError

A message names the operation, the table and what was wrong. It never carries a parameter's value: prompts are private.
For the same reason the driver's exception, whose text and attributes hold the values, is never attached; its code is.
"""

from __future__ import annotations


class OrchdbError(Exception):
    """Anything that orchdb raises on purpose.

    Attributes:
        message: What was wrong, without the operation, the table and the code, which ``str()`` adds.
        table: The table the operation worked on, where there is one.
        operation: The public method that failed, such as ``create_agent``.
        code: The driver's code: an SQLite error name (``SQLITE_BUSY``) or an SQLSTATE (``40P01``).
        constraint: The name of the violated constraint, where the engine tells it.
        column: The column or parameter concerned, where it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        table: str | None = None,
        operation: str | None = None,
        code: str | None = None,
        constraint: str | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.table = table
        self.operation = operation
        self.code = code
        self.constraint = constraint
        self.column = column

    def __str__(self) -> str:
        where = " on ".join(part for part in (self.operation, self.table) if part)
        code = f" [{self.code}]" if self.code else ""
        return f"{where}: {self.message}{code}" if where else f"{self.message}{code}"

    def at(self, operation: str, table: str | None) -> OrchdbError:
        """Fill in the operation and the table where they are not known yet.

        Args:
            operation: The public method that failed.
            table: The table it worked on, if there is one.

        Returns:
            This error.
        """
        self.operation = self.operation or operation
        self.table = self.table or table
        return self


class NotConnectedError(OrchdbError):
    """The manager was used before ``connect()``, after ``close()``, or from another event loop or process."""


class SchemaError(OrchdbError):
    """The schema file is missing or invalid, the revision is unknown, or the database is not orchdb's."""


class SchemaOutOfDateError(SchemaError):
    """The database has an older revision, and nobody asked for the upgrade."""


class OperationError(OrchdbError):
    """The operation could not run: locked past the time-out, disk full, read-only, damaged file, no server."""


class ConnectionLostError(OperationError):
    """The connection broke: the write may or may not have been applied."""


class ConstraintError(OrchdbError):
    """The database's rules refuse the row."""


class DuplicateError(ConstraintError):
    """A row with that unique value exists already."""


class MissingParentError(ConstraintError):
    """The row that a foreign key names does not exist."""


class InvalidValueError(ConstraintError, ValueError):
    """A value that its column cannot hold: vocabulary, type, range, malformed text, or a missing one."""

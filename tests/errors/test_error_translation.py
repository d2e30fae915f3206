"""How a driver's failure becomes an error of the tree: by its code, never by its text."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from orchdb import (
    ConnectionLostError,
    DuplicateError,
    InvalidValueError,
    MissingParentError,
    OperationError,
    OrchdbError,
)
from orchdb.driver_errors import translate

SECRET = "geheimer-prompt-7731"


class DriverError(Exception):
    """A failure with a code, as the drivers raise it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(SECRET)
        vars(self).update(attributes)


class InterfaceError(Exception):
    """What a Postgres driver raises without a code when its socket is gone."""


class BrokenError(Exception):
    """A failure whose attributes fail too."""

    @property
    def sqlstate(self) -> str:
        raise RuntimeError(SECRET)


def wrapped(error: Exception, **options: Any) -> DBAPIError:
    return DBAPIError("SELECT 1", {"value": SECRET}, error, **options)


SQLITE = {
    "SQLITE_CONSTRAINT_UNIQUE": DuplicateError,
    "SQLITE_CONSTRAINT_PRIMARYKEY": DuplicateError,
    "SQLITE_CONSTRAINT_FOREIGNKEY": MissingParentError,
    "SQLITE_CONSTRAINT_CHECK": InvalidValueError,
    "SQLITE_CONSTRAINT_NOTNULL": InvalidValueError,
    "SQLITE_CONSTRAINT_TRIGGER": InvalidValueError,
    "SQLITE_BUSY": OperationError,
    "SQLITE_BUSY_SNAPSHOT": OperationError,
    "SQLITE_FULL": OperationError,
    "SQLITE_IOERR_WRITE": OperationError,
    "SQLITE_READONLY_DIRECTORY": OperationError,
    "SQLITE_CORRUPT": OperationError,
    "SQLITE_NOTADB": OperationError,
    "SQLITE_SOMETHING_NEW": OperationError,
}
POSTGRES = {
    "23505": DuplicateError,
    "23503": MissingParentError,
    "23514": InvalidValueError,
    "23502": InvalidValueError,
    "22021": InvalidValueError,
    "22P02": InvalidValueError,
    "40001": OperationError,
    "40P01": OperationError,
    "53300": OperationError,
    "55P03": OperationError,
    "57014": OperationError,
    "57P01": ConnectionLostError,
    "08006": ConnectionLostError,
    "28P01": OperationError,
    "3D000": OperationError,
    "25006": OperationError,
    "42501": OperationError,
    "XX000": OperationError,
}


def checked(error: Exception, kind: type[OrchdbError], code: str | None) -> OrchdbError:
    for failure in (translate(error, "create_agent", "agents"), translate(wrapped(error), "create_agent", "agents")):
        assert type(failure) is kind
        assert failure.code == code
        assert str(failure).startswith("create_agent on agents: ")
        assert SECRET not in repr(vars(failure)) + str(failure)
    return failure


@pytest.mark.parametrize(("code", "kind"), SQLITE.items())
def test_the_codes_of_sqlite(code: str, kind: type[OrchdbError]) -> None:
    checked(DriverError(sqlite_errorname=code), kind, code)


@pytest.mark.parametrize(("code", "kind"), POSTGRES.items())
def test_the_codes_of_postgres(code: str, kind: type[OrchdbError]) -> None:
    checked(DriverError(sqlstate=code), kind, code)


def test_constraint_and_column_are_taken_over_where_the_driver_tells_them() -> None:
    direct = DriverError(sqlstate="23505", constraint_name="uq_name", column_name="name")
    by_diagnostics = DriverError(sqlstate="23505", diag=DriverError(constraint_name="uq_name", column_name="name"))
    for error in (direct, by_diagnostics):
        failure = checked(error, DuplicateError, "23505")
        assert (failure.constraint, failure.column) == ("uq_name", "name")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(SECRET), OperationError),
        (ConnectionResetError(SECRET), ConnectionLostError),
        (BrokenPipeError(SECRET), ConnectionLostError),
        (InterfaceError(SECRET), ConnectionLostError),
        (OSError(SECRET), OperationError),
        (sqlite3.ProgrammingError(SECRET), OperationError),
        (sqlite3.DataError(SECRET), InvalidValueError),
        (OverflowError(SECRET), InvalidValueError),
        (UnicodeEncodeError("utf-8", SECRET, 0, 1, "surrogates"), InvalidValueError),
        (RuntimeError(SECRET), OperationError),
        (BrokenError(SECRET), OperationError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_has_no_code_is_known_by_its_type(error: Exception, kind: type[OrchdbError]) -> None:
    checked(error, kind, None)


def test_a_connection_that_the_driver_gave_up_is_lost() -> None:
    error = wrapped(RuntimeError(SECRET), connection_invalidated=True)
    assert type(translate(error, "get_agent", "agents")) is ConnectionLostError


def test_the_code_is_found_behind_a_cause() -> None:
    error = RuntimeError(SECRET)
    error.__cause__ = DriverError(sqlite_errorname="SQLITE_FULL")
    checked(error, OperationError, "SQLITE_FULL")
    error.__cause__ = error
    checked(error, OperationError, None)


def test_an_error_of_ours_stays_what_it_is_and_learns_its_place() -> None:
    error = InvalidValueError("does not fit", column="status")
    assert translate(error, "create_agent", "agents") is error
    assert str(error) == "create_agent on agents: does not fit"
    assert str(translate(error, "other", "prompts")) == "create_agent on agents: does not fit"

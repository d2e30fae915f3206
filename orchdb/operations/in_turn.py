"""One at a time: a statement after which no other transaction passes the same statement until this one has ended."""

from __future__ import annotations

from functools import cache
from typing import Any
from zlib import crc32

from sqlalchemy import Executable, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from orchdb.statements import Statement

_LOCKS = 4_126_701_832_650_217
"""Any number: all programs have to agree on it."""


class _InTurn(Executable, ClauseElement):
    """Wait for the turn of the others at a table to end, and take it."""

    inherit_cache = False

    def __init__(self, table: Table) -> None:
        self.lock = _LOCKS + crc32(table.name.encode())


class _NotForLong(Executable, ClauseElement):
    """Wait for locks only for a moment, until the transaction ends."""

    inherit_cache = True


@compiles(_NotForLong)
def _lock_timeout(element: _NotForLong, compiler: SQLCompiler, **options: object) -> str:
    return "SELECT set_config('lock_timeout', '250', true)"


@compiles(_InTurn)
def _advisory_lock(element: _InTurn, compiler: SQLCompiler, **options: object) -> str:
    # A lock of rows would not do: who changes another row's parent meanwhile changes none of those that were read.
    return f"SELECT pg_advisory_xact_lock({element.lock})"


@compiles(_NotForLong, "sqlite")
@compiles(_InTurn, "sqlite")
def _nothing(element: _InTurn | _NotForLong, compiler: SQLCompiler, **options: object) -> str:
    return "SELECT 0"  # a transaction that writes holds the only write lock there is


@cache
def in_turn(table: Table) -> Statement[Any]:
    """The statement, for a change that has to see every other one of its kind; it gives no row."""
    return Statement(table, _InTurn(table))


@cache
def not_for_long(table: Table) -> Statement[Any]:
    """The statement, for a transaction of many rows that is tried again if it meets another one of the same rows.

    Two that have some rows in another order wait for each other, and the server takes a second to find that out, again
    for each two.
    """
    return Statement(table, _NotForLong())

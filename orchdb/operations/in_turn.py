"""One at a time: a statement after which no other transaction passes the same statement until this one has ended."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Executable, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from orchdb.statements import Statement

_PARENTS_LOCK = 4_126_701_832_650_217
"""Any number: all programs that change the parents of agents have to agree on it."""


class _InTurn(Executable, ClauseElement):
    """Wait for the others' turn to end, and take it."""

    inherit_cache = True


@compiles(_InTurn)
def _advisory_lock(element: _InTurn, compiler: SQLCompiler, **options: object) -> str:
    # A lock of rows would not do: who changes another row's parent meanwhile changes none of those that were read.
    return f"SELECT pg_advisory_xact_lock({_PARENTS_LOCK})"


@compiles(_InTurn, "sqlite")
def _nothing(element: _InTurn, compiler: SQLCompiler, **options: object) -> str:
    return "SELECT 0"  # a transaction that writes holds the only write lock there is


@cache
def in_turn(table: Table) -> Statement[Any]:
    """The statement, for a change that has to see every other one of its kind; it gives no row."""
    return Statement(table, _InTurn())

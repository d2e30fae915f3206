"""Taking a stored ``CREATE TABLE`` statement apart and making the table anew."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchdb.schema.rebuilding import TableDefinition, rebuild
from tests.support.alembic_runs import transaction

STATEMENT = """\
CREATE TABLE "a (strange), name" ( -- a comment, with a comma and a (
    id TEXT PRIMARY KEY DEFAULT 'it''s, (quoted)',
    [two words] INTEGER CHECK ([two words] IN (1, 2)), /* another, (comment) */
    "Third" TEXT COLLATE NOCASE -- the last one
    , `x``y` REAL GENERATED ALWAYS AS (abs("two words")) STORED,
    CONSTRAINT "named" CHECK (length(id) > 0),
    UNIQUE (id, "Third")
) WITHOUT ROWID"""


def test_a_definition_is_taken_apart_at_its_outermost_commas() -> None:
    definition = TableDefinition.parse(STATEMENT)
    assert definition.columns == {
        "id": "id TEXT PRIMARY KEY DEFAULT 'it''s, (quoted)'",
        "two words": "[two words] INTEGER CHECK ([two words] IN (1, 2))",
        "third": '"Third" TEXT COLLATE NOCASE',
        "x`y": '`x``y` REAL GENERATED ALWAYS AS (abs("two words")) STORED',
    }
    assert definition.constraints == ['CONSTRAINT "named" CHECK (length(id) > 0)', 'UNIQUE (id, "Third")']
    assert definition.options == "WITHOUT ROWID"


def test_a_definition_that_was_taken_apart_makes_the_same_table() -> None:
    described = []
    for statement in (STATEMENT, TableDefinition.parse(STATEMENT).create("a (strange), name")):
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(statement)
            described.append(connection.execute("PRAGMA table_xinfo('a (strange), name')").fetchall())
    assert described[0] == described[1]


def test_constraints_of_other_programs_columns_are_carried_over() -> None:
    ours = TableDefinition.parse("CREATE TABLE t (id TEXT, CONSTRAINT new CHECK (id <> ''))")
    ours.carry_over(
        TableDefinition.parse("CREATE TABLE t (id TEXT, extra TEXT, CHECK (id IN ('a')), CHECK (\"extra\" <> id))")
    )
    assert list(ours.columns) == ["id", "extra"]
    assert ours.constraints == ["CONSTRAINT new CHECK (id <> '')", 'CHECK ("extra" <> id)']


def test_a_rebuild_keeps_row_numbers_gaps_and_the_counter(tmp_path: Path) -> None:
    path = tmp_path / "rebuilt.db"
    with transaction(path) as connection:
        for statement in (
            "CREATE TABLE logs (id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT)",
            "CREATE TABLE notes (id TEXT PRIMARY KEY, message TEXT)",
            "INSERT INTO logs (message) VALUES ('one'), ('two'), ('three')",
            "INSERT INTO notes VALUES ('x', 'one'), ('y', 'two'), ('z', 'three')",
            "DELETE FROM logs WHERE id <> 2",
            "DELETE FROM notes WHERE id = 'x'",
        ):
            connection.exec_driver_sql(statement)
        rebuild(connection, "logs", columns={"message": "TEXT NOT NULL"})
        rebuild(connection, "notes", columns={"message": None}, constraints={"short": "CHECK (length(id) < 9)"})
        assert connection.exec_driver_sql("SELECT * FROM logs").all() == [(2, "two")]
        assert connection.exec_driver_sql("SELECT rowid, * FROM notes").all() == [(2, "y"), (3, "z")]
        assert connection.exec_driver_sql("INSERT INTO logs (message) VALUES ('four') RETURNING id").scalar() == 4


def test_an_index_that_loses_its_column_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with transaction(tmp_path / "rebuilt.db") as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id TEXT PRIMARY KEY, message TEXT)")
        connection.exec_driver_sql("CREATE INDEX by_message ON notes (message)")
        rebuild(connection, "notes", columns={"message": None})
        assert (
            connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index' AND sql <> ''").all() == []
        )
    assert "by_message no longer fits its table" in caplog.text

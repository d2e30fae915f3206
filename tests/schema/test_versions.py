"""What ``connect()`` makes of a database that is empty, current, newer, or not orchdb's at all."""

from __future__ import annotations

import ast
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from orchdb import DatabaseManager, OperationError, SchemaError, SchemaOutOfDateError
from orchdb.schema.revisions import HEAD
from tests.conftest import Target
from tests.support.alembic_runs import configuration, downgrade, transaction, upgrade
from tests.support.old_files import TABLES, OldFile, ask, change, read
from tests.support.processes import names_of_definitions, without_privileges


def content(folder: Path) -> dict[str, bytes]:
    """Each file of the folder. Only for when no connection is open: reading a file would drop the locks on it."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def place(target: Target) -> Path | str:
    """The database as Alembic's test runs take it."""
    return target.path if target.engine == "sqlite" else target.url


async def refused(path: Path | str, kind: type[Exception], **options: Any) -> str:
    """What ``connect()`` says when it refuses; nothing may be open afterwards."""
    db = DatabaseManager(path, **options)
    with pytest.raises(kind) as caught:
        await db.connect()
    assert db.conn is None
    return str(caught.value)


async def test_an_empty_database_gets_the_head_schema_and_its_stamp(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        assert await db.schema_version() == HEAD
        assert await db.list_orchestrator_agents() == []
    with transaction(place(target)) as connection:
        command.check(configuration(connection))


COUNTING = """
import asyncio, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from orchdb import DatabaseManager
statements = []
event.listen(Engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

async def main():
    async with DatabaseManager(sys.argv[1]) as db:
        print((statements[:], sorted(name for name in sys.modules if name.startswith("alembic"))))

asyncio.run(main())
"""


async def test_a_current_database_costs_one_query_and_no_alembic(target: Target) -> None:
    async with DatabaseManager(target.url):
        pass
    counting = subprocess.run(
        [sys.executable, "-c", COUNTING, target.url], capture_output=True, text=True, timeout=60, check=True
    )
    statements, modules = ast.literal_eval(counting.stdout)
    assert [statement.split()[1].strip(",") for statement in statements] == ["version_num"]
    assert modules == []


async def test_an_empty_database_is_filled_without_alembic(target: Target) -> None:
    counting = subprocess.run(
        [sys.executable, "-c", COUNTING, target.url], capture_output=True, text=True, timeout=60, check=True
    )
    assert ast.literal_eval(counting.stdout)[1] == []


async def test_a_database_that_was_downgraded_to_nothing_is_filled_again(target: Target) -> None:
    upgrade(place(target))
    downgrade(place(target), "base")
    async with DatabaseManager(target.url) as db:
        assert await db.schema_version() == HEAD
        await db.create_orchestrator_agent("scout")


async def test_a_newer_revision_is_refused_by_name(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        await db.create_orchestrator_agent("scout")
    with transaction(place(target)) as connection:
        connection.execute(text("UPDATE orchdb_version SET version_num = '0999'"))
    before = content(target.path.parent) if target.engine == "sqlite" else {}
    for options in ({}, {"upgrade": True}, {"upgrade": False}, {"read_only": True}):
        said = await refused(target.url, SchemaError, **options)
        assert "revision 0999" in said
        assert f"none newer than {HEAD}" in said
        assert "upgrade orchdb" in said
    if target.engine == "sqlite":
        names = {target.path.name, f"{target.path.name}-wal", f"{target.path.name}-shm"}
        after = content(target.path.parent)
        assert after.keys() <= names
        assert after[target.path.name] == before[target.path.name]


async def test_a_stamp_without_its_tables_is_refused(target: Target) -> None:
    upgrade(place(target), "0003")
    with transaction(place(target)) as connection:
        for table in reversed(TABLES):
            connection.execute(text(f"DROP TABLE {table}"))
    assert "revision 0003, but the tables of it are missing" in await refused(target.url, SchemaError, upgrade=True)


def other_tables(path: Path) -> None:
    change(path, "CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)", "INSERT INTO notes VALUES (1, 'keep')")


def agents_of_another_program(path: Path) -> None:
    change(path, "CREATE TABLE agents (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO agents VALUES (1, 'Smith')")


def our_names_in_another_program(path: Path) -> None:
    change(path, *(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)" for table in TABLES))


def stamp_of_another_program(path: Path) -> None:
    change(path, "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('0001')")


def a_view_alone(path: Path) -> None:
    change(path, "CREATE VIEW answer AS SELECT 42")


def an_application_id(path: Path) -> None:
    change(path, "PRAGMA application_id = 1196444487")  # GeoPackage


def no_database(path: Path) -> None:
    path.write_bytes(b"These are only words. " * 500)


FOREIGN = (
    other_tables,
    agents_of_another_program,
    our_names_in_another_program,
    stamp_of_another_program,
    a_view_alone,
    an_application_id,
    no_database,
)


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("make", FOREIGN)
async def test_a_database_that_is_not_ours_is_never_touched(
    tmp_path: Path, make: Callable[[Path], None], mode: str
) -> None:
    path = tmp_path / "foreign.db"
    make(path)
    if make is not no_database:
        change(path, f"PRAGMA journal_mode = {mode}")
    before = content(tmp_path)
    for options in ({}, {"upgrade": True}, {"upgrade": False}):
        said = await refused(path, OperationError if make is no_database else SchemaError, **options)
        assert make is no_database or "left alone" in said
        assert content(tmp_path) == before


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
async def test_a_postgres_database_that_is_not_ours_is_never_touched(postgres_url: str, engine: str) -> None:
    with transaction(postgres_url) as connection:
        connection.execute(text("CREATE TABLE agents (id bigint PRIMARY KEY, name text)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
    url = postgres_url.replace("postgresql://", f"postgresql+{engine}://")
    for options in ({}, {"upgrade": True}, {"read_only": True}):
        assert "left alone" in await refused(url, SchemaError, **options)
    with transaction(postgres_url) as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
        assert tables.scalars().all() == ["agents", "alembic_version"]


@pytest.mark.parametrize("options", [{"upgrade": False}, {"read_only": True}, {"read_only": True, "upgrade": True}])
@pytest.mark.parametrize("revision", [None, "0001", "0007"])
async def test_an_older_file_is_not_upgraded_where_that_is_switched_off(
    tmp_path: Path, revision: str | None, options: dict[str, bool]
) -> None:
    path = OldFile(tmp_path / "old.db").path
    if revision is not None:
        upgrade(path, revision)
    before = content(tmp_path)
    said = await refused(path, SchemaOutOfDateError, **options)
    assert revision or "unversioned" in said
    assert "alembic -c" in said
    assert "upgrade head" in said
    assert content(tmp_path) == before


@pytest.mark.parametrize("options", [{}, {"upgrade": False}, {"read_only": True}])
async def test_an_older_postgres_database_is_refused_unless_the_upgrade_is_asked_for(
    postgres_url: str, options: dict[str, bool]
) -> None:
    upgrade(postgres_url, "0003")
    said = await refused(postgres_url, SchemaOutOfDateError, **options)
    assert "revision 0003" in said
    assert "upgrade head" in said
    with transaction(postgres_url) as connection:
        assert connection.execute(text("SELECT version_num FROM orchdb_version")).scalar() == "0003"


async def test_read_only_makes_no_file_and_fills_no_empty_one(tmp_path: Path) -> None:
    missing = tmp_path / "folder" / "missing.db"
    assert f"{missing} does not exist" in await refused(missing, OperationError, read_only=True)
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty.db"
    empty.touch()
    assert "empty" in await refused(empty, SchemaError, read_only=True)
    assert content(tmp_path) == {"empty.db": b""}
    assert "not a regular file" in await refused(tmp_path, OperationError, read_only=True)


async def test_read_only_leaves_an_empty_postgres_database_empty(postgres_url: str) -> None:
    assert "empty" in await refused(postgres_url, SchemaError, read_only=True)
    with transaction(postgres_url) as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_file_that_may_only_be_read_is_read(open_folder: Path, mode: str) -> None:
    path = open_folder / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("scout")
    change(path, f"PRAGMA journal_mode = {mode}")
    path.chmod(0o444)
    before = content(open_folder)
    open_folder.chmod(0o777)
    assert without_privileges(names_of_definitions, str(path)) == ["scout"]
    assert path.read_bytes() == before[path.name]

    for left in open_folder.glob("*-*"):  # SQLite's own, which a connection that may only read leaves behind
        left.unlink()
    open_folder.chmod(0o555)
    found = without_privileges(names_of_definitions, str(path))
    assert content(open_folder) == before
    if mode == "delete":
        assert found == ["scout"]
    else:
        assert f"{path}: its folder cannot be written" in found


async def test_a_first_file_whose_making_was_killed_is_completed(tmp_path: Path) -> None:
    path = OldFile(tmp_path / "old.db", others=False).path
    before = read(path)
    change(path, "PRAGMA foreign_keys = OFF", "DROP TABLE system_logs", "DROP TABLE agent_logs")
    async with DatabaseManager(path) as db:
        assert await db.schema_version() == HEAD
        await db.create_system_log("INFO", "scheduler", "works")
    assert read(path, ("prompts",))["prompts"].keys() == before["prompts"].keys()


async def test_a_time_of_another_program_keeps_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path):
        pass
    expected = {
        "2024-05-06T07:08:09.12345Z": "2024-05-06T07:08:09.123450",
        "2024-05-06 07:08:09.123456+05:30": "2024-05-06T01:38:09.123456",
        "2024-05-06T07:08:09.1": "2024-05-06T07:08:09.100000",
        "2024-12-31 23:59:59.9999999+00:00": "2024-12-31T23:59:59.999999",
        "2024-05-06T07:08:09.123456 or so": "2024-05-06T07:08:09.123456 or so",
        "yesterday": "yesterday",
    }
    with closing(sqlite3.connect(path)) as connection:
        for written in expected:
            connection.execute(
                "INSERT INTO system_logs (component, message, created_at) VALUES ('c', ?, ?)", (written, written)
            )
        connection.commit()
    assert dict(ask(path, "SELECT message, created_at FROM system_logs")) == expected

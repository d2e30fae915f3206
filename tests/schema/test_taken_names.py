"""An upgrade beside something of another program's that is called as something of orchdb's is going to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text

from orchdb import DatabaseManager, SchemaError
from orchdb.schema.revisions import HEAD
from orchdb.schema.tables import metadata
from tests.support.alembic_runs import command_line, migrating_engine, transaction, upgrade
from tests.support.old_files import TABLES

Target = Path | str
LATER = sorted(metadata.tables.keys() - {*TABLES})
"""The tables that the first revision did not have."""
BOTH = (
    *(("table", name, f"CREATE TABLE {name} (held TEXT)") for name in LATER),
    *(("view", name, f"CREATE VIEW {name} AS SELECT held FROM deposits") for name in LATER),
    ("index", "leases", "CREATE INDEX leases ON deposits (held)"),
    ("index", "idx_agents_lease", "CREATE INDEX idx_agents_lease ON deposits (held)"),
    ("index", "idx_prompts_created", "CREATE INDEX idx_prompts_created ON deposits (held)"),  # which would be dropped
    ("table", "idx_prompts_created", "CREATE TABLE idx_prompts_created (held TEXT)"),
)
ON_SQLITE = (
    *BOTH,
    ("table", "leases", "CREATE TABLE LEASES (held TEXT)"),
    (
        "trigger",
        "trg_agents_created_at",
        "CREATE TRIGGER trg_agents_created_at AFTER INSERT ON deposits BEGIN SELECT 1; END",
    ),
)
ON_POSTGRES = (*BOTH, ("sequence", "leases", "CREATE SEQUENCE leases"))
NO_OBSTACLES = (
    "CREATE TABLE lease (clock_id TEXT)",
    "CREATE TABLE trg_agents_created_at (held TEXT)",
    "CREATE INDEX deposits_held ON deposits (held)",
    "CREATE INDEX held_by_agents ON agents (status)",
)


def old_beside(target: Target, *statements: str) -> None:
    """A database of an older revision, in which another program has made something."""
    upgrade(target, "0007")
    with transaction(target) as connection:
        connection.exec_driver_sql("CREATE TABLE deposits (held TEXT)")
        for statement in statements:
            connection.exec_driver_sql(statement)


def there(connection: Connection, taken: str) -> bool:
    """Whether what the other program has made is there."""
    if connection.dialect.name == "sqlite":
        return taken in connection.execute(text("SELECT sql FROM sqlite_master")).scalars().all()
    kinds = {"index": "'i'", "view": "'v'", "sequence": "'S'", "table": "'r'"}
    kind, name = taken.split()[1:3]
    query = f"SELECT 1 FROM pg_class WHERE relname = '{name}' AND relkind = {kinds[kind.lower()]}"
    return connection.execute(text(query)).first() is not None


async def refused(target: Target, kind: str, name: str, taken: str) -> None:
    """Neither ``connect()`` nor Alembic upgrades it, both say what is in the way, and all is left as it was."""
    said = f"nothing was changed.*another program's {kind} {name}.*rename"
    with pytest.raises(SchemaError, match=said):
        async with DatabaseManager(target, upgrade=True):
            pass
    with pytest.raises(SchemaError, match=said):
        upgrade(target)
    engine: Engine = migrating_engine(target)
    with engine.begin() as connection:
        assert there(connection, taken)
        assert connection.execute(text("SELECT version_num FROM orchdb_version")).scalar() == "0007"
    engine.dispose()


@pytest.mark.parametrize(("kind", "name", "taken"), ON_SQLITE, ids=[taken for _, _, taken in ON_SQLITE])
async def test_a_name_that_another_program_has_taken_stops_the_upgrade_of_a_file(
    tmp_path: Path, kind: str, name: str, taken: str
) -> None:
    old_beside(tmp_path / "old.db", taken)
    await refused(tmp_path / "old.db", kind, name, taken)
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".backup"] == []


@pytest.mark.parametrize(("kind", "name", "taken"), ON_POSTGRES, ids=[taken for _, _, taken in ON_POSTGRES])
async def test_a_name_that_another_program_has_taken_stops_the_upgrade_on_postgres(
    postgres_url: str, kind: str, name: str, taken: str
) -> None:
    old_beside(postgres_url, taken)
    await refused(postgres_url, kind, name, taken)


def test_the_command_line_names_it_in_one_line(tmp_path: Path) -> None:
    old_beside(tmp_path / "old.db", "CREATE TABLE leases (held TEXT)")
    run = command_line("-x", f"url={tmp_path / 'old.db'}", "upgrade", "head", cwd=tmp_path)
    assert run.returncode != 0
    assert "another program's table leases" in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    question = command_line("-x", f"url={tmp_path / 'old.db'}", "current", cwd=tmp_path)
    assert (question.returncode, question.stdout.split()[:1]) == (0, ["0007"])


@pytest.mark.parametrize("where", ["file", "postgres"])
async def test_other_names_are_no_obstacle(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    target: Target = tmp_path / "old.db" if where == "file" else request.getfixturevalue("postgres_url")
    old_beside(target, *NO_OBSTACLES)
    async with DatabaseManager(target, upgrade=True) as db:
        assert await db.schema_version() == HEAD
    upgrade(target)


async def test_on_postgres_a_table_in_another_schema_is_no_obstacle(postgres_url: str) -> None:
    old_beside(postgres_url, "CREATE SCHEMA beside", "CREATE TABLE beside.leases (held TEXT)")
    async with DatabaseManager(postgres_url, upgrade=True) as db:
        assert await db.schema_version() == HEAD

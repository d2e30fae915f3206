"""The schema is written down three times, and all three say the same."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from orchdb.schema import tables
from orchdb.schema.revisions import HEAD, REVISIONS, schema_file, statements_of
from tests.support.alembic_runs import configuration, downgrade, transaction, upgrade
from tests.support.old_files import SCHEMA as OLD_SCHEMA
from tests.support.old_files import OldFile
from tests.support.schema_descriptions import describe_postgres, describe_sqlite


@pytest.fixture
def head(tmp_path: Path) -> dict[str, Any]:
    """What SQLAlchemy makes of the table definitions."""
    path = tmp_path / "tables.db"
    with transaction(path) as connection:
        tables.metadata.create_all(connection)
    return describe_sqlite(path)


def test_upgrading_an_empty_file_gives_the_tables_of_the_definitions(tmp_path: Path, head: dict[str, Any]) -> None:
    upgrade(tmp_path / "upgraded.db")
    assert describe_sqlite(tmp_path / "upgraded.db") == head


def test_upgrading_a_file_of_the_first_class_gives_the_tables_of_the_definitions(
    tmp_path: Path, head: dict[str, Any]
) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD_SCHEMA)
    upgrade(path)
    assert describe_sqlite(path) == head


def test_the_schema_file_gives_the_tables_of_the_definitions(tmp_path: Path, head: dict[str, Any]) -> None:
    path = tmp_path / "applied.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements_of(schema_file().read_text(encoding="utf-8")):
            connection.execute(statement)
        connection.commit()
    assert describe_sqlite(path) == head


def test_the_schema_file_is_stamped_with_the_newest_revision(tmp_path: Path) -> None:
    _apply(tmp_path / "applied.db", schema_file().read_text(encoding="utf-8"))
    upgrade(tmp_path / "upgraded.db")
    for name in ("applied.db", "upgraded.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            found = connection.execute("SELECT version_num FROM orchdb_version").fetchall()
            columns = connection.execute("PRAGMA table_info(orchdb_version)").fetchall()
        assert found == [(HEAD,)]
        assert columns == [(0, "version_num", "VARCHAR(32)", 1, None, 1)]


def test_the_code_knows_every_revision_there_is() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_heads() == [HEAD]


def _apply(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def test_the_schema_file_begins_no_transaction_and_sets_nothing() -> None:
    for statement in statements_of(schema_file().read_text(encoding="utf-8")):
        code = [line for line in statement.splitlines() if line.strip() and not line.startswith("--")]
        assert code[0].split()[0] in {"CREATE", "INSERT"}


def test_every_downgrade_gives_what_the_upgrade_to_that_revision_gave(tmp_path: Path) -> None:
    path = tmp_path / "walked.db"
    on_the_way_up = {}
    for revision in REVISIONS:
        upgrade(path, revision)
        on_the_way_up[revision] = describe_sqlite(path)
    for revision in reversed(REVISIONS[:-1]):
        downgrade(path, revision)
        assert describe_sqlite(path) == on_the_way_up[revision], revision
    downgrade(path, "base")
    with closing(sqlite3.connect(path)) as connection:
        left = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'trigger')").fetchall()
    assert sorted(left) == [("orchdb_version",), ("sqlite_sequence",)]


def test_autogenerate_sees_no_difference_on_sqlite(tmp_path: Path) -> None:
    for name in ("upgraded.db", "applied.db", "created.db"):
        path = tmp_path / name
        if name == "upgraded.db":
            upgrade(path)
        elif name == "applied.db":
            _apply(path, schema_file().read_text(encoding="utf-8"))
        else:
            with transaction(path) as connection:
                tables.metadata.create_all(connection)
                command.stamp(configuration(connection), "head")
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            other.execute(
                "CREATE TABLE somebody_elses (id INTEGER PRIMARY KEY, prompt_id TEXT REFERENCES prompts (id))"
            )
        with transaction(path) as connection:
            command.check(configuration(connection))


def test_autogenerate_would_see_a_difference_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "changed.db"
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX idx_agents_status")
    with transaction(path) as connection, pytest.raises(Exception, match="idx_agents_status"):
        command.check(configuration(connection))


def test_an_old_file_with_columns_named_like_ours_keeps_what_they_hold(tmp_path: Path) -> None:
    path = OldFile(tmp_path / "old.db", others=False).path
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE agents ADD COLUMN Created_At TEXT")
        connection.execute("ALTER TABLE prompts ADD COLUMN metadata TEXT")
        connection.execute("UPDATE agents SET created_at = '2001-01-01T00:00:00.000000' WHERE id = 'agent-1'")
        connection.execute("UPDATE prompts SET metadata = '{\"tag\": 1}'")
        connection.commit()
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        created = connection.execute("SELECT created_at FROM agents WHERE id = 'agent-1'").fetchone()
        elsewhere = connection.execute("SELECT count(*) FROM agents WHERE created_at IS NULL").fetchone()
        tagged = connection.execute("SELECT DISTINCT metadata FROM prompts").fetchall()
    assert created == ("2001-01-01T00:00:00.000000",)
    assert elsewhere == (0,)
    assert tagged == [('{"tag": 1}',)]


def test_upgrading_an_empty_postgres_gives_the_tables_of_the_definitions(postgres_url: str) -> None:
    with transaction(postgres_url) as connection:
        tables.metadata.create_all(connection)
        created = describe_postgres(connection)
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        command.upgrade(configuration(connection), "head")
        assert describe_postgres(connection) == created


def test_every_downgrade_on_postgres_gives_what_the_upgrade_to_that_revision_gave(postgres_url: str) -> None:
    on_the_way_up = {}
    with transaction(postgres_url) as connection:
        for revision in REVISIONS:
            command.upgrade(configuration(connection), revision)
            on_the_way_up[revision] = describe_postgres(connection)
        for revision in reversed(REVISIONS[:-1]):
            command.downgrade(configuration(connection), revision)
            assert describe_postgres(connection) == on_the_way_up[revision], revision
        command.downgrade(configuration(connection), "base")
        assert not any(describe_postgres(connection).values())


def test_autogenerate_sees_no_difference_on_postgres(postgres_url: str) -> None:
    with transaction(postgres_url) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('f00dfeedcafe')"))
        command.upgrade(configuration(connection), "head")
        connection.execute(text("CREATE TABLE somebody_elses (id bigint PRIMARY KEY, x uuid REFERENCES prompts (id))"))
        command.check(configuration(connection))
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "f00dfeedcafe"
        connection.execute(text("DROP TRIGGER trg_agents_updated_at ON agents; DROP INDEX idx_agents_status"))
        with pytest.raises(Exception, match="idx_agents_status"):
            command.check(configuration(connection))

"""What happens to the rows: those of orchdb and those of other programs in the same file."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from orchdb.schema.rebuilding import MigrationError
from tests.support.alembic_runs import configuration, downgrade, migrating_engine, transaction, upgrade
from tests.support.old_files import TABLES, OldFile, Rows, ask, change, kept, read

OTHERS = ("alembic_version", "hosts", "bookmarks", "audit")


@pytest.fixture
def old(tmp_path: Path) -> OldFile:
    """An old file with more than ten thousand rows, and with tables, columns and triggers of other programs."""
    return OldFile(tmp_path / "orchestrator.db")


def test_an_upgrade_keeps_every_row_and_value_and_brings_the_times_into_one_form(old: OldFile) -> None:
    before = read(old.path)
    assert sum(len(rows) for rows in before.values()) > 10_000
    upgrade(old.path)
    after = read(old.path)
    promised = old.promised(before)
    assert {table: rows.keys() for table, rows in after.items()} == {
        table: rows.keys() for table, rows in before.items()
    }
    assert kept(after, promised) == promised
    forms = {len(row["created_at"]) for row in after["prompts"].values() if row["created_at"] != "yesterday"}
    assert forms == {26}


def test_upgrade_downgrade_upgrade_keeps_every_row_and_value(old: OldFile) -> None:
    upgrade(old.path)
    first = read(old.path)
    downgrade(old.path, "0001")
    assert "deleted_at" not in next(iter(read(old.path)["prompts"].values()))
    upgrade(old.path)
    assert read(old.path) == first


def test_the_life_of_old_agents_is_filled_from_what_was_known(old: OldFile) -> None:
    upgrade(old.path)
    for agent in read(old.path)["agents"].values():
        assert agent["created_at"] == agent["started_at"]
        assert agent["updated_at"] == (agent["completed_at"] or agent["started_at"])


def test_what_other_programs_keep_in_the_file_stays(old: OldFile) -> None:
    before = read(old.path, OTHERS)
    names = "name IN ('dashboard_latest', 'audit_prompts', 'audit_logs', 'spending', 'bookmarks', 'alembic_version')"
    objects = ask(old.path, f"SELECT name, sql FROM sqlite_master WHERE {names} ORDER BY name")
    spending = ask(old.path, "SELECT * FROM spending ORDER BY 1")
    for move, revision in ((upgrade, "head"), (downgrade, "0001"), (upgrade, "head")):
        move(old.path, revision)
        assert read(old.path, OTHERS) == before
        assert ask(old.path, f"SELECT name, sql FROM sqlite_master WHERE {names} ORDER BY name") == objects
        assert len(objects) == 6
        assert ask(old.path, "SELECT * FROM spending ORDER BY 1") == spending


def test_the_columns_that_other_programs_added_keep_their_rules(old: OldFile) -> None:
    upgrade(old.path)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        change(old.path, "UPDATE prompts SET rating = 9")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        change(old.path, """UPDATE agents SET "host, or (place)" = 'nowhere'""")
    assert ask(old.path, """SELECT count(*) > 0 FROM agents WHERE "host, or (place)" = 'BüRO'""") == [(1,)]
    assert ask(old.path, "SELECT count(*) FROM prompts WHERE total <> tokens_input + tokens_output") == [(0,)]


def test_the_counters_of_the_logs_go_on_where_they_were(old: OldFile) -> None:
    counters = dict(ask(old.path, "SELECT name, seq FROM sqlite_sequence"))
    assert counters["agent_logs"] > ask(old.path, "SELECT max(id) FROM agent_logs")[0][0]
    for move, revision in ((upgrade, "head"), (downgrade, "0001")):
        move(old.path, revision)
        assert dict(ask(old.path, "SELECT name, seq FROM sqlite_sequence")) == counters


def test_cascades_still_reach_the_children_after_the_rebuilds(old: OldFile) -> None:
    upgrade(old.path)
    change(old.path, "DELETE FROM orchestrator_agents")
    for table in ("agents", "prompts", "agent_logs", "bookmarks"):
        assert ask(old.path, f"SELECT count(*) FROM {table}") == [(0,)]
    assert ask(old.path, "SELECT count(*) FROM system_logs") == [(1500,)]


def test_ids_that_are_no_uuids_keep_working(old: OldFile) -> None:
    upgrade(old.path)
    assert ask(old.path, "SELECT count(*) FROM agents WHERE orchestrator_agent_id = 'adw-orchestrator'") > [(0,)]
    assert ask(old.path, "SELECT name IS NOT NULL FROM orchestrator_agents WHERE id = ?", "ñ'; --") == [(1,)]


def test_rows_without_an_id_get_one_each(old: OldFile) -> None:
    for name in ("nameless 1", "nameless 2"):
        change(old.path, f"INSERT INTO orchestrator_agents (name, agent_type) VALUES ('{name}', 'utility')")
    upgrade(old.path)
    keys = ask(old.path, "SELECT id FROM orchestrator_agents WHERE name LIKE 'nameless %'")
    assert len(set(keys)) == 2
    assert all(len(key) == 36 for (key,) in keys)


def test_values_that_are_no_text_or_no_utf8_stay(old: OldFile) -> None:
    change(
        old.path,
        "PRAGMA foreign_keys = OFF",
        "UPDATE prompts SET created_at = CAST(x'32303234ff' AS TEXT), prompt_text = CAST(x'ff41' AS TEXT), "
        "completed_at = 17 WHERE rowid = 1",
        "UPDATE agents SET started_at = x'00ff' WHERE rowid = 1",
        "UPDATE orchestrator_agents SET id = CAST(x'ff42' AS TEXT) WHERE id = 'ñ''; --'",
        "UPDATE agents SET orchestrator_agent_id = CAST(x'ff42' AS TEXT) WHERE orchestrator_agent_id = 'ñ''; --'",
    )
    query = "SELECT hex(created_at), hex(prompt_text), completed_at FROM prompts WHERE rowid = 1"
    before = ask(old.path, query)
    upgrade(old.path)
    assert ask(old.path, query) == before
    assert ask(old.path, "SELECT hex(started_at), hex(created_at) FROM agents WHERE rowid = 1") == [("00FF", "00FF")]
    assert ask(old.path, "SELECT count(*) FROM orchestrator_agents WHERE hex(id) = 'FF42'") == [(1,)]


def test_plain_text_in_a_json_column_stays_that_text(old: OldFile) -> None:
    before = ask(old.path, "SELECT id, context, config FROM agents ORDER BY id")
    upgrade(old.path)
    assert ask(old.path, "SELECT id, context, config FROM agents ORDER BY id") == before
    assert ask(old.path, "SELECT count(*) FROM agents WHERE context = 'just what somebody typed'") > [(0,)]


def test_the_old_trigger_is_gone_whatever_it_was_called(old: OldFile) -> None:
    upgrade(old.path)
    change(old.path, "UPDATE orchestrator_agents SET description = 'new'")
    assert ask(old.path, "SELECT DISTINCT length(updated_at) FROM orchestrator_agents") == [(26,)]
    downgrade(old.path, "0001")
    change(old.path, "UPDATE orchestrator_agents SET description = 'old'")
    assert ask(old.path, "SELECT DISTINCT length(updated_at) FROM orchestrator_agents") == [(19,)]


def test_a_failure_in_the_last_revision_leaves_the_file_as_it_was(old: OldFile) -> None:
    change(old.path, "CREATE TRIGGER trg_system_logs_created_at AFTER INSERT ON agents BEGIN SELECT 1; END")
    before = list(dump(old.path))
    with pytest.raises(Exception, match="trg_system_logs_created_at already exists"):
        upgrade(old.path)
    assert list(dump(old.path)) == before


def dump(path: Path) -> Iterator[str]:
    with closing(sqlite3.connect(path)) as connection:
        yield from connection.iterdump()


def test_a_row_that_loses_its_parent_undoes_the_whole_migration(old: OldFile) -> None:
    upgrade(old.path)
    with pytest.raises(MigrationError, match="of bookmarks its row in prompts"):
        downgrade(old.path, "base")
    assert ask(old.path, "SELECT version_num FROM orchdb_version") == [("0012",)]
    assert len(read(old.path)["prompts"]) > 2000


def test_rows_that_had_no_parent_before_are_kept_and_named(old: OldFile, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(old.path)) as connection:  # with foreign keys off, as the sqlite3 shell has them
        lost = connection.execute("DELETE FROM agents WHERE id = 'agent-1'").rowcount
        orphans = connection.execute("SELECT count(*) FROM agent_logs WHERE agent_id = 'agent-1'").fetchone()
        connection.commit()
    assert lost == 1
    assert orphans > (0,)
    upgrade(old.path)
    assert ask(old.path, "SELECT count(*) FROM agent_logs WHERE agent_id = 'agent-1'") == [orphans]
    assert "have had no parent row since before the migration" in caplog.text


def test_a_connection_with_foreign_keys_on_is_refused_before_anything_is_rebuilt(old: OldFile) -> None:
    before = read(old.path)
    engine = migrating_engine(old.path)
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA foreign_keys = ON")  # type: ignore[union-attr]
        with pytest.raises(MigrationError, match="while foreign keys are on"), connection.begin():
            command.upgrade(configuration(connection), "head")
    engine.dispose()
    assert read(old.path) == before


def test_the_transaction_of_a_handed_over_connection_stays_the_callers(old: OldFile) -> None:
    before = list(dump(old.path))
    engine = migrating_engine(old.path)
    with engine.connect() as connection:
        command.upgrade(configuration(connection.execution_options()), "0001")
    with engine.connect() as connection, connection.begin() as mine:
        command.upgrade(configuration(connection), "head")
        assert connection.in_transaction()
        mine.rollback()
    engine.dispose()
    assert ask(old.path, "SELECT version_num FROM orchdb_version") == [("0001",)]
    with_version = [line for line in dump(old.path) if "orchdb_version" not in line]
    assert [line for line in with_version if "version_num" not in line] == [
        line for line in before if "version_num" not in line
    ]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_another_program_under_our_name_is_never_touched(tmp_path: Path, table: str) -> None:
    path = tmp_path / "foreign.db"
    change(path, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, title TEXT)")
    before = list(dump(path))
    with pytest.raises(MigrationError, match=f"the table {table} is not one of orchdb's first schema"):
        upgrade(path)
    assert list(dump(path)) == before


def test_tables_of_the_head_without_a_revision_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unstamped.db"
    upgrade(path)
    change(path, "DROP TABLE orchdb_version")
    with pytest.raises(MigrationError, match="alembic stamp"):
        upgrade(path)


def test_a_revision_from_the_future_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    upgrade(path)
    change(path, "UPDATE orchdb_version SET version_num = '0999'")
    with pytest.raises(MigrationError, match=r"the revision 0999.*none newer than 0012.*upgrade orchdb"):
        upgrade(path)


WRITTEN_FOR_THE_FIRST_REVISION = (
    "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('{1}', 'a', 'planner')",
    "INSERT INTO orchestrator_agents (id, name, description, agent_type, capabilities, default_model, created_at, "
    "updated_at) VALUES ('{2}', 'b', 'd', 'utility', '[]', 'm', '2024-05-06 07:08:09', '2024-05-06 07:08:09')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id) VALUES ('{3}', '{1}', 's')",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id, parent_agent_id, status, context, config, started_at, "
    "completed_at, cost_usd, error_message) VALUES ('{4}', '{1}', 's', '{3}', 'executing', '{{}}', '{{}}', "
    "'2024-05-06 07:08:09', '2024-05-06 07:08:10', 0.5, 'e')",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text) VALUES ('{5}', '{3}', 'adw', 't')",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_name, prompt_text, response_text, status, model_used, "
    "tokens_input, tokens_output, cost_usd, latency_ms, created_at, completed_at, error_message) VALUES ('{6}', '{3}', "
    "'command', 'n', 't', 'r', 'completed', 'm', 1, 2, 0.1, 3, '2024-05-06T07:08:09', '2024-05-06T07:08:10', 'e')",
    "INSERT INTO agent_logs (agent_id, log_type, message) VALUES ('{3}', 'milestone', 'm')",
    "INSERT INTO agent_logs (id, agent_id, log_level, log_type, message, details, created_at) VALUES (77, '{3}', "
    "'ERROR', 'error', 'm', '{{}}', '2024-05-06T07:08:09Z')",
    "INSERT INTO system_logs (component, message) VALUES ('c', 'm')",
    "INSERT INTO system_logs (log_level, component, message, details, created_at) VALUES ('DEBUG', 'c', 'm', '1', "
    "'2024-05-06 07:08:09')",
)
KEYS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(7)]


def test_plain_inserts_written_for_the_first_revision_work_on_the_head(tmp_path: Path) -> None:
    path = tmp_path / "head.db"
    statements = [statement.format(*KEYS) for statement in WRITTEN_FOR_THE_FIRST_REVISION]
    upgrade(path, "0001")
    change(path, *statements)
    upgrade(path)
    change(path, *(f"DELETE FROM {table}" for table in TABLES))
    change(path, *statements)
    for table, rows in read(path).items():
        assert len(rows) == 2, table
        for row in rows.values():
            assert len(row["created_at"]) == 26
            assert row.get("status", "pending") in {"pending", "initializing", "executing", "completed"}
    assert ask(path, "SELECT created_at FROM agent_logs WHERE id = 77") == [("2024-05-06T07:08:09.000000",)]
    assert ask(path, "SELECT count(*) FROM agents WHERE updated_at IS NULL OR created_at IS NULL") == [(0,)]


def test_plain_inserts_written_for_the_first_revision_work_on_the_head_of_postgres(postgres_url: str) -> None:
    statements = [statement.format(*KEYS) for statement in WRITTEN_FOR_THE_FIRST_REVISION]
    with transaction(postgres_url) as connection:
        for revision in ("0001", "head"):
            command.upgrade(configuration(connection), revision)
            for statement in statements:
                connection.exec_driver_sql(statement)
            for table in TABLES:
                assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 2
            connection.execute(text(f"TRUNCATE {', '.join(TABLES)}"))


NEW_ROWS = (
    "UPDATE orchestrator_agents SET agent_type = 'poet', metadata = '{\"k\": 1}' WHERE rowid % 2",
    "UPDATE agents SET status = 'pending', started_at = NULL WHERE rowid % 2",
    "UPDATE agents SET deleted_at = '2025-01-01T00:00:00.000000' WHERE rowid % 5 = 0",
    "INSERT INTO leases VALUES ('lease', 'owner', 60.0, '2025-01-01T00:00:00.000000', 1.0, '')",
    "UPDATE agents SET lease_id = 'lease' WHERE rowid = 1",
    "UPDATE agent_logs SET event_id = 'event ' || id WHERE id % 7 = 0",
    "UPDATE system_logs SET event_id = 'event ' || id WHERE id % 11 = 0",
    "UPDATE prompts SET prompt_type = 'riddle', tokens_cache_read = 5 WHERE rowid % 3 = 0",
    "UPDATE agent_logs SET log_type = 'step_start' WHERE rowid % 3 = 0",
    "UPDATE orchestrator_agents SET deleted_at = '2025-01-01T00:00:00.000000' WHERE id = 'adw-orchestrator'",
    "INSERT INTO orchestrator_agents (id, name, agent_type) "
    "SELECT 'successor', name, 'utility' FROM orchestrator_agents WHERE id = 'adw-orchestrator'",
)


def test_a_downgrade_says_what_it_loses_and_loses_no_row(old: OldFile, caplog: pytest.LogCaptureFixture) -> None:
    upgrade(old.path)
    change(old.path, *NEW_ROWS)
    before = read(old.path)
    caplog.clear()
    downgrade(old.path, "0001")
    after = read(old.path)
    for table in TABLES:
        assert after[table].keys() == before[table].keys()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    def announced(number: int, words: str) -> bool:
        return any(words in message and f" {number} " in message for message in said)

    def having(table: str, column: str, value: object) -> int:
        return sum(row[column] == value for row in before[table].values())

    assert announced(having("orchestrator_agents", "agent_type", "poet"), "agent_type to 'utility'")
    assert announced(having("agents", "status", "pending"), "status to 'initializing'")
    assert announced(having("prompts", "prompt_type", "riddle"), "prompt_type to 'command'")
    assert announced(having("agent_logs", "log_type", "step_start"), "log_type to 'milestone'")
    assert announced(having("agents", "started_at", None), "never started")
    assert announced(having("prompts", "tokens_cache_read", 5), "cache tokens")
    assert announced(having("orchestrator_agents", "metadata", '{"k": 1}'), "orchestrator_agents.metadata")
    assert announced(having("agents", "deleted_at", "2025-01-01T00:00:00.000000"), "softly deleted rows of agents")
    assert announced(1, "renames")
    assert announced(1, "leases")
    for table in ("agent_logs", "system_logs"):
        assert announced(sum(row["event_id"] is not None for row in before[table].values()), f"{table}.event_id")
    names = {row["id"]: row["name"] for row in after["orchestrator_agents"].values()}
    assert names["adw-orchestrator"] == names["successor"] + " (deleted adw-orchestrator)"
    assert {row["started_at"] for row in after["agents"].values()} >= {
        row["created_at"] for row in before["agents"].values() if row["started_at"] is None
    }
    upgrade(old.path)


def test_a_downgrade_that_loses_nothing_says_nothing(old: OldFile, caplog: pytest.LogCaptureFixture) -> None:
    upgrade(old.path)
    caplog.clear()
    downgrade(old.path, "0001")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


FILL_POSTGRES = (
    "INSERT INTO orchestrator_agents (id, name, agent_type, created_at, updated_at) SELECT gen_random_uuid(), "
    "'größe ' || n, 'utility', timestamptz '2024-02-29 12:00+05:30' + n * interval '1.000001 s', '2024-03-01' "
    "FROM generate_series(1, 20) n",
    "INSERT INTO agents (id, orchestrator_agent_id, session_id, context, started_at, completed_at) SELECT "
    "gen_random_uuid(), o.id, 'sitzung ' || n, '{\"größe\": [1, \"世界\"]}', o.created_at, "
    "CASE WHEN n % 2 = 0 THEN o.created_at + interval '1 h' END FROM orchestrator_agents o, generate_series(1, 20) n",
    "UPDATE agents SET parent_agent_id = (SELECT id FROM agents ORDER BY id LIMIT 1) WHERE session_id = 'sitzung 7'",
    "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text) SELECT gen_random_uuid(), a.id, 'adw', '🚀 ' || n "
    "FROM agents a, generate_series(1, 8) n",
    "INSERT INTO agent_logs (agent_id, log_type, message, details) SELECT a.id, 'error', 'm', to_jsonb(n) "
    "FROM agents a, generate_series(1, 15) n",
    "INSERT INTO system_logs (component, message) SELECT 'c', 'm' || n FROM generate_series(1, 1500) n",
    "DELETE FROM system_logs WHERE id > 1400",
)


def read_postgres(connection: Any) -> Rows:
    return {
        table: {row["id"]: dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()}
        for table in TABLES
    }


def test_upgrade_downgrade_upgrade_on_postgres_keeps_every_row_and_value(postgres_url: str) -> None:
    with transaction(postgres_url) as connection:
        command.upgrade(configuration(connection), "0001")
        for statement in FILL_POSTGRES:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        before = read_postgres(connection)
        assert sum(len(rows) for rows in before.values()) > 10_000
        command.upgrade(configuration(connection), "head")
        first = read_postgres(connection)
        assert kept(first, before) == before
        for agent in first["agents"].values():
            assert agent["created_at"] == agent["started_at"]
            assert agent["updated_at"] == (agent["completed_at"] or agent["started_at"])
        command.downgrade(configuration(connection), "0001")
        assert read_postgres(connection) == before
        command.upgrade(configuration(connection), "head")
        assert read_postgres(connection) == first
        connection.exec_driver_sql("INSERT INTO system_logs (component, message) VALUES ('c', 'm')")
        assert connection.execute(text("SELECT max(id) FROM system_logs")).scalar() == 1501


NEW_POSTGRES_ROWS = (
    "UPDATE orchestrator_agents SET agent_type = 'poet', metadata = '{}', updated_at = '2024-03-02' "
    "WHERE name = 'größe 1'",
    "UPDATE orchestrator_agents SET deleted_at = now(), updated_at = '2024-03-03' WHERE name = 'größe 2'",
    "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES (gen_random_uuid(), 'größe 2', 'utility')",
    "UPDATE agents SET status = 'pending', started_at = NULL WHERE session_id = 'sitzung 3'",
    "UPDATE prompts SET prompt_type = 'riddle', tokens_cache_write = 7 WHERE prompt_text = '🚀 1'",
    "UPDATE agent_logs SET log_type = 'step_start' WHERE details = '4'",
    "UPDATE agent_logs SET event_id = id WHERE details = '5'",
    "INSERT INTO leases VALUES (gen_random_uuid(), gen_random_uuid(), 60, now(), 1, '')",
    "UPDATE agents SET lease_id = (SELECT id FROM leases) WHERE session_id = 'sitzung 4'",
)


def test_a_downgrade_on_postgres_says_what_it_loses_and_loses_no_row(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with transaction(postgres_url) as connection:
        command.upgrade(configuration(connection), "0001")
        for statement in FILL_POSTGRES:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        command.upgrade(configuration(connection), "head")
        for statement in NEW_POSTGRES_ROWS:
            connection.exec_driver_sql(statement)
        before = read_postgres(connection)
        caplog.clear()
        command.downgrade(configuration(connection), "0001")
        after = read_postgres(connection)
    for table in TABLES:
        assert after[table].keys() == before[table].keys()
    said = "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    for words in (
        "'utility' in 1 rows",
        "'initializing' in 20 rows",
        "'command' in 400 rows",
        "'milestone' in 400 rows",
        "20 agents that never started",
        "cache tokens of 400 prompts",
        "orchestrator_agents.metadata in 1 rows",
        "1 softly deleted rows of orchestrator_agents",
        "renames 1 softly deleted rows",
        "agent_logs.event_id in 400 rows",
        "the leases of 20 running agents",
    ):
        assert words in said
    for key, row in after["orchestrator_agents"].items():
        assert row["updated_at"] == before["orchestrator_agents"][key]["updated_at"]


def test_a_failure_in_the_last_revision_on_postgres_leaves_the_database_as_it_was(postgres_url: str) -> None:
    with transaction(postgres_url) as connection:
        command.upgrade(configuration(connection), "0001")
        connection.exec_driver_sql(
            "CREATE TRIGGER trg_agents_updated_at BEFORE UPDATE ON agents FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        )
    with pytest.raises(Exception, match="trg_agents_updated_at"):
        upgrade(postgres_url)
    with transaction(postgres_url) as connection:
        assert connection.execute(text("SELECT version_num FROM orchdb_version")).scalar() == "0001"
        columns = connection.execute(text("SELECT * FROM agents")).keys()
        assert "deleted_at" not in columns


def test_tables_of_our_names_on_postgres_without_a_revision_are_refused(postgres_url: str) -> None:
    with transaction(postgres_url) as connection:
        connection.exec_driver_sql("CREATE TABLE agents (id text)")
    with pytest.raises(MigrationError, match="tables of that name and no revision: agents"):
        upgrade(postgres_url)

"""Full-text and R*Tree indexes that other programs keep up to date with triggers, in the SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, NewAgentLog, OperationError
from tests.support.databases import other_program
from tests.support.old_files import SCHEMA as OLD_SCHEMA

EXTERNAL = """
CREATE VIRTUAL TABLE logs_fts USING fts5(message, content='agent_logs', content_rowid='id');
CREATE TRIGGER fts_in AFTER INSERT ON agent_logs BEGIN
    INSERT INTO logs_fts (rowid, message) VALUES (NEW.id, NEW.message);
END;
CREATE TRIGGER fts_out AFTER DELETE ON agent_logs BEGIN
    INSERT INTO logs_fts (logs_fts, rowid, message) VALUES ('delete', OLD.id, OLD.message);
END;
CREATE TRIGGER fts_change AFTER UPDATE ON agent_logs BEGIN
    INSERT INTO logs_fts (logs_fts, rowid, message) VALUES ('delete', OLD.id, OLD.message);
    INSERT INTO logs_fts (rowid, message) VALUES (NEW.id, NEW.message);
END;
"""
PLAIN = """
CREATE VIRTUAL TABLE {quoted} USING {module}(message);
CREATE TRIGGER fts_in AFTER INSERT ON agent_logs BEGIN
    INSERT INTO {quoted} (rowid, message) VALUES (NEW.id, NEW.message);
END;
CREATE TRIGGER fts_out AFTER DELETE ON agent_logs BEGIN DELETE FROM {quoted} WHERE rowid = OLD.id; END;
"""
INDEXES = {
    "external": EXTERNAL,
    "with its vocabulary": f"{EXTERNAL}; CREATE VIRTUAL TABLE words USING fts5vocab(logs_fts, 'row');",
    "plain": PLAIN.format(module="fts5", quoted="logs_fts"),
    "fts4": PLAIN.format(module="fts4", quoted="logs_fts"),
    "fts3": PLAIN.format(module="FTS3", quoted='"logs_fts"'),
}
RTREE = """
CREATE VIRTUAL TABLE spans USING rtree(id, low, high);
CREATE TRIGGER span_in AFTER INSERT ON agent_logs BEGIN INSERT INTO spans VALUES (NEW.id, 1, 2); END;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the schema."""
    return tmp_path / "orchestrator.db"


@pytest.fixture
async def db(path: Path) -> AsyncIterator[DatabaseManager]:
    """A manager on the file."""
    async with DatabaseManager(path) as manager:
        yield manager


@pytest.fixture
async def agent(db: DatabaseManager) -> str:
    """The id of an agent."""
    return await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")


def add(path: Path, script: str) -> None:
    with other_program(path) as connection:
        connection.executescript(script)


def hits(path: Path, word: str) -> int:
    with other_program(path) as connection:
        found: int = connection.execute("SELECT count(*) FROM logs_fts WHERE logs_fts MATCH ?", (word,)).fetchone()[0]
    return found


def line(agent: str, message: str) -> NewAgentLog:
    return {"agent_id": agent, "log_level": "INFO", "log_type": "milestone", "message": message}


async def write_in_every_way(db: DatabaseManager, agent: str) -> None:
    """45 lines: single, many at once, in bulk, and inside a transaction."""
    await db.create_agent_log(agent, "INFO", "milestone", "needle")
    writes = (db.create_agent_log(agent, "INFO", "milestone", f"needle {number}") for number in range(30))
    assert len(set(await asyncio.gather(*writes))) == 30
    assert len(await db.create_agent_logs([line(agent, "needle")] * 10)) == 10
    async with db.transaction() as tx:
        await tx.create_agent_log(agent, "INFO", "milestone", "needle")
        await tx.create_agent_logs([line(agent, "needle")] * 3)


@pytest.mark.parametrize("index", INDEXES)
async def test_an_index_that_appears_while_the_manager_is_open_follows_every_write(
    db: DatabaseManager, path: Path, agent: str, index: str
) -> None:
    add(path, INDEXES[index])
    await write_in_every_way(db, agent)
    assert hits(path, "needle") == len(await db.get_agent_logs(agent)) == 45
    assert await db.update_agent(agent, error_message="x")
    assert await db.prune("2999-01-01") == 45
    assert hits(path, "needle") == 0


@pytest.mark.parametrize("index", INDEXES)
async def test_an_index_that_is_there_before_the_manager_follows_every_write(path: Path, index: str) -> None:
    async with DatabaseManager(path):
        pass
    add(path, INDEXES[index])
    async with DatabaseManager(path) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")
        async with db.transaction() as tx:  # the caller's own SQL too
            insert = text("INSERT INTO agent_logs (agent_id, log_type, message) VALUES (:agent, 'x', 'needle')")
            await tx.conn.execute(insert, {"agent": agent})
        await write_in_every_way(db, agent)
        assert hits(path, "needle") == 46
        assert await db.delete_agent(agent)
    assert hits(path, "needle") == 0


async def test_an_r_tree_is_written_to(db: DatabaseManager, path: Path, agent: str) -> None:
    add(path, RTREE)
    await write_in_every_way(db, agent)
    with other_program(path) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchone() == (45,)


ON_AGENTS = """
CREATE VIRTUAL TABLE sessions_fts USING fts5(session_id);
CREATE TRIGGER session_in AFTER INSERT ON agents BEGIN INSERT INTO sessions_fts VALUES (NEW.session_id); END;
CREATE TRIGGER session_change AFTER UPDATE ON agents BEGIN INSERT INTO sessions_fts VALUES (NEW.session_id); END;
"""


@pytest.mark.parametrize("index", INDEXES)
async def test_an_old_file_with_an_index_is_adopted_and_the_index_follows(path: Path, index: str) -> None:
    add(path, OLD_SCHEMA + INDEXES[index] + ON_AGENTS)
    add(
        path,
        "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES ('d', 'scout', 'builder');"
        "INSERT INTO agents (id, orchestrator_agent_id, session_id) VALUES ('a', 'd', 's');"
        "INSERT INTO agent_logs (agent_id, log_type, message) VALUES ('a', 'milestone', 'needle')",
    )
    async with DatabaseManager(path) as db:
        assert hits(path, "needle") == 1
        await write_in_every_way(db, "a")
        assert hits(path, "needle") == 46
        assert await db.delete_agent("a")
    assert hits(path, "needle") == 0


async def test_a_schema_with_modules_of_another_kind_is_not_trusted(
    db: DatabaseManager, path: Path, agent: str
) -> None:
    with other_program(path) as connection:
        if ("dbstat",) not in connection.execute("SELECT name FROM pragma_module_list").fetchall():
            pytest.skip("this SQLite has no other module")
    add(path, f"""{EXTERNAL}; CREATE VIRTUAL TABLE "logs USING fts5(x)" USING dbstat(main)""")
    async with db.transaction() as tx:
        assert (await tx.conn.execute(text("PRAGMA trusted_schema"))).scalar() == 0
    if not refuses_full_text():
        return
    with pytest.raises(OperationError) as refused:
        await db.create_agent_log(agent, "INFO", "milestone", "x")
    assert "the trigger fts_in" in str(refused.value)
    assert "unsafe use of virtual table" in str(refused.value)


def refuses_full_text() -> bool:
    """Whether this SQLite holds FTS5 for unsafe in the triggers of a schema that is not trusted."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "PRAGMA trusted_schema = OFF; CREATE TABLE t (x); CREATE VIRTUAL TABLE f USING fts5(x);"
        "CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO f VALUES (NEW.x); END"
    )
    try:
        connection.execute("INSERT INTO t VALUES ('x')")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


async def test_a_file_without_such_an_index_is_not_trusted(db: DatabaseManager, path: Path, agent: str) -> None:
    add(path, "CREATE TRIGGER theirs AFTER INSERT ON agent_logs BEGIN SELECT 1; END")
    await db.create_agent_log(agent, "INFO", "milestone", "x")
    async with db.transaction() as tx:
        assert (await tx.conn.execute(text("PRAGMA trusted_schema"))).scalar() == 0


async def test_an_index_that_went_wrong_is_named_and_the_file_is_not_taken_for_damaged(
    db: DatabaseManager, path: Path, agent: str
) -> None:
    await db.create_agent_log(agent, "INFO", "milestone", "hay")
    add(path, EXTERNAL)  # it does not know the line that is there already
    with pytest.raises(OperationError) as failed:
        await db.prune("2999-01-01")
    assert failed.value.code == "SQLITE_CORRUPT_VTAB"
    assert "fts_out" in str(failed.value)
    await db.create_agent_log(agent, "INFO", "milestone", "needle")
    add(path, "INSERT INTO logs_fts (logs_fts) VALUES ('rebuild')")
    assert await db.prune("2999-01-01") == 2


async def test_an_index_that_was_dropped_without_its_triggers_is_named(
    db: DatabaseManager, path: Path, agent: str
) -> None:
    add(path, f"{EXTERNAL}; DROP TABLE logs_fts")
    for _ in range(2):
        with pytest.raises(OperationError) as failed:
            await db.create_agent_log(agent, "INFO", "milestone", "x")
        assert "the trigger fts_in" in str(failed.value)
        assert "no such table: main.logs_fts" in str(failed.value)
    assert await db.get_agent_logs(agent) == []

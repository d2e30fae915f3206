"""Several processes that connect at once, and processes that are killed while they upgrade."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager
from orchdb.schema.revisions import HEAD, REVISIONS
from tests.conftest import Target
from tests.support.alembic_runs import downgrade, transaction, upgrade
from tests.support.old_files import OldFile, ask, kept, read, same_rows
from tests.support.processes import Connected, connect_at_once, steps_of_upgrade

PROCESSES = 8
KILLS = 20


def test_eight_processes_at_once_make_one_schema(target: Target) -> None:
    assert connect_at_once(target.url, PROCESSES) == [Connected(HEAD, 0, 0)] * PROCESSES


def one_of_them_upgraded(connected: list[Connected], definitions: int, migrations: int) -> bool:
    ran = sorted(one.migrations for one in connected)
    found = {(one.revision, one.definitions) for one in connected}
    return ran == [0] * (PROCESSES - 1) + [migrations] and found == {(HEAD, definitions)}


@pytest.mark.slow
@pytest.mark.parametrize("revision", [None, "0004"])
def test_eight_processes_at_once_upgrade_an_old_file_once(tmp_path: Path, revision: str | None) -> None:
    old = OldFile(tmp_path / "old.db")
    if revision is not None:
        upgrade(old.path, revision)
    before = read(old.path)
    connected = connect_at_once(str(old.path), PROCESSES)
    assert one_of_them_upgraded(connected, len(before["orchestrator_agents"]), len(REVISIONS) - (4 if revision else 0))
    promised = old.promised(before)
    assert kept(read(old.path), promised) == promised
    (backup,) = tmp_path.glob("*.backup")
    assert read(backup) == before
    assert {path.name for path in tmp_path.iterdir()} == {"old.db", backup.name}


@pytest.mark.slow
def test_eight_processes_at_once_upgrade_an_old_postgres_database_once(postgres_url: str) -> None:
    upgrade(postgres_url, "0002")
    with transaction(postgres_url) as connection:
        connection.execute(
            text(
                "INSERT INTO orchestrator_agents (id, name, agent_type) "
                "SELECT gen_random_uuid(), 'n' || n, 'planner' FROM generate_series(1, 50) n"
            )
        )
    assert one_of_them_upgraded(connect_at_once(postgres_url, PROCESSES, upgrade=True), 50, len(REVISIONS) - 2)


@pytest.mark.slow
async def test_an_upgrade_that_is_killed_anywhere_is_made_good_by_the_next_connect(tmp_path: Path) -> None:
    old = OldFile(tmp_path / "old.db")
    template = tmp_path / "template.db"
    shutil.copyfile(old.path, template)
    before = read(template)
    assert sum(len(rows) for rows in before.values()) > 10_000
    steps = steps_of_upgrade(str(old.path))
    assert steps is not None
    promised = old.promised(before)
    assert kept(read(old.path), promised) == promised

    points = random.Random(3).sample(range(1, steps + 1), KILLS)
    found = set()
    for number, point in enumerate(points):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        path = Path(shutil.copyfile(template, folder / "old.db"))
        steps_of_upgrade(str(path), killed_at=point)
        found.add((any(folder.glob("*.partial")), any(folder.glob("*.backup"))))
        async with DatabaseManager(path) as db:
            assert await db.schema_version() == HEAD
        assert same_rows(path, old.path)
        assert ask(path, "PRAGMA integrity_check") == [("ok",)]
        (backup,) = folder.glob("*.backup")
        assert ".pending." not in backup.name
        assert same_rows(backup, template)
        assert {left.name for left in folder.iterdir()} == {"old.db", backup.name}
    assert {(True, False), (False, True)} <= found, "some are killed during the backup, and some behind it"


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg"])
async def test_a_postgres_upgrade_that_is_killed_anywhere_is_made_good_by_the_next_connect(
    postgres_url: str, engine: str
) -> None:
    url = postgres_url.replace("postgresql://", f"postgresql+{engine}://")
    async with DatabaseManager(url) as db:
        key = await db.create_orchestrator_agent("größe")
    downgrade(postgres_url, "0001")
    steps = steps_of_upgrade(url)
    assert steps is not None
    for part in (0.3, 0.6, 1):
        downgrade(postgres_url, "0001")
        steps_of_upgrade(url, killed_at=round(part * steps))
        async with DatabaseManager(url, upgrade=True) as db:
            assert await db.schema_version() == HEAD
            assert [row["id"] for row in await db.list_orchestrator_agents()] == [key]

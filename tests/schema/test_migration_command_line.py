"""The real ``alembic`` command: which database it finds, and what it says."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import text

import orchdb
from orchdb.schema.revisions import HEAD, shipped
from tests.support.alembic_runs import command_line, configuration, transaction
from tests.support.old_files import OldFile


def revision_of(path: Path) -> str | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT version_num FROM orchdb_version").fetchone()
    return str(row[0])


@pytest.mark.slow
def test_the_argument_stands_above_the_variables_and_they_above_the_default(tmp_path: Path) -> None:
    argument, by_url, by_path = tmp_path / "argument.db", tmp_path / "by_url.db", tmp_path / "by_path.db"
    default = tmp_path / "data" / "orchestrator.db"
    variables = {"ORCHESTRATOR_DB_URL": f"sqlite:///{by_url}", "ORCHESTRATOR_DB_PATH": str(by_path)}
    for arguments, environment, found in (
        (["-x", "url=argument.db"], variables, argument),
        (["-x", "url="], variables, by_url),
        ([], variables | {"ORCHESTRATOR_DB_URL": ""}, by_path),
        ([], dict.fromkeys(variables, ""), default),
    ):
        assert not found.exists()
        run = command_line(*arguments, "upgrade", "head", cwd=tmp_path, environment=environment)
        assert run.returncode == 0, run.stderr
        assert revision_of(found) == HEAD


def test_a_new_file_is_readable_by_its_owner_only_and_can_give_space_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "new.db"
    assert command_line("-x", f"url={path}", "upgrade", "head").returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_an_old_file_is_adopted_upgraded_and_downgraded(tmp_path: Path) -> None:
    path = OldFile(tmp_path / "old.db").path
    up = command_line("-x", f"url={path}", "upgrade", "head")
    assert up.returncode == 0, up.stderr
    assert "adopting the table prompts" in up.stderr
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE prompts SET tokens_cache_read = 1")
        connection.commit()
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("f00dfeedcafe",)]
    down = command_line("-x", f"url={path}", "downgrade", "0001")
    assert down.returncode == 0, down.stderr
    assert "the downgrade loses the cache tokens of 2700 prompts" in down.stderr
    assert revision_of(path) == "0001"


@pytest.mark.slow
def test_two_upgrades_at_once_both_succeed(tmp_path: Path) -> None:
    path = OldFile(tmp_path / "old.db").path
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: command_line("-x", f"url={path}", "upgrade", "head"), range(2)))
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert sorted("adopting the table" in run.stderr for run in runs) == [False, True]


@pytest.mark.slow
def test_two_upgrades_at_once_on_postgres_both_succeed(postgres_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: command_line("-x", f"url={postgres_url}", "upgrade", "head"), range(2)))
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    with transaction(postgres_url) as connection:
        assert connection.execute(text("SELECT version_num FROM orchdb_version")).scalars().all() == [HEAD]


def test_the_sql_for_postgres_can_be_printed_and_run_by_hand(postgres_url: str) -> None:
    run = command_line("-x", "url=postgresql://nobody:secret@nowhere/nothing", "upgrade", "head", "--sql")
    assert run.returncode == 0, run.stderr
    assert "secret" not in run.stdout + run.stderr
    script = run.stdout.replace("BEGIN;\n", "").replace("COMMIT;\n", "")
    with transaction(postgres_url) as connection:
        connection.exec_driver_sql(script.replace("%", "%%"))
        assert connection.execute(text("SELECT version_num FROM orchdb_version")).scalar() == HEAD


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@host/name", "is not one of"),
        (
            "postgresql://me:secret@127.0.0.1:1/name",
            "nothing was changed, there is no connection: nothing listens there",
        ),
        ("README-is-no-database", "not a database"),
        ("postgresql://me:secret@host/name?sslmode=maybe", "-x url: sslmode must be one of"),
    ],
)
def test_what_cannot_be_upgraded_is_said_in_one_line_without_a_password(tmp_path: Path, url: str, said: str) -> None:
    (tmp_path / "README-is-no-database").write_text("only words, " * 100)
    run = command_line("-x", f"url={url}", "upgrade", "head", cwd=tmp_path)
    assert run.returncode != 0
    assert said in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert "secret" not in run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("misspelt", ["ulr=other.db", "other.db", "URL=other.db"])
def test_a_misspelt_x_changes_no_other_database(tmp_path: Path, misspelt: str) -> None:
    for words in (("upgrade", "head"), ("current",), ("upgrade", "head", "--sql")):
        run = command_line("-x", misspelt, *words, cwd=tmp_path)
        assert run.returncode != 0
        assert "there is only -x url=" in run.stdout + run.stderr
    assert [*tmp_path.iterdir()] == []


def test_the_sql_for_sqlite_cannot_be_printed(tmp_path: Path) -> None:
    run = command_line("-x", f"url={tmp_path / 'x.db'}", "upgrade", "head", "--sql")
    assert run.returncode != 0
    assert "schema/schema_orchestrator.sql" in run.stdout + run.stderr


def test_a_percent_sign_in_the_folder_of_the_package_is_only_a_character(tmp_path: Path) -> None:
    package, folder = Path(orchdb.__file__).parent, tmp_path / "100%d of (it)s"
    shutil.copytree(package, folder / "orchdb", ignore=shutil.ignore_patterns("__pycache__"))
    place = folder / "orchdb"
    if not (package / "migrations").exists():  # a checkout
        place = folder
        shutil.copytree(shipped("migrations"), place / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(shipped("alembic.ini"), place)
    run = command_line(
        "-x",
        f"url={tmp_path / 'new.db'}",
        "upgrade",
        "head",
        cwd=tmp_path,
        environment={"PYTHONPATH": str(folder)},
        ini=place / "alembic.ini",
    )
    assert run.returncode == 0, run.stderr
    assert revision_of(tmp_path / "new.db") == HEAD


@pytest.mark.slow
@pytest.mark.parametrize(
    "question", [["current"], ["check"], ["downgrade", "base"], ["revision", "--autogenerate", "-m", "x"]]
)
def test_a_question_to_a_database_that_is_not_there_does_not_make_it(tmp_path: Path, question: list[str]) -> None:
    for name in ("typo.db", "typo/orchestrator.db"):
        run = command_line("-x", f"url={tmp_path / name}", *question)
        assert run.returncode != 0
        assert f"{tmp_path / name} does not exist" in run.stdout + run.stderr
        assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_question_of_a_programs_makes_no_database_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DB_PATH", str(tmp_path / "typo.db"))
    with pytest.raises(CommandError, match="does not exist"):
        command.current(configuration())
    assert list(tmp_path.iterdir()) == []
    command.upgrade(configuration(), "head")
    assert revision_of(tmp_path / "typo.db") == HEAD


def test_a_database_in_memory_is_refused_and_makes_no_file(tmp_path: Path) -> None:
    run = command_line("-x", "url=:memory:", "upgrade", "head", cwd=tmp_path)
    assert run.returncode != 0
    assert "name a file" in run.stdout + run.stderr
    assert list(tmp_path.iterdir()) == []

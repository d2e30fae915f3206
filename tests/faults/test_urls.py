"""What is meant as a URL never becomes a file, and what is meant as a path never becomes a URL."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from orchdb import DatabaseManager, InvalidValueError

PASSWORD = "S3cretPw"
REST = f"orch:{PASSWORD}@db.internal:5432/prod"
GOOD = f"postgresql://{REST}"

WRAPPED = [
    f'"{GOOD}"',
    f"'{GOOD}'",
    f"`{GOOD}`",
    f"“{GOOD}”",
    f"„{GOOD}“",
    f"‘{GOOD}’",  # noqa: RUF001  # what a word processor makes of quotes
    f"«{GOOD}»",
    f"<{GOOD}>",
    f'"{GOOD}',
    f'{GOOD}"',
    f" {GOOD}",
    f"{GOOD} ",
    f"\t{GOOD}",
    f"{GOOD}\n",
    f"{GOOD}\r\n",
    f"\u00a0{GOOD}",
    f"\ufeff{GOOD}",
    f"\u200b{GOOD}",
    f'\ufeff "{GOOD}"',
    f"{GOOD};",
    f"jdbc:{GOOD}",
    f"JDBC:{GOOD}",
    f"jdbc:postgresql://db.internal/prod?user=orch&password={PASSWORD}",
    f"DATABASE_URL={GOOD}",
    f'DATABASE_URL="{GOOD}"',
    f"export DATABASE_URL = '{GOOD}'",
    f"database_url: {GOOD}",
    f"$DATABASE_URL={GOOD}",
    f"psql '{GOOD}'",
]
# What stands before it is no one thing: a line of YAML or of code, an option of a command, a colour of the terminal.
PASTED = [
    f"- {GOOD}",
    f"DATABASE_URL:{GOOD}",
    f"$env:DATABASE_URL={GOOD}",
    f'"DATABASE_URL": "{GOOD}"',
    f"-e DATABASE_URL={GOOD}",
    f"--url={GOOD}",
    f"env DATABASE_URL={GOOD}",
    f"ENV DATABASE_URL {GOOD}",
    f"const url = '{GOOD}'",
    f"URL := {GOOD}",
    f"b'{GOOD}'",
    f"%22{GOOD}%22",
    f"\x1b[32m{GOOD}\x1b[0m",
    "- sqlite:///orchestrator.db",
    f"post\u200bgresql://{REST}",
    f"postgresql +asyncpg://{REST}",
    f"http:/{REST}",
    f"://{REST}",
    f"//{REST}",
    f"host=db.internal user=orch password={PASSWORD}",
    f"Server=db.internal;Password = {PASSWORD}",
]
MISSPELT = [
    f"postgres:/{REST}",
    f"postgresql:/{REST}",
    f"postgresql:{REST}",
    f"postgres:///{REST}@",
    f"postgresql//{REST}",
    f"postgresql;//{REST}",
    f"postgresql:\\\\{REST}",
    f"postgresql\uff1a//{REST}",
    f"postgresql ://{REST}",
    f"POSTGRESQL://{REST}",
    f"PostgreSQL+asyncpg://{REST}",
    f"postgresql+psycopg_async://{REST}",
    f"postgresql+psycopg2://{REST}",
    f"postgresql+asyncpg:/{REST}",
    f"postgresql+://{REST}",
    f"postgresql://orch:{PASSWORD}@db.internal:port/prod",
    f"postgresql://orch:{PASSWORD}@db.internal/pr\nod",
    f"postgresql://orch:{PASSWORD}%00@db.internal/prod",
    f"postgresql://orch:{PASSWORD}@a,b/prod?host=c",
    f"postgresql://orch:{PASSWORD}@a:1,b:2,c:x/prod",
    f"postgresql://orch:{PASSWORD}@a,b,c/prod?port=1,2",
]
OTHERS = [
    f"mysql://{REST}",
    f"mysql:{REST}",
    f"mysql+pymysql://{REST}",
    f"MySQL+aiomysql://{REST}",
    f'"mariadb+mariadbconnector://{REST}"',
    f"mssql+pyodbc://{REST}",
    f"jdbc:sqlserver://{REST}",
    f"oracle+oracledb://{REST}",
    f"cockroachdb://{REST}",
    f"mongodb+srv://{REST}",
    f"redis:{REST}",
    f"https://{REST}",
]
SQLITE = [
    "sqlite:orchestrator.db",
    "sqlite:/orchestrator.db",
    "sqlite//orchestrator.db",
    "sqlite3:///orchestrator.db",
    "SQLITE:///orchestrator.db",
    "sqlite+pysqlite:///orchestrator.db",
    "jdbc:sqlite:orchestrator.db",
    '"sqlite:///orchestrator.db"',
    "sqlite:///orchestrator.db\n",
    "sqlite://orchestrator.db",
    "aiosqlite:///orchestrator.db",
]
PATHS = [
    "postgres.db",
    "./postgres:x",
    "./sqlite:///x.db",
    "./jdbc:postgresql://x.db",
    "postgresql",
    "postgres-backup.db",
    "mysql_old.db",
    "my postgres",
    "C:\\x.db",
    "file:x.db",
    "'quoted'.db",
    " leading.db",
    "NAME=value.db",
    "a: b.db",
    "psql dump.db",
    "jdbc:x",
    "sqlite.db",
    "x.postgres:y",
    "./- postgresql://x.db",
    "user@host.db",
    "a:b@c",
    "passwords.db",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(here: Path, *arguments: Any, **options: Any) -> InvalidValueError:
    """The error; nothing was made."""
    with pytest.raises(InvalidValueError) as caught:
        DatabaseManager(*arguments, **options)
    error = caught.value
    assert list(here.iterdir()) == []
    assert error.__cause__ is None
    assert error.__context__ is None
    assert PASSWORD not in f"{error} {error!r} {vars(error)}"
    return error


@pytest.mark.parametrize("text", [*WRAPPED, *PASTED, *MISSPELT, *OTHERS, *SQLITE])
def test_what_is_meant_as_a_url_and_is_none_is_refused_with_what_to_write(here: Path, text: str) -> None:
    error = refused(here, text)
    assert error.column == "db_path"
    hints = ["sqlite:///path"] if text in SQLITE else ["postgresql://", "%40", "port: "]
    assert any(hint in str(error) for hint in hints)


@pytest.mark.parametrize("variable", ["ORCHESTRATOR_DB_URL", "ORCHESTRATOR_DB_PATH"])
@pytest.mark.parametrize("text", [*WRAPPED, *MISSPELT, *OTHERS, *SQLITE])
def test_the_same_from_the_environment_which_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    error = refused(here)
    assert f"from {variable}" in str(error) or "@ too many" in str(error) or "port: " in str(error)


@pytest.mark.parametrize(
    "url", [Path(GOOD), Path(f"- {GOOD}"), URL.create("postgresql+psycopg_async", "orch", PASSWORD, "db.internal")]
)
def test_a_path_object_and_a_url_object_are_looked_at_too(here: Path, url: Any) -> None:
    refused(here, url)


@pytest.mark.parametrize("text", [*WRAPPED, f"mysql://{REST}"])
def test_the_url_of_a_replica_is_looked_at_too(here: Path, text: str) -> None:
    assert refused(here, "postgresql://h/db", read_url=text).column == "read_url"


@pytest.mark.parametrize("text", [GOOD, f'"{GOOD}"', f"- {GOOD}", "sqlite:///copy.db"])
async def test_a_backup_does_not_become_a_file_of_that_name_either(here: Path, text: str) -> None:
    async with DatabaseManager(":memory:") as db:
        with pytest.raises(InvalidValueError, match="path") as caught:
            await db.backup(text)
    assert PASSWORD not in str(caught.value)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", PATHS)
async def test_a_path_that_only_looks_a_little_like_a_url_stays_a_path(here: Path, name: str) -> None:
    async with DatabaseManager(name):
        assert (here / name).is_file()


@pytest.mark.parametrize("text", [f'"{GOOD}"', f" {GOOD}", f"postgresql+psycopg_async://{REST}"])
def test_no_log_holds_the_password(here: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    caplog.set_level(logging.DEBUG)
    refused(here, text)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("driver", ["", "+asyncpg", "+psycopg"])
def test_a_url_that_is_right_is_taken(driver: str) -> None:
    shown = repr(DatabaseManager(f"postgresql{driver}://{REST}"))
    assert f"postgresql{driver or '+asyncpg'}://orch:***@db.internal:5432/prod" in shown

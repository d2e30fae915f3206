"""The command line: through Typer's runner, as ``python -m orchdb`` and as the installed script."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner, Result

import orchdb
from orchdb.cli import demo as demo_module
from orchdb.cli import main
from orchdb.cli.application import application
from orchdb.cli.output import Output
from tests.support.databases import complaints

TABLES = ("orchestrator_agents", "agents", "prompts", "agent_logs", "system_logs")


def run(*arguments: str) -> Result:
    """The result of ``orchdb`` with these arguments."""
    return CliRunner(env={"COLUMNS": "120"}).invoke(application, arguments, prog_name="orchdb")


def one_line_error(result: Result, code: int) -> str:
    """What a failed command says, after checking its exit code, and that it is one line and no traceback."""
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def counts(path: Path) -> dict[str, int]:
    """The number of rows of each table."""
    connection = sqlite3.connect(path)
    found = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    connection.close()
    return found


def shown_commands(output: str) -> list[str]:
    """The commands that the demo tells its user to try."""
    return [line.strip() for line in output.splitlines() if line.startswith(("  sqlite3 ", "  psql "))]


def test_the_version_is_shown() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"orchdb {orchdb.__version__}\n")


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "demo" in result.stdout
    assert "scaffold" in result.stdout
    assert "--db" in run("demo", "--help").stdout


def test_the_demo_stores_a_session_and_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "some where" / "demo.db"
    result = run("demo", "--db", str(path))
    assert result.exit_code == 0, result.output
    assert counts(path) == {
        "orchestrator_agents": 6,
        "agents": 6,
        "prompts": 7,
        "agent_logs": 17,
        "system_logs": 2,
    }
    assert str(path) in result.stdout
    for words in ("planner", "test-builder", "reviewer", "correction", "the answer was cut off", "0.105840"):
        assert words in result.stdout
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT DISTINCT status FROM agents").fetchall() == [("completed",)]
    spent = "SELECT round((SELECT sum(cost_usd) FROM agents) - (SELECT sum(cost_usd) FROM prompts), 9)"
    assert connection.execute(spent).fetchone() == (0,)
    overlapping = """
        SELECT count(*) FROM agents one JOIN agents other ON one.id < other.id
        WHERE one.parent_agent_id = other.parent_agent_id
        AND one.started_at < other.completed_at AND other.started_at < one.completed_at"""
    assert connection.execute(overlapping).fetchone() == (3,), "the three builders worked at the same time"
    connection.close()


def test_the_commands_of_orchdb_that_the_demo_shows_work_as_printed(tmp_path: Path) -> None:
    output = run("demo", "--db", str(tmp_path / "it's a $demo.db")).stdout
    commands = [shlex.split(line)[1:] for line in output.splitlines() if line.startswith("  orchdb ")]
    assert len(commands) == len(demo_module.LOOKS)
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0, result.output
    assert "the answer was cut off" in "".join(run(*command).stdout for command in commands)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 program is not here")
def test_the_commands_that_the_demo_shows_work_as_printed(tmp_path: Path) -> None:
    path = tmp_path / "it's a $demo.db"
    output = run("demo", "--db", str(path)).stdout
    answers = [
        subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
        for command in shown_commands(output)
    ]
    assert len(answers) == 4
    for words, answer in zip(("CREATE TABLE agents", "demo-planner", "Plan a login", "is done"), answers, strict=True):
        assert words in answer


def test_without_a_place_the_demo_uses_a_file_of_its_own_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_DB_PATH", "production.db")
    assert run("demo").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["orchdb-demo.db"]


def test_a_second_demo_adds_a_session_and_changes_no_row_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    run("demo", "--db", str(path))
    before, first = counts(path), everything(path)
    result = run("demo", "--db", str(path))
    assert result.exit_code == 0, result.output
    assert counts(path) == {
        table: rows if table == "orchestrator_agents" else 2 * rows for table, rows in before.items()
    }
    assert first <= everything(path)


def everything(path: Path) -> set[tuple[object, ...]]:
    """Each row of each table."""
    connection = sqlite3.connect(path)
    found = {(table, *row) for table in TABLES for row in connection.execute(f"SELECT * FROM {table}")}
    connection.close()
    return found


def test_the_demo_in_memory_says_that_it_is_gone() -> None:
    result = run("demo", "--db", ":memory:")
    assert result.exit_code == 0, result.output
    assert "gone now" in result.stdout
    assert not shown_commands(result.stdout)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    one_line_error(run("demo", "--db", str(path)), 3)
    assert path.read_text() == "my notes\n" * 1000
    assert [found.name for found in tmp_path.iterdir()] == ["notes.txt"]


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    one_line_error(run("demo", "--db", str(path)), 4)
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["", "mysql://someone:secret@host/name", "sqlite://host/x", "."])
def test_an_unusable_place_is_one_line_without_a_password(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "secret" not in one_line_error(run("demo", "--db", place), 3 if place == "." else 2)
    assert "--db: " in one_line_error(run("demo", "--db", "postgresql://someone@host/name?sslmode=maybe"), 2)
    assert list(tmp_path.iterdir()) == []


def test_every_time_that_the_demo_shows_is_utc(tmp_path: Path) -> None:
    def second(moment: str) -> float:
        hours, minutes, seconds = moment.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)

    began = datetime.now(UTC)
    environment = {**os.environ, "TZ": "XYZ-11:30", "COLUMNS": "120"}
    command = [sys.executable, "-m", "orchdb", "demo", "--db", str(tmp_path / "demo.db")]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    took = (datetime.now(UTC) - began).total_seconds()
    times = re.findall(r"\d\d:\d\d:\d\d\.\d+", shown)
    assert len(times) > 20
    ages = [(second(time) - second(f"{began:%H:%M:%S.%f}") + 0.001) % 86_400 for time in times]
    assert max(ages) <= took + 0.001  # a time in the tables is cut to milliseconds
    assert "UTC" in shown


EVERY_OUTPUT = {
    "demo": ("demo", "--db", ":memory:"),
    "plan": ("scaffold", "project"),
    "error": ("demo", "--db", "."),
    "help": ("--help",),
    "help of a command": ("demo", "--help"),
    "version": ("--version",),
    "wrong call": ("nothing",),
}


@pytest.mark.parametrize("arguments", EVERY_OUTPUT.values(), ids=EVERY_OUTPUT)
def test_a_command_whose_reader_has_gone_ends_without_a_word(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "stderr").open("wb") as stderr:
        both = writer if arguments in (EVERY_OUTPUT["error"], EVERY_OUTPUT["wrong call"]) else stderr
        command = [sys.executable, "-W", "error", "-m", "orchdb", *arguments]
        done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=both, check=False)
    os.close(writer)
    assert done.returncode > 0
    assert complaints((tmp_path / "stderr").read_text()) == ""


def test_a_demo_whose_reader_goes_in_the_middle_ends_without_a_word(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "orchdb", "demo"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        while b"builder" not in demo.stdout.readline().partition(b"  ")[2]:  # several tasks are at work now
            pass
        demo.stdout.close()
        assert complaints(demo.stderr.read().decode()) == ""
    assert demo.returncode > 0


def test_a_failure_of_several_agents_of_the_demo_at_once_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise orchdb.OperationError("the disk is full")

    monkeypatch.setattr(orchdb.DatabaseManager, "complete_prompt", fail)
    monkeypatch.setattr(orchdb.Transaction, "complete_prompt", fail)
    assert one_line_error(run("demo", "--db", str(tmp_path / "demo.db")), 3) == "Error: the disk is full\n"


def test_for_postgres_the_demo_shows_psql_and_no_password() -> None:
    console = Output(record=True, width=80, quiet=False)
    url = make_url("postgresql+asyncpg://someone:secret@host/name")
    with console.capture() as capture:
        demo_module.show_place(url, "session", console)
    commands = shown_commands(capture.get())
    assert [shlex.split(command)[:2] for command in commands] == [["psql", "postgresql://someone@host/name"]] * 3
    assert "secret" not in capture.get()


def test_the_demo_works_on_postgres(postgres_url: str) -> None:
    result = run("demo", "--db", postgres_url)
    assert result.exit_code == 0, result.output
    assert "0.105840" in result.stdout


@pytest.mark.parametrize("module", ["orchdb", "orchdb.cli"])
def test_the_modules_run_like_the_script(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"orchdb {orchdb.__version__}\n"


def test_the_installed_script_runs(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("orchdb")
    if not script.exists():
        pytest.skip("orchdb is not installed, only on the path")
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([script, "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"Where: .*orchdb-demo\.db", done.stdout)
    failed = subprocess.run([script, "demo", "--db", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 3
    assert complaints(failed.stderr).count("\n") == 1


def test_without_the_extra_the_command_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="3"):
        main()
    message = capsys.readouterr().err
    assert "install 'orchdb[cli]'" in message
    assert message.count("\n") == 1

"""``orchdb import``, as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import orchdb
from orchdb.cli.application import application
from tests.support.transcripts import OTHER, Claude, exchange, place, sub_place


def run(*arguments: object, **environment: object) -> Result:
    """The result of ``orchdb import`` with these arguments."""
    variables = {"COLUMNS": "120", **{name: str(value) for name, value in environment.items()}}
    return CliRunner(env=variables).invoke(application, ["import", *map(str, arguments)], prog_name="orchdb")


def folder_with_runs(tmp_path: Path) -> Path:
    """A session with a sub-agent, and a fork of it."""
    claude = exchange(exchange(Claude(), 1), 2)
    claude.save(place(tmp_path))
    sub = Claude(isSidechain=True, agentId="a1")
    sub.session += "/a1"
    exchange(sub, 1).save(sub_place(tmp_path, "a1"))
    fork = Claude(OTHER, begin=9)
    fork.rows = [*claude.rows]
    exchange(fork, 3).save(place(tmp_path, OTHER))
    return tmp_path / "claude"


def test_it_says_what_it_reads_what_is_new_and_why_others_count_more(tmp_path: Path) -> None:
    folder, path = folder_with_runs(tmp_path), tmp_path / "runs.db"
    result = run(folder, "--db", path)
    assert result.exit_code == 0, result.output
    assert "Claude Code: 3 files" in result.stderr
    assert str(folder) in result.stderr
    assert "Imported 2 sessions, 3 agents, 4 prompts, 16 log lines" in result.stdout
    assert "repeat the usage of a response" in result.stdout
    assert "2 responses stand in another session too" in result.stdout
    assert "would miss $" in result.stdout
    shown = [
        line for line in result.stdout.splitlines() if line.strip().startswith(("=", "-", "+", "A count of every"))
    ]
    amounts = [float(line.split("$")[1].split()[0].replace(",", "")) for line in shown]
    signs = [1, -1, -1, 1]
    assert sum(sign * amount for sign, amount in zip(signs, amounts, strict=False)) == pytest.approx(
        amounts[-1], abs=4e-4
    )
    again = run(folder, "--db", path)
    assert "0 prompts, 0 log lines" in again.stdout
    assert "3 files had nothing new" in again.stdout


def test_a_dry_run_makes_no_file_and_a_report_for_programs_is_one_line(tmp_path: Path) -> None:
    folder, path = folder_with_runs(tmp_path), tmp_path / "runs.db"
    dry = run("claude", folder, "--dry-run", "--json", "--db", path)
    assert not path.exists()
    real = run("claude", folder, "--json", "--db", path)
    first, second = json.loads(dry.stdout), json.loads(real.stdout)
    assert (first.pop("dry_run"), second.pop("dry_run")) == (True, False)
    assert (first.pop("seconds") >= 0, second.pop("seconds") >= 0) == (True, True)
    assert first == second
    assert set(first) == {
        "files",
        "sessions",
        "agents",
        "prompts",
        "prompts_corrected",
        "lines",
        "rows",
        "damaged",
        "unknown",
        "unreadable",
        "findings",
        "unpriced",
        "unknown_models",
        "prices_missing",
        "added",
        "naive",
        "why_naive_differs",
    }


def test_without_a_path_it_reads_where_the_tools_write(tmp_path: Path) -> None:
    folder = folder_with_runs(tmp_path)
    places = {"CLAUDE_CONFIG_DIR": folder, "CODEX_HOME": tmp_path / "codex"}
    result = run("--dry-run", "--db", tmp_path / "runs.db", **places)
    assert "Would import 2 sessions" in result.stdout
    none = run("codex", "--dry-run", "--db", tmp_path / "runs.db", **places)
    assert "There are no transcripts here" in none.stderr


def test_without_content_no_text_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run(folder_with_runs(tmp_path), "--no-content", "--db", path)
    connection = sqlite3.connect(path)
    texts = connection.execute("SELECT prompt_text, response_text, tokens_output FROM prompts").fetchall()
    connection.close()
    assert texts == [("", None, 50)] * 4


def test_a_path_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    assert run(tmp_path / "nothing").exit_code == 2
    assert run("--watch", "--dry-run").exit_code == 2


def test_a_watched_folder_is_followed_until_it_is_interrupted(tmp_path: Path) -> None:
    folder, path = folder_with_runs(tmp_path), tmp_path / "runs.db"
    command = [sys.executable, "-m", "orchdb", "import", str(folder), "--watch", "--json", "--db", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["prompts"] == 4
        written = time.time_ns()
        exchange(exchange(exchange(Claude(), 1), 2), 7).save(place(tmp_path))
        assert json.loads(child.stdout.readline())["prompts"] == 1
        assert written
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert "Traceback" not in errors
    assert child.returncode in (0, 130)

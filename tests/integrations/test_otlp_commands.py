"""``orchdb import`` of spans and ``orchdb export --otlp``, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchdb.cli.application import application
from tests.integrations.test_otlp import SPANS, request


def run(*arguments: object) -> Result:
    """The result of ``orchdb`` with these arguments."""
    return CliRunner(env={"COLUMNS": "120"}).invoke(application, [*map(str, arguments)], prog_name="orchdb")


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """A file of a run of two agents."""
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(request(each)) + "\n" for each in SPANS), encoding="utf-8")
    return path


def test_spans_come_in_and_go_out_and_come_in_elsewhere(traces: Path, tmp_path: Path) -> None:
    first, second, out = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "out.jsonl"
    for _ in range(2):
        result = run("import", traces, "--db", first)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{traces}: 6 spans, 2 agents, 2 prompts, 1 tool calls\n"
    assert run("export", "--otlp", out, "--db", first).stderr == f"2 agents were written to {out}.\n"
    shown = run("export", "--otlp", "--session", "session-1", "--db", first)
    assert shown.stdout == out.read_text(encoding="utf-8")
    result = run("import", out, "--db", second, "--json")
    assert json.loads(result.stdout)["prompts"] == 2
    again = run("export", "--otlp", "--db", second)
    assert [*map(json.loads, again.stdout.splitlines())] == [*map(json.loads, shown.stdout.splitlines())]


def test_a_dry_run_makes_nothing_and_without_content_nothing_private_is_stored(traces: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert "2 agents" in run("import", "--dry-run", traces, "--db", path).stdout
    assert not path.exists()
    assert run("import", "--no-content", traces, "--db", path).exit_code == 0
    assert "Was gibt es" not in run("export", "--otlp", "--db", path).stdout


def test_what_cannot_be_done_is_told(traces: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with traces.open("a", encoding="utf-8") as file:
        file.write("half a li")
    result = run("import", traces, "--db", path)
    assert (result.exit_code, result.stdout.strip()[-9:]) == (1, "1 damaged")
    assert run("import", "--watch", traces, "--db", path).exit_code == 2
    assert run("export", "--db", path).exit_code == 2
    assert run("export", "--otlp", "--db", tmp_path / "none.db").exit_code == 3
    assert run("export", "--otlp", tmp_path / "no folder" / "out.jsonl", "--db", path).exit_code == 4

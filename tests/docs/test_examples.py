"""The programs in ``examples/``, each run as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import orchdb
from orchdb import DatabaseManager

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS: list[dict[str, Any]] = [
    {
        "response": "Ich schaue nach. 🔍",
        "thought": "größer",
        "action": "ls -a\n",
        "observation": "main.py\r\nüber.txt\n",
        "state": {"open_file": None},
        "execution_time": 0.25,
    },
    {"response": None, "action": "sleep 1", "observation": None},
    {},
    {"response": "", "action": "", "observation": "", "state": "not JSON {", "own": [1e300, {"deep": None}]},
    {"response": {"parts": ["a"]}, "action": ["list"], "observation": 7, "query": "NUL \0 and half \ud83d"},
]
RUN: dict[str, Any] = {
    "environment": "main",
    "trajectory": STEPS,
    "history": [],
    "info": {
        "exit_status": "submitted",
        "model_stats": {"instance_cost": 0.53839, "tokens_sent": 52_861, "tokens_received": 326, "api_calls": 5},
    },
    "replay_config": {"agent": {"name": "größe"}},
}


def run_example(name: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the example printed, run in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def write_run(folder: Path, name: str, content: object = RUN) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """The rows that the statement gives."""
    connection = sqlite3.connect(path)
    found = connection.execute(statement).fetchall()
    connection.close()
    return found


def record_run() -> ModuleType:
    """The example as a module."""
    specification = importlib.util.spec_from_file_location("record_run", EXAMPLES / "record_run.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["record_run"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_the_three_snippets_run_one_after_the_other(tmp_path: Path) -> None:
    basic = run_example("basic_context_manager.py", folder=tmp_path)
    assert (basic.returncode, basic.stdout) == (0, "Agent status: executing\n"), basic.stderr
    explicit = run_example("explicit_connection.py", folder=tmp_path)
    expected = "scout-report-suggest: Scouts codebase and suggests fixes\n"
    assert (explicit.returncode, explicit.stdout) == (0, expected), explicit.stderr
    for _ in range(2):
        workflow = run_example("workflow_integration.py", folder=tmp_path)
        assert workflow.returncode == 0, workflow.stderr
        assert "'status': 'executing'" in workflow.stdout
    path = tmp_path / "data" / "orchestrator.db"
    assert query(path, "SELECT count(*), count(started_at) FROM agents") == [(3, 3)]
    assert query(path, "SELECT log_type, details FROM agent_logs ORDER BY id LIMIT 2") == [
        ("state_change", '{"phase":"exploration"}'),
        ("execution", '{"files_created":5}'),
    ]


def test_your_own_sql_stands_beside_the_operations(tmp_path: Path) -> None:
    for run in (1, 2):
        done = run_example("own_queries.py", folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, "executing: looks at the tests\n" * run), done.stderr


def test_agents_that_run_end_with_their_blocks(tmp_path: Path) -> None:
    expected = "the cellar: completed\nthe attic: failed FileNotFoundError: there is no ladder\nthe garden: cancelled\n"
    for _ in range(2):
        done = run_example("run_agents.py", folder=tmp_path)
        assert (done.returncode, sorted(done.stdout.splitlines())) == (0, sorted(expected.splitlines())), done.stderr


def test_a_second_run_of_the_first_snippet_meets_the_unique_name(tmp_path: Path) -> None:
    run_example("basic_context_manager.py", folder=tmp_path)
    again = run_example("basic_context_manager.py", folder=tmp_path)
    assert again.returncode == 1
    assert "DuplicateError" in again.stderr


def test_a_recorded_run_is_stored_read_back_and_the_same(tmp_path: Path) -> None:
    done = run_example("record_run.py", write_run(tmp_path, "odd.traj"), "--db", "runs.db", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "odd.traj: read back, all the same" in done.stdout
    assert "1 of 1 files stored: 5 prompts, 7 log lines, $0.53839" in done.stdout
    path = tmp_path / "runs.db"
    totals = "SELECT sum(tokens_input), sum(tokens_output), sum(cost_usd) FROM prompts"
    assert query(path, totals) == [(52_861, 326, 0.53839)]
    agent = "SELECT status, cost_usd, error_message, json_extract(config, '$.agent.name') FROM agents"
    assert query(path, agent) == [("completed", 0.53839, None, "größe")]
    responses = [row[0] for row in query(path, "SELECT response_text FROM prompts ORDER BY id")]
    assert responses == ["Ich schaue nach. 🔍", None, None, "", '{"parts": ["a"]}']
    observations = query(path, "SELECT message FROM agent_logs WHERE log_type = 'observation' ORDER BY id")
    assert observations == [("main.py\r\nüber.txt\n",), ("",), ("7",)]
    rest = query(path, "SELECT metadata FROM prompts ORDER BY id DESC LIMIT 1")
    assert json.loads(rest[0][0]) == {"query": "NUL \ufffd and half \ufffd"}


def test_several_files_are_stored_at_the_same_time_and_a_bad_one_stops_no_other(tmp_path: Path) -> None:
    files: list[Path] = [write_run(tmp_path, f"run-{number}.traj") for number in range(6)]
    files.append(tmp_path / "missing.traj")
    files.append(tmp_path / "broken.traj")
    files[-1].write_text('{"trajectory": [')
    files.append(write_run(tmp_path, "list.traj", [1, 2]))
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    files.append(write_run(tmp_path, "deep.traj", {"trajectory": [{"response": "a"}, {"own": deep}]}))
    done = run_example("record_run.py", *files, "--db", tmp_path / "runs.db", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout.count("all the same") == 6
    assert "6 of 10 files stored: 30 prompts, 42 log lines, $3.23034" in done.stdout
    for name in ("missing", "broken", "list", "deep"):
        assert f"{name}.traj: not stored: " in done.stdout
    status = "SELECT status, count(*) FROM agents GROUP BY status"
    assert query(tmp_path / "runs.db", status) == [("completed", 6), ("failed", 1)]


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ({"a": 1}, "trajectory"),
        ({"info": None, "history": []}, "trajectory"),
        ({"trajectory": None}, "trajectory"),
        ({"trajectory": {"0": {}}}, "trajectory"),
        ([], "JSON object"),
        ([{"trajectory": []}], "JSON object"),
        ("trajectory", "JSON object"),
    ],
)
def test_a_file_that_is_no_recorded_run_is_named_with_what_it_lacks_and_nothing_is_written(
    tmp_path: Path, content: object, missing: str
) -> None:
    path = write_run(tmp_path, "other.json", content)
    done = run_example("record_run.py", path, "--db", "runs.db", folder=tmp_path)
    assert done.returncode == 1
    assert "other.json: not stored: is no recorded run: it " in done.stdout
    assert missing in done.stdout
    assert done.stderr == ""
    assert [found.name for found in tmp_path.iterdir()] == ["other.json"]


@pytest.mark.parametrize("rest", [{"info": None}, {"info": {"model_stats": []}}, {"history": 1}])
def test_a_run_without_steps_is_a_failed_agent(tmp_path: Path, rest: dict[str, Any]) -> None:
    path = write_run(tmp_path, "empty.traj", {"trajectory": [], **rest})
    done = run_example("record_run.py", path, "--db", "runs.db", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "failed: 0 prompts, 0 log lines, 0 + 0 tokens, $0.00000" in done.stdout


def test_a_prompt_is_what_the_model_was_asked_since_its_last_answer(tmp_path: Path) -> None:
    content = {
        "trajectory": [{"response": "a", "observation": "one"}, {"response": "b", "observation": "two"}],
        "history": [
            {"role": "system", "content": "Rules"},
            {"role": "assistant", "content": "an example", "is_demo": True},
            {"role": "user", "content": [{"type": "text", "text": "The"}, {"type": "text", "text": "issue"}]},
            {"role": "assistant", "content": "a"},
            {"role": "tool", "content": "Observed: one"},
            {"role": "assistant", "content": "b"},
            {"role": "tool", "content": "Observed: two"},
        ],
    }
    done = run_example("record_run.py", write_run(tmp_path, "a.traj", content), "--db", "runs.db", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    prompts = query(tmp_path / "runs.db", "SELECT prompt_text FROM prompts ORDER BY id")
    assert prompts == [("Rules\n\nan example\n\nThe\nissue",), ("Observed: one",)]


def test_a_place_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    done = run_example("record_run.py", write_run(tmp_path, "a.traj"), "--db", "mysql://a:secret@b/c", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: db_path")
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("prompts", "response_text = 'other'"),
        ("prompts", "prompt_text = prompt_text || ' '"),
        ("prompts", "tokens_output = tokens_output + 1"),
        ("prompts", "metadata = NULL"),
        ("agents", "cost_usd = 0"),
        ("agents", "status = 'failed'"),
        ("agent_logs", "message = message || '\n'"),
        ("agent_logs", "details = NULL"),
    ],
)
async def test_a_difference_is_found_whatever_it_is(tmp_path: Path, table: str, change: str) -> None:
    example = record_run()
    run = example.read_run(write_run(tmp_path, "a.traj"))
    async with DatabaseManager(tmp_path / "runs.db") as db:
        definition = await db.create_orchestrator_agent("recorded")
        report, _ = await example.record(db, definition, "session", *example.read(run.file))
        assert report.problems == []
        connection = sqlite3.connect(tmp_path / "runs.db")
        connection.execute(f"UPDATE {table} SET {change} WHERE rowid = (SELECT max(rowid) FROM {table})")
        connection.commit()
        connection.close()
        await example.compare_run(db, run, report)
    assert len(report.problems) == 1


def test_a_session_of_the_claude_agent_sdk_is_stored_and_read_back(tmp_path: Path) -> None:
    pytest.importorskip("claude_agent_sdk")
    for _ in range(2):
        done = run_example("claude_agent_session.py", tmp_path / "sessions.db", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("prompt: What is here? -> Two files.") == 1

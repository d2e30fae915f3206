"""The examples of the integrations, each run as a user runs it."""

from __future__ import annotations

from pathlib import Path

from tests.docs.test_examples import run_example


def test_what_scouts_log_is_theirs(tmp_path: Path) -> None:
    for _ in range(2):
        done = run_example("log_records.py", folder=tmp_path)
        expected = (
            "expedition: Sets out\nscout: Looks at the cellar\nscout: Looks at the attic, then Cannot get there\n"
        )
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.splitlines()) == sorted(expected.splitlines())


def test_agents_of_a_framework_arrive_by_their_spans(tmp_path: Path) -> None:
    for _ in range(2):
        done = run_example("trace_agents.py", folder=tmp_path)
        expected = "lead, completed: I ask a scout (55 tokens)\n  scout, completed: There is no ladder (55 tokens)\n"
        assert (done.returncode, done.stdout) == (0, expected), done.stderr

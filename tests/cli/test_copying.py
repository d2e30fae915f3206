"""``orchdb copy``: what it says, and with which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Recorded
from tests.conftest import Target
from tests.support.command_line import done, refused, run
from tests.support.databases import other_program, run_elsewhere


def test_copy_fills_an_empty_database_and_says_so(recorded_file: Recorded, target: Target, tmp_path: Path) -> None:
    place = target.url if target.engine != "sqlite" else str(tmp_path / "other.db")
    report = json.loads(done("copy", "--json", recorded_file.url, place))
    assert report["equal"]
    assert report["verified"]
    assert report["copied"] == 8
    assert report["tables"]["agents"]["rows_from"] == report["tables"]["agents"]["rows_to"] == 3
    assert "agents\t3\t3\t" in done("copy", "--verify", recorded_file.url, place)
    assert "Both hold the same." in run("copy", "--verify", recorded_file.url, place, FORCE_COLOR="1").stderr
    assert "holds rows already" in refused(4, "copy", recorded_file.url, place)
    run_elsewhere(place if "://" in place else f"sqlite:///{place}", "UPDATE system_logs SET message = 'x'")
    different = run("copy", "--verify", "--plain", recorded_file.url, place)
    assert different.exit_code == 1
    assert [line.split("\t")[0] for line in different.stdout.splitlines() if line.endswith("different")] == [
        "system_logs"
    ]


def test_copy_says_what_the_target_cannot_hold(postgres_url: str, recorded_file: Recorded, tmp_path: Path) -> None:
    with other_program(Path(recorded_file.url)) as other:
        other.execute("PRAGMA foreign_keys = OFF")
        other.execute("INSERT INTO agent_logs (agent_id, log_type, message) VALUES ('nobody', 't', 'm')")
    findings = tmp_path / "findings"
    result = run("copy", "--findings", str(findings), recorded_file.url, postgres_url)
    assert result.exit_code == 1, result.output
    assert "1 rows left out" in result.stderr
    assert "is left out" in result.stderr
    assert json.loads(findings.read_text())["rule"] == "orphan"


def test_copy_does_not_compare_if_it_is_not_to(recorded_file: Recorded, tmp_path: Path) -> None:
    report = json.loads(done("copy", "--unverified", "--json", recorded_file.url, str(tmp_path / "other.db")))
    assert report["copied"] == 8
    assert not report["verified"]
    assert run("copy", "--verify", "--unverified", recorded_file.url, str(tmp_path / "other.db")).exit_code == 2
    refused(2, "copy", recorded_file.url, recorded_file.url)
    refused(3, "copy", str(tmp_path / "none.db"), str(tmp_path / "new.db"))

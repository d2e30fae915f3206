"""``orchdb prune``: what goes, and what it says of that."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tests.cli.conftest import Recorded
from tests.support.command_line import done, refused, run


def test_prune_tells_before_keeps_a_copy_and_deletes(recorded: Recorded, tmp_path: Path) -> None:
    db = ("--db", recorded.url)
    told = [json.loads(line) for line in done("prune", "0s", "--dry-run", "--json", *db).splitlines()]
    assert [(row["table"], row["rows"]) for row in told] == [("agent_logs", 2), ("system_logs", 1)]
    assert done("prune", "1h", *db) == "deleted\t0\n"
    path = tmp_path / "archive.jsonl.gz"
    pruned = json.loads(done("prune", "0s", "--keep-errors", "--archive", str(path), "--json", *db))
    assert pruned == {"deleted": 2, "archive": str(path)}
    with gzip.open(path, "rt") as file:
        assert [json.loads(line).get("message") for line in file] == [None, "begun", "too warm", None]
    assert "deleted\t1\n" in done("prune", "0s", "--level", "error", *db)


def test_prune_refuses_what_is_wrong(recorded_file: Recorded, tmp_path: Path) -> None:
    db = ("--db", recorded_file.url)
    refused(2, "prune", "long ago", *db)
    refused(2, "prune", "0s", "--level", "loud", *db)
    assert run("prune", "0s", "--dry-run", "--archive", str(tmp_path / "x.gz"), *db).exit_code == 2
    refused(3, "prune", "0s", "--archive", str(tmp_path / "nowhere" / "x.gz"), *db)
    refused(3, "prune", "0s", "--db", str(tmp_path / "none.db"))
    assert "deleted\t3\n" in done("prune", "0s", *db)

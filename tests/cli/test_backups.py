"""``orchdb backup`` and ``orchdb restore``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Recorded
from tests.support.command_line import done, refused


def test_a_backup_is_made_and_brought_back(recorded: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "backup.db.gz"
    told = json.loads(done("backup", "--json", str(path), "--db", recorded.url))
    assert told == {"file": str(path), "size_bytes": path.stat().st_size}
    refused(3, "backup", str(path), "--db", recorded.url)
    place = tmp_path / "restored.db"
    assert json.loads(done("restore", "--json", str(path), "--db", str(place))) == {"place": str(place), "kept": None}
    assert "\tequal" in done("copy", "--verify", recorded.url, str(place))
    refused(3, "restore", str(path), "--db", str(place))
    kept = json.loads(done("restore", "--json", "--replace", str(path), "--db", str(place)))["kept"]
    assert Path(kept).exists()


def test_a_backup_of_nothing_makes_nothing(tmp_path: Path) -> None:
    refused(3, "backup", str(tmp_path / "backup.db"), "--db", str(tmp_path / "none.db"))
    refused(3, "restore", str(tmp_path / "backup.db"), "--db", str(tmp_path / "new.db"))
    assert not [*tmp_path.iterdir()]

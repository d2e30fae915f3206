"""Two versions of the library on one database, each in processes of its own: upgraded, refused, and taken back."""

from __future__ import annotations

import json
import re
import select
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import orchdb
from orchdb.schema.revisions import HEAD, REVISIONS, shipped
from tests.conftest import Target
from tests.support.alembic_runs import command_line
from tests.support.faults import ROOT, Child, assert_sound

# On one of the drivers of Postgres: what differs between two versions is their schema.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("target", ["sqlite", "asyncpg"], indirect=True)]
OLDER, NEWER = REVISIONS[-2], f"{int(HEAD) + 1:04}"
ADDED = frozenset({"event_id"})
"""What the newest revision has added to the rows that callers see."""
NEW_REVISION = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{NEWER}", "{HEAD}", None, None


def upgrade() -> None:
    op.add_column("system_logs", sa.Column("remark", sa.Text(), server_default="none"))
"""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Version:
    """A version of the library: its newest revision, and the folder that comes first on the path."""

    head: str
    folder: Path
    ini: Path

    def program(self, target: Target, *options: dict[str, bool]) -> Child:
        """A program that connects with each of the options, one after the other."""
        return Child("versioned", target.url, json.dumps(options or [{}]), library=self.folder)

    def use(self, target: Target, *words: str, **options: bool) -> Rows:
        """Connect, write something for each word, read everything, and close."""
        with self.program(target, options) as program:
            assert program.line() == {"head": self.head, "revision": self.head}
            for word in words:
                program.tell(word)
                assert program.line() == word
            program.tell("read")
            rows: Rows = program.line()
            program.end()
        return rows

    def alembic(self, target: Target, *arguments: str) -> tuple[int, str]:
        """How its command ends, and what it says."""
        environment = {"PYTHONPATH": str(self.folder)}
        run = command_line(
            "-x", f"url={target.url}", *arguments, cwd=self.folder, environment=environment, ini=self.ini
        )
        return run.returncode, run.stderr


@dataclass(frozen=True)
class Pair:
    """Two versions, one after the other."""

    older: Version
    newer: Version


@pytest.fixture(scope="module")
def present() -> Version:
    """The version that is installed."""
    return Version(HEAD, ROOT, shipped("alembic.ini"))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The version before the present one: its newest revision is cut off, and what that added to rows."""
    version = _copy(tmp_path_factory.mktemp("before"), OLDER, REVISIONS[:-1])
    (newest,) = (version.ini.parent / "migrations" / "versions").glob(f"{HEAD}_*.py")
    newest.unlink()
    rows = version.ini.parent / "rows.py"
    source, found = re.subn(rf"(?m)^    ({'|'.join(ADDED)}): str \| None\n", "", rows.read_text(encoding="utf-8"))
    assert found
    rows.write_text(source, encoding="utf-8")
    return version


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version that is to come: one revision more."""
    version = _copy(tmp_path_factory.mktemp("after"), NEWER, (*REVISIONS, NEWER))
    revision = version.ini.parent / "migrations" / "versions" / f"{NEWER}_remark.py"
    revision.write_text(NEW_REVISION, encoding="utf-8")
    return version


def _copy(folder: Path, head: str, revisions: tuple[str, ...]) -> Version:
    """The library with all that an installed package has inside, and other revisions."""
    package = folder / "orchdb"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(orchdb.__file__).parent, package, ignore=without)
    shutil.copytree(shipped("migrations"), package / "migrations", ignore=without, dirs_exist_ok=True)
    ini = shipped("alembic.ini").read_text(encoding="utf-8")
    (package / "alembic.ini").write_text(ini.replace("orchdb:../migrations", "orchdb:migrations"), encoding="utf-8")
    module = package / "schema" / "revisions.py"
    source = module.read_text(encoding="utf-8")
    source, found = re.subn(r"(?m)^REVISIONS = \([^)]*\)", f"REVISIONS = {revisions}", source)
    assert found == 1
    module.write_text(source, encoding="utf-8")
    return Version(head, folder, package / "alembic.ini")


@pytest.fixture(params=["the present upgrades", "the present is older"])
def pair(request: pytest.FixtureRequest, present: Version) -> Pair:
    """The present version after the one before it, and before the one that is to come."""
    if request.param == "the present upgrades":
        return Pair(request.getfixturevalue("before"), present)
    return Pair(present, request.getfixturevalue("after"))


def _files(target: Target) -> dict[str, bytes]:
    """The files of the database, but for the two that SQLite makes for each reader."""
    if target.engine != "sqlite":
        return {}
    folder = target.path.parent
    companions = {f"{target.path.name}-wal", f"{target.path.name}-shm"}
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in companions}


def _lost(before: Rows, after: Rows) -> list[str]:
    """The rows that are gone, or are not what they were."""
    left = {_comparable(row) for row in after}
    return [row for row in map(_comparable, before) if row not in left]


def _comparable(row: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in row.items() if name not in ADDED})


def test_a_newer_version_keeps_every_row_and_the_older_one_is_refused_and_changes_nothing(
    target: Target, pair: Pair
) -> None:
    assert pair.older.alembic(target, "upgrade", "head")[0] == 0
    stored = pair.older.use(target, "one", "two")
    kept = pair.newer.use(target, "three", upgrade=True)
    assert (len(stored), len(kept), _lost(stored, kept)) == (10, 15, [])

    files = _files(target)
    with pair.older.program(target, {}, {"upgrade": True}, {"read_only": True}) as program:
        refused = program.end()
    assert len(refused) == 3
    for said in refused:
        assert said["refused"] == "SchemaError"
        assert f"has the schema revision {pair.newer.head}" in said["said"]
        assert f"none newer than {pair.older.head}: upgrade orchdb" in said["said"]
    assert _files(target) == files
    code, error = pair.older.alembic(target, "upgrade", "head")
    assert code != 0
    assert f"has the revision {pair.newer.head}" in error
    assert f"none newer than {pair.older.head}" in error
    assert _files(target) == files
    assert pair.newer.use(target) == kept


def test_a_program_that_is_connected_goes_on_while_a_newer_version_upgrades_and_afterwards(
    target: Target, pair: Pair
) -> None:
    assert pair.older.alembic(target, "upgrade", "head")[0] == 0
    words: list[str] = []
    with ExitStack() as ended:
        program = ended.enter_context(pair.older.program(target))
        assert program.line()["revision"] == pair.older.head
        upgrading = ended.enter_context(pair.newer.program(target, {"upgrade": True}))
        assert upgrading.process.stdout is not None

        def write() -> None:
            words.append(f"word-{len(words)}")
            program.tell(words[-1])
            assert program.line() == words[-1]

        while not select.select([upgrading.process.stdout], [], [], 0)[0]:
            write()
        assert upgrading.line() == {"head": pair.newer.head, "revision": pair.newer.head}
        for _ in range(20):
            write()
        upgrading.tell("newer")
        assert upgrading.line() == "newer"
        program.tell("read")
        seen = program.line()
        assert upgrading.end() == program.end() == []
    assert sorted(row["session_id"] for row in seen if "session_id" in row) == sorted([*words, "newer"])
    assert len(seen) == 5 * (len(words) + 1)
    assert _lost(seen, pair.newer.use(target)) == []
    with pair.older.program(target) as again:
        assert again.line()["refused"] == "SchemaError"


def test_after_a_downgrade_the_older_version_works_again_with_every_row(
    target: Target, present: Version, before: Version
) -> None:
    assert before.alembic(target, "upgrade", "head")[0] == 0
    before.use(target, "one")
    stored = present.use(target, "two", upgrade=True)
    assert present.alembic(target, "downgrade", before.head)[0] == 0
    found = before.use(target, "three")
    assert (len(found), _lost(stored, found)) == (15, [])
    assert _lost(found, present.use(target, upgrade=True)) == []
    if target.engine == "sqlite":
        assert_sound(target.path)

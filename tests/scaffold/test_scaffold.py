"""The scaffold: what it plans, what it writes, and what it never touches."""

from __future__ import annotations

import gc
import importlib.util
import os
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import orchdb.scaffold
from orchdb import InvalidValueError, OperationError
from orchdb.cli.application import application
from orchdb.scaffold import TEMPLATES, Plan, PlannedFile, ScaffoldService
from tests.support.old_files import OldFile

MODULE = "adws/adw_modules/adw_database.py"
WRAPPER = "adws/adw_database.py"
IGNORED = "data/.gitignore"
EVERY_FILE = (WRAPPER, MODULE, IGNORED)


def run(*arguments: object) -> Result:
    """The result of ``orchdb scaffold`` with these arguments."""
    return CliRunner().invoke(application, ["scaffold", *map(str, arguments)], prog_name="orchdb")


def generate(folder: Path, config: Any = None) -> dict[str, Any]:
    """The names that the generated module defines."""
    service = ScaffoldService(folder)
    service.apply(service.build_plan(config))
    return runpy.run_path(str(folder / MODULE))


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Each file below the folder: which one it is, when it was written and what it holds."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


# -- plan and apply --------------------------------------------------------------------------------------------------


def test_every_template_of_the_package_is_registered() -> None:
    folder = Path(orchdb.scaffold.__file__).parent / "templates"
    assert sorted(TEMPLATES) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.j2"))


def test_a_plan_for_an_empty_folder_creates_everything_and_writes_nothing(tmp_path: Path) -> None:
    plan = ScaffoldService(tmp_path / "new").build_plan({})
    assert plan.paths("create") == EVERY_FILE
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    service = ScaffoldService(tmp_path)
    first = service.apply(service.build_plan({}))
    assert (first.created, first.kept, first.overwritten, first.refused) == (EVERY_FILE, (), (), ())
    before = state(tmp_path)
    assert set(before) == set(EVERY_FILE)
    plan = service.build_plan({})
    assert plan.paths("keep") == EVERY_FILE
    for force in (False, True):
        second = service.apply(plan, force=force)
        assert (second.created, second.kept, second.overwritten, second.refused) == ((), EVERY_FILE, (), ())
    assert state(tmp_path) == before


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
async def test_git_ignores_the_default_database_with_all_that_lies_beside_it(tmp_path: Path) -> None:
    def seen() -> list[str]:
        status = ["git", "status", "--porcelain", "--untracked-files=all"]
        shown = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        return sorted(line[3:] for line in shown.splitlines())

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    made = generate(tmp_path)
    before = seen()
    assert before == sorted(EVERY_FILE)
    OldFile(made["DATABASE"])  # it is upgraded, and what it was is kept beside it
    async with made["DatabaseManager"]() as db:
        await db.create_system_log("INFO", "test", "one")
        names = {path.name for path in (tmp_path / "data").iterdir()}
        assert names > {"orchestrator.db", "orchestrator.db-wal", "orchestrator.db-shm"}
        assert seen() == before


def test_a_changed_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    service = ScaffoldService(tmp_path)
    service.apply(service.build_plan())
    changed = tmp_path / MODULE
    changed.write_text("mine")
    changed.chmod(0o640)
    (tmp_path / IGNORED).unlink()
    plan = service.build_plan()
    assert (plan.paths("create"), plan.paths("keep"), plan.paths("overwrite")) == ((IGNORED,), (WRAPPER,), (MODULE,))
    careful = service.apply(plan)
    assert (careful.created, careful.kept, careful.overwritten) == ((IGNORED,), (WRAPPER,), ())
    assert careful.refused == (MODULE,)
    assert changed.read_text() == "mine"
    forced = service.apply(plan, force=True)
    assert (forced.overwritten, forced.refused) == ((MODULE,), ())
    assert changed.read_text().startswith("# /// script\n")
    assert changed.stat().st_mode & 0o777 == 0o640
    assert service.build_plan().paths("keep") == EVERY_FILE


def test_a_file_that_is_written_after_the_plan_is_safe(tmp_path: Path) -> None:
    service = ScaffoldService(tmp_path)
    plan = service.build_plan()
    (tmp_path / "data").mkdir()
    (tmp_path / IGNORED).write_text("mine")
    assert service.apply(plan).refused == (IGNORED,)
    assert (tmp_path / IGNORED).read_text() == "mine"


def test_a_plan_can_be_applied_to_another_folder(tmp_path: Path) -> None:
    service = ScaffoldService(tmp_path / "one")
    service.apply(service.build_plan())
    plan = service.build_plan()
    assert service.apply(plan, tmp_path / "other").created == EVERY_FILE
    assert set(state(tmp_path / "other")) == set(EVERY_FILE)


def test_without_a_folder_the_current_one_is_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ScaffoldService().build_plan().folder == tmp_path


def test_line_ends_of_another_system_are_no_change(tmp_path: Path) -> None:
    generate(tmp_path)
    module = tmp_path / MODULE
    module.write_bytes(module.read_bytes().replace(b"\n", b"\r\n"))
    assert ScaffoldService(tmp_path).build_plan().paths("keep") == EVERY_FILE


def test_a_new_file_is_readable_as_any_other_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    generate(tmp_path)
    assert (tmp_path / MODULE).stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path)
    (tmp_path / MODULE).write_text("mine")
    before = state(tmp_path)

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    service = ScaffoldService(tmp_path)
    with pytest.raises(OperationError, match=f"{MODULE}: cannot be written: No space left"):
        service.apply(service.build_plan(), force=True)
    assert state(tmp_path) == before


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [None, {}, {"database": None}, {"database": {"path": None}}, {"project": {"a": 1}}])
def test_without_a_path_the_database_is_in_the_data_folder_of_the_project(tmp_path: Path, config: Any) -> None:
    assert generate(tmp_path, config)["DATABASE"] == tmp_path / "data" / "orchestrator.db"


@pytest.mark.parametrize(
    "path",
    [
        "data/orchestrator.db",
        "it's.db",
        'a "quoted" name.db',
        """both ' and ".db""",
        "three \"\"\" and '''.db",
        "back\\slash\\n.db",
        "ends in a backslash\\",
        "  spaces  .db ",
        "line\nend.db",
        "größe 🙂.db",
        "{{ config }} {% raw %} {# no #}",
        "%r %s {0}",
        "#.db",
        "../beside.db",
    ],
)
def test_any_path_comes_out_as_it_was_written(tmp_path: Path, path: str) -> None:
    assert generate(tmp_path, {"database": {"path": path}})["DATABASE"] == tmp_path / path
    assert ScaffoldService(tmp_path).build_plan({"database": {"path": path}}).paths("keep") == EVERY_FILE


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "else where" / "a.db"
    assert generate(tmp_path / "project", {"database": {"path": path}})["DATABASE"] == path


@pytest.mark.parametrize(
    ("path", "dependency"),
    [
        ("~/a.db", "orchdb>=0.1"),
        (":memory:", "orchdb>=0.1"),
        ("sqlite:///a.db", "orchdb>=0.1"),
        ("postgresql://someone@host/name", "orchdb[postgres]>=0.1"),
        ("postgres://host/name", "orchdb[postgres]>=0.1"),
        ("postgresql+psycopg://host/name", "orchdb[psycopg]>=0.1"),
    ],
)
def test_a_place_that_is_no_path_of_the_project_stays_text_and_brings_its_driver(
    tmp_path: Path, path: str, dependency: str
) -> None:
    assert generate(tmp_path, {"database": {"path": path}})["DATABASE"] == path
    for name in (MODULE, WRAPPER):
        header = (tmp_path / name).read_text().split("# ///\n")[0].splitlines()
        assert header == ["# /// script", '# requires-python = ">=3.11"', f'# dependencies = ["{dependency}"]']


def test_the_configuration_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text('project:\n  name: größe\ndatabase:\n  path: "data/it\'s.db"\n', encoding="utf-8")
    for given in (file, str(file)):
        assert generate(tmp_path, given)["DATABASE"] == tmp_path / "data" / "it's.db"
    file.write_text("")
    service = ScaffoldService(tmp_path / "empty")
    assert service.build_plan(file).paths("create") == EVERY_FILE


def test_by_default_the_configuration_is_the_projects_own(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("database: {path: state/own.db}")
    assert generate(tmp_path)["DATABASE"] == tmp_path / "state" / "own.db"
    assert generate(tmp_path / "other")["DATABASE"] == tmp_path / "other" / "data" / "orchestrator.db"
    service = ScaffoldService(tmp_path)
    assert service.build_plan({}).paths("overwrite") == (MODULE,), "what is given wins, though it is empty"
    (tmp_path / "config.yml").write_text("project: {name: without a database}")
    service.apply(service.build_plan(), force=True)
    assert service.build_plan({}).paths("overwrite") == ()


def test_the_projects_own_configuration_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("database: postgres")
    with pytest.raises(InvalidValueError, match=r"^config\.database: ") as failure:
        ScaffoldService(tmp_path).build_plan()
    assert str(file) in str(failure.value)
    assert failure.value.column == "config.database"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (["database"], "config"),
        (7, "config"),
        ({"database": "orchestrator.db"}, "config.database"),
        ({"database": ["path"]}, "config.database"),
        ({"database": {"path": 7}}, "config.database.path"),
        ({"database": {"path": True}}, "config.database.path"),
        ({"database": {"path": ["a"]}}, "config.database.path"),
        ({"database": {"path": b"a.db"}}, "config.database.path"),
        ({"database": {"path": ""}}, "config.database.path"),
        ({"database": {"path": "a\0.db"}}, "config.database.path"),
        ({"database": {"path": "a\ud800.db"}}, "config.database.path"),
        ({"database": {"path": "mysql://someone:secret@host/name"}}, "config.database.path"),
        ({"database": {"path": "postgresql://host:port/name"}}, "config.database.path"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_by_its_key(tmp_path: Path, config: Any, key: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{key}: ") as failure:
        ScaffoldService(tmp_path).build_plan(config)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    "content",
    [
        b"database: [",
        b"database: {path: a.db",
        b"a: b: c",
        b"\tdatabase: 1",
        b"database: \xff\xfe",
        b"database: \x00",
        b"- database",
        b"only text",
        b"!!python/object/apply:os.getcwd []",
        b"[" * 5000,
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.yml"
    file.write_bytes(content)
    gc.collect()  # what other tests have left would be finalised at the limit of recursion, and fail there
    with pytest.raises(InvalidValueError, match=r"^config: "):
        ScaffoldService(tmp_path).build_plan(file)


@pytest.mark.parametrize("name", ["missing.yml", "."])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(OperationError, match="cannot be read"):
        ScaffoldService(tmp_path).build_plan(tmp_path / name)


def test_the_argument_wins_then_the_url_then_the_path_then_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = generate(tmp_path, {"database": {"path": "configured.db"}})["DatabaseManager"]
    assert issubclass(manager, orchdb.DatabaseManager)
    monkeypatch.chdir("/")
    monkeypatch.setenv("ORCHESTRATOR_DB_URL", "")
    monkeypatch.setenv("ORCHESTRATOR_DB_PATH", "")
    assert f"{tmp_path}/configured.db" in repr(manager())
    monkeypatch.setenv("ORCHESTRATOR_DB_PATH", "/variable.db")
    assert "///variable.db" in repr(manager())
    monkeypatch.setenv("ORCHESTRATOR_DB_URL", "sqlite:////url.db")
    assert "///url.db" in repr(manager())
    for manager_on_argument in (
        manager("/argument.db"),
        manager(db_path="/argument.db"),
        manager(Path("/argument.db")),
    ):
        assert "///argument.db" in repr(manager_on_argument)
    with pytest.raises(InvalidValueError, match="durability"):
        manager(durability="wrong")


# -- staying inside the folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../outside.py", "adws/../../outside.py", "/outside.py", "", ".", "adws/.."])
def test_a_plan_that_leads_out_of_the_folder_is_refused_as_a_whole(tmp_path: Path, path: str) -> None:
    project = tmp_path / "project"
    service = ScaffoldService(project)
    plan = service.build_plan()
    wrong = replace(plan, files=(*plan.files, PlannedFile(path, "x", "create")))
    for force in (False, True):
        with pytest.raises(InvalidValueError, match="lies outside the folder"):
            service.apply(wrong, force=force)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", ["adws", "adws/adw_modules", MODULE, "data"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, link: str, exists: bool) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    (project / link).parent.mkdir(parents=True)
    if exists and link == MODULE:
        outside.write_text("precious")
    elif exists:
        outside.mkdir()
    (project / link).symlink_to(outside)
    service = ScaffoldService(project)
    with pytest.raises(InvalidValueError, match="lies outside the folder"):
        service.build_plan()
    other = ScaffoldService(tmp_path / "empty")
    with pytest.raises(InvalidValueError, match="lies outside the folder"):
        other.apply(other.build_plan(), project, force=True)
    assert outside.exists() is exists
    assert [path for path in project.rglob("*") if path.is_file() and not path.is_symlink()] == []
    if exists and link == MODULE:
        assert outside.read_text() == "precious"


def test_links_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adws").symlink_to(tmp_path / "data")
    (tmp_path / "data").symlink_to(tmp_path / "adws")
    with pytest.raises(InvalidValueError, match="lies outside the folder"):
        ScaffoldService(tmp_path).build_plan()


def test_a_link_inside_the_folder_and_a_folder_that_is_a_link_are_fine(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "storage").mkdir(parents=True)
    (project / "data").symlink_to(project / "storage")
    (tmp_path / "link").symlink_to(project)
    service = ScaffoldService(tmp_path / "link")
    assert service.apply(service.build_plan()).created == EVERY_FILE
    assert (project / "data").is_symlink()
    assert (project / "storage" / ".gitignore").exists()


def test_what_is_in_the_way_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationError, match="is not a folder"):
        ScaffoldService(tmp_path / "file").build_plan()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adws").write_text("")
    with pytest.raises(OperationError, match="is in the way"):
        ScaffoldService(tmp_path / "a").build_plan()
    (tmp_path / "b" / MODULE).mkdir(parents=True)
    with pytest.raises(OperationError, match="is in the way"):
        ScaffoldService(tmp_path / "b").build_plan()
    os.mkfifo(tmp_path / "adws")
    with pytest.raises(OperationError, match="is in the way"):
        ScaffoldService(tmp_path).build_plan()
    with pytest.raises(InvalidValueError, match="NUL"):
        ScaffoldService("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        service = ScaffoldService(tmp_path)
        with pytest.raises(OperationError, match="cannot be written"):
            service.apply(service.build_plan())
    finally:
        tmp_path.chmod(0o700)


def test_a_plan_made_by_hand_writes_what_it_says(tmp_path: Path) -> None:
    plan = Plan(tmp_path, (PlannedFile("a/b.txt", "größe\n", "create"),))
    assert ScaffoldService(tmp_path).apply(plan).created == ("a/b.txt",)
    assert (tmp_path / "a" / "b.txt").read_bytes() == "größe\n".encode()


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_the_plan_and_does_it(tmp_path: Path) -> None:
    project = tmp_path / "my project"
    config = tmp_path / "config.yml"
    config.write_text("database: {path: data/here.db}")
    dry = run(project, "--config", config, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert [line.split()[:2] for line in dry.stdout.splitlines()[1:4]] == [["create", path] for path in EVERY_FILE]
    assert "Nothing was written" in dry.stdout
    assert not project.exists()
    assert run(project, "--config", config).exit_code == 0
    assert runpy.run_path(str(project / MODULE))["DATABASE"] == project / "data" / "here.db"
    again = run(project, "--config", config)
    assert again.exit_code == 0
    assert again.stdout.count("  keep ") == 3
    config.rename(project / "config.yml")
    by_itself = run(project)
    assert by_itself.stdout.count("  keep ") == 3
    assert f"configured by {project / 'config.yml'}" in by_itself.stdout


def test_the_command_leaves_a_changed_file_and_says_so(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / MODULE).write_text("mine")
    refused = run(tmp_path)
    assert refused.exit_code == 4
    assert f"  leave      {MODULE}" in refused.stdout
    assert refused.stderr.count("\n") == 1
    assert MODULE in refused.stderr
    assert "--force" in refused.stderr
    assert (tmp_path / MODULE).read_text() == "mine"
    assert run(tmp_path, "--force", "--dry-run").exit_code == 0
    assert (tmp_path / MODULE).read_text() == "mine"
    forced = run(tmp_path, "--force")
    assert forced.exit_code == 0
    assert f"  overwrite  {MODULE}" in forced.stdout
    assert (tmp_path / MODULE).read_text() != "mine"


def test_the_command_explains_a_wrong_configuration_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("database: {path: 7}")
    result = run(tmp_path / "project", "--config", config)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: config.database.path: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "project").exists()


def test_without_the_extra_the_scaffold_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else find(name))
    with pytest.raises(OperationError, match=r"install 'orchdb\[scaffold\]'"):
        ScaffoldService(tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 3
    assert "install 'orchdb[scaffold]'" in result.stderr
    assert result.stderr.count("\n") == 1

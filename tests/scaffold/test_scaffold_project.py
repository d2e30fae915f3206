"""A generated project with the built wheel: every snippet of the first description runs in it unchanged."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from orchdb.scaffold import ScaffoldService

ROOT = Path(__file__).parents[2]
SMOKE = """
import asyncio
from adws.adw_database import DatabaseManager

async def test():
    async with DatabaseManager() as db:
        # Create orchestrator agent
        agent_id = await db.create_orchestrator_agent(
            name="test-agent",
            description="Test description"
        )
        print(f"✓ Created agent: {agent_id}")

        # Retrieve
        agent = await db.get_orchestrator_agent(agent_id)
        assert agent["name"] == "test-agent"
        print(f"✓ Retrieved agent: {agent['name']}")

        # List all
        agents = await db.list_orchestrator_agents()
        print(f"✓ Total agents: {len(agents)}")

asyncio.run(test())
"""
BASIC = """
import asyncio
from adws.adw_database import DatabaseManager

async def example():
    # Auto-connects, initializes schema, and closes on exit
    async with DatabaseManager("data/orchestrator.db") as db:
        # Create orchestrator agent definition
        agent_id = await db.create_orchestrator_agent(
            name="scout-report-suggest",
            description="Scouts codebase and suggests fixes",
            agent_type="utility",
            capabilities="codebase_exploration,issue_detection",
            default_model="claude-sonnet-3.5"
        )

        # Create runtime agent instance
        runtime_id = await db.create_agent(
            orchestrator_agent_id=agent_id,
            session_id="550e8400-e29b-41d4-a716-446655440000",
            status="executing"
        )

        # Log agent activity
        await db.create_agent_log(
            agent_id=runtime_id,
            log_level="INFO",
            log_type="state_change",
            message="Agent started execution",
            details={"phase": "exploration"}
        )

        # Query agent state
        agent = await db.get_agent(runtime_id)
        print(f"Agent status: {agent['status']}")

asyncio.run(example())
"""
EXPLICIT = """
import asyncio
from adws.adw_database import DatabaseManager

async def explicit_example():
    db = DatabaseManager("data/orchestrator.db")
    try:
        await db.connect()

        agents = await db.list_orchestrator_agents()
        for agent in agents:
            print(f"{agent['name']}: {agent['description']}")
    finally:
        await db.close()

asyncio.run(explicit_example())
"""
IMPORT_CHECK = "from adws.adw_database import DatabaseManager; print('✓ Import successful')"
INSPECTION = {
    ".schema": "CREATE TABLE agents",
    "SELECT id, name, agent_type FROM orchestrator_agents;": "scout-report-suggest|utility",
    "SELECT agent_id, log_level, message FROM agent_logs ORDER BY created_at DESC LIMIT 10;": "Agent started execution",
}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel: the one of ``ORCHDB_TEST_WHEEL``, or one that is built here."""
    given = os.environ.get("ORCHDB_TEST_WHEEL")
    if given:
        return Path(given).absolute()
    folder = tmp_path_factory.mktemp("dist")
    if importlib.util.find_spec("hatchling") and importlib.util.find_spec("hatch_fancy_pypi_readme"):
        build = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    else:
        build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "."]
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked into a folder for ``PYTHONPATH``; what it depends on is here already."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A generated project with the default configuration."""
    folder = tmp_path / "my project"
    service = ScaffoldService(folder)
    service.apply(service.build_plan())
    (folder / "test_db_smoke.py").write_text(SMOKE, encoding="utf-8")
    return folder


def run(command: list[str | Path], folder: Path, **variables: str) -> str:
    """What the command prints; it must succeed."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(*arguments: str, folder: Path, installed: Path) -> str:
    """What Python prints in this folder with the wheel; warnings are errors."""
    return run([sys.executable, "-W", "error", *arguments], folder, PYTHONPATH=str(installed))


def test_the_wheel_is_what_runs_and_holds_the_templates(project: Path, installed: Path) -> None:
    where = run_python("-c", "import orchdb; print(orchdb.__file__)", folder=project, installed=installed)
    assert Path(where.strip()) == installed / "orchdb" / "__init__.py"
    arguments = ("-m", "orchdb", "scaffold", ".", "--dry-run")
    plan = run_python(*arguments, folder=project, installed=installed)
    assert plan.count("  keep ") == 3


def test_the_page_of_a_package_index_refers_to_nothing_that_is_not_there(installed: Path) -> None:
    (file,) = installed.glob("orchdb-*.dist-info/METADATA")
    page = message_from_bytes(file.read_bytes()).get_payload()
    assert isinstance(page, str)
    assert page.startswith("# orchdb\n")
    assert "`SECURITY.md`" in page
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=\"([^\"]*)", page)
    assert [target for pair in targets for target in pair if target and not target.startswith("https://")] == []


def test_the_smoke_test_and_the_import_check_run_with_python(project: Path, installed: Path) -> None:
    assert "✓ Total agents: 1" in run_python("test_db_smoke.py", folder=project, installed=installed)
    assert run_python("-c", IMPORT_CHECK, folder=project, installed=installed) == "✓ Import successful\n"
    assert (project / "data" / "orchestrator.db").exists()


def test_the_snippets_and_the_inspection_run_unchanged(project: Path, installed: Path) -> None:
    (project / "basic.py").write_text(BASIC)
    (project / "explicit.py").write_text(EXPLICIT)
    assert run_python("basic.py", folder=project, installed=installed) == "Agent status: executing\n"
    expected = "scout-report-suggest: Scouts codebase and suggests fixes\n"
    assert run_python("explicit.py", folder=project, installed=installed) == expected
    if shutil.which("sqlite3"):
        for query, answer in INSPECTION.items():
            assert answer in run(["sqlite3", "data/orchestrator.db", query], project)


@pytest.mark.slow
@pytest.mark.parametrize("packages", [[], ["adws"], ["adws", "adws/adw_modules"]])
def test_both_ways_of_importing_work_with_and_without_package_files(
    project: Path, installed: Path, packages: list[str]
) -> None:
    for package in packages:
        (project / package / "__init__.py").write_text("")
    script = "from adw_modules.adw_database import DatabaseManager\nprint(DatabaseManager())\n"
    (project / "adws" / "adw_plan.py").write_text(script)
    expected = f"DatabaseManager('sqlite+aiosqlite:///{project / 'data' / 'orchestrator.db'}')\n"
    assert run_python("adws/adw_plan.py", folder=project, installed=installed) == expected
    assert run_python("adw_plan.py", folder=project / "adws", installed=installed) == expected
    for name in ("adws.adw_database", "adws.adw_modules.adw_database"):
        command = f"from {name} import DatabaseManager; print(DatabaseManager())"
        assert run_python("-c", command, folder=project, installed=installed) == expected


def test_the_wrapper_runs_by_itself_from_anywhere(project: Path, installed: Path, tmp_path: Path) -> None:
    wrapper = project / "adws" / "adw_database.py"
    for arguments, folder in (([str(wrapper)], tmp_path), (["-m", "adws.adw_database"], project)):
        printed = run_python(*arguments, folder=folder, installed=installed)
        assert printed.endswith("is ready: 0 agent definitions\n")
    assert (project / "data" / "orchestrator.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["my project"]


def test_running_the_project_leaves_nothing_that_a_second_scaffold_would_change(project: Path, installed: Path) -> None:
    run_python("test_db_smoke.py", folder=project, installed=installed)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    printed = run_python("-m", "orchdb", "scaffold", ".", folder=project, installed=installed)
    assert printed.count("  keep ") == 3
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not here")
def test_the_smoke_test_the_import_check_and_the_wrapper_run_with_uv(project: Path, wheel: Path) -> None:
    python = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable]
    with_wheel: list[str | Path] = [*python, "--with", wheel, "python"]
    assert "✓ Total agents: 1" in run([*with_wheel, "test_db_smoke.py"], project)
    assert run([*with_wheel, "-c", IMPORT_CHECK], project) == "✓ Import successful\n"
    # The header alone says what is needed; the wheel stands in for the package index.
    by_header: list[str | Path] = [*python, "--find-links", wheel.parent]
    assert run([*by_header, "adws/adw_database.py"], project).endswith("is ready: 1 agent definitions\n")
    assert run([*by_header, "adws/adw_modules/adw_database.py"], project) == ""

"""The documentation as a site: it is built strictly, and its reference has every public name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import orchdb
import orchdb.models
import orchdb.scaffold
import orchdb.transcripts
import orchdb.transfer
from orchdb import DatabaseManager, Transaction
from tests.support.pages import DOCS, ROOT, page

CONFIGURATION = ROOT / "mkdocs.yml"
pytestmark = pytest.mark.skipif(not CONFIGURATION.exists(), reason="the configuration of the site is not in the wheel")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """What building the site of this folder says, as ``.ci/docs`` does it."""
    # Zensical looks for the packages that it documents where Python does.
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )


def copied(folder: Path) -> Path:
    """A copy of what the site is made from."""
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(CONFIGURATION, folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a complaint."""
    sources = copied(tmp_path_factory.mktemp("sources"))
    done = build(sources)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    return sources / "site"


def documented(site: Path) -> list[str]:
    """The names that have a heading in the reference; the site's inventory also holds those that are not shown."""
    pages = (file.read_text(encoding="utf-8") for file in (site / "reference").rglob("*.html"))
    return [name for text in pages for name in re.findall(r'<h\d id="(orchdb[\w.]*)"', text)]


def public(owner: object) -> set[str]:
    """The names of its members that are public."""
    return {name for name in dir(owner) if not name.startswith("_")}


def test_the_reference_has_every_public_name_once(site: Path) -> None:
    expected = {f"orchdb.{name}" for name in orchdb.__all__}
    expected |= {f"orchdb.DatabaseManager.{name}" for name in public(DatabaseManager)}
    expected |= {f"orchdb.Transaction.{name}" for name in public(Transaction) & Transaction.__dict__.keys()}
    expected |= {f"orchdb.models.{name}" for name in orchdb.models.__all__}
    expected |= {f"orchdb.scaffold.{name}" for name in orchdb.scaffold.__all__}
    expected |= {f"orchdb.transcripts.{name}" for name in orchdb.transcripts.__all__}
    expected |= {f"orchdb.transfer.{name}" for name in orchdb.transfer.__all__}
    expected |= {"orchdb.integrations.claude_agent_sdk.OrchdbSessionStore"}
    shown = documented(site)
    assert expected.difference(shown) == set()
    assert [name for name, times in Counter(shown).items() if times > 1 or "._" in name] == []


def test_nothing_on_the_site_is_fetched_from_elsewhere(site: Path) -> None:
    loaded = set[str]()
    for file in site.rglob("*.html"):
        loaded |= set(re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', file.read_text("utf-8")))
    assert loaded == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistakes",
    [
        {
            "[there](nowhere.md)": "page does not exist",
            "[there](concepts.md#nowhere)": "anchor does not exist",
            "[there](#nowhere-here)": "anchor does not exist",
            "[there][orchdb.DatabaseManager.nowhere]": "unresolved",
        },
        {"::: orchdb.DatabaseManager.nowhere": "Could not collect"},
    ],
)
def test_what_leads_nowhere_fails_the_build(tmp_path: Path, mistakes: dict[str, str]) -> None:
    sources = copied(tmp_path / "sources")
    with (sources / "docs" / "index.md").open("a", encoding="utf-8") as file:
        file.writelines(f"\n{mistake}\n" for mistake in mistakes)
    done = build(sources)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    for complaint in mistakes.values():
        assert said.count(complaint) >= [*mistakes.values()].count(complaint), said


def test_each_page_can_be_reached_from_the_navigation() -> None:
    def files(entry: Any) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(files, entry.values() if isinstance(entry, dict) else entry))

    navigation = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["nav"]
    assert files(navigation) == {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_each_link_of_the_files_beside_the_site_leads_to_a_file_and_its_heading(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("https://")]
    for target in targets:
        path, _, anchor = target.partition("#")
        file = ROOT / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


def test_the_readme_and_the_first_page_show_the_same_program() -> None:
    readme, start = (page(name).blocks for name in ("README.md", "index.md"))
    programs = [next(block.code for block in blocks if block.is_program) for blocks in (readme, start)]
    assert programs[0] == programs[1]

"""The code on the pages of the documentation and in the README runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchdb import DuplicateError
from tests.conftest import Target
from tests.support.pages import ROOT, Page, page, pages, run

CASES = [pytest.param(page, engine, id=f"{page.name}-{engine}") for page in pages() for engine in page.engines]
SETUP = """
<!-- run
from orchdb import DatabaseManager
db = DatabaseManager(database_url)
await db.connect()
-->
"""


@pytest.mark.parametrize(("page", "target"), CASES, indirect=["target"])
async def test_the_code_on_a_page_runs(
    page: Page, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await run(page, target.url, tmp_path)


def test_no_block_of_code_is_passed_over_because_of_how_it_begins() -> None:
    assert {page.name: page.unreadable() for page in pages() if page.unreadable()} == {}
    for found in pages():
        shown = sum(fence == "```python" for fence in found.fences)
        assert shown == len(re.findall(r"^```python$", found.text, re.MULTILINE))
        assert shown <= len(found.blocks), found.name
        assert found.text.count("<!-- not run") == sum(block.reason is not None for block in found.blocks), found.name
        assert found.text.count("<!-- run") == len(found.blocks) - shown, found.name


def test_hardly_any_block_is_not_run() -> None:
    reasons = [block.reason for page in pages() for block in page.blocks if block.reason is not None]
    assert len([reason for reason in reasons if not reason.endswith("a test has this program")]) <= 2


@pytest.mark.parametrize(
    "text", ["~~~python\n1\n~~~\n", "- item\n\n  ```python\n  1\n  ```\n", "```py\n1\n```\n", "```\n1\n```\n"]
)
def test_a_block_that_would_be_passed_over_is_found(text: str) -> None:
    assert len(Page("broken", text).unreadable()) == 1


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ("await db.get_agnt('x')", AttributeError),
        ("await db.create_orchestrator_agent(nam='x')", TypeError),
        ("await db.create_orchestrator_agent('x')\nawait db.create_orchestrator_agent('x')", DuplicateError),
        ("assert await db.list_agents() != []", AssertionError),
        ("import asyncio\nasyncio.run(nothing())", AssertionError),
        ("await db.get_agent('x'", SyntaxError),
    ],
)
async def test_a_block_that_does_not_work_fails(
    target: Target, tmp_path: Path, block: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await run(Page("broken", f"{SETUP}\n```python\n{block}\n```\n"), target.url, tmp_path)


async def test_a_failure_names_the_page_and_its_line(target: Target, tmp_path: Path) -> None:
    text = "# Title\n\n```python\nfirst = 1\n```\n\nWords.\n\n```python\nfirst\nfirst / 0\n```\n"
    with pytest.raises(ZeroDivisionError) as failure:
        await run(Page("broken", text), target.url, tmp_path)
    assert (str(failure.traceback[-1].path).endswith("broken"), failure.traceback[-1].lineno + 1) == (True, 11)


@pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="the benchmarks are not in the wheel")
@pytest.mark.parametrize("name", ["README.md", "speed.md"])
def test_each_row_of_figures_is_one_of_the_results(name: str) -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in page(name).text.splitlines() if re.match(r"\|.*\d \(\d+\.\d\d\)", line)]
    assert rows
    assert [row for row in rows if row not in results] == []


@pytest.mark.skipif(not (ROOT / "CONTRIBUTING.md").exists(), reason="it is not in the wheel")
def test_what_the_guide_for_contributors_quotes_stands_in_the_file_that_it_names() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    quotes = re.findall(r"`((?:orchdb|tests)/[\w/]+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL)
    assert len(quotes) == 6
    for file, quote in quotes:
        lines = [line.strip() for line in quote.splitlines()]
        there = [line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
        assert "\n".join(lines) in "\n".join(there), f"{file}: {lines[0]}"

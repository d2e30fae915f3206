"""The pages of the documentation and the README: the code on them, and how it is run.

A block of ``python`` on a page is one of two. With ``asyncio.run(`` in it, it is a program: it runs in a process of its
own, twice. Otherwise it is a step: the steps of a page run one after the other and share their names, and ``await``
stands where it is, outside a function. What a step needs and a reader does not is in a comment:

    <!-- run
    db = DatabaseManager(database_url)
    -->

Each page runs on each engine, unless it begins with ``<!-- engines: sqlite -->``. A block that cannot run has
``<!-- not run: why -->`` on the line before it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from types import CodeType
from typing import Any

import orchdb
from orchdb import DatabaseManager
from tests.conftest import ENGINES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
# What stands for the reader's own database.
_ADDRESSES = (
    '"data/orchestrator.db"',
    '"postgresql+asyncpg://user:pw@host/db"',
    '"postgresql+psycopg://user:pw@host/db"',
)
_PART = re.compile(
    r"^<!-- run\n(?P<hidden>.*?)^-->$"
    r"|(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```python\n(?P<shown>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_ON = re.compile(r"^<!-- engines: ([a-z ]+) -->$", re.MULTILINE)
_LANGUAGES = frozenset({"python", "bash", "console", "sql", "text", "toml", "yaml"})


@dataclass(frozen=True)
class Block:
    """A piece of Python on a page."""

    code: str
    line: int
    reason: str | None
    """Why it is not run."""

    @property
    def is_program(self) -> bool:
        """Whether it is complete, and no step of its page."""
        return "asyncio.run(" in self.code


@dataclass(frozen=True)
class Page:
    """A page, as Markdown."""

    name: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """The Python on it, in order, hidden or not."""
        found: list[Block] = []
        for part in _PART.finditer(self.text):
            group = "hidden" if part["hidden"] is not None else "shown"
            found.append(Block(part[group], self.text.count("\n", 0, part.start(group)) + 1, part["reason"]))
        return found

    @property
    def engines(self) -> Sequence[str]:
        """Those that it runs on."""
        named = _ON.search(self.text)
        return ENGINES if named is None else named[1].split()

    @property
    def fences(self) -> list[str]:
        """How each block of code begins, whatever its language and however it is indented."""
        return re.findall(
            r"^([ \t>]*(?:`{3,}|~{3,})[^\n]*)\n.*?^[ \t>]*(?:`{3,}|~{3,})$", self.text, re.DOTALL | re.MULTILINE
        )

    def unreadable(self) -> list[str]:
        """The blocks whose beginning says no language, or in a way that ``blocks`` would pass over."""
        return [fence for fence in self.fences if fence.removeprefix("```") not in _LANGUAGES]


def pages() -> list[Page]:
    """All pages; the README is that of the checkout, or what the installed package says of itself."""
    readme = README.read_text(encoding="utf-8") if README.exists() else str(metadata("orchdb").json["description"])
    files = sorted(DOCS.rglob("*.md"))
    texts = [Page(file.relative_to(DOCS).as_posix(), file.read_text(encoding="utf-8")) for file in files]
    return [Page("README.md", readme), *texts]


def page(name: str) -> Page:
    """The page of this name."""
    return next(found for found in pages() if found.name == name)


async def run(page: Page, url: str, folder: Path) -> None:
    """Run what is on the page with this database, in this folder, which is the current one."""
    names: dict[str, Any] = {"__name__": "page", "database_url": url}
    try:
        for block in page.blocks:
            if block.reason is not None:
                continue
            if block.is_program:
                _run_program(page, block, url, folder)
            else:
                await _run_step(page, block, url, names)
    finally:
        for value in names.values():
            if isinstance(value, DatabaseManager):
                await value.close()


def _with_address(code: str, url: str) -> str:
    for address in _ADDRESSES:
        code = code.replace(address, repr(url))
    return code


async def _run_step(page: Page, block: Block, url: str, names: dict[str, Any]) -> None:
    code = "\n" * (block.line - 1) + _with_address(block.code, url)  # a traceback then names the line of the page
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled: CodeType = compile(code, page.name, "exec", flags=flags, dont_inherit=True)
    waiting = eval(compiled, names)
    if waiting is not None:
        await waiting


def _run_program(page: Page, block: Block, url: str, folder: Path) -> None:
    (folder / "program.py").write_text(_with_address(block.code, url), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", "program.py"]
    for time in ("first", "second"):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
        )
        place = f"{page.name}, line {block.line}, the {time} time"
        assert done.returncode == 0, f"{place}:\n{done.stderr}"

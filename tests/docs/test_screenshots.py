"""The pictures of the command line show what the commands show now, and stand where they are to be seen."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import DOCS, ROOT

IMAGES = DOCS / "images"
pytestmark = pytest.mark.skipif(not IMAGES.exists(), reason="the documentation is not in the wheel")


def texts(picture: Path) -> list[str]:
    """What stands in a picture, in its order."""
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text("utf-8"))]


def test_the_pictures_show_what_the_commands_show(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "docs.screenshots", str(tmp_path)]
    environment = {**os.environ, "TZ": "Asia/Tokyo", "NO_COLOR": "1", "COLUMNS": "40"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    drawn = {picture.name: texts(picture) for picture in tmp_path.iterdir()}
    assert {name: texts(IMAGES / name) for name in drawn} == drawn, "python -m docs.screenshots draws them again"
    assert len(drawn) == 4
    for words in ("stale", "stuck", "working"):
        assert any(words in text for text in drawn["top.svg"])


def test_each_picture_stands_in_the_readme_and_on_the_page_and_fetches_nothing() -> None:
    readme, page = ROOT / "README.md", DOCS / "command-line.md"
    for picture in IMAGES.iterdir():
        assert f"](docs/images/{picture.name})" in readme.read_text(encoding="utf-8")
        assert f"](images/{picture.name})" in page.read_text(encoding="utf-8")
        assert "url(http" not in picture.read_text(encoding="utf-8")

"""The page about the command line: it has every command, and the names in JSON are those that it promises."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from orchdb.cli.application import COMMANDS
from orchdb.inspection.board import BoardRow
from orchdb.inspection.records import Record
from orchdb.inspection.sessions import SessionRow
from orchdb.inspection.status import Status
from orchdb.looking import Finding
from orchdb.schema.downgrading import Revision
from tests.support.pages import DOCS

PAGE = DOCS / "command-line.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not in the wheel")
NAMES = {
    "sessions": [*SessionRow.__annotations__],
    "top": [*BoardRow.__annotations__],
    "status": [*Status.__annotations__],
    "show": [*Record.__annotations__],
    "doctor": [field.name for field in fields(Finding)],
    "history": [*Revision._fields, "state"],
}


def test_each_command_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [entry.name for entry in COMMANDS if f"`orchdb {entry.name}" not in text and entry.name != "scaffold"] == [
        "demo"
    ]
    assert "$ orchdb demo" in text


@pytest.mark.parametrize("command", NAMES)
def test_the_names_in_json_are_those_of_the_page(command: str) -> None:
    line = re.search(rf"^\| `{command}` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert line
    told = re.sub(r"\([^)]*\)", "", line[1])
    assert re.findall(r"`(\w+)`", told) == NAMES[command]

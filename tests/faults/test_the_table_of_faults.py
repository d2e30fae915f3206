"""The table in the documentation and the tests say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.mark.skipif(not TABLE.exists(), reason="the documentation is not in the wheel")
def test_each_test_of_a_fault_is_in_the_table_and_each_of_the_table_is_a_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE.read_text(encoding="utf-8")))
    written: set[str] = set()
    for file in Path(__file__).parent.rglob("test_*.py"):
        if file != Path(__file__):
            written.update(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == written

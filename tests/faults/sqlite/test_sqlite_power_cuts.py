"""Power cuts, modelled: nothing is on the disk before it is synced, and the rest is there or not, at random."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.faults import run_child

pytestmark = pytest.mark.skipif(find_spec("apsw") is None, reason="apsw is not installed: pip install apsw")


@pytest.mark.slow
def test_with_durability_full_a_power_cut_loses_nothing_acknowledged(tmp_path: Path) -> None:
    (result,) = run_child("power_cut", tmp_path, "full", 200, 400)
    assert result["cuts"] == 200
    assert result["unsound"] == result["gaps"] == 0
    assert sum(result["lost"]) == 0


@pytest.mark.slow
def test_with_durability_normal_a_power_cut_takes_at_most_the_last_moments(tmp_path: Path) -> None:
    (result,) = run_child("power_cut", tmp_path, "normal", 200, 400)
    assert result["cuts"] == 200
    assert result["unsound"] == result["gaps"] == 0
    assert sum(result["lost"]) > 0  # which shows that the model can lose rows at all

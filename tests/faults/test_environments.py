"""The suite runs on what the environment asks for: another event loop, Python's development mode."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.support.children.environment import described
from tests.support.faults import run_child
from tests.support.processes import CONTEXT, TIMEOUT

ASKED = os.environ.get("ORCHDB_TEST_LOOP") or "asyncio"


async def test_every_test_runs_on_the_event_loop_that_is_asked_for() -> None:
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == ASKED
    assert asyncio.get_running_loop().get_debug() == sys.flags.dev_mode


def test_every_process_of_a_test_runs_on_the_same_loop_and_is_as_strict() -> None:
    here = described()
    assert (here["loop"], here["dev_mode"]) == (ASKED, sys.flags.dev_mode)
    assert run_child("environment") == [here]
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        assert pool.submit(described).result(TIMEOUT) == here

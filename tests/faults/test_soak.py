"""Ten minutes of mixed load with cancellations: ``pytest -m soak``; ``ORCHDB_SOAK_SECONDS`` says how long."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import threading
import time
from pathlib import Path

import pytest

from orchdb import DatabaseManager
from tests.conftest import Target
from tests.faults.test_cancelling import Storm
from tests.support.faults import assert_sound

SECONDS = float(os.environ.get("ORCHDB_SOAK_SECONDS", "600"))
WARM_UP = SECONDS / 5


def figures() -> tuple[int, int, float]:
    """Threads, descriptors, and megabytes of memory of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), resident / 1e6


async def load(db: DatabaseManager, storm: Storm, seconds: float) -> None:
    """Operations of all kinds, one in twenty cancelled, and old lines deleted so that the file keeps its size."""
    end = time.monotonic() + seconds

    async def work() -> None:
        kinds = storm.kinds()
        while time.monotonic() < end:
            task = asyncio.ensure_future(random.choice(kinds)())
            if random.random() < 0.05:
                await asyncio.sleep(random.random() * 0.005)
                task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def prune() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            await db.cleanup_old_logs(0)
            storm.acknowledged.clear()
            for agent in await db.list_agents("storm", include_deleted=True):
                if agent["id"] not in (storm.agent, storm.other):
                    await db.delete_agent(agent["id"])

    await asyncio.gather(prune(), *(work() for _ in range(20)))


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc tells the figures")
async def test_threads_descriptors_and_memory_stay_what_they_are(target: Target, tmp_path: Path) -> None:
    async with DatabaseManager(target.url) as db:
        definition = await db.create_orchestrator_agent("storm")
        agents = [await db.create_agent(definition, "storm") for _ in range(2)]
        storm = Storm(db, definition, *agents)
        await load(db, storm, WARM_UP)
        threads, descriptors, memory = figures()
        started = storm.tried
        await load(db, storm, SECONDS - WARM_UP)
        after = figures()
        print(f"{target.engine}: {storm.tried - started} writes, before {threads, descriptors, memory}, after {after}")
        assert abs(after[0] - threads) <= 2
        assert abs(after[1] - descriptors) <= 5
        assert after[2] < memory * 1.1 + 5
    if target.engine == "sqlite":
        assert_sound(target.path)

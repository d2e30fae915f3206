"""A block that several tasks use: what was told is what is there, and the others notice nothing of it."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import insert, text

from orchdb import DatabaseManager, MissingParentError, NotConnectedError, OperationError, Transaction
from orchdb.tables import system_logs
from tests.conftest import Target
from tests.shared_block_programs import Program, Step, programs
from tests.support import NO_ROW, other_program

LINE: Any = {"log_level": "INFO", "component": "bulk", "message": "x"}


class UndoneError(Exception):
    """What a test raises to leave a block."""


async def components(db: DatabaseManager | Transaction) -> list[str]:
    return [row["component"] for row in await db.get_system_logs()]


async def innocent(db: DatabaseManager, name: str) -> None:
    """Blocks and calls of somebody else's, each of which has to be there in the end."""
    for number in range(2):
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", name, f"block {number}")
        await db.create_system_log("INFO", name, f"call {number}")


async def messages(db: DatabaseManager, component: str) -> list[str]:
    return sorted(row["message"] for row in await db.get_system_logs(component=component))


@pytest.mark.parametrize("seed", range(3))
def test_what_was_told_is_what_is_there_whatever_the_tasks_of_a_block_do(target: Target, seed: int) -> None:
    runs = 0

    async def example(db: DatabaseManager, program: tuple[Step, ...]) -> None:
        nonlocal runs
        runs += 1
        name, other = f"program-{seed}-{runs}", f"innocent-{seed}-{runs}"
        beside = asyncio.ensure_future(innocent(db, other))
        expected = await Program(db, name).run(program)
        await beside
        found = await messages(db, name)
        assert found == sorted(expected)
        assert await messages(db, other) == ["block 0", "block 1", "call 0", "call 1"]

    # Not to be reproduced by a seed: the tasks interleave as the threads and the server answer.
    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(programs)
    def check(program: tuple[Step, ...]) -> None:
        runner.run(example(db, program))

    with asyncio.Runner() as runner:
        # Who waits for a part that waits for it in turn gets an error soon.
        db = DatabaseManager(target.url, lock_timeout=0.5, pool_size=4)
        runner.run(db.connect())
        try:
            check()
        finally:
            runner.run(db.close())

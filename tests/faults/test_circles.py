"""Agents that several move at the same time, or another program: nobody becomes their own ancestor."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, InvalidValueError
from tests.conftest import Target
from tests.support.databases import has_circle, line_of, parents


async def test_a_move_that_another_has_not_committed_yet_counts(db: DatabaseManager, target: Target) -> None:
    first, second = await line_of(db, 2)
    await db.update_agent(second, parent_agent_id=None)

    async with DatabaseManager(target.url) as other:
        async with db.transaction() as tx:
            await tx.update_agent(first, parent_agent_id=second)
            move = asyncio.create_task(other.update_agent(second, parent_agent_id=first))
            await asyncio.wait([move], timeout=0.3)  # it may come later: it is refused then too
        with pytest.raises(InvalidValueError):
            await move
    assert await parents(db) == {first: second, second: None}


async def test_a_move_that_another_has_undone_does_not_count(db: DatabaseManager, target: Target) -> None:
    first, second = await line_of(db, 2)
    await db.update_agent(second, parent_agent_id=None)
    async with DatabaseManager(target.url) as other:

        async def undone() -> None:
            async with db.transaction() as tx:
                await tx.update_agent(first, parent_agent_id=second)
                moves.append(asyncio.create_task(other.update_agent(second, parent_agent_id=first)))
                await asyncio.sleep(0)
                raise RuntimeError

        moves: list[asyncio.Task[bool]] = []
        with pytest.raises(RuntimeError):
            await undone()
        assert await moves[0] is True
    assert await parents(db) == {first: None, second: first}


MOVER = """
import asyncio, random, sys
from orchdb import DatabaseManager
from orchdb import InvalidValueError

async def main(url, *agents):
    results = []
    async with DatabaseManager(url) as db:
        async def move(dice):
            for _ in range(30):
                try:
                    moved = await db.update_agent(dice.choice(agents), parent_agent_id=dice.choice([*agents, None]))
                except InvalidValueError:
                    moved = False
                results.append(moved)
        await asyncio.gather(*(move(random.Random(f"{sys.argv[1]}{n}")) for n in range(4)))
    print(results.count(True), results.count(False))

asyncio.run(main(*sys.argv[2:]))
"""


@pytest.mark.slow
async def test_processes_that_move_the_same_agents_close_no_circle(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        agents = await line_of(db, 3)
        movers = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", MOVER, str(number), target.url, *agents, stdout=PIPE, stderr=PIPE
            )
            for number in range(3)
        ]
        counts = [[int(word) for word in (await mover.communicate())[0].split()] for mover in movers]
        moved, refused = map(sum, zip(*counts, strict=True))
        assert moved + refused == 3 * 4 * 30
        assert moved > 0
        assert refused > 0
        assert not await has_circle(db)


async def test_a_circle_that_another_program_made_ends_the_search_and_can_be_mended(db: DatabaseManager) -> None:
    first, second, third = await line_of(db, 3)
    async with db.transaction() as tx:
        await tx.conn.execute(
            text("UPDATE agents SET parent_agent_id = :second WHERE id = :first"), {"first": first, "second": second}
        )
    assert await has_circle(db)
    assert await db.update_agent(third, parent_agent_id=first) is True
    assert await db.update_agent(first, error_message="in a circle") is True
    with pytest.raises(InvalidValueError):
        await db.update_agent(first, parent_agent_id=third)
    assert await db.update_agent(first, parent_agent_id=None) is True
    assert not await has_circle(db)

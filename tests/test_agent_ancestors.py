"""No agent is its own ancestor: whoever moves agents, and however many do so at once."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, InvalidValueError, MissingParentError
from tests.conftest import Target
from tests.support import NO_ROW


async def line_of(db: DatabaseManager, length: int) -> list[str]:
    """Agents of which each is the parent of the next."""
    definition = await db.create_orchestrator_agent("scout")
    agents = [await db.create_agent(definition, "session-1")]
    while len(agents) < length:
        agents.append(await db.create_agent(definition, "session-1", parent_agent_id=agents[-1]))
    return agents


async def parents(db: DatabaseManager) -> dict[str, str | None]:
    """The parent of each agent, deleted ones included."""
    return {row["id"]: row["parent_agent_id"] for row in await db.list_agents(include_deleted=True)}


async def has_circle(db: DatabaseManager) -> bool:
    """Whether somebody is their own ancestor."""
    above = await parents(db)
    for start in above:
        agent, steps = above[start], 0
        while agent is not None and steps <= len(above):
            agent, steps = above[agent], steps + 1
        if agent is not None:
            return True
    return False


@pytest.mark.parametrize("length", [1, 2, 3, 40])
async def test_an_agent_is_not_put_below_itself(db: DatabaseManager, length: int) -> None:
    agents = await line_of(db, length)
    before = await db.list_agents()
    with pytest.raises(InvalidValueError) as caught:
        await db.update_agent(agents[0], parent_agent_id=agents[-1], status="failed")
    error = caught.value
    assert (error.table, error.operation, error.column) == ("agents", "update_agent", "parent_agent_id")
    assert not any(agent in str(error) for agent in agents)
    assert await db.list_agents() == before


async def test_a_deleted_agent_in_between_is_still_an_ancestor(db: DatabaseManager) -> None:
    first, second, third = await line_of(db, 3)
    await db.delete_agent(second, soft=True)
    for parent in (first, second, third):
        with pytest.raises(InvalidValueError):
            await db.update_agent(first, parent_agent_id=parent)
    await db.delete_agent(second)
    assert await db.update_agent(first, parent_agent_id=third) is True


async def test_every_other_move_is_made(db: DatabaseManager) -> None:
    first, second, third, fourth = await line_of(db, 4)
    for agent, parent in ((fourth, third), (fourth, first), (third, fourth), (second, third), (second, None)):
        assert await db.update_agent(agent, parent_agent_id=parent, error_message="moved") is True
        assert (await parents(db))[agent] == parent
    assert await db.update_agent(first, parent_agent_id=second, updated_at="2026-02-04") is True
    assert await parents(db) == {first: second, second: None, third: fourth, fourth: first}


async def test_where_there_is_no_such_agent_nothing_is_refused(db: DatabaseManager) -> None:
    first, second, deleted = await line_of(db, 3)
    await db.delete_agent(deleted, soft=True)
    assert await db.update_agent(NO_ROW, parent_agent_id=NO_ROW) is False
    assert await db.update_agent("no-uuid", parent_agent_id=first) is False
    assert await db.update_agent(deleted, parent_agent_id=deleted) is False
    assert await db.update_agent(first, if_status="failed", parent_agent_id=second) is False
    with pytest.raises(InvalidValueError):
        await db.update_agent(first, if_status="initializing", parent_agent_id=second)
    with pytest.raises(MissingParentError):
        await db.update_agent(first, parent_agent_id=NO_ROW)


async def test_a_time_of_ones_own_beside_it_changes_nothing_of_the_rule(db: DatabaseManager) -> None:
    first, second = await line_of(db, 2)
    before = await db.list_agents()
    with pytest.raises(InvalidValueError) as caught:
        await db.update_agent(first, parent_agent_id=second, updated_at="2026-02-04")
    assert caught.value.column == "parent_agent_id"
    assert await db.list_agents() == before


async def test_in_a_transaction_the_refused_move_alone_is_not_made(db: DatabaseManager) -> None:
    first, second, third = await line_of(db, 3)
    async with db.transaction() as tx:
        await tx.update_agent(third, parent_agent_id=None)
        with pytest.raises(InvalidValueError):
            await tx.update_agent(first, parent_agent_id=second)
        async with tx.transaction() as part:
            await part.update_agent(first, parent_agent_id=third)
        with pytest.raises(InvalidValueError):
            await tx.update_agent(third, parent_agent_id=second)
    assert await parents(db) == {first: third, second: first, third: None}


async def test_of_two_tasks_of_one_block_that_would_close_a_circle_one_is_refused(db: DatabaseManager) -> None:
    first, second = await line_of(db, 2)
    await db.update_agent(second, parent_agent_id=None)
    async with db.transaction() as tx:
        moves = (tx.update_agent(first, parent_agent_id=second), tx.update_agent(second, parent_agent_id=first))
        results = await asyncio.gather(*moves, return_exceptions=True)
    assert {type(result) for result in results} == {bool, InvalidValueError}
    assert not await has_circle(db)


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
from orchdb import DatabaseManager, InvalidValueError

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

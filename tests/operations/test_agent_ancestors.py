"""No agent is its own ancestor. (``tests/faults/test_circles.py`` has those who move agents at the same time.)"""

from __future__ import annotations

import asyncio

import pytest

from orchdb import DatabaseManager, InvalidValueError, MissingParentError
from tests.support.databases import NO_ROW, has_circle, line_of, parents


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

"""Statements that end SQLite's transaction under our feet: a trigger of another program raises ROLLBACK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchdb import DatabaseManager, OrchdbError
from tests.support.databases import other_program

POISON = """
CREATE TRIGGER poison BEFORE INSERT ON system_logs WHEN NEW.message = 'poison'
BEGIN SELECT RAISE(ROLLBACK, 'no'); END
"""


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[DatabaseManager]:
    """A manager on a file in which one message ends every transaction."""
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as manager:
        with other_program(path) as connection:
            connection.execute(POISON)
        yield manager


async def messages(db: DatabaseManager) -> list[str]:
    return [row["message"] for row in await db.get_system_logs()]


async def test_the_writes_of_the_same_moment_are_applied_all_the_same(db: DatabaseManager) -> None:
    wanted = ["a", "poison", "b", "c", "poison", "d"]
    writes = (db.create_system_log("INFO", "test", message) for message in wanted)
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(result, OrchdbError) for result in results] == [message == "poison" for message in wanted]
    assert await messages(db) == ["a", "b", "c", "d"]


async def test_a_bulk_creation_fails_as_a_whole(db: DatabaseManager) -> None:
    with pytest.raises(OrchdbError):
        await db.create_system_logs(
            {"log_level": "INFO", "component": "test", "message": message} for message in ("a", "poison", "b")
        )
    assert await messages(db) == []
    await db.create_system_log("INFO", "test", "next")
    assert await messages(db) == ["next"]


async def test_a_transaction_that_was_ended_cannot_go_on_as_if_nothing_had_happened(db: DatabaseManager) -> None:
    refused = []

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "test", "first")
            for message in ("poison", "second"):
                try:
                    await tx.create_system_log("INFO", "test", message)
                except OrchdbError:
                    refused.append(message)

    with pytest.raises(OrchdbError):
        await work()
    assert refused == ["poison", "second"]
    assert await messages(db) == []
    await db.create_system_log("INFO", "test", "next")
    assert await messages(db) == ["next"]


async def test_a_savepoint_of_an_ended_transaction_ends_in_our_error(db: DatabaseManager) -> None:
    async def work() -> None:
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "test", "first")
            async with tx.transaction() as inner:
                await inner.create_system_log("INFO", "test", "poison")

    with pytest.raises(OrchdbError) as caught:
        await work()
    assert caught.value.__cause__ is caught.value.__context__ is None
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "test", "next")
    assert await messages(db) == ["next"]

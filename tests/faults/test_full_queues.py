"""Back-pressure: more writes than may wait stand in line, and none of them is forgotten there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchdb import DatabaseManager, NotConnectedError
from orchdb.postgres import insert_queue
from orchdb.sqlite import write_queue
from tests.conftest import Target
from tests.support.faults import log, seen, until

ROOM = 5


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that are soon full."""
    for module in (write_queue, insert_queue):
        monkeypatch.setattr(module, "MAX_WAITING", ROOM)


async def test_writes_that_find_the_queue_full_are_written_in_turn(db: DatabaseManager) -> None:
    names = [f"{number:03d}" for number in range(ROOM * 40)]
    await asyncio.wait_for(asyncio.gather(*(log(db, name) for name in names)), 60)
    assert sorted(await seen(db)) == names


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_whoever_is_cancelled_in_the_line_does_not_keep_the_others_from_joining(
    db: DatabaseManager, turns: int
) -> None:
    tasks = [asyncio.create_task(log(db, f"{number:03d}")) for number in range(ROOM * 20)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[ROOM : ROOM * 10]:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    expected = {f"{number:03d}" for number, task in enumerate(tasks) if not task.cancelled()}
    assert expected <= set(await seen(db))
    assert {f"{number:03d}" for number in range(ROOM * 10, ROOM * 20)} <= expected


async def test_closing_sends_everyone_in_the_line_away(target: Target) -> None:
    """Behind a transaction that is not left; what raises was not written."""
    db = DatabaseManager(target.url)
    await db.connect()
    database: Any = db._executor
    database._close_timeout = 0.2
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.transaction() as tx:
            await tx.conn.exec_driver_sql("DELETE FROM system_logs")
            entered.set()
            await leave.wait()

    holding = asyncio.create_task(hold())
    await entered.wait()
    tasks = [asyncio.create_task(log(db, f"{number:03d}")) for number in range(ROOM * 20)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(db.close(), 20)
    leave.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    await asyncio.gather(holding, return_exceptions=True)
    assert {type(result) for result in results} <= {int, NotConnectedError}
    if target.engine == "sqlite":
        assert {type(result) for result in results} == {NotConnectedError}
    async with DatabaseManager(target.url) as again:
        assert len(await seen(again)) == sum(isinstance(result, int) for result in results)
    await until(lambda: len(asyncio.all_tasks()) == 1)

"""Postgres: readers beside writers, locks that others hold, updates that meet: nobody waits in vain, none is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count

import psycopg
import pytest
from sqlalchemy import URL

from orchdb import DatabaseManager, NewAgentLog, OperationError
from tests.support.faults import Child, seen
from tests.support.postgres_sessions import plain

LOCKS = {
    "row": "SELECT 1 FROM orchestrator_agents WHERE name = 'locked' FOR UPDATE",
    "table": "LOCK TABLE orchestrator_agents IN EXCLUSIVE MODE",
}


@contextmanager
def foreign_lock(url: URL, kind: str) -> Iterator[None]:
    """A lock against writing, held by somebody else."""
    with psycopg.connect(plain(url)) as connection:
        connection.execute(LOCKS[kind].encode())
        yield


@asynccontextmanager
async def beating() -> AsyncIterator[list[float]]:
    """How much longer than told each short sleep took."""
    stalls: list[float] = []

    async def pulse() -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.01)
            stalls.append(time.monotonic() - started - 0.01)

    task = asyncio.create_task(pulse())
    try:
        yield stalls
    finally:
        task.cancel()


class Reader:
    """Counts the lines and reads the locked row, again and again."""

    def __init__(self, db: DatabaseManager) -> None:
        self.db = db
        self.stop = False
        self.counts = [0]
        self.times: list[float] = []

    async def run(self) -> None:
        while not self.stop:
            started = time.monotonic()
            self.counts.append(len(await seen(self.db)))
            (locked,) = await self.db.list_orchestrator_agents(name="locked")
            self.times.append(time.monotonic() - started)
            assert locked["description"] == "before"


@pytest.mark.parametrize("kind", LOCKS)
async def test_readers_and_the_loop_go_on_beside_a_process_that_writes_and_a_lock_held_for_3_s(
    url: URL, kind: str
) -> None:
    async with DatabaseManager(url) as db:
        locked = await db.create_orchestrator_agent("locked", "before")
        agent = await db.create_agent(await db.create_orchestrator_agent("writer"), "session")
        reader = Reader(db)
        with Child("contending", url.render_as_string(hide_password=False), 0, 2, 4, agent) as child:
            assert await asyncio.to_thread(child.line) == "ready"
            child.tell("go")
            async with beating() as stalls:
                reading = asyncio.create_task(reader.run())
                with foreign_lock(url, kind):
                    waiting = asyncio.create_task(db.update_orchestrator_agent(locked, description="after"))
                    await asyncio.sleep(3)
                    assert not waiting.done()
                    reader.stop = True
                    await reading
                assert await asyncio.wait_for(waiting, 5)
                written = (await asyncio.to_thread(child.line))["rows"]
        assert reader.counts == sorted(reader.counts)
        # Two exceptions each, for a machine that was busy with something else; who waits for the lock takes 3 s.
        assert sorted(reader.times)[-3] < 1
        assert sorted(stalls)[-3] < 0.5
        assert max(*reader.times, *stalls) < 2
        assert len(set(reader.counts)) > 3  # the other process really wrote meanwhile
        assert sorted(await seen(db)) == sorted(written)


async def test_of_2000_increments_on_a_few_rows_through_two_managers_none_is_lost(url: URL) -> None:
    async with DatabaseManager(url) as one, DatabaseManager(url) as two:
        definition = await one.create_orchestrator_agent("counted")
        agents = [await one.create_agent(definition, "session") for _ in range(3)]

        async def add(db: DatabaseManager, task: int) -> None:
            for number in range(500):
                assert await db.add_agent_cost(agents[(task + number) % 3], 0.5)

        await asyncio.gather(*(add((one, two)[task % 2], task) for task in range(4)))
        costs = [row["cost_usd"] for row in await two.list_agents()]
        assert len(costs) == 3
        assert sum(cost or 0 for cost in costs) == 1000


async def test_transactions_that_cross_20_times_lose_nothing_when_the_caller_tries_again(url: URL) -> None:
    url = url.update_query_dict({"options": "-c deadlock_timeout=50ms"})
    async with DatabaseManager(url) as one, DatabaseManager(url) as two:
        definition = await one.create_orchestrator_agent("crossed")
        a, b = [await one.create_agent(definition, "session") for _ in range(2)]
        errors: list[OperationError] = []

        async def cross(db: DatabaseManager, first: str, second: str, meeting: asyncio.Barrier) -> None:
            for tries in count():
                try:
                    async with db.transaction() as tx:
                        await tx.add_agent_cost(first, 1)
                        if tries == 0:
                            await meeting.wait()  # from here on each waits for the other
                        await tx.add_agent_cost(second, 1)
                    return
                except OperationError as error:
                    errors.append(error)

        for _ in range(20):
            meeting = asyncio.Barrier(2)
            crossing = cross(one, a, b, meeting), cross(two, b, a, meeting)
            await asyncio.wait_for(asyncio.gather(*crossing), 10)
        assert len(errors) >= 20
        assert {error.code for error in errors} == {"40P01"}
        assert [row["cost_usd"] for row in await one.list_agents()] == [40, 40]


async def test_a_bulk_that_meets_another_one_of_the_same_lines_in_another_order_has_them_once(url: URL) -> None:
    async with DatabaseManager(url) as db:
        agent = await db.create_agent(await db.get_or_create_orchestrator_agent("scout"), "session")
        lines: list[NewAgentLog] = [
            {"agent_id": agent, "log_level": "INFO", "log_type": "error", "message": event, "event_id": event}
            for event in ("first", "last")
        ]
        insert = "INSERT INTO agent_logs (agent_id, log_type, message, event_id) VALUES (%s, 'error', 'theirs', %s)"
        with psycopg.connect(plain(url)) as other:
            other.execute(insert, [agent, "last"])
            writing = asyncio.create_task(db.create_agent_logs(lines))
            with psycopg.connect(plain(url), autocommit=True) as looking:
                waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
                while looking.execute(waits, [url.database]).fetchone() != (1,):
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(other.execute, insert, [agent, "first"])
            other.commit()
            numbers = await writing
        found = await db.get_agent_logs(agent)
        assert {row["event_id"]: (row["id"], row["message"]) for row in found} == {
            event: (number, "theirs") for event, number in zip(("first", "last"), numbers, strict=True)
        }

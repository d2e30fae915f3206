"""Cancellation at every moment, on every engine: nothing acknowledged is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, OrchdbError
from tests.conftest import Target
from tests.support.faults import lock_is_free, log, seen, until

Operation = Callable[[], Awaitable[Any]]
WAVES, IN_A_WAVE = 10, 200


class Storm:
    """Operations of all kinds; what was acknowledged is kept."""

    def __init__(self, db: DatabaseManager, definition: str, agent: str, other: str) -> None:
        self.db, self.definition, self.agent, self.other = db, definition, agent, other
        self.acknowledged: set[str] = set()
        self.tried = 0
        self.errors: list[BaseException] = []
        self.cancelled = 0

    def kinds(self) -> list[Operation]:
        db, agent = self.db, self.agent
        return [
            self.line,
            self.line,
            self.lines,
            self.together,
            self.nested,
            self.own_sql,
            self.paging,
            lambda: db.create_agent(self.definition, "storm"),
            lambda: db.create_prompt(agent, "command", "text" * 100),
            lambda: db.update_agent(agent, status="executing", context={"step": self.tried}),
            lambda: db.add_agent_cost(agent, 0.001),
            lambda: db.get_agent(agent),
            lambda: db.list_agents("storm", limit=50),
            lambda: db.get_system_logs(limit=100),
            lambda: db.log_agent_event(agent, "milestone", "storm"),
            lambda: db.delete_agent(self.other, soft=True),
            lambda: db.restore_agent(self.other),
            lambda: db.cleanup_old_logs(),
        ]

    def name(self) -> str:
        self.tried += 1
        return f"line-{self.tried}"

    async def line(self) -> None:
        name = self.name()
        await log(self.db, name)
        self.acknowledged.add(name)

    async def lines(self) -> None:
        names = [self.name() for _ in range(20)]
        await self.db.create_system_logs({"log_level": "INFO", "component": "fault", "message": name} for name in names)
        self.acknowledged.update(names)

    async def together(self) -> None:
        names = [self.name(), self.name()]
        async with self.db.transaction() as tx:
            for name in names:
                await tx.create_system_log("INFO", "fault", f"pair {name}")
        self.acknowledged.update(f"pair {name}" for name in names)

    async def nested(self) -> None:
        name = self.name()
        async with self.db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", name)
            with contextlib.suppress(ZeroDivisionError):
                async with tx.transaction():
                    await tx.create_system_log("INFO", "fault", "never")
                    raise ZeroDivisionError
        self.acknowledged.add(name)

    async def own_sql(self) -> None:
        name = self.name()
        async with self.db.transaction() as tx:
            await tx.create_system_log("INFO", "fault", name)
            await tx.conn.execute(text("SELECT count(*) FROM system_logs"))
        self.acknowledged.add(name)

    async def paging(self) -> None:
        async for _ in self.db.iter_system_logs(page_size=20):
            await asyncio.sleep(0)

    async def one(self) -> None:
        """An operation, cancelled in one of the ways in which that happens."""
        operation = random.choice(self.kinds())
        moment = random.choice([0.0, 0.0005, 0.002, 0.01, 0.05]) * random.random()
        way = random.randrange(6)
        try:
            if way < 2:
                await operation()
            elif way == 2:
                await asyncio.wait_for(operation(), moment)
            elif way == 3:
                async with asyncio.timeout(moment):
                    await operation()
            elif way == 4:
                await self.in_a_group(operation, moment)
            else:
                await self.by_hand(operation, moment)
        except (asyncio.CancelledError, TimeoutError):
            self.cancelled += 1
        except OrchdbError as error:
            self.errors.append(error)

    async def in_a_group(self, operation: Operation, moment: float) -> None:
        async def failing() -> None:
            await asyncio.sleep(moment)
            raise ZeroDivisionError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(failing())
                await operation()
        except* ZeroDivisionError:
            self.cancelled += 1

    async def by_hand(self, operation: Operation, moment: float) -> None:
        task = asyncio.ensure_future(operation())
        await asyncio.sleep(moment)
        task.cancel()
        if random.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()
        await task


async def test_2000_operations_of_all_kinds_cancelled_at_random_moments(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        definition = await db.create_orchestrator_agent("storm")
        agents = [await db.create_agent(definition, "storm") for _ in range(2)]
        storm = Storm(db, definition, *agents)
        for _ in range(WAVES):
            started = time.monotonic()
            await asyncio.gather(*(storm.one() for _ in range(IN_A_WAVE)))
            assert time.monotonic() - started < 10
            if target.engine == "sqlite":
                await until(lambda: lock_is_free(target.path), 1)
            started = time.monotonic()
            await storm.line()
            assert time.monotonic() - started < 5
            assert threading.active_count() <= 20
        await until(lambda: len(asyncio.all_tasks()) == 1, 2)
        assert storm.errors == []
        assert storm.cancelled > WAVES * IN_A_WAVE / 10
        visible = await seen(db)
        assert len(visible) == len(set(visible))
        assert storm.acknowledged - set(visible) == set()
        assert "never" not in visible
        assert sum(line.startswith("pair") for line in visible) % 2 == 0


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_opening_that_is_cancelled_at_random_moments_leaves_nothing_open(target: Target, how: str) -> None:
    threads = threading.active_count()
    for number in range(40):
        db = DatabaseManager(target.url)
        moment = number % 20 * 0.001 * random.random()
        try:
            if how == "timeout":
                await asyncio.wait_for(db.connect(), moment)
            else:
                task = asyncio.create_task(db.connect())
                await asyncio.sleep(moment)
                task.cancel()
                await task
        except (asyncio.CancelledError, TimeoutError):
            assert db.conn is None
        await db.close()
    await until(lambda: threading.active_count() <= threads)
    async with DatabaseManager(target.url) as db:
        await log(db, "opened")


async def test_a_cancelled_transaction_is_undone_whatever_it_was_doing(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        for number in range(40):

            async def work(number: int = number) -> None:
                async with db.transaction() as tx:
                    await tx.create_system_log("INFO", "fault", f"{number} first")
                    await tx.create_system_log("INFO", "fault", f"{number} second")
                    await tx.conn.execute(text("SELECT count(*) FROM system_logs"))
                    await asyncio.sleep(60)

            task = asyncio.create_task(work())
            await asyncio.sleep(random.random() * 0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await log(db, "the only one")
        assert await seen(db) == ["the only one"]


def test_a_loop_that_closes_on_running_operations_keeps_what_was_acknowledged(target: Target) -> None:
    acknowledged: set[str] = set()

    async def work(db: DatabaseManager, number: int, close: bool) -> None:
        await db.connect()

        async def writing(worker: int) -> None:
            for line in range(1000):
                name = f"{number}-{worker}-{line}"
                if worker % 2:
                    await log(db, name)
                else:
                    async with db.transaction() as tx:
                        await tx.create_system_log("INFO", "fault", name)
                acknowledged.add(name)

        tasks = [asyncio.create_task(writing(worker)) for worker in range(6)]
        await asyncio.sleep(random.random() * 0.05)
        if close:
            closing = asyncio.create_task(db.close())
            await asyncio.sleep(0)
            await closing
            await asyncio.gather(*tasks, return_exceptions=True)
        # Otherwise asyncio.run cancels everything that runs, also what finishes a transaction, and closes the loop.

    for number in range(10):
        db = DatabaseManager(target.url)
        # Connections to a server die with their loop: there the process ends, which test_life looks at.
        asyncio.run(work(db, number, close=number % 2 == 0 or target.engine != "sqlite"))
        if target.engine == "sqlite":
            deadline = time.monotonic() + 2
            while not lock_is_free(target.path):
                assert time.monotonic() < deadline
        asyncio.run(db.close())  # from a second loop: there the connections can still be closed

    async def look() -> None:
        async with DatabaseManager(target.url) as db:
            assert acknowledged - set(await seen(db)) == set()

    asyncio.run(look())


async def test_a_shutdown_that_cancels_every_task_of_the_loop_leaves_a_manager_that_works(target: Target) -> None:
    async with DatabaseManager(target.url, lock_timeout=2) as db:
        acknowledged: list[str] = []

        async def work(number: int, task: int) -> None:
            async with db.transaction() as tx, tx.transaction() as inner:
                await inner.create_system_log("INFO", "fault", f"{number}-{task}")
                await tx.conn.execute(text("SELECT count(*) FROM system_logs"))
            acknowledged.append(f"{number}-{task}")

        for number in range(60):
            tasks = [asyncio.create_task(work(number, task)) for task in range(3)]
            await asyncio.sleep(random.random() * 0.01)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(5):
                await log(db, f"after {number}")
        visible = await seen(db)
        assert set(acknowledged) - set(visible) == set()
        assert sum(line.startswith("after") for line in visible) == 60

"""Appends that are repeated after whatever broke off: each line is there once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import make_url, text

from orchdb import DatabaseManager, NewAgentLog, OperationError
from tests.conftest import Target
from tests.support.faults import Child, on_postgres
from tests.support.postgres_sessions import Watched

pytestmark = pytest.mark.slow
LINES = 10_000
FEWER = 2_000
WORKERS = 20
BULK = 50
Write = Callable[[int], Awaitable[list[int]]]


async def an_agent(db: DatabaseManager) -> str:
    return await db.create_agent(await db.get_or_create_orchestrator_agent("scout"), "session")


def writer(db: DatabaseManager, agent: str) -> Write:
    """Write ten neighbouring lines, one after the other or in bulk."""

    async def write(first: int) -> list[int]:
        numbers = range(first, first + 10)
        if first % BULK:
            return [await db.create_agent_log(agent, "INFO", "error", f"{n}", event_id=f"{n}") for n in numbers]
        lines: list[NewAgentLog] = [
            {"agent_id": agent, "log_level": "INFO", "log_type": "error", "message": f"{n}", "event_id": f"{n}"}
            for n in numbers
        ]
        return await db.create_agent_logs(lines)

    return write


async def until_told(write: Write, first: int, randomness: random.Random) -> list[int]:
    """Repeat the write until it returns, and sometimes once more."""
    while True:
        try:
            numbers = await write(first)
        except OperationError:
            await asyncio.sleep(0.01)
            continue
        if randomness.random() < 0.2:
            assert await until_told(write, first, randomness) == numbers
        return numbers


async def write_all(
    write: Callable[[int], Awaitable[list[int]]],
    disturb: Callable[[], Coroutine[Any, Any, None]],
    lines: int = LINES,
) -> list[int]:
    """The numbers of all lines, which many tasks write while they are disturbed."""
    left = [*range(0, lines, 10)]
    numbers: dict[int, list[int]] = {}

    async def work() -> None:
        while left:
            first = left.pop()
            numbers[first] = await write(first)

    disturbing = asyncio.create_task(disturb())
    await asyncio.gather(*(work() for _ in range(WORKERS)))
    disturbing.cancel()
    return [number for first in sorted(numbers) for number in numbers[first]]


async def assert_there_once(target: Target, numbers: list[int]) -> None:
    async with DatabaseManager(target.url) as db:
        rows = (await db.conn.execute(text("SELECT id, event_id, message FROM agent_logs"))).all()
    assert len(rows) == len(numbers)
    assert {row.id: row.event_id for row in rows} == {number: f"{n}" for n, number in enumerate(numbers)}
    assert all(row.event_id == row.message for row in rows)


@on_postgres
async def test_of_10000_appends_whose_connections_are_killed_each_repeated_one_is_there_once(target: Target) -> None:
    plain = make_url(target.url).set(drivername="postgresql").render_as_string(hide_password=False)
    randomness = random.Random(1)
    killed = 0
    with psycopg.connect(plain, autocommit=True) as administrator:
        watched = Watched(administrator)

        async def kill() -> None:
            nonlocal killed
            while True:
                await asyncio.sleep(randomness.uniform(0.1, 0.3))
                killed += await asyncio.to_thread(watched.end_all)

        async with DatabaseManager(target.url) as db:
            write = writer(db, await an_agent(db))
            numbers = await write_all(lambda first: until_told(write, first, randomness), kill)
    assert killed > 20
    await assert_there_once(target, numbers)


async def test_of_2000_appends_that_are_cancelled_each_repeated_one_is_there_once(target: Target) -> None:
    randomness = random.Random(2)
    cancelled = 0

    async def nothing() -> None:
        return

    async with DatabaseManager(target.url) as db:
        write = writer(db, await an_agent(db))

        async def impatiently(first: int) -> list[int]:
            nonlocal cancelled
            for _ in range(2):
                task = asyncio.ensure_future(write(first))
                await asyncio.wait([task], timeout=randomness.uniform(0, 0.004))
                if task.done():
                    return task.result()
                cancelled += task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    return task.result()
            return await until_told(write, first, randomness)

        numbers = await write_all(impatiently, nothing, FEWER)
    assert cancelled > 20
    await assert_there_once(target, numbers)


@pytest.mark.parametrize("target", ["sqlite", "asyncpg"], indirect=True)  # the driver has no part in it
async def test_of_10000_appends_of_processes_that_are_killed_each_repeated_one_is_there_once(target: Target) -> None:
    randomness = random.Random(3)
    async with DatabaseManager(target.url) as db:
        agent = await an_agent(db)
    done, kills = 0, 0
    while done < LINES:
        with Child("repeating", target.url, agent, max(done - 100, 0), LINES) as child:
            for _ in range(randomness.randrange(10, 100)):
                if done == LINES:
                    break
                done = max(done, await asyncio.to_thread(child.line))
            if done < LINES:
                child.process.kill()
                kills += 1
    assert kills > 2
    async with DatabaseManager(target.url) as db:
        write = writer(db, agent)
        numbers = [number for first in range(0, LINES, 10) for number in await write(first)]
    await assert_there_once(target, numbers)


@on_postgres
async def test_of_completions_whose_connections_are_killed_each_repeated_one_is_counted_once(target: Target) -> None:
    plain = make_url(target.url).set(drivername="postgresql").render_as_string(hide_password=False)
    randomness = random.Random(4)
    costs = (0.1, 0.2, 0.3, 1e-9, 123.456789012)

    async def until_done(call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await call()
            except OperationError:
                await asyncio.sleep(0.01)

    with psycopg.connect(plain, autocommit=True) as administrator:
        watched = Watched(administrator)
        async with DatabaseManager(target.url) as db:
            agents = [await an_agent(db) for _ in range(3)]
            left = [*range(100)]

            async def work() -> None:
                while left:
                    number = left.pop()
                    new = partial(db.create_prompt, agents[number % 3], "command", "x", id=str(UUID(int=number)))
                    prompt = await until_done(partial(new, exist_ok=True))
                    for cost in randomness.choices(costs, k=3):
                        assert await until_done(partial(db.complete_prompt, prompt, "done", cost_usd=cost))

            working = asyncio.gather(*(work() for _ in range(WORKERS)))
            killed = 0
            while not working.done():
                killed += await asyncio.to_thread(watched.end_all)
                await asyncio.sleep(randomness.uniform(0.02, 0.05))
            await working
    assert killed > 20
    async with DatabaseManager(target.url) as db:
        for agent in agents:
            row = await db.get_agent(agent)
            assert row is not None
            prompts = await db.list_prompts(agent)
            assert {prompt["status"] for prompt in prompts} == {"completed"}
            nano_dollars = sum(round((prompt["cost_usd"] or 0) * 10**9) for prompt in prompts)
            assert round((row["cost_usd"] or 0) * 10**9) == nano_dollars

"""Programs that are watched and die, and databases that are away while somebody is watched or logs."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider

from orchdb import DatabaseManager
from orchdb.integrations.logging import DatabaseHandler
from orchdb.integrations.opentelemetry import OrchdbSpanProcessor
from tests.conftest import Target
from tests.support.faults import Child
from tests.support.stoppable_server import running_server


async def test_the_agents_of_a_watched_program_that_is_killed_are_reaped_and_no_others(
    db: DatabaseManager, target: Target
) -> None:
    with Child("tracing", target.url, 1) as child:
        assert child.line() is True
        statuses = sorted(row["status"] for row in await db.list_agents())
        assert statuses == ["completed", "executing", "executing"]
        await asyncio.sleep(1.5)
        assert await db.reap_agents() == []
        child.process.kill()
        child.process.wait()
        async with asyncio.timeout(20):
            while not (reaped := await db.reap_agents()):
                await asyncio.sleep(0.1)
    ends = [(row["status"], row["error_message"]) for row in await db.list_agents() if row["id"] in reaped]
    assert ends == [("failed", "owner lost")] * 2


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_server_that_is_stopped_holds_nobody_who_logs_or_is_watched_and_has_everything_later(
    driver: str,
) -> None:
    with running_server() as server:
        url = server.url(driver)
        async with DatabaseManager(url):
            pass
        handler, processor = DatabaseHandler(url, exit_timeout=60), OrchdbSpanProcessor(url, exit_timeout=60)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        tracer, log = provider.get_tracer("test"), logging.getLogger("watched")
        log.propagate, longest = False, 0.0
        log.setLevel(logging.INFO)
        log.addHandler(handler)

        async def work(number: int) -> None:
            nonlocal longest
            for each in range(number):
                before = time.thread_time()
                with tracer.start_as_current_span("invoke_agent lead"):
                    log.info("%d", each)
                longest = max(longest, time.thread_time() - before)
                await asyncio.sleep(0.001)

        await work(50)
        await asyncio.to_thread(server.stop, "immediate")
        await work(200)
        await asyncio.to_thread(server.start)
        await work(50)
        await asyncio.to_thread(handler.close)
        await asyncio.to_thread(processor.shutdown)
        log.removeHandler(handler)
        async with DatabaseManager(url) as db:
            assert [int(row["message"]) for row in await db.get_system_logs()] == [*range(50), *range(200), *range(50)]
            statuses = [row["status"] for row in await db.list_agents()]
    assert statuses == ["completed"] * 300
    assert (handler.dropped, processor.dropped) == (0, 0)
    print(f"at most {longest * 1000:.2f} ms of the processor for a record and a span")

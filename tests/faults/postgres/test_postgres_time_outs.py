"""Postgres: a transaction that its program leaves idle is ended by the server, with an error that says so."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import URL, text

from orchdb import DatabaseManager, OperationError
from tests.support.faults import log, seen, until
from tests.support.postgres_sessions import Watched, watched

WAYS = ["a statement", "an own statement", "a statement whose error is ignored", "a part", "the commit"]


async def idle_for_too_long(db: DatabaseManager, server: Watched, agent: str, way: str) -> None:
    """A transaction that is ended while its program does something else, and goes on afterwards."""
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "fault", "idle")
        await tx.add_agent_cost(agent, 1)
        started = time.monotonic()
        await until(lambda: not server.busy(), 5)
        assert time.monotonic() - started > 0.2
        if way == "a statement":
            await tx.create_system_log("INFO", "fault", "late")
        elif way == "an own statement":
            with pytest.raises(OperationError):
                await tx.conn.execute(text("SELECT 1"))
        elif way == "a statement whose error is ignored":
            with suppress(OperationError):
                await tx.create_system_log("INFO", "fault", "late")
        elif way == "a part":
            async with tx.transaction():
                await tx.create_system_log("INFO", "fault", "late")


@pytest.mark.parametrize("way", WAYS)
async def test_a_transaction_that_idles_for_too_long_is_ended_by_the_server_and_undone(url: URL, way: str) -> None:
    short = url.update_query_dict({"options": "-c idle_in_transaction_session_timeout=300"})
    with watched(url) as server:
        async with DatabaseManager(short) as db:
            agent = await db.create_agent(await db.create_orchestrator_agent("idle"), "session")
            for number in range(3):
                with pytest.raises(OperationError) as caught:
                    await asyncio.wait_for(idle_for_too_long(db, server, agent, way), 10)
                assert caught.value.__cause__ is caught.value.__context__ is None
                assert server.agents_are_free()
                await asyncio.wait_for(log(db, f"after {number}"), 5)
                async with db.transaction() as tx:
                    await tx.create_system_log("INFO", "fault", f"transaction {number}")
            assert sorted(await seen(db)) == [f"{kind} {n}" for kind in ("after", "transaction") for n in range(3)]
            (row,) = await db.list_agents()
            assert not row["cost_usd"]


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A server process that does nothing, as if its network had gone."""
    try:
        os.kill(process, signal.SIGSTOP)
    except (ProcessLookupError, PermissionError):
        pytest.skip("the server's processes are not on this machine, or another user's")
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("way", ["a statement", "many rows", "a part"])
async def test_a_server_that_goes_silent_in_a_block_is_given_up(url: URL, way: str) -> None:
    line: Any = {"log_level": "INFO", "component": "fault", "message": "silent"}

    async def block(db: DatabaseManager) -> None:
        async with db.transaction() as tx:
            process = (await tx.conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await tx.create_system_log("INFO", "fault", "silent")
            with stopped(process):
                if way == "a statement":
                    await tx.create_system_log("INFO", "fault", "silent")
                elif way == "many rows":
                    await tx.create_system_logs([line] * 100)
                else:
                    async with tx.transaction():
                        pytest.fail("the part must not begin")

    async with DatabaseManager(url, statement_timeout=0.2, connect_timeout=3) as db:
        async with asyncio.timeout(40):
            with pytest.raises(OperationError):
                await block(db)
            await log(db, "after")
        assert await seen(db) == ["after"]


@pytest.mark.parametrize("undone", [False, True], ids=["committed", "undone"])
async def test_a_block_that_ends_on_a_silent_server_ends(url: URL, undone: bool) -> None:
    async def block(db: DatabaseManager, silence: ExitStack) -> None:
        async with db.transaction() as tx:
            process = (await tx.conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await tx.create_system_log("INFO", "fault", "silent")
            silence.enter_context(stopped(process))
            if undone:
                raise OperationError("undone")

    async with DatabaseManager(url, statement_timeout=0.2, connect_timeout=3) as db:
        async with asyncio.timeout(40):
            with ExitStack() as silence, pytest.raises(OperationError):
                await block(db, silence)
            await log(db, "after")
        assert await seen(db) == ["after"]

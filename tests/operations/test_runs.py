"""Runs: agents that are executing while a block is open, and ended with it, however that ends."""

# ruff: noqa: PT012  # what raises is the end of the block, so the block is what stands under raises()

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from orchdb import (
    AgentRow,
    AgentStatus,
    DatabaseManager,
    InvalidValueError,
    MissingParentError,
    NotConnectedError,
    OperationError,
    Transaction,
)
from tests.conftest import Target
from tests.support.databases import NO_ROW, count, run_elsewhere


async def found(db: DatabaseManager, agent_id: str) -> AgentRow:
    """The agent, deleted softly or not."""
    row = await db.get_agent(agent_id, include_deleted=True)
    assert row is not None
    return row


async def outcome(db: DatabaseManager, agent_id: str) -> tuple[str, str | None]:
    """What became of it."""
    row = await found(db, agent_id)
    assert (row["completed_at"] is None) == (row["status"] not in ("completed", "failed", "cancelled"))
    return row["status"], row["error_message"]


async def only_agent(db: DatabaseManager) -> AgentRow:
    """The one agent that there is."""
    (row,) = await db.list_agents()
    return row


def leases(url: str) -> list[Any]:
    """The rows of the table, as another program reads them."""
    return run_elsewhere(url, "SELECT owner, seconds FROM leases ORDER BY seconds")


async def test_a_run_is_executing_while_its_block_is_open_and_completed_with_it(db: DatabaseManager) -> None:
    context = {"task": "find it"}
    async with db.agent_run("scout", "session-1", context=context, config={"depth": 2}, metadata={"a": 1}) as run:
        row = await found(db, run.id)
        assert (row["status"], row["session_id"], row["parent_agent_id"]) == ("executing", "session-1", None)
        assert (row["context"], row["config"], row["metadata"]) == (context, {"depth": 2}, {"a": 1})
        assert row["started_at"] == row["created_at"]
        assert row["completed_at"] is None
    ended = await found(db, run.id)
    assert (ended["status"], ended["error_message"]) == ("completed", None)
    assert ended["completed_at"] is not None
    assert ended["completed_at"] >= row["created_at"]
    assert ended["updated_at"] > row["updated_at"]


async def test_what_is_logged_and_asked_in_a_run_is_its_agents(db: DatabaseManager) -> None:
    async with db.agent_run("scout", "session-1") as run:
        line = await run.log("milestone", "Half way", {"percent": 50}, "WARNING")
        prompt = await run.prompt("command", "Find it", "search", "streaming", "a-model", {"a": 1})
        assert await run.log("milestone", "Begun", event_id="once") == await run.log("milestone", "2", event_id="once")
        assert await run.prompt("command", "Again", id=prompt, exist_ok=True) == prompt
    logged, _ = await db.get_agent_logs(run.id)
    assert (logged["id"], logged["log_level"], logged["log_type"]) == (line, "WARNING", "milestone")
    assert (logged["message"], logged["details"]) == ("Half way", {"percent": 50})
    asked = await db.get_prompt(prompt)
    assert asked is not None
    assert (asked["agent_id"], asked["prompt_name"], asked["status"]) == (run.id, "search", "streaming")
    assert (asked["model_used"], asked["metadata"]) == ("a-model", {"a": 1})


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such file"), "ValueError: no such file"),
        (TimeoutError(), "TimeoutError"),
        (UnreadableError(), "UnreadableError"),
        (
            ExceptionGroup("two of them", [ValueError("one"), KeyError("two")]),
            "ExceptionGroup: two of them (2 sub-exceptions); ValueError: one; KeyError: 'two'",
        ),
        (ValueError("half \ud83d"), "ValueError: half \ufffd"),
        (ValueError("x" * 1_000_000), "ValueError: " + "x" * (100_000 - len("ValueError: "))),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_run_whose_block_raises_is_failed_with_the_type_and_the_text(
    db: DatabaseManager, error: Exception, told: str
) -> None:
    with pytest.raises(type(error)) as caught:
        async with db.agent_run("scout", "session-1") as run:
            raise error
    assert caught.value is error
    assert await outcome(db, run.id) == ("failed", told)


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_a_run_that_is_told_to_end_is_cancelled(db: DatabaseManager, error: type[BaseException]) -> None:
    run_id = ""
    try:
        async with db.agent_run("scout", "session-1") as run:
            run_id = run.id
            raise error
    except error:
        pass
    else:
        pytest.fail("it was swallowed")
    while (await found(db, run_id))["status"] == "executing":  # a coroutine that is closed waits for nothing
        await asyncio.sleep(0.01)
    assert await outcome(db, run_id) == ("cancelled", None)


async def test_a_run_whose_task_is_cancelled_or_runs_out_of_time_is_cancelled(db: DatabaseManager) -> None:
    entered: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        async with db.agent_run("scout", "session-1") as run:
            entered.put_nowait(run.id)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    cancelled = await entered.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outcome(db, cancelled) == ("cancelled", None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.3)
    assert await outcome(db, await entered.get()) == ("cancelled", None)


async def test_a_time_out_inside_the_block_is_a_failure_of_it(db: DatabaseManager) -> None:
    with pytest.raises(TimeoutError):
        async with db.agent_run("scout", "session-1") as run, asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert await outcome(db, run.id) == ("failed", "TimeoutError")


async def test_a_run_in_a_generator_that_is_closed_is_cancelled_when_that_has_closed(db: DatabaseManager) -> None:
    async def steps() -> AsyncIterator[str]:
        async with db.agent_run("scout", "session-1") as run:
            while True:
                yield run.id

    generator = steps()
    run_id = await anext(generator)
    await generator.aclose()  # type: ignore[attr-defined]
    assert await outcome(db, run_id) == ("cancelled", None)


async def test_a_run_in_a_coroutine_that_is_thrown_away_is_cancelled_soon(db: DatabaseManager) -> None:
    async def work() -> None:
        async with db.agent_run("scout", "session-1") as run:
            entered.put_nowait(run.id)
            await asyncio.Event().wait()

    entered: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(work())
    run_id = await entered.get()
    coroutine: Any = task.get_coro()
    coroutine.close()
    task.cancel()
    with suppress(asyncio.CancelledError, RuntimeError):  # there is nothing left to cancel
        await task
    while (await found(db, run_id))["status"] == "executing":
        await asyncio.sleep(0.01)
    assert await outcome(db, run_id) == ("cancelled", None)


def test_a_run_whose_loop_has_ended_keeps_nobody_from_ending(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    db = DatabaseManager(target.url)
    loop = asyncio.new_event_loop()

    async def work() -> None:
        async with db.agent_run("scout", "session-1"):
            begun.set()
            await asyncio.Event().wait()

    async def begin() -> None:
        await db.connect()
        tasks.append(asyncio.create_task(work()))
        await begun.wait()

    begun, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    loop.run_until_complete(begin())
    task = tasks.pop()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what happens here
    coroutine: Any = task.get_coro()
    asyncio._set_running_loop(None)
    coroutine.close()
    assert "no event loop" in caplog.text
    del task, coroutine
    gc.collect()
    loop.run_until_complete(db.close())
    loop.close()


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("raises", [False, True])
async def test_an_end_that_the_block_has_given_stays(db: DatabaseManager, status: AgentStatus, raises: bool) -> None:
    with suppress(ValueError):
        async with db.agent_run("scout", "session-1") as run:
            await db.update_agent(run.id, status=status, error_message="its own")
            before = await found(db, run.id)
            if raises:
                raise ValueError
    assert await found(db, run.id) == before
    assert await db.reap_agents() == []


async def test_a_status_that_is_no_end_is_ended_with_the_block(db: DatabaseManager) -> None:
    async with db.agent_run("scout", "session-1") as run:
        await db.update_agent(run.id, status="reviewing", error_message="a doubt")
    assert await outcome(db, run.id) == ("completed", "a doubt")


@pytest.mark.parametrize("soft", [False, True])
async def test_an_agent_that_its_block_deletes_is_no_failure(db: DatabaseManager, soft: bool) -> None:
    async with db.agent_run("scout", "session-1") as run:
        assert await db.delete_agent(run.id, soft=soft)
    assert await count(db, "agents") == soft
    if soft:
        assert await outcome(db, run.id) == ("completed", None)


async def test_a_run_in_a_run_has_a_parent_only_if_it_is_named_and_each_ends_as_it_should(db: DatabaseManager) -> None:
    async with db.agent_run("lead", "session-1") as outer:
        async with db.agent_run("scout", "session-1") as free, db.agent_run("scout", "session-1", outer.id) as child:
            pass
        with pytest.raises(ValueError, match="caught outside"):
            async with db.agent_run("scout", "session-1", parent_agent_id=outer.id) as broken:
                raise ValueError("caught outside")
        assert await outcome(db, outer.id) == ("executing", None)
    assert [(await found(db, run.id))["parent_agent_id"] for run in (outer, free, child, broken)] == [
        None,
        None,
        outer.id,
        outer.id,
    ]
    assert await outcome(db, outer.id) == ("completed", None)
    assert await outcome(db, broken.id) == ("failed", "ValueError: caught outside")


async def test_a_transaction_in_a_run_is_kept_or_undone_by_itself(db: DatabaseManager) -> None:
    async with db.agent_run("scout", "session-1") as run:
        async with db.transaction() as tx:
            await tx.create_agent_log(run.id, "INFO", "milestone", "kept")
            await tx.update_agent(run.id, status="reviewing")
        with suppress(ValueError):
            async with db.transaction() as tx:
                await tx.create_agent_log(run.id, "INFO", "milestone", "undone")
                await tx.update_agent(run.id, status="failed")
                raise ValueError
    assert [line["message"] for line in await db.get_agent_logs(run.id)] == ["kept"]
    assert await outcome(db, run.id) == ("completed", None)


async def test_in_a_transaction_a_run_is_refused_and_nothing_is_written(db: DatabaseManager) -> None:
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "test", "goes on")
        with pytest.raises(OperationError, match=r"inside db\.transaction"):
            async with db.agent_run("scout", "session-1"):
                pytest.fail("it was entered")
        with pytest.raises(OperationError, match=r"inside db\.transaction"):
            await db.reap_agents()
    assert await count(db, "orchestrator_agents") == await count(db, "agents") == 0
    assert await count(db, "system_logs") == 1
    assert not hasattr(Transaction, "agent_run")


async def test_a_name_is_one_definition_however_many_runs_begin_at_once(db: DatabaseManager) -> None:
    async def work() -> None:
        async with db.agent_run("scout", "session-1"):
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(50)))
    (definition,) = await db.list_orchestrator_agents()
    rows = await db.list_agents()
    assert {(row["orchestrator_agent_id"], row["status"]) for row in rows} == {(definition["id"], "completed")}
    assert len(rows) == 50


async def test_an_id_is_the_definition_that_has_it(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    for name_or_id in (definition, UUID(definition)):
        async with db.agent_run(name_or_id, "session-1") as run:
            assert (await found(db, run.id))["orchestrator_agent_id"] == definition
    with pytest.raises(MissingParentError) as caught:
        async with db.agent_run(NO_ROW, "session-1"):
            pytest.fail("it was entered")
    assert caught.value.column == "orchestrator_agent_id"
    assert await count(db, "orchestrator_agents") == 1


WRONG: list[tuple[Callable[[DatabaseManager], Any], type[Exception], str]] = [
    (lambda db: db.agent_run("scout", "session-1", lease_seconds=0), InvalidValueError, "lease_seconds"),
    (lambda db: db.agent_run("scout", "session-1", lease_seconds=float("nan")), InvalidValueError, "lease_seconds"),
    (lambda db: db.agent_run("scout", "session-1", lease_seconds=float("inf")), InvalidValueError, "lease_seconds"),
    (lambda db: db.agent_run("scout", "session-1", lease_seconds=True), InvalidValueError, "lease_seconds"),
    (lambda db: db.agent_run("scout", "s", lease_seconds="60"), InvalidValueError, "lease_seconds"),  # type: ignore[arg-type]
    (lambda db: db.agent_run("scout", "session\0"), InvalidValueError, "session_id"),
    (lambda db: db.agent_run("scout", "session-1", context="no object"), InvalidValueError, "context"),
    (lambda db: db.agent_run("sc\0ut", "session-1"), InvalidValueError, "name"),
    (lambda db: db.agent_run("scout", "session-1", NO_ROW), MissingParentError, "parent_agent_id"),
]


@pytest.mark.spread
@pytest.mark.parametrize(("call_with", "error", "column"), WRONG)
async def test_what_is_wrong_is_refused_by_its_name_and_no_agent_is_made(
    db: DatabaseManager, call_with: Callable[[DatabaseManager], Any], error: type[Exception], column: str
) -> None:
    with pytest.raises(error) as caught:
        async with call_with(db):
            pytest.fail("it was entered")
    assert getattr(caught.value, "column", "") == column
    assert await count(db, "agents") == 0
    if error is InvalidValueError:
        assert await count(db, "orchestrator_agents") == 0


async def test_a_manager_that_only_reads_has_no_runs_and_reaps_nobody(db: DatabaseManager, target: Target) -> None:
    async with DatabaseManager(target.url, read_only=True) as reader:
        with pytest.raises(OperationError, match="read_only"):
            async with reader.agent_run("scout", "session-1"):
                pytest.fail("it was entered")
        with pytest.raises(OperationError, match="read_only"):
            await reader.reap_agents()


async def test_a_run_that_is_cancelled_while_it_ends_has_its_end(db: DatabaseManager) -> None:
    async def work(ending: asyncio.Event) -> None:
        async with db.agent_run("scout", "session-1"):
            ending.set()

    for turns in range(12):
        ending = asyncio.Event()
        task = asyncio.create_task(work(ending))
        await ending.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        rows = await db.list_agents()
        assert {row["status"] for row in rows} <= {"completed", "cancelled"}
        assert len(rows) == turns + 1


async def test_a_run_that_is_cancelled_while_it_begins_leaves_nobody_executing(target: Target) -> None:
    async def work(db: DatabaseManager) -> None:
        async with db.agent_run("scout", "session-1"):
            await asyncio.Event().wait()

    for turns in range(25):
        async with DatabaseManager(target.url) as db:
            task = asyncio.create_task(work(db))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        async with DatabaseManager(target.url) as db:
            assert {row["status"] for row in await db.list_agents()} <= {"cancelled"}
    assert leases(target.url) == []


async def test_runs_of_one_length_share_a_lease_and_close_leaves_none(target: Target) -> None:
    async with DatabaseManager(target.url) as db:
        async with db.agent_run("a", "s"), db.agent_run("b", "s"), db.agent_run("c", "s", lease_seconds=7.5):
            assert [seconds for _, seconds in leases(target.url)] == [7.5, 60]
            assert len({owner for owner, _ in leases(target.url)}) == 1
        async with db.agent_run("a", "s"):
            assert len(leases(target.url)) == 2
    assert leases(target.url) == []


async def test_close_fails_the_runs_that_are_open_and_their_blocks_are_told(target: Target) -> None:
    db = DatabaseManager(target.url)
    await db.connect()
    with pytest.raises(NotConnectedError, match="closed"):
        async with db.agent_run("scout", "session-1") as run:
            await db.close()
    with pytest.raises(ValueError, match="its own"):
        await db.connect()
        async with db.agent_run("scout", "session-1") as other:
            await db.close()
            raise ValueError("its own")
    await db.connect()
    assert await outcome(db, run.id) == ("failed", "the manager was closed before the run had ended")
    assert await outcome(db, other.id) == ("failed", "the manager was closed before the run had ended")
    with pytest.raises(NotConnectedError, match="closed before the run had ended"):
        async with db.agent_run("scout", "session-1") as third:
            await db.close()
            await db.connect()
            with pytest.raises(NotConnectedError, match="closed before the run had ended"):
                await third.log("milestone", "too late")
    async with db.agent_run("scout", "session-1") as fresh:
        pass
    assert await outcome(db, fresh.id) == ("completed", None)
    await db.close()
    assert leases(target.url) == []


async def test_a_thousand_open_runs_are_renewed_by_one_statement_each_third_of_the_lease(
    db: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    opened, leave = asyncio.Semaphore(0), asyncio.Event()

    async def work() -> None:
        async with db.agent_run("scout", "session-1", lease_seconds=1.5):
            opened.release()
            await leave.wait()

    tasks = [asyncio.create_task(work()) for _ in range(1000)]
    for _ in tasks:
        await opened.acquire()
    with caplog.at_level(logging.DEBUG, "orchdb"):
        caplog.clear()
        started = time.monotonic()
        while len(caplog.messages) < 5:
            await asyncio.sleep(0.05)
        passed = time.monotonic() - started
    assert all(message.startswith("agent_run on leases: ") for message in caplog.messages)
    assert passed > 3 * 0.5  # nearer to four thirds, but for the jitter of a busy machine
    leave.set()
    await asyncio.gather(*tasks)
    assert {row["status"] for row in await db.list_agents()} == {"completed"}

"""A ``datetime`` without a time zone is taken as UTC, with a warning at the line of the caller."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

import pytest

from orchdb import DatabaseManager, NaiveDatetimeWarning
from tests.support.databases import NO_ROW, call, collected, count

NAIVE = datetime(2026, 2, 4, 10, 30)
TEXT = "2026-02-04T10:30:00.000000"


class NoZone(tzinfo):
    """A time zone that does not tell how far from UTC it is."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("update_agent", (NO_ROW,), {"started_at": NAIVE}, "agents.started_at"),
    ("update_agent", (NO_ROW,), {"completed_at": NAIVE, "status": "failed"}, "agents.completed_at"),
    ("update_agent", (NO_ROW,), {"updated_at": NAIVE}, "agents.updated_at"),
    ("update_orchestrator_agent", (NO_ROW,), {"updated_at": NAIVE}, "orchestrator_agents.updated_at"),
    ("update_prompt", (NO_ROW,), {"completed_at": NAIVE}, "prompts.completed_at"),
    ("list_agents", (), {"since": NAIVE}, "since"),
    ("list_prompts", (NO_ROW,), {"until": NAIVE}, "until"),
    ("get_system_logs", (), {"since": NAIVE}, "since"),
    ("prune", (NAIVE,), {}, "before"),
    ("prune", (NAIVE.replace(tzinfo=NoZone()),), {}, "before"),
]


@pytest.mark.parametrize(("operation", "arguments", "options", "what"), CALLS)
async def test_a_naive_time_is_warned_of_once_at_the_callers_line(
    db: DatabaseManager, operation: str, arguments: tuple[Any, ...], options: dict[str, Any], what: str
) -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
        await getattr(db, operation)(*arguments, **options)
    (warning,) = caught
    assert warning.category is NaiveDatetimeWarning
    assert (warning.filename, warning.lineno) == (__file__, line)
    assert str(warning.message).startswith(f"{what}: ")
    assert "2026" not in str(warning.message)


async def test_one_time_that_is_written_by_itself_is_warned_of_once(db: DatabaseManager, agent_id: str) -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        await db.update_agent(agent_id, updated_at=NAIVE, started_at=NAIVE, error_message="x")
    assert sorted(str(warning.message).partition(":")[0] for warning in caught) == [
        "agents.started_at",
        "agents.updated_at",
    ]
    row = await db.get_agent(agent_id)
    assert row is not None
    assert (row["updated_at"], row["started_at"]) == (TEXT, TEXT)


def tasks(db: DatabaseManager) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Ways in which an operation comes to run."""

    async def block() -> None:
        async with db.transaction() as tx:
            await tx.prune(NAIVE)

    async def iterator() -> None:
        await collected(db.iter_system_logs(since=NAIVE))

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(block())

    return {"a block": block, "an iterator": iterator, "a task of the caller's": group}


@pytest.mark.parametrize("way", ["a block", "an iterator", "a task of the caller's"])
async def test_the_warning_names_this_file_whatever_stands_between(db: DatabaseManager, way: str) -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        await tasks(db)[way]()
    assert {(warning.filename, warning.category) for warning in caught} <= {
        (__file__, NaiveDatetimeWarning),
        (collected.__code__.co_filename, NaiveDatetimeWarning),
    }
    assert caught


def test_an_operation_that_is_a_task_itself_is_warned_of_where_the_loop_runs(tmp_path: Any) -> None:
    async def main() -> None:
        async with DatabaseManager(tmp_path / "orchestrator.db") as db:
            await asyncio.gather(db.prune(NAIVE), db.list_agents(since=NAIVE))

    with warnings.catch_warnings(record=True, action="always") as caught:
        asyncio.run(main())
    assert [warning.filename for warning in caught] == [__file__, __file__]


async def test_text_and_aware_times_bring_no_warning(db: DatabaseManager, agent_id: str) -> None:
    for moment in (TEXT, "2026-02-04 10:30", "2026-02-04", NAIVE.replace(tzinfo=UTC)):
        assert await db.update_agent(agent_id, started_at=moment)
        await db.get_agent_logs(agent_id, since=moment)
        await db.prune(moment)
    await db.create_system_log("INFO", "x", "x", {"when": NAIVE})  # type: ignore[dict-item]
    assert (await db.get_system_logs())[0]["details"] == {"when": "2026-02-04T10:30:00"}


async def test_a_program_that_makes_it_an_error_gets_it_and_nothing_is_written(
    db: DatabaseManager, agent_id: str
) -> None:
    before = await db.get_agent(agent_id)
    with warnings.catch_warnings(action="error"):
        for operation, arguments, options in (
            ("update_agent", (agent_id,), {"started_at": NAIVE}),
            ("update_agent", (agent_id,), {"updated_at": NAIVE, "error_message": "x"}),
            ("list_agents", (), {"until": NAIVE}),
            ("prune", (NAIVE,), {}),
        ):
            with pytest.raises(NaiveDatetimeWarning) as caught:
                await call(db, operation, *arguments, **options)
            assert caught.value.__cause__ is caught.value.__context__ is None
    assert await db.get_agent(agent_id) == before
    assert await count(db, "agents") == 1

"""Bulk creation: all rows or none, ids in the order given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError, MissingParentError
from tests.support.databases import NO_ROW, call, count


def system_line(number: int) -> Any:
    return {"log_level": "INFO", "component": "bulk", "message": f"{number}"}


def agent_line(agent_id: str, number: int) -> Any:
    return {"agent_id": agent_id, "log_level": "INFO", "log_type": "milestone", "message": f"{number}"}


def prompt(agent_id: str, number: int) -> Any:
    return {"agent_id": agent_id, "prompt_type": "adw", "prompt_text": f"{number}"}


async def test_ids_come_in_the_order_of_the_items(db: DatabaseManager, agent_id: str) -> None:
    await db.create_system_log("INFO", "before", "x")
    numbers = await db.create_system_logs([system_line(n) for n in range(1200)])
    lines = await db.create_agent_logs([agent_line(agent_id, n) for n in range(700)])
    prompts = await db.create_prompts([prompt(agent_id, n) for n in range(700)])

    stored = await db.get_system_logs(component="bulk")
    assert [(row["id"], row["message"]) for row in stored] == [(i, str(n)) for n, i in enumerate(numbers)]
    rows = await db.get_agent_logs(agent_id)
    assert [(row["id"], row["message"]) for row in rows] == [(i, str(n)) for n, i in enumerate(lines)]
    found = await db.list_prompts(agent_id)
    assert [(row["id"], row["prompt_text"]) for row in found] == [(i, str(n)) for n, i in enumerate(prompts)]
    assert sorted(prompts) == prompts
    assert await db.create_system_log("INFO", "after", "x") > numbers[-1]


async def test_items_may_have_all_values_of_a_single_creation(db: DatabaseManager, agent_id: str) -> None:
    details = {"nested": [1, None]}
    await db.create_agent_logs([agent_line(agent_id, 1) | {"details": details}, agent_line(agent_id, 2)])
    await db.create_system_logs([system_line(1), system_line(2) | {"details": "text"}])
    ended: Any = {"status": "completed", "prompt_name": "plan", "model_used": "claude", "metadata": details}
    ids = await db.create_prompts([prompt(agent_id, 1), prompt(agent_id, 2) | ended])

    assert [row["details"] for row in await db.get_agent_logs(agent_id)] == [details, None]
    assert [row["details"] for row in await db.get_system_logs()] == [None, "text"]
    first, second = [await db.get_prompt(prompt_id) for prompt_id in ids]
    assert first is not None
    assert second is not None
    assert (first["status"], first["completed_at"], first["metadata"]) == ("pending", None, None)
    assert {name: second[name] for name in ended} == ended  # type: ignore[literal-required]
    assert second["completed_at"] is not None


async def test_items_may_come_from_any_iterable(db: DatabaseManager) -> None:
    def generated() -> Iterator[Any]:
        yield from map(system_line, range(3))

    assert len(await db.create_system_logs(generated())) == 3
    assert len(await db.create_system_logs(tuple(map(system_line, range(2))))) == 2


async def test_no_items_are_no_rows(db: DatabaseManager) -> None:
    assert await db.create_prompts([]) == []
    assert await db.create_agent_logs(()) == []
    assert await db.create_system_logs(iter([])) == []


@pytest.mark.parametrize("place", [0, 499, 500, 599])
async def test_all_rows_are_created_or_none(db: DatabaseManager, agent_id: str, place: int) -> None:
    lines = [agent_line(agent_id, n) for n in range(600)]
    prompts = [prompt(agent_id, n) for n in range(600)]
    for column, value, kind in (("agent_id", NO_ROW, MissingParentError), ("agent_id", "x", MissingParentError)):
        for operation, items in (("create_agent_logs", lines), ("create_prompts", prompts)):
            with pytest.raises(kind) as caught:
                await call(
                    db, operation, [item | {column: value} if n == place else item for n, item in enumerate(items)]
                )
            assert caught.value.operation == operation
    wrong: dict[str, Any] = {"log_level": "LOUD", "message": None, "details": {1, 2}}
    for column, value in wrong.items():
        with pytest.raises(
            InvalidValueError, match=rf" on agent_logs: item {place}: agent_logs\.{column}: "
        ) as refused:
            await db.create_agent_logs([*lines[:place], lines[place] | {column: value}, lines[place]])
        assert refused.value.column == column
    assert await count(db, "agent_logs") == await count(db, "prompts") == 0
    await db.create_agent_logs(lines)
    assert await count(db, "agent_logs") == 600


WRONG_ITEMS: list[Any] = [
    None,
    "text",
    5,
    ["log_level", "component", "message"],
    {},
    {"log_level": "INFO", "component": "bulk"},
    {"log_level": "INFO", "component": "bulk", "message": "x", "nonsense": 1},
    {"log_level": "INFO", "component": "bulk", "message": "x", "id": 7},
    {"log_level": "INFO", "component": "bulk", "message": "x", "agent_id": "x"},
]


async def test_an_item_with_other_names_is_a_type_error_that_tells_its_place(db: DatabaseManager) -> None:
    for item in WRONG_ITEMS:
        with pytest.raises(TypeError, match=r"create_system_logs.*item 1"):
            await db.create_system_logs([system_line(0), item])
    assert await count(db, "system_logs") == 0


async def test_what_is_no_list_of_items_is_a_type_error(db: DatabaseManager, agent_id: str) -> None:
    for items in (None, 5, {"log_level": "INFO"}, "text"):
        for operation in ("create_system_logs", "create_agent_logs", "create_prompts"):
            with pytest.raises(TypeError, match=f"^{operation}: "):
                await call(db, operation, items)
    with pytest.raises(TypeError, match="agent_id"):
        await call(db, "create_prompts", [{"prompt_type": "adw", "prompt_text": "x"}])
    with pytest.raises(TypeError, match="updated_at"):
        await call(db, "create_prompts", [prompt(agent_id, 1) | {"updated_at": "x"}])


async def test_a_prompts_status_is_checked_in_bulk_too(db: DatabaseManager, agent_id: str) -> None:
    wrong: list[Any] = ["executing", None, [], 5]
    for status in wrong:
        with pytest.raises(InvalidValueError):
            await db.create_prompts([prompt(agent_id, 1) | {"status": status}])


async def test_a_bulk_creation_does_not_change_its_items(db: DatabaseManager, agent_id: str) -> None:
    items = [prompt(agent_id, 1), prompt(agent_id, 2)]
    before = [dict(item) for item in items]
    await db.create_prompts(items)
    assert items == before


async def test_bulk_and_single_creations_at_once_keep_their_ids(db: DatabaseManager) -> None:
    async def bulk(name: str) -> list[int]:
        return await db.create_system_logs({"log_level": "INFO", "component": name, "message": "x"} for _ in range(50))

    async def single(name: str) -> list[int]:
        return [await db.create_system_log("INFO", name, "x")]

    names = [f"{kind}-{n}" for n in range(10) for kind in ("bulk", "single")]
    results = await asyncio.gather(*(bulk(name) if name.startswith("bulk") else single(name) for name in names))
    for name, ids in zip(names, results, strict=True):
        assert [row["id"] for row in await db.get_system_logs(component=name)] == ids


@pytest.mark.slow
async def test_a_hundred_thousand_items_are_one_creation(db: DatabaseManager) -> None:
    numbers = await db.create_system_logs(system_line(n) for n in range(100_000))
    assert len(set(numbers)) == 100_000
    last = (await db.list_recent_system_logs(1))[0]
    assert (last["id"], last["message"]) == (numbers[-1], "99999")


async def test_others_work_while_a_large_creation_is_prepared(db: DatabaseManager) -> None:
    bulk = asyncio.create_task(db.create_system_logs(system_line(n) for n in range(20_000)))
    turns = 0
    while not bulk.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await bulk) == 20_000
    assert turns > 20

"""The Claude Agent SDK's sessions in orchdb."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError, OperationError
from orchdb.integrations.claude_agent_sdk import OrchdbSessionStore
from orchdb.transcripts import import_transcripts
from orchdb.transcripts.places import project_key
from tests.conftest import Target
from tests.support.transcripts import OTHER, PROJECT, SESSION, Claude, content_of, exchange, place, sub_place, totals

sdk = pytest.importorskip("claude_agent_sdk")
testing = pytest.importorskip("claude_agent_sdk.testing")
KEY: Any = {"project_key": PROJECT, "session_id": SESSION}


async def test_it_keeps_the_contracts_of_the_sdk(db: DatabaseManager) -> None:
    async def fresh() -> OrchdbSessionStore:
        for definition in await db.list_orchestrator_agents():
            await db.delete_orchestrator_agent(definition["id"])
        return OrchdbSessionStore(db)

    await testing.run_session_store_conformance(fresh)


def session_with_sub_agent() -> tuple[list[Any], list[Any]]:
    """The entries of a session and of its sub-agent."""
    trunk = Claude().user("u", "look").calls("a", "msg_task", "toolu_task", "Task", subagent_type="Explore")
    trunk.result("r", "toolu_task", "ok", toolUseResult={"agentId": "a1"})
    sub = Claude(isSidechain=True, agentId="a1")
    sub.session = f"{SESSION}/a1"
    for number in range(5):
        exchange(trunk, number)
        exchange(sub, number)
    return trunk.rows, sub.rows


@pytest.mark.parametrize("size", [1, 3, 500])
async def test_a_mirrored_session_is_what_its_imported_file_is(db: DatabaseManager, tmp_path: Path, size: int) -> None:
    store = OrchdbSessionStore(db)
    trunk, sub = session_with_sub_agent()
    for key, rows in ((KEY, trunk), (KEY | {"subpath": "subagents/agent-a1"}, sub)):
        for start in range(0, len(rows), size):
            await store.append(key, rows[start : start + size])
        assert await store.load(key) == rows
    mirrored = await content_of(db)
    async with DatabaseManager(":memory:") as other:
        claude = Claude()
        claude.rows = trunk
        claude.save(place(tmp_path))
        claude.rows = sub
        claude.save(sub_place(tmp_path, "a1"))
        await import_transcripts(other, [tmp_path])
        imported = await content_of(other)
        assert await totals(db) == await totals(other)
    mirrored["agent_logs"] = [row for row in mirrored["agent_logs"] if row["log_type"] != "transcript_entry"]
    for row in mirrored["agents"]:
        assert row["metadata"].pop("sdk")["session"] == SESSION
    assert mirrored == imported


async def test_a_session_that_is_mirrored_and_imported_is_there_once(db: DatabaseManager, tmp_path: Path) -> None:
    trunk, _ = session_with_sub_agent()
    trunk += [
        {"type": "custom-title", "customTitle": "Mine", "sessionId": SESSION},
        {"type": "from-the-future", "a": 1.5},
    ]
    await OrchdbSessionStore(db).append(KEY, trunk)
    before = await totals(db)
    claude = Claude()
    claude.rows = trunk
    report = await import_transcripts(db, [claude.save(place(tmp_path))])
    assert (report.prompts, report.lines, report.agents) == (0, 0, 0)
    assert await totals(db) == before


async def test_a_batch_that_is_sent_again_adds_nothing(db: DatabaseManager) -> None:
    store = OrchdbSessionStore(db)
    trunk, _ = session_with_sub_agent()
    batch: Any = [*trunk[:6], {"type": "custom-title", "customTitle": "Mine"}]
    await store.append(KEY, batch)
    before = await content_of(db)
    await store.append(KEY, batch)
    assert await store.load(KEY) == batch
    assert (await content_of(db))["prompts"] == before["prompts"]
    await store.append(KEY, trunk[4:9])
    assert await store.load(KEY) == [*batch, *trunk[6:9]]


async def test_entries_without_a_name_are_all_kept(db: DatabaseManager) -> None:
    store = OrchdbSessionStore(db)
    title: Any = {"type": "custom-title", "customTitle": "Mine"}
    for _ in range(2):
        await store.append(KEY, [title])
    assert await store.load(KEY) == [title, title]


async def test_an_append_that_fails_leaves_nothing(db: DatabaseManager, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OrchdbSessionStore(db)
    trunk, _ = session_with_sub_agent()

    async def fail(*_: Any) -> None:
        raise OperationError("no more")

    with monkeypatch.context() as patch:
        patch.setattr("orchdb.integrations.claude_agent_sdk._Append._keep", fail)
        with pytest.raises(OperationError):
            await store.append(KEY, trunk)
    assert await store.load(KEY) is None
    assert await db.list_prompts() == []
    await store.append(KEY, trunk)
    assert await store.load(KEY) == trunk


async def test_two_writers_of_a_session_lose_and_double_nothing(target: Target) -> None:
    trunk, sub = session_with_sub_agent()
    own = Claude(OTHER, begin=9)
    for number in range(5):
        exchange(own, number)
    below: Any = KEY | {"subpath": "subagents/agent-a1"}

    async def write(store: OrchdbSessionStore, key: Any, rows: list[Any]) -> None:
        for start in range(0, len(rows), 2):
            await store.append(key, rows[start : start + 2])

    async with DatabaseManager(target.url, upgrade=True) as db, DatabaseManager(target.url) as second:
        stores = OrchdbSessionStore(db), OrchdbSessionStore(second)
        work: list[Callable[[], Awaitable[None]]] = [
            *(lambda store=store: write(store, KEY, trunk) for store in stores),
            *(lambda store=store: write(store, below, sub) for store in stores),
            lambda: write(stores[1], KEY, own.rows),
        ]
        await asyncio.gather(*(each() for each in work))
        loaded = await stores[0].load(KEY)
        assert loaded is not None
        assert sorted(row["uuid"] for row in loaded) == sorted(row["uuid"] for row in [*trunk, *own.rows])
        assert await stores[0].load(below) == sub
        assert (await totals(db))[0] == 1 + 5 + 5 + 5


async def test_what_the_metadata_of_a_sub_agent_says_is_taken(db: DatabaseManager) -> None:
    store = OrchdbSessionStore(db)
    _, sub = session_with_sub_agent()
    key: Any = KEY | {"subpath": "subagents/agent-a1"}
    meta: Any = {"type": "agent_metadata", "agentType": "Plan", "toolUseId": "toolu_9"}
    await store.append(key, sub)
    await store.append(key, [meta])
    assert (await store.load(key) or [])[-1] == meta
    [agent] = [row for row in await db.list_agents(SESSION) if row["parent_agent_id"]]
    definition = await db.get_orchestrator_agent(agent["orchestrator_agent_id"])
    assert definition is not None
    assert definition["agent_type"] == "Plan"


async def test_deleting_a_session_takes_its_sub_agents_and_their_cost_along(db: DatabaseManager) -> None:
    store = OrchdbSessionStore(db)
    trunk, sub = session_with_sub_agent()
    await store.append(KEY, trunk)
    await store.append(KEY | {"subpath": "subagents/agent-a1"}, sub)
    await store.append({"project_key": PROJECT, "session_id": OTHER}, exchange(Claude(OTHER), 1).rows)  # type: ignore[arg-type]
    assert [each["session_id"] for each in await store.list_sessions(PROJECT)] == [SESSION, OTHER]
    await store.delete(KEY)
    assert (await totals(db))[0] == 1
    assert [each["session_id"] for each in await store.list_sessions(PROJECT)] == [OTHER]


async def test_entries_come_back_as_they_were(db: DatabaseManager) -> None:
    store = OrchdbSessionStore(db)
    entries: Any = [
        {"type": "x", "uuid": "1", "deep": {"a": [1, 2.5, None, True, "ü€😀", {"": []}]}, "big": 2**53, "e": 1e-7},
        {"type": "assistant", "uuid": "2", "message": 7, "large": 2**70, "deep": json.loads("[" * 300 + "]" * 300)},
        {"type": "user", "uuid": "3", "message": {"content": [1, None]}},
        {"type": "x", "uuid": "1", "again": True},
        {"type": ""},
    ]
    await store.append(KEY, entries)
    assert await store.load(KEY) == [*entries[:3], entries[4]]


@pytest.mark.parametrize(
    "key", [{"project_key": "p", "session_id": "s", "subpath": ""}, {"project_key": "", "session_id": "s"}]
)
async def test_a_key_with_an_empty_part_is_refused(key: Any) -> None:
    async with DatabaseManager(":memory:") as db:
        with pytest.raises(InvalidValueError, match="key"):
            await OrchdbSessionStore(db).append(key, [{"type": "x"}])


async def test_a_session_that_was_deleted_softly_takes_nothing_until_it_is_restored(db: DatabaseManager) -> None:
    store = OrchdbSessionStore(db)
    trunk, _ = session_with_sub_agent()
    await store.append(KEY, trunk[:4])
    [agent] = await db.list_agents(SESSION, root=True)
    await db.delete_agent(agent["id"], soft=True)
    assert await store.load(KEY) is None
    with pytest.raises(OperationError, match="deleted softly"):
        await store.append(KEY, trunk[4:])
    await db.restore_agent(agent["id"])
    await store.append(KEY, trunk[4:])
    assert await store.load(KEY) == trunk


@pytest.mark.parametrize(
    "cwd", ["/home/someone/work", "/a_b/c.d é/x", "/" + "long/" * 60 + "x", "/" + "ü/" * 150 + "x"]
)
def test_a_project_has_the_name_that_the_sdk_gives_it(cwd: str) -> None:
    assert project_key(cwd) == sdk.project_key_for_directory(cwd)

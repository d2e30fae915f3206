"""How large a value may be: the same on every engine, and beyond it refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from orchdb import DatabaseManager, InvalidValueError
from tests.support.databases import TABLES, call, count, dump

MEGABYTE = 2**20
TOO_LONG_WORDS = ["x" * 501, "\U0001f98a" * 501, "x" * 100_000]
# (operation, arguments, options, column): the word is put in the place of WORD.
WORD, AGENT = "<word>", "<agent>"
WORDS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("create_orchestrator_agent", (WORD,), {}, "name"),
    ("create_orchestrator_agent", ("x",), {"agent_type": WORD}, "agent_type"),
    ("create_agent", ("<definition>", WORD), {}, "session_id"),
    ("create_prompt", (AGENT, WORD, "x"), {}, "prompt_type"),
    ("create_prompt", (AGENT, "adw", "x"), {"model_used": WORD}, "model_used"),
    ("create_prompts", ([{"agent_id": AGENT, "prompt_type": WORD, "prompt_text": "x"}],), {}, "prompt_type"),
    ("create_agent_log", (AGENT, "INFO", WORD, "x"), {}, "log_type"),
    (
        "create_agent_logs",
        ([{"agent_id": AGENT, "log_level": "INFO", "log_type": WORD, "message": "x"}] * 30,),
        {},
        "log_type",
    ),
    ("create_system_log", ("INFO", WORD, "x"), {}, "component"),
    ("create_system_logs", ([{"log_level": "INFO", "component": WORD, "message": "x"}],), {}, "component"),
    ("update_orchestrator_agent", ("<definition>",), {"name": WORD, "description": "x"}, "name"),
    ("update_agent", (AGENT,), {"session_id": WORD, "error_message": "x"}, "session_id"),
    ("update_agent", (AGENT,), {"session_id": WORD, "updated_at": "2026-01-01"}, "session_id"),
    ("update_prompt", ("<prompt>",), {"model_used": WORD}, "model_used"),
    ("update_prompt", ("<prompt>",), {"prompt_type": WORD}, "prompt_type"),
]


def filled(value: Any, words: dict[str, str]) -> Any:
    """The value with the words in their places."""
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, (list, tuple)):
        return [filled(item, words) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, words) for key, item in value.items()}
    return value


@pytest.fixture
async def ids(db: DatabaseManager, agent_id: str) -> dict[str, str]:
    """Rows to work on, by what stands for them above."""
    definition = (await db.list_orchestrator_agents())[0]["id"]
    return {AGENT: agent_id, "<definition>": definition, "<prompt>": await db.create_prompt(agent_id, "adw", "x")}


@pytest.mark.parametrize("letter", ["x", "\U0001f98a"])
async def test_an_indexed_word_may_have_500_characters(db: DatabaseManager, ids: dict[str, str], letter: str) -> None:
    for operation, arguments, options, _ in WORDS:
        word = letter * 500 if operation.startswith("create") else letter * 499 + "y"  # a name is there once
        words = {**ids, WORD: word}
        assert await call(db, operation, *filled(arguments, words), **filled(options, words))
    assert len(await db.get_system_logs(component=letter * 500)) == 2
    assert len(await db.list_orchestrator_agents(name=letter * 500)) == 1
    assert len(await db.list_agents(session_id=letter * 499 + "y")) == 1


async def test_a_longer_word_is_refused_and_nothing_is_written(db: DatabaseManager, ids: dict[str, str]) -> None:
    before = await dump(db)
    for word in TOO_LONG_WORDS:
        for operation, arguments, options, column in WORDS:
            words = {**ids, WORD: word}
            with pytest.raises(InvalidValueError, match="longer than 500 characters") as caught:
                await call(db, operation, *filled(arguments, words), **filled(options, words))
            assert (caught.value.operation, caught.value.column) == (operation, column)
    assert await dump(db) == before


async def test_a_row_that_holds_a_longer_word_is_read_found_and_changed(db: DatabaseManager, agent_id: str) -> None:
    word = "x" * 9000
    async with db.transaction() as tx:
        await tx.conn.execute(text("UPDATE agents SET session_id = :word"), {"word": word})
        await tx.conn.execute(
            text("INSERT INTO system_logs (log_level, component, message) VALUES ('INFO', :word, 'x')"), {"word": word}
        )
    assert [row["component"] for row in await db.get_system_logs(component=word)] == [word]
    assert await db.get_system_logs(component=word + "x") == []
    assert [row["id"] for row in await db.list_agents(word)] == [agent_id]
    assert await db.update_agent(agent_id, status="failed", error_message="x")
    row = await db.get_agent(agent_id)
    assert row is not None
    assert (row["session_id"], row["status"]) == (word, "failed")


async def test_names_that_are_not_indexed_may_be_long(db: DatabaseManager, agent_id: str) -> None:
    name = "x" * 5000
    definition = await db.create_orchestrator_agent("long", default_model=name)
    prompt = await db.create_prompt(agent_id, "adw", "x", prompt_name=name)
    found = await db.get_orchestrator_agent(definition), await db.get_prompt(prompt)
    assert found[0] is not None
    assert found[1] is not None
    assert (found[0]["default_model"], found[1]["prompt_name"]) == (name, name)


@pytest.mark.slow
async def test_a_text_may_have_64_mib(db: DatabaseManager, agent_id: str) -> None:
    for content in ("x" * (64 * MEGABYTE), "\u00e9" * (32 * MEGABYTE)):
        prompt = await db.create_prompt(agent_id, "adw", content)
        row = await db.get_prompt(prompt)
        assert row is not None
        assert row["prompt_text"] == content
        await db.delete_prompt(prompt)


@pytest.mark.slow
async def test_a_larger_text_is_refused_and_nothing_is_written(db: DatabaseManager, ids: dict[str, str]) -> None:
    agent, prompt = ids[AGENT], ids["<prompt>"]
    before = await dump(db)
    for content in ("x" * (64 * MEGABYTE + 1), "\u00e9" * (32 * MEGABYTE) + "x"):
        log: dict[str, Any] = {"agent_id": agent, "log_level": "INFO", "log_type": "x", "message": "x"}
        new: dict[str, Any] = {"agent_id": agent, "prompt_type": "adw", "prompt_text": content}
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("create_prompt", (agent, "adw", content), {}),
            ("create_prompts", ([{**new, "prompt_text": "x"}, new],), {}),
            ("create_agent_logs", ([log, {**log, "message": content}],), {}),
            ("update_prompt", (prompt,), {"response_text": content}),
            ("update_agent", (agent,), {"error_message": content, "status": "failed"}),
        ]
        for operation, arguments, options in calls:
            with pytest.raises(InvalidValueError, match="larger than 64 MiB"):
                await call(db, operation, *arguments, **options)
    with pytest.raises(InvalidValueError, match="larger than 64 MiB"):  # each NUL becomes a character of three bytes
        await db.create_system_log("INFO", "x", "\0" + "x" * (64 * MEGABYTE - 1))
    assert await dump(db) == before


@pytest.mark.slow
async def test_a_json_value_may_have_64_mib(db: DatabaseManager) -> None:
    value = {"commas": "," * (64 * MEGABYTE - len('{"commas":""}'))}
    await db.create_system_log("INFO", "x", "x", value)
    assert (await db.get_system_logs())[0]["details"] == value
    larger = {"commas": value["commas"] + ","}
    for operation, arguments in (
        ("create_system_log", ("INFO", "x", "x", larger)),
        ("create_system_logs", ([{"log_level": "INFO", "component": "x", "message": "x", "details": larger}],)),
    ):
        with pytest.raises(InvalidValueError, match="larger than 64 MiB") as caught:
            await call(db, operation, *arguments)
        assert caught.value.column == "details"
    assert await count(db, "system_logs") == 1


@pytest.mark.slow
async def test_a_json_value_may_hold_as_many_values_as_postgres_can_keep(db: DatabaseManager, agent_id: str) -> None:
    many = [0] * (10_000_000 - 1)  # and the list itself
    assert await db.create_system_log("INFO", "x", "x", many)
    for more in ([*many, 0], [[0]] * 5_000_000, {"a": many}):
        with pytest.raises(InvalidValueError, match="more than 10,000,000 values"):
            await call(db, "create_system_log", "INFO", "x", "x", more)
    before = await db.get_agent(agent_id)
    with pytest.raises(InvalidValueError, match="more than 10,000,000 values"):
        await db.update_agent(agent_id, context='{"a": [' + "0," * 10_000_000 + "0]}")
    assert await db.get_agent(agent_id) == before


async def _in_one_block(db: DatabaseManager, *names: str) -> None:
    async with db.transaction() as tx:
        for name in names:
            await tx.create_orchestrator_agent(name)


async def test_an_empty_database_stays_empty_whatever_is_too_large(db: DatabaseManager) -> None:
    for name in TOO_LONG_WORDS:
        with pytest.raises(InvalidValueError):
            await _in_one_block(db, "before", name)
    assert [await count(db, table) for table in TABLES] == [0] * len(TABLES)

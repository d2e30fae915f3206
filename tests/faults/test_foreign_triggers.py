"""Triggers of other programs: what they insert, skip, change or refuse never bends what a caller is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from orchdb import (
    ConstraintError,
    DatabaseManager,
    InvalidValueError,
    NewAgentLog,
    OperationError,
    OrchdbError,
    Transaction,
)
from tests.conftest import Target
from tests.support.databases import other_program, run_elsewhere
from tests.support.faults import on_postgres, on_sqlite

COUNTS = (1, 5, 60)
"""One row, a few, and so many that Postgres copies them."""
SKIP = {"sqlite": "SELECT RAISE(IGNORE)", "postgres": "RETURN NULL;"}
RAISES = {how: f"SELECT RAISE({how}, 'no secrets here')" for how in ("ABORT", "FAIL", "ROLLBACK")}


def add_trigger(target: Target, table: str, event: str, when: str, *, sqlite: str, postgres: str) -> None:
    """Another program adds a trigger, while the manager is open.

    Args:
        event: Such as ``BEFORE INSERT``.
        when: A condition on ``NEW`` or ``OLD``.
        sqlite: The statement that it runs.
        postgres: The statements of its function.
    """
    if target.engine == "sqlite":
        run_elsewhere(target.url, f"CREATE TRIGGER theirs {event} ON {table} WHEN {when} BEGIN {sqlite}; END")
        return
    run_elsewhere(
        target.url,
        f"CREATE FUNCTION their_function() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {postgres} END$$",
        f"CREATE TRIGGER theirs {event} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION their_function()",
    )


def line(agent: str, message: str) -> NewAgentLog:
    return {"agent_id": agent, "log_level": "INFO", "log_type": "milestone", "message": message}


async def lines_in_every_way(
    db: DatabaseManager | Transaction, agent: str, names: list[str], *, bulk: bool
) -> list[Any]:
    """What each way to write lines gave: an id for each, or the one error of a bulk."""
    if bulk:
        try:
            return await db.create_agent_logs([line(agent, name) for name in names])
        except OrchdbError as error:
            return [error]
    writes = (db.create_agent_log(agent, "INFO", "milestone", name) for name in names)
    return await asyncio.gather(*writes, return_exceptions=True)


async def stored(db: DatabaseManager) -> dict[int, str]:
    return {row["id"]: row["message"] for row in await db.list_recent_agent_logs(limit=None)}


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("event", ["BEFORE INSERT", "AFTER INSERT"])
async def test_a_trigger_that_writes_to_the_same_log_changes_no_id_that_is_told(
    target: Target, manager: DatabaseManager, agent: str, event: str, count: int, bulk: bool
) -> None:
    extra = "INSERT INTO agent_logs (agent_id, log_type, message) VALUES (NEW.agent_id, 'echo', 'echo')"
    end = "; RETURN NEW;"
    add_trigger(target, "agent_logs", event, "NEW.log_type <> 'echo'", sqlite=extra, postgres=extra + end)
    names = [f"line {number}" for number in range(count)]
    for _ in range(2):
        ids = await lines_in_every_way(manager, agent, names, bulk=bulk)
        rows = await stored(manager)
        assert [rows[number] for number in ids] == names
    async with manager.transaction() as tx:
        ids = await lines_in_every_way(tx, agent, names, bulk=bulk)
    rows = await stored(manager)
    assert [rows[number] for number in ids] == names
    assert len(rows) == 6 * count


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("inside", [False, True])
async def test_a_row_that_a_trigger_skips_is_an_error_and_never_an_id(
    target: Target, manager: DatabaseManager, agent: str, count: int, bulk: bool, inside: bool
) -> None:
    add_trigger(target, "agent_logs", "BEFORE INSERT", "NEW.message LIKE 'noise%'", **SKIP)
    names = [f"{'noise' if number % 10 == 0 else 'line'} {number}" for number in range(count)]
    if inside:
        async with manager.transaction() as tx:
            results = await lines_in_every_way(tx, agent, names, bulk=bulk)
    else:
        results = await lines_in_every_way(manager, agent, names, bulk=bulk)
    assert isinstance(results[0], ConstraintError)
    assert "skipped the row" in str(results[0])
    rows = await stored(manager)
    if bulk:
        assert rows == {}
        return
    for name, result in zip(names, results, strict=True):
        assert isinstance(result, ConstraintError) if name.startswith("noise") else rows.pop(result) == name
    assert rows == {}


@on_sqlite
async def test_the_error_names_the_trigger_that_skipped_the_row(target: Target, manager: DatabaseManager) -> None:
    run_elsewhere(
        target.url,
        "CREATE TRIGGER counted AFTER INSERT ON system_logs BEGIN SELECT 1; END",
        "CREATE TRIGGER no_noise BEFORE INSERT ON system_logs BEGIN SELECT RAISE(IGNORE); END",
    )
    with pytest.raises(ConstraintError, match="the trigger no_noise skipped the row"):
        await manager.create_system_log("INFO", "test", "x")


@pytest.mark.parametrize("count", COUNTS)
async def test_prompts_that_a_trigger_skips_are_missed(
    target: Target, manager: DatabaseManager, agent: str, count: int
) -> None:
    add_trigger(target, "prompts", "BEFORE INSERT", "NEW.prompt_text = 'noise'", **SKIP)
    prompts: list[Any] = [{"agent_id": agent, "prompt_type": "adw", "prompt_text": "plan"}] * (count - 1)
    prompts.append({"agent_id": agent, "prompt_type": "adw", "prompt_text": "noise"})
    with pytest.raises(ConstraintError, match="skipped the row"):
        await manager.create_prompts(prompts)
    async with manager.transaction() as tx:
        with pytest.raises(ConstraintError, match="skipped the row"):
            await tx.create_prompts(prompts)
    singles = (manager.create_prompt(agent, "adw", prompt["prompt_text"]) for prompt in prompts)
    results = await asyncio.gather(*singles, return_exceptions=True)
    assert isinstance(results.pop(), ConstraintError)
    assert {row["id"] for row in await manager.list_prompts(agent)} == set(results)


async def test_an_agent_that_a_trigger_skips_is_missed(target: Target, manager: DatabaseManager, agent: str) -> None:
    add_trigger(target, "agents", "BEFORE INSERT", "NEW.session_id = 'noise'", **SKIP)
    definition = (await manager.list_orchestrator_agents())[0]["id"]
    with pytest.raises(ConstraintError, match="skipped the row"):
        await manager.create_agent(definition, "noise")
    kept = await manager.create_agent(definition, "kept")
    assert {row["id"] for row in await manager.list_agents()} == {agent, kept}


@pytest.mark.parametrize(
    ("target", "how"), [*(("sqlite", how) for how in RAISES), ("asyncpg", ""), ("psycopg", "")], indirect=["target"]
)
@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("count", COUNTS)
async def test_what_a_trigger_refuses_leaves_nothing_and_disturbs_nobody(
    target: Target, manager: DatabaseManager, agent: str, how: str, count: int, bulk: bool
) -> None:
    add_trigger(
        target,
        "agent_logs",
        "AFTER INSERT",
        "NEW.message LIKE 'secret%'",
        sqlite=RAISES.get(how, ""),
        postgres="RAISE EXCEPTION 'no secrets here'; RETURN NULL;",
    )
    names = [f"{'secret' if number % 10 == 0 else 'line'} {number}" for number in range(count)]
    results = await lines_in_every_way(manager, agent, names, bulk=bulk)
    assert isinstance(results[0], InvalidValueError)
    assert results[0].table == "agent_logs"
    rows = await stored(manager)
    if bulk:
        assert rows == {}
        return
    for name, result in zip(names, results, strict=True):
        assert isinstance(result, InvalidValueError) if name.startswith("secret") else rows.pop(result) == name
    assert rows == {}


async def test_the_error_says_which_trigger_refused_and_what_it_said(target: Target, manager: DatabaseManager) -> None:
    add_trigger(
        target,
        "system_logs",
        "BEFORE INSERT",
        "NEW.component = 'x'",
        sqlite="SELECT RAISE(ABORT, 'it''s closed')",
        postgres="RAISE EXCEPTION 'it is closed for %', NEW.message;",
    )
    with pytest.raises(InvalidValueError) as refused:
        await manager.create_system_log("INFO", "x", "geheim")
    known = "the trigger theirs refuses it: it's closed" if target.engine == "sqlite" else "their_function"
    assert known in str(refused.value)
    assert "geheim" not in str(refused.value)


@on_sqlite
@pytest.mark.parametrize("how", ["ABORT", "FAIL"])
async def test_what_a_trigger_refuses_inside_a_transaction_is_undone_alone(
    target: Target, manager: DatabaseManager, agent: str, how: str
) -> None:
    add_trigger(target, "agent_logs", "AFTER INSERT", "NEW.message = 'secret'", sqlite=RAISES[how], postgres="")
    async with manager.transaction() as tx:
        await tx.create_agent_log(agent, "INFO", "milestone", "before")
        with pytest.raises(InvalidValueError):
            await tx.create_agent_log(agent, "INFO", "milestone", "secret")
        with pytest.raises(InvalidValueError):
            await tx.create_agent_logs([line(agent, "first"), line(agent, "secret")])
        await tx.create_agent_log(agent, "INFO", "milestone", "after")
    assert list((await stored(manager)).values()) == ["after", "before"]


@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
@pytest.mark.parametrize("moment", ["BEFORE", "AFTER"])
async def test_a_change_that_a_trigger_refuses_changes_nothing(
    target: Target, manager: DatabaseManager, agent: str, event: str, moment: str
) -> None:
    for number in range(40):
        await manager.create_agent_log(agent, "INFO", "milestone", f"line {number}")
    before = await manager.get_agent(agent)
    refusal = {"sqlite": RAISES["FAIL"], "postgres": "RAISE EXCEPTION 'no';"}
    add_trigger(target, "agents", f"{moment} {event}", "OLD.session_id = 'session-1'", **refusal)

    async def change(db: DatabaseManager | Transaction) -> bool:
        return await (db.delete_agent(agent) if event == "DELETE" else db.update_agent(agent, error_message="x"))

    with pytest.raises(InvalidValueError):
        await change(manager)
    results = await asyncio.gather(*(change(manager) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {InvalidValueError}
    async with manager.transaction() as tx:
        with pytest.raises(InvalidValueError):
            await change(tx)
    assert await manager.get_agent(agent) == before
    assert len(await manager.get_agent_logs(agent)) == 40


@on_sqlite
async def test_rows_that_a_trigger_keeps_from_being_pruned_keep_the_others_too(
    target: Target, manager: DatabaseManager
) -> None:
    for number in range(5):
        await manager.create_system_log("INFO", "test", f"line {number}")
    add_trigger(target, "system_logs", "BEFORE DELETE", "OLD.message = 'line 3'", sqlite=RAISES["FAIL"], postgres="")
    with pytest.raises(InvalidValueError):
        await manager.prune("2999-01-01")
    assert len(await manager.get_system_logs()) == 5


@on_postgres
async def test_what_a_trigger_changes_in_a_row_is_stored_and_its_id_is_told(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    add_trigger(
        target,
        "agent_logs",
        "BEFORE INSERT",
        "NEW.message IS NOT NULL",
        sqlite="",
        postgres="NEW.id := NEW.id + 1000000; NEW.message := upper(NEW.message); RETURN NEW;",
    )
    for bulk in (False, True):
        for count in COUNTS:
            names = [f"line {number}" for number in range(count)]
            ids = await lines_in_every_way(manager, agent, names, bulk=bulk)
            rows = await stored(manager)
            assert [rows[number] for number in ids] == [name.upper() for name in names]


@pytest.mark.parametrize("count", COUNTS)
async def test_a_trigger_that_cannot_run_is_named(
    target: Target, manager: DatabaseManager, agent: str, count: int
) -> None:
    add_trigger(
        target,
        "agent_logs",
        "AFTER INSERT",
        "NEW.message <> 'x'",
        sqlite="SELECT shout(NEW.message)",
        postgres="PERFORM shout(NEW.message); RETURN NULL;",
    )
    names = [f"geheim {number}" for number in range(count)]
    for bulk in (False, True):
        for result in await lines_in_every_way(manager, agent, names, bulk=bulk):
            assert isinstance(result, OperationError)
            assert ("theirs" if target.engine == "sqlite" else "their_function") in str(result)
            assert "geheim" not in str(result)
    assert await stored(manager) == {}


@on_sqlite
@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (
            ["CREATE TRIGGER audit AFTER UPDATE ON agents BEGIN INSERT INTO gone VALUES (NEW.id); END"],
            "the trigger audit cannot be used here (no such table: main.gone)",
        ),
        (
            ["CREATE TRIGGER audit AFTER UPDATE ON agents BEGIN SELECT NEW.id, a, b FROM (SELECT 1 AS a); END"],
            "the trigger audit cannot be used here (no such column: b)",
        ),
        (
            ["ALTER TABLE agents RENAME COLUMN session_id TO session"],
            "the schema of the file does not allow it: no such column: session_id",
        ),
        (
            ["CREATE TABLE badges (name TEXT REFERENCES agents (session_id))"],
            'foreign key mismatch - "badges" referencing "agents"',
        ),
    ],
)
async def test_what_the_schema_makes_impossible_is_named(
    target: Target, manager: DatabaseManager, agent: str, statements: list[str], told: str
) -> None:
    run_elsewhere(target.url, *statements)
    with pytest.raises(OperationError) as failed:
        await manager.update_agent(agent, session_id="session-2")
    assert told in str(failed.value)
    with pytest.raises(OperationError) as failed:
        async with manager.transaction() as tx:
            await tx.update_agent(agent, session_id="session-2")
    assert told in str(failed.value)


@on_sqlite
async def test_statements_of_the_callers_own_meet_triggers_without_being_refused(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    extra = "INSERT INTO agent_logs (agent_id, log_type, message) VALUES (NEW.agent_id, 'echo', 'echo')"
    add_trigger(target, "agent_logs", "AFTER INSERT", "NEW.log_type <> 'echo'", sqlite=extra, postgres="")
    insert = "INSERT INTO agent_logs (agent_id, log_type, message) VALUES (:agent, 'x', 'own')"
    async with manager.transaction() as tx:
        own = [tx.conn.execute(text(f"{insert} -- {number}"), {"agent": agent}) for number in range(3)]
        _, first, *_ = await asyncio.gather(
            own[0], tx.create_agent_log(agent, "INFO", "milestone", "ours"), own[1], own[2]
        )
    results = await asyncio.gather(
        *(manager.create_agent_log(agent, "INFO", "milestone", f"line {number}") for number in range(30))
    )
    rows = await stored(manager)
    assert [rows[number] for number in (first, *results)] == ["ours", *(f"line {number}" for number in range(30))]


@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
async def test_a_change_that_a_trigger_skips_is_not_told_as_done(
    target: Target, manager: DatabaseManager, agent: str, event: str
) -> None:
    before = await manager.get_agent(agent)
    add_trigger(target, "agents", f"BEFORE {event}", "OLD.session_id = 'session-1'", **SKIP)

    async def change(db: DatabaseManager | Transaction) -> bool:
        return await (db.delete_agent(agent) if event == "DELETE" else db.update_agent(agent, error_message="x"))

    assert await change(manager) is False
    assert await asyncio.gather(*(change(manager) for _ in range(20))) == [False] * 20
    async with manager.transaction() as tx:
        assert await change(tx) is False
    assert await manager.get_agent(agent) == before


@on_sqlite
async def test_a_trigger_that_rolls_back_ends_the_transaction_and_nothing_of_it_is_there(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    add_trigger(target, "agent_logs", "AFTER INSERT", "NEW.message = 'secret'", sqlite=RAISES["ROLLBACK"], postgres="")

    async def block() -> None:
        async with manager.transaction() as tx:
            await tx.create_agent_log(agent, "INFO", "milestone", "before")
            with pytest.raises(InvalidValueError, match="the trigger theirs refuses it: no secrets here"):
                await tx.create_agent_log(agent, "INFO", "milestone", "secret")
            with pytest.raises(OperationError):
                await tx.create_agent_log(agent, "INFO", "milestone", "after")

    with pytest.raises(OperationError, match="rolled back by an earlier failure"):
        await block()
    assert await stored(manager) == {}
    await manager.create_agent_log(agent, "INFO", "milestone", "goes on")


@on_sqlite
async def test_an_index_that_calls_a_function_of_another_program_is_named(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    with other_program(target.path) as connection:
        connection.create_function("shout", 1, str.upper, deterministic=True)
        connection.execute("CREATE INDEX shouted ON agent_logs (shout(message))")
    for _ in range(2):
        with pytest.raises(OperationError) as failed:
            await manager.create_agent_log(agent, "INFO", "milestone", "x")
        assert "the index shouted cannot be used here" in str(failed.value)
        assert "shout" in str(failed.value)
    assert await stored(manager) == {}

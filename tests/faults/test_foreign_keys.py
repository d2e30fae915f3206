"""Which row is missing, doubled, or still referred to: named alike on all engines, for our keys and those of others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchdb import ConstraintError, DatabaseManager, DuplicateError, InvalidValueError, MissingParentError
from tests.conftest import Target
from tests.support.databases import NO_ROW, run_elsewhere
from tests.support.faults import on_postgres, on_sqlite

MALFORMED = "no-such-agent"


def refers(target: Target, table: str, action: str, *, key: str = "id") -> None:
    """Another program adds a table whose rows refer to one of ours."""
    kind = "text"
    if target.engine != "sqlite" and key == "id":
        kind = "bigint" if table.endswith("_logs") else "uuid"
    run_elsewhere(
        target.url,
        f"CREATE TABLE badges (owner {kind} CONSTRAINT fk_badge REFERENCES {table} ({key}) {action}, note TEXT)",
        f"INSERT INTO badges (owner) SELECT {key} FROM {table}",
    )


@pytest.mark.parametrize("parent", [NO_ROW, MALFORMED])
async def test_the_missing_parent_is_named(db: DatabaseManager, agent_id: str, parent: str) -> None:
    definition = (await db.list_orchestrator_agents())[0]["id"]
    line: Any = {"agent_id": parent, "log_level": "INFO", "log_type": "x", "message": "x"}
    prompt: Any = {"agent_id": parent, "prompt_type": "adw", "prompt_text": "x"}
    good = {"agent_id": agent_id}
    calls: list[tuple[str, Any]] = [
        ("orchestrator_agent_id", lambda tx: tx.create_agent(parent, "s")),
        ("orchestrator_agent_id", lambda tx: tx.create_agent(parent, "s", parent_agent_id=agent_id)),
        ("orchestrator_agent_id", lambda tx: tx.create_agent(parent, "s", parent_agent_id=parent)),
        ("parent_agent_id", lambda tx: tx.create_agent(definition, "s", parent_agent_id=parent)),
        ("parent_agent_id", lambda tx: tx.update_agent(agent_id, parent_agent_id=parent)),
        ("parent_agent_id", lambda tx: tx.update_agent(agent_id, parent_agent_id=parent, updated_at="2026-01-01")),
        ("agent_id", lambda tx: tx.create_prompt(parent, "adw", "x")),
        ("agent_id", lambda tx: tx.create_prompts([prompt | good, prompt, prompt | good])),
        ("agent_id", lambda tx: tx.create_prompts([prompt | good] * 40 + [prompt])),
        ("agent_id", lambda tx: tx.create_agent_log(parent, "INFO", "x", "x")),
        ("agent_id", lambda tx: tx.create_agent_logs([line | good, line, line | good])),
        ("agent_id", lambda tx: tx.create_agent_logs([line | good] * 40 + [line])),
    ]
    for column, call in calls:
        with pytest.raises(MissingParentError) as missing:
            await call(db)
        assert missing.value.column == column
        async with db.transaction() as tx:
            with pytest.raises(MissingParentError) as missing:
                await call(tx)
        assert missing.value.column == column
    assert not await db.get_agent_logs(agent_id)
    assert not await db.list_prompts(agent_id)


async def test_the_missing_parent_is_named_to_each_of_many_at_once(db: DatabaseManager, agent_id: str) -> None:
    targets = [NO_ROW if number % 7 == 3 else agent_id for number in range(60)]
    writes = (db.create_agent_log(target, "INFO", "x", "x") for target in targets)
    results: list[Any] = await asyncio.gather(*writes, return_exceptions=True)
    for target, result in zip(targets, results, strict=True):
        assert isinstance(result, int) if target == agent_id else result.column == "agent_id"


@on_sqlite
async def test_all_parents_that_are_missing_are_in_the_message(target: Target, manager: DatabaseManager) -> None:
    with pytest.raises(MissingParentError, match="orchestrator_agent_id, parent_agent_id"):
        await manager.create_agent(NO_ROW, "s", parent_agent_id=NO_ROW)


async def test_a_doubled_name_is_named(db: DatabaseManager, agent_id: str) -> None:
    other = await db.create_orchestrator_agent("other")
    for call in (
        lambda: db.create_orchestrator_agent("scout"),
        lambda: db.update_orchestrator_agent(other, name="scout"),
    ):
        with pytest.raises(DuplicateError) as doubled:
            await call()
        assert doubled.value.column == "name"
    async with db.transaction() as tx:
        with pytest.raises(DuplicateError) as doubled:
            await tx.create_orchestrator_agent("scout")
    assert doubled.value.column == "name"


@on_postgres
@pytest.mark.parametrize("action", ["", "ON DELETE RESTRICT", "DEFERRABLE INITIALLY DEFERRED"])
@pytest.mark.parametrize("table", ["orchestrator_agents", "agents", "prompts"])
async def test_a_row_that_others_refer_to_is_not_called_a_missing_parent(
    target: Target, manager: DatabaseManager, agent: str, table: str, action: str
) -> None:
    await manager.create_prompt(agent, "adw", "x")
    refers(target, table, action)
    definition = (await manager.list_orchestrator_agents())[0]["id"]
    for _ in range(2):
        with pytest.raises(ConstraintError) as refused:
            await manager.delete_orchestrator_agent(definition)  # which takes its agents and their prompts along
        assert type(refused.value) is ConstraintError
        assert "other rows still refer to it" in str(refused.value)
        assert "badges" in str(refused.value)
        if target.engine != "sqlite":
            assert refused.value.constraint == "fk_badge"
    results = await asyncio.gather(
        *(manager.delete_orchestrator_agent(definition) for _ in range(20)), return_exceptions=True
    )
    assert {type(result) for result in results} == {ConstraintError}
    async with manager.transaction() as tx:
        if "DEFERRED" not in action:
            with pytest.raises(ConstraintError) as refused:
                await tx.delete_orchestrator_agent(definition)
            assert type(refused.value) is ConstraintError
        await tx.create_system_log("INFO", "test", "goes on")
    assert await manager.get_agent(agent)
    run_elsewhere(target.url, "DELETE FROM badges")
    assert await manager.delete_orchestrator_agent(definition)


async def test_a_key_that_is_looked_at_late_is_told_when_the_transaction_ends(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    refers(target, "agents", "DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(ConstraintError, match="looked at when the transaction ends") as refused:
        async with manager.transaction() as tx:
            await tx.delete_agent(agent)
    assert type(refused.value) is ConstraintError
    await manager.create_system_log("INFO", "test", "goes on")
    assert await manager.get_agent(agent)


async def test_lines_that_others_refer_to_are_not_pruned(target: Target, manager: DatabaseManager) -> None:
    for number in range(3):
        await manager.create_system_log("INFO", "test", f"line {number}")
    refers(target, "system_logs", "ON DELETE RESTRICT")
    with pytest.raises(ConstraintError, match="badges") as refused:
        await manager.prune("2999-01-01")
    assert type(refused.value) is ConstraintError
    assert len(await manager.get_system_logs()) == 3


async def test_a_key_of_anothers_that_lies_in_our_own_table_is_told_apart_too(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    kind = "TEXT" if target.engine == "sqlite" else "uuid"
    run_elsewhere(target.url, f"ALTER TABLE agents ADD COLUMN leader {kind} REFERENCES agents (id)")
    definition = (await manager.list_orchestrator_agents())[0]["id"]
    await manager.create_agent(definition, "session-1")
    run_elsewhere(target.url, f"UPDATE agents SET leader = '{agent}' WHERE id <> '{agent}'")
    with pytest.raises(ConstraintError) as refused:
        await manager.delete_agent(agent)
    assert type(refused.value) is ConstraintError
    assert await manager.delete_orchestrator_agent(definition)


async def test_a_change_of_what_others_refer_to_is_told_apart(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    run_elsewhere(target.url, "CREATE UNIQUE INDEX theirs ON agents (session_id)")
    refers(target, "agents", "ON UPDATE RESTRICT", key="session_id")
    with pytest.raises(ConstraintError, match="badges") as refused:
        await manager.update_agent(agent, session_id="session-2")
    assert type(refused.value) is ConstraintError
    with pytest.raises(MissingParentError) as missing:
        await manager.update_agent(agent, parent_agent_id=NO_ROW)
    assert missing.value.column == "parent_agent_id"


async def test_a_key_that_lets_its_rows_go_is_no_obstacle(target: Target, manager: DatabaseManager, agent: str) -> None:
    refers(target, "agents", "ON DELETE CASCADE")
    assert await manager.delete_agent(agent)
    assert run_elsewhere(target.url, "SELECT count(*) FROM badges") == [(0,)]


async def test_what_another_table_refuses_is_not_said_of_ours(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    run_elsewhere(target.url, "CREATE TABLE audit (id TEXT NOT NULL UNIQUE)")
    insert = "INSERT INTO audit (id) VALUES ('always the same')"
    if target.engine == "sqlite":
        run_elsewhere(target.url, f"CREATE TRIGGER theirs AFTER INSERT ON system_logs BEGIN {insert}; END")
    else:
        run_elsewhere(
            target.url,
            f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {insert}; RETURN NULL; END$$",
            "CREATE TRIGGER theirs AFTER INSERT ON system_logs FOR EACH ROW EXECUTE FUNCTION f()",
        )
    await manager.create_system_log("INFO", "test", "x")
    with pytest.raises(DuplicateError, match="in the table audit") as doubled:
        await manager.create_system_log("INFO", "test", "y")
    assert doubled.value.column is None


FULL = "ffffffff-ffff-ffff-ffff-ffffffffffff"


async def test_a_malformed_id_finds_no_row_whatever_rows_there_are(
    target: Target, manager: DatabaseManager, agent: str
) -> None:
    definition = (await manager.list_orchestrator_agents())[0]["id"]
    for table, columns in (
        ("orchestrator_agents", f"(id, name, agent_type) VALUES ('{FULL}', 'full', 'utility')"),
        ("agents", f"(id, orchestrator_agent_id, session_id, status) VALUES ('{FULL}', '{FULL}', 's', 'failed')"),
        (
            "prompts",
            f"(id, agent_id, prompt_type, prompt_text, status) VALUES ('{FULL}', '{FULL}', 'x', 'x', 'failed')",
        ),
        ("agent_logs", f"(agent_id, log_level, log_type, message) VALUES ('{FULL}', 'INFO', 'x', 'x')"),
    ):
        run_elsewhere(target.url, f"INSERT INTO {table} {columns}")
    for malformed in ("nonsense", "", FULL[:-1], FULL.upper() + "0", "{" + FULL + "}"):
        assert await manager.get_orchestrator_agent(malformed) is None
        assert await manager.get_agent(malformed) is None
        assert await manager.get_prompt(malformed) is None
        assert await manager.update_agent(malformed, error_message="x") is False
        assert await manager.update_agent(malformed) is False
        assert await manager.update_agent(malformed, error_message="x", updated_at="2026-01-01") is False
        assert await manager.add_agent_cost(malformed, 1.0) is False
        assert await manager.delete_prompt(malformed) is False
        assert await manager.delete_agent(malformed, soft=True) is False
        assert await manager.delete_orchestrator_agent(malformed) is False
        assert await manager.list_agents(orchestrator_agent_id=malformed) == []
        assert await manager.list_agents(parent_agent_id=malformed) == []
        assert await manager.list_prompts(malformed) == []
        assert await manager.get_agent_logs(malformed) == []
        assert await manager.get_agent_logs_by_type(malformed, "x") == []
        with pytest.raises(MissingParentError):
            await manager.create_agent(malformed, "s")
        with pytest.raises(MissingParentError):
            await manager.update_agent(agent, parent_agent_id=malformed)
        with pytest.raises(MissingParentError):
            await manager.create_agent_log(malformed, "INFO", "x", "x")
        with pytest.raises(InvalidValueError):
            await manager.update_agent(malformed, status="x")  # type: ignore[arg-type]
    assert len(await manager.list_agents()) == 2
    assert await manager.get_agent(FULL)
    assert await manager.create_agent(definition, "s", parent_agent_id=FULL)
    lines = manager.tail_agent_logs("nonsense", after_id=0, poll_seconds=0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(lines)

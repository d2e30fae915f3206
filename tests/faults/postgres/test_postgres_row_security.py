"""Postgres: tables that COPY refuses or would fill differently, because of row-level security, rights or rules."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from orchdb import ConstraintError, DatabaseManager, NewAgentLog, NewPrompt, OperationError
from tests.conftest import Target
from tests.support.databases import TABLES, run_elsewhere

pytestmark = pytest.mark.parametrize("target", ["asyncpg", "psycopg"], indirect=True)
COUNT = 60
"""So many rows are copied where they can be."""
GRANT = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(TABLES)} TO {{role}}"


@pytest.fixture
async def schema(target: Target) -> None:
    """The tables are there, and belong to somebody else."""
    async with DatabaseManager(target.url):
        pass


@pytest.fixture
def role(schema: None, target: Target, postgres_server: str) -> Iterator[str]:
    """A role that owns nothing and may read and write the tables, and no more."""
    name = f"orchdb_role_{os.getpid()}_{target.engine}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        run_elsewhere(target.url, GRANT.format(role=name), f"GRANT SELECT ON orchdb_version TO {name}")
        yield name
        run_elsewhere(target.url, f"DROP OWNED BY {name}")
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
async def limited(role: str, target: Target) -> AsyncIterator[DatabaseManager]:
    """A manager of that role."""
    async with DatabaseManager(make_url(target.url).set(username=role, password="x")) as manager:
        yield manager


@pytest.fixture
async def agent(limited: DatabaseManager) -> str:
    """The id of an agent."""
    return await limited.create_agent(await limited.create_orchestrator_agent("scout"), "session-1")


def lines(agent: str) -> list[NewAgentLog]:
    return [
        {"agent_id": agent, "log_level": "INFO", "log_type": "milestone", "message": str(number)}
        for number in range(COUNT)
    ]


def secure(target: Target, policy: str) -> None:
    """Another program switches row-level security on."""
    for table in ("agent_logs", "prompts"):
        run_elsewhere(
            target.url,
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY theirs ON {table} {policy}",
        )


def prompts(agent: str, count: int) -> list[NewPrompt]:
    return [{"agent_id": agent, "prompt_type": "adw", "prompt_text": "plan"}] * count


async def write_in_every_way(db: DatabaseManager, agent: str) -> None:
    """Lines and prompts: in bulk, inside a transaction and many at once; each line has the id that was told."""
    ids = await db.create_agent_logs(lines(agent))
    async with db.transaction() as tx:
        ids += await tx.create_agent_logs(lines(agent))
        await tx.create_prompts(prompts(agent, COUNT))
    await db.create_prompts(prompts(agent, COUNT))
    writes = (db.create_agent_log(agent, "INFO", "milestone", str(number)) for number in range(COUNT))
    ids += await asyncio.gather(*writes)
    rows = {row["id"]: row["message"] for row in await db.get_agent_logs(agent)}
    assert [rows[number] for number in ids] == [str(number) for number in range(COUNT)] * 3


async def test_nothing_but_the_tables_is_needed_to_write_many_rows(limited: DatabaseManager, agent: str) -> None:
    await write_in_every_way(limited, agent)


async def test_row_level_security_that_is_switched_on_meanwhile_lets_many_rows_in(
    target: Target, limited: DatabaseManager, agent: str
) -> None:
    run_elsewhere(target.url, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO public")
    await write_in_every_way(limited, agent)
    secure(target, "USING (true) WITH CHECK (true)")
    run_elsewhere(target.url, "TRUNCATE agent_logs")
    await write_in_every_way(limited, agent)
    assert len(await limited.list_prompts(agent)) == 4 * COUNT


async def test_under_row_level_security_many_appends_still_share_their_commits(
    target: Target, limited: DatabaseManager, agent: str
) -> None:
    secure(target, "USING (true) WITH CHECK (true)")
    for _ in range(3):
        await asyncio.gather(*(limited.create_agent_log(agent, "INFO", "milestone", "x") for _ in range(200)))
    [(commits, rows)] = run_elsewhere(target.url, "SELECT count(DISTINCT xmin::text), count(*) FROM agent_logs")
    assert rows == 600
    assert commits < 100


@pytest.mark.parametrize("count", [3, COUNT])
async def test_prompts_can_be_added_by_whom_row_level_security_lets_read_none(
    target: Target, limited: DatabaseManager, agent: str, count: int
) -> None:
    secure(target, "FOR INSERT WITH CHECK (true)")
    await limited.create_prompts(prompts(agent, count))
    assert await limited.list_prompts(agent) == []
    assert run_elsewhere(target.url, "SELECT count(*) FROM prompts") == [(count,)]


@pytest.mark.parametrize("count", [3, COUNT])
async def test_rows_that_a_policy_refuses_are_a_typed_error_and_nothing_of_them_is_there(
    target: Target, limited: DatabaseManager, agent: str, count: int
) -> None:
    secure(target, "USING (true) WITH CHECK (agent_id IS NULL)")
    with pytest.raises(OperationError) as refused:
        await limited.create_agent_logs(lines(agent)[:count])
    assert refused.value.code == "42501"
    with pytest.raises(OperationError):
        await limited.create_prompts(prompts(agent, count))
    assert await limited.get_agent_logs(agent) == []


async def test_a_rule_runs_for_each_of_many_rows(target: Target, limited: DatabaseManager, agent: str) -> None:
    run_elsewhere(
        target.url,
        "CREATE TABLE counted (what text)",
        "GRANT INSERT ON counted TO public",
        "CREATE RULE counts AS ON INSERT TO prompts DO ALSO INSERT INTO counted VALUES (NEW.prompt_type)",
    )
    await limited.create_prompts(prompts(agent, COUNT))
    await limited.create_prompts(prompts(agent, 3))
    assert run_elsewhere(target.url, "SELECT count(*) FROM counted") == [(COUNT + 3,)]


@pytest.mark.parametrize("count", [1, 3, COUNT])
async def test_rows_that_a_rule_drops_are_missed(
    target: Target, limited: DatabaseManager, agent: str, count: int
) -> None:
    run_elsewhere(
        target.url,
        "CREATE RULE drops AS ON INSERT TO prompts WHERE NEW.prompt_type = 'noise' DO INSTEAD NOTHING",
        "CREATE RULE drops AS ON INSERT TO agent_logs DO INSTEAD NOTHING",
    )
    rows = prompts(agent, count)
    rows[-1] = {**rows[-1], "prompt_type": "noise"}
    with pytest.raises((ConstraintError, OperationError)):
        await limited.create_prompts(rows)
    with pytest.raises((ConstraintError, OperationError)):
        await limited.create_prompt(agent, "noise", "x")
    with pytest.raises((ConstraintError, OperationError), match="rule"):
        await limited.create_agent_logs(lines(agent)[:count])
    assert await limited.list_prompts(agent) == []


async def test_columns_that_others_have_the_server_compute_are_computed(
    target: Target, limited: DatabaseManager, agent: str
) -> None:
    run_elsewhere(
        target.url, "ALTER TABLE agent_logs ADD COLUMN size integer GENERATED ALWAYS AS (length(message)) STORED"
    )
    await write_in_every_way(limited, agent)
    assert run_elsewhere(target.url, "SELECT count(*) FROM agent_logs WHERE size = length(message)") == [(180,)]

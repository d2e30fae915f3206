"""What the README and the recipes of the documentation do, as a new user tries them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

import orchdb
from orchdb import DatabaseManager, NewAgentLog
from tests.conftest import Target
from tests.support.databases import complaints
from tests.support.pages import page


async def test_the_program_on_the_first_screen_runs_as_often_as_one_likes(target: Target, tmp_path: Path) -> None:
    program = page("README.md").blocks[0].code
    assert '"data/orchestrator.db"' in program
    (tmp_path / "program.py").write_text(program.replace('"data/orchestrator.db"', repr(target.url)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1])}
    for _ in range(3):
        command = [sys.executable, "-W", "error", "program.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, complaints(done.stderr)) == (0, "")
        assert "'status': 'completed'" in done.stdout
    async with DatabaseManager(target.url) as db:
        assert [row["name"] for row in await db.list_orchestrator_agents()] == ["scout"]
        assert len(await db.list_agents()) == 3


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_recipe_for_partitions_works_and_every_month_has_a_place(postgres_url: str, driver: str) -> None:
    (recipe,) = re.findall(
        r"^```sql\n(ALTER TABLE agent_logs .*?)^```$", page("retention.md").text, re.DOTALL | re.MULTILINE
    )
    async with DatabaseManager(make_url(postgres_url).set(drivername=f"postgresql+{driver}")) as db:
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")
        before = [await db.create_agent_log(agent, "INFO", "milestone", f"{number}") for number in range(3)]
        with psycopg.connect(postgres_url) as admin:
            admin.execute(recipe)
        lines: list[NewAgentLog] = [
            {"agent_id": agent, "log_level": "INFO", "log_type": "milestone", "message": f"{number}"}
            for number in range(3, 103)
        ]
        after = [await db.create_agent_log(**lines[0]), *await db.create_agent_logs(lines[1:])]
        with psycopg.connect(postgres_url) as other:
            other.execute(
                "INSERT INTO agent_logs (agent_id, log_type, message, created_at)"
                " SELECT id, 'milestone', month, month::timestamptz"
                " FROM agents, unnest(ARRAY['1999-01-01', '2026-12-31', '2222-01-01']) AS months(month)"
            )
        found = await db.get_agent_logs(agent)
        assert sorted(row["id"] for row in found)[:-3] == before + after
        assert [found[0]["message"], found[-1]["message"]] == ["1999-01-01", "2222-01-01"]
        assert await db.prune("2000-01-01") == 1

"""What a type checker says of programs that use orchdb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import orchdb

PROGRAM = """
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb import DatabaseManager


async def main() -> int:
    async with DatabaseManager() as db:
        for row in await db.conn.execute(text("SELECT 1")):
            print(row)
        connection: AsyncConnection = db.conn
        perhaps: AsyncConnection | None = db.conn
        if db.conn is None or perhaps is None:
            return 0
        assert db.conn is not None
        db.conn.exceute  # type: ignore[union-attr]
        async with db.transaction() as tx:
            connection = tx.conn
            tx.conn.exceute  # type: ignore[attr-defined]
        await db.list_agents("session-1", status=("failed", "cancelled"), root=True)
        await db.list_prompts(status={"failed"}, model_used=[name for name in ("small", "large")])
        await db.list_agents(status=("failed", "lost"))  # type: ignore[arg-type]
        await db.list_recent_agent_logs(min_level="LOUD")  # type: ignore[arg-type]
        rows = await connection.execute(text("SELECT 1"))
        return len(rows.all())
"""
"""A misspelt name is an error, and an ``ignore`` that ignores nothing is one too."""


@pytest.mark.slow
def test_the_connection_can_be_used_without_asserts_and_a_misspelt_name_is_found(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache", "program.py"]
    environment = {**os.environ, "MYPYPATH": str(Path(orchdb.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout

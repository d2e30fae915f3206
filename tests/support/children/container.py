"""A process in a container: with little memory-backed storage, or with nothing to write to but one folder."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from orchdb import DatabaseManager, OrchdbError


async def _fill(path: str) -> Any:
    """How many MB could be stored, and what stood in the way of more."""
    stored = 0
    try:
        async with DatabaseManager(path) as db:
            agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session-1")
            while stored < 100:
                await db.create_prompt(agent, "command", "x" * 1_000_000)
                stored += 1
    except OrchdbError as error:
        return stored, str(error)
    return stored, None


async def _use(path: str) -> Any:
    """Whatever may need a temporary file: an upgrade, deletions of many rows, a sorted list."""
    try:
        async with DatabaseManager(path) as db:
            line: Any = {"log_level": "INFO", "component": "test", "message": "x" * 1000}
            await db.create_system_logs([line] * 3000)
            first = (await db.list_orchestrator_agents())[0]["id"]
            agent = await db.create_agent(first, "session-1")
            await db.create_agent_logs(
                [{"agent_id": agent, "log_level": "INFO", "log_type": "test", "message": "x" * 1000}] * 3000
            )
            async with db.transaction() as tx:
                await tx.conn.exec_driver_sql("UPDATE agent_logs SET message = message || 'y'")
                await tx.conn.exec_driver_sql("DELETE FROM orchestrator_agents")
            assert db.conn is not None
            await db.conn.exec_driver_sql("SELECT message, id FROM system_logs ORDER BY message || id DESC")
            await db.backup(f"{path}.copy")
            return await db.schema_version(), None
    except OrchdbError as error:
        return None, str(error)


if __name__ == "__main__":
    work = {"fill": _fill, "use": _use}[sys.argv[1]]
    print(json.dumps(asyncio.run(work(sys.argv[2]))))

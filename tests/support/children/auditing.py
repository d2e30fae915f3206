"""A whole life of a manager, in which Python itself reports each file that is opened by anything but SQLite."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from orchdb import DatabaseManager

OPENED: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "shutil.copyfile", "os.rename", "os.remove", "os.link", "os.truncate"):
        OPENED.extend(os.fsdecode(name) for name in arguments if isinstance(name, (str, bytes, os.PathLike)))


async def _main(path: str) -> None:
    for number in range(3):
        async with DatabaseManager(path) as db, DatabaseManager(path) as second:
            definition = await db.create_orchestrator_agent(f"audited {number}")
            agent = await second.create_agent(definition, "session")
            await db.create_agent_logs(
                {"agent_id": agent, "log_level": "INFO", "log_type": "milestone", "message": "x" * 1000}
                for _ in range(500)
            )
            async with db.transaction() as tx:
                await tx.create_prompt(agent, "command", "text")
            await db.list_recent_agent_logs()
            await db.backup(Path(f"{path}.backup-{number}"))
            await db.cleanup_old_logs(0)
    print(json.dumps([name for name in OPENED if name in (path, f"{path}-wal", f"{path}-shm")]))


if __name__ == "__main__":
    sys.addaudithook(_note)
    asyncio.run(_main(sys.argv[1]))

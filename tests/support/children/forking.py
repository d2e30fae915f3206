"""A program that forks while its manager is connected: the child must be refused, and the parent not notice."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import warnings

from sqlalchemy import text

from orchdb import DatabaseManager, NotConnectedError


def _child(db: DatabaseManager) -> int:
    """What went wrong, as an exit code."""
    started = time.monotonic()

    async def use() -> int:
        for call in (db.get_system_logs(), db.create_system_log("INFO", "fork", "from the child")):
            try:
                await call
            except NotConnectedError:
                continue
            return 2
        await db.close()
        await db.close()
        return 0

    code = asyncio.run(use())
    return code or (3 if time.monotonic() - started > 1 else 0)


async def _session(db: DatabaseManager) -> int:
    """The server's process for the connection of a block; a new one if that was closed."""
    assert db.conn is not None
    if db.conn.dialect.name == "sqlite":
        return 0
    async with db.transaction() as tx:
        return int(await tx.conn.scalar(text("SELECT pg_backend_pid()")))


async def _main(url: str) -> None:
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "fork", "before")
        session = await _session(db)
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork in a process with threads
        child = os.fork()
        if not child:
            code = 9
            try:
                asyncio._set_running_loop(None)  # the parent's loop does not run here
                code = _child(db)
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        kept = await _session(db) == session
        for number in range(50):
            await db.create_system_log("INFO", "fork", f"after {number}")
        lines = len(await db.get_system_logs())
        print(json.dumps({"child": os.waitstatus_to_exitcode(status), "lines": lines, "kept": kept}))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))

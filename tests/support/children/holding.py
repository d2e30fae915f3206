"""A process that holds runs: as a good one, with its event loop blocked for half of the lease, or forking."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import warnings
from contextlib import AsyncExitStack

from orchdb import DatabaseManager, NotConnectedError


async def _held(db: DatabaseManager, stack: AsyncExitStack, number: int, seconds: float) -> list[str]:
    runs = [db.agent_run("holder", "session-1", lease_seconds=seconds) for _ in range(number)]
    return [(await stack.enter_async_context(run)).id for run in runs]


async def _block_the_loop(seconds: float) -> None:
    for _ in range(6):
        time.sleep(seconds / 2)
        await asyncio.sleep(seconds / 20)


async def _fork(db: DatabaseManager) -> None:
    """Let a child close the manager, connect it and reap: its parent's runs are not its own to keep or to end."""
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork in a process with threads
    child = os.fork()
    if not child:
        code = 9
        try:
            asyncio._set_running_loop(None)  # the parent's loop does not run here
            code = asyncio.run(_in_the_child(db))
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


async def _in_the_child(db: DatabaseManager) -> int:
    try:
        async with db.agent_run("holder", "session-1"):
            return 2
    except NotConnectedError:
        pass
    await db.close()
    return 0


async def _main(url: str, way: str, number: int, seconds: float) -> None:
    async with DatabaseManager(url) as db, AsyncExitStack() as stack:
        print(json.dumps(await _held(db, stack, number, seconds)), flush=True)
        if way == "blocked":
            await _block_the_loop(seconds)
        elif way == "forking":
            await _fork(db)
        else:
            await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps("done"), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    url, way, number, seconds = sys.argv[1:]
    asyncio.run(_main(url, way, int(number), float(seconds)))

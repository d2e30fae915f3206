"""A program that ends without closing its manager, in one of several ways."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time

from orchdb import DatabaseManager

KEPT: list[DatabaseManager] = []


async def _opened(url: str) -> DatabaseManager:
    db = DatabaseManager(url)
    await db.connect()
    for number in range(20):
        await db.create_system_log("INFO", "exit", str(number))
        print(json.dumps(str(number)), flush=True)
    return db


async def _keep_writing(db: DatabaseManager, task: int) -> None:
    for number in range(1_000_000):
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "exit", f"{task}-{number}")
        print(json.dumps(f"{task}-{number}"), flush=True)


async def _main(url: str, way: str) -> None:
    db = await _opened(url)
    if way == "global":
        KEPT.append(db)
    elif way == "sys.exit":
        sys.exit(0)
    elif way == "exception":
        raise ZeroDivisionError
    elif way == "in flight":
        tasks = [asyncio.create_task(_keep_writing(db, task)) for task in range(5)]
        await asyncio.sleep(0.2)
        assert len(tasks) == 5
    elif way == "Ctrl-C":
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
        await asyncio.gather(*(_keep_writing(db, task) for task in range(5)))
    elif way == "open transaction":
        async with db.transaction() as tx:
            await tx.create_system_log("INFO", "exit", "never")
            KEPT.append(db)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
    code: int | str | None = 0
    try:
        asyncio.run(_main(sys.argv[1], sys.argv[2]))
    except (ZeroDivisionError, KeyboardInterrupt, SystemExit) as error:
        code = error.code if isinstance(error, SystemExit) else 1
    print(json.dumps({"ended": time.time()}), flush=True)
    sys.exit(code)

"""One of several processes that open the same new database in the same instant, each writing one row."""

from __future__ import annotations

import asyncio
import json
import sys

from orchdb import DatabaseManager


async def _main(url: str, name: str) -> None:
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "opening", name)


if __name__ == "__main__":
    print(json.dumps("ready"), flush=True)
    while sys.stdin.readline().strip() == "go":
        asyncio.run(_main(sys.stdin.readline().strip(), sys.argv[1]))
        print(json.dumps("done"), flush=True)

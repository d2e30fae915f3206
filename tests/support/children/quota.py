"""A program whose files may not grow beyond a limit for a while, as under a quota."""

from __future__ import annotations

import asyncio
import json
import resource
import sys

from orchdb import DatabaseManager, OperationError


async def _main(path: str) -> None:
    acknowledged: list[str] = []
    codes: set[str | None] = set()
    async with DatabaseManager(path) as db:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
        for number in range(300):
            try:
                await db.create_system_log("INFO", "quota", f"{number}", "x" * 10_000)
            except OperationError as error:
                codes.add(error.code)
                if codes and number > 250:
                    break
            else:
                acknowledged.append(f"{number}")
        read = len(await db.get_system_logs())
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await db.create_system_log("INFO", "quota", "after")
        print(json.dumps({"acknowledged": acknowledged, "codes": sorted(map(str, codes)), "read": read}))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))

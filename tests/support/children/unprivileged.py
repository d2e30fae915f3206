"""A program that runs as nobody, and says how far it gets with each file."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys

from orchdb import DatabaseManager, OrchdbError


async def _try(path: str) -> dict[str, object]:
    """How far one gets with the file."""
    reached = "nothing"
    try:
        async with DatabaseManager(path) as db:
            reached = "connect"
            await db.get_system_logs()
            reached = "read"
            await db.create_system_log("INFO", "nobody", "written")
            reached = "write"
    except OrchdbError as error:
        return {"reached": reached, "kind": type(error).__name__, "code": error.code, "text": str(error)}
    return {"reached": reached}


async def _main(paths: list[str]) -> None:
    async with DatabaseManager(":memory:") as db:  # so that every module is loaded while it can be read
        await db.create_system_log("INFO", "nobody", "root")
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    for path in paths:
        print(json.dumps(await _try(path)))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))

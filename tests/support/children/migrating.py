"""Upgrades of an old file that end in SIGKILL, each in a fork of this process."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import time

import alembic.command  # so that a fork does not spend its time on importing it

from orchdb import DatabaseManager


async def _upgrade(path: str) -> None:
    async with DatabaseManager(path):
        pass


def _fork(path: str, seconds: float | None) -> float:
    """How long the upgrade took; it is killed after so many seconds."""
    started = time.monotonic()
    child = os.fork()
    if not child:
        asyncio.run(_upgrade(path))
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - started


def main(old: str, folder: str, rounds: int) -> None:
    assert alembic.command
    whole = f"{folder}/whole.db"
    shutil.copy(old, whole)
    needed = _fork(whole, None)
    for number in range(rounds):
        path = f"{folder}/{number}.db"
        shutil.copy(old, path)
        _fork(path, random.uniform(0, needed))
        print(json.dumps(path), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

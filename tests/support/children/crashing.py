"""Rounds of load that end in SIGKILL. Each load runs in a fork that acknowledges its rows through a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from itertools import count

from orchdb import DatabaseManager


async def _load(url: str, durability: str, round_: int, pipe: int) -> None:
    async with DatabaseManager(url, durability=durability) as db:  # type: ignore[arg-type]
        definition = await db.create_orchestrator_agent(f"round-{round_}")
        agent = await db.create_agent(definition, f"round-{round_}")

        async def alone(worker: int) -> None:
            for number in count():
                name = f"{round_}-{worker}-{number}"
                await db.create_system_log("INFO", "load", name, {"name": name})
                os.write(pipe, f"{name}\n".encode())

        async def together(worker: int) -> None:
            for number in count():
                name = f"{round_}-{worker}-{number}"
                async with db.transaction() as tx:
                    await tx.create_prompt(agent, "command", name)
                    await tx.create_system_log("INFO", "load", name)
                os.write(pipe, f"{name}\n".encode())

        await asyncio.gather(*(alone(worker) for worker in range(3)), *(together(worker) for worker in range(3, 5)))


def _round(url: str, durability: str, number: int) -> list[str]:
    """The rows that were acknowledged before the kill."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        asyncio.run(_load(url, durability, number, writing))
        os._exit(1)
    os.close(writing)
    said = b""
    if number % 3 == 2:  # while the database is being opened
        time.sleep(random.uniform(0, 0.03))
    else:
        said = os.read(reading, 65536)  # the first row that was acknowledged
        time.sleep(random.uniform(0, 0.35))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(reading, 65536):
        said += part
    os.close(reading)
    return said.decode().splitlines()


def main() -> None:
    url, durability, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for number in range(rounds):
        print(json.dumps(_round(url, durability, number)), flush=True)
        assert sys.stdin.readline()  # the parent looks at the file before the next round


if __name__ == "__main__":
    main()

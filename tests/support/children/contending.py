"""One of several processes that write to the same database, with many tasks each."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count

from orchdb import DatabaseManager


async def _main(url: str, process: str, tasks: int, seconds: float, agent: str) -> None:
    acknowledged: list[str] = []
    latencies: list[float] = []
    async with DatabaseManager(url) as db:
        print(json.dumps("ready"), flush=True)
        sys.stdin.readline()
        end = time.monotonic() + seconds

        async def work(task: int) -> None:
            for number in count():
                started = time.monotonic()
                if started > end:
                    return
                name = f"{process}-{task}-{number}"
                if number % 10 == 9:
                    async with db.transaction() as tx:
                        await tx.create_system_log("INFO", "contention", name)
                        await tx.add_agent_cost(agent, 0.5)
                else:
                    await asyncio.gather(
                        db.create_system_log("INFO", "contention", name), db.add_agent_cost(agent, 0.5)
                    )
                latencies.append(time.monotonic() - started)
                acknowledged.append(name)

        await asyncio.gather(*(work(task) for task in range(tasks)))
    latencies.sort()
    middle, high = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    print(json.dumps({"rows": acknowledged, "p50": middle, "p99": high, "max": latencies[-1]}))


if __name__ == "__main__":
    url, process, tasks, seconds, agent = sys.argv[1:]
    asyncio.run(_main(url, process, int(tasks), float(seconds), agent))

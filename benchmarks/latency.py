"""Latency under load: ``python -m benchmarks.latency [--engine sqlite|postgres]``.

A hundred tasks append, each line committed before the task's next; the time of every single append counts. Beside
them a ticker asks for one millisecond again and again: how late it comes is how long the event loop was blocked. On
SQLite it is asked once more while another process holds the write lock for 350 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import report, workload
from benchmarks.contestants import Contestant, contestants, missing
from benchmarks.databases import places

KEYS = {"sqlite": ("orchdb", "aiosqlite", "sqlite3", "core"), "postgres": ("orchdb", "asyncpg", "psycopg", "core")}
EACH = 300
"""Long enough for the garbage collector's rare full run, which stops any program, to be rare here too."""
LOCK_SECONDS = 0.35
_HOLD = """\
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


async def lateness(work: Callable[[], Awaitable[object]]) -> float:
    """The most that a ticker of one millisecond was late beside the work, in milliseconds."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            due = time.perf_counter() + 0.001
            try:
                await asyncio.sleep(0.001)
            finally:
                worst = max(worst, time.perf_counter() - due)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    try:
        await work()
    finally:
        ticker.cancel()
        await asyncio.wait((ticker,))
    return worst * 1000


async def load(contestant: Contestant, taken: list[float], failed: list[str], each: int = EACH) -> None:
    """Let a hundred tasks append, and note what each append took."""

    async def task(number: int) -> None:
        for index in range(each):
            started = time.perf_counter()
            try:
                await contestant.append(workload.log(number * each + index))
            except Exception as error:
                failed.append(type(error).__name__)
            taken.append(time.perf_counter() - started)

    await asyncio.gather(*(task(number) for number in range(workload.TASKS)))


async def behind_a_lock(contestant: Contestant, failed: list[str]) -> float:
    """How late the ticker was while another process held the write lock, in milliseconds."""
    command = [sys.executable, "-c", _HOLD, contestant.place, str(LOCK_SECONDS)]
    holder = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    await holder.stdout.readline()
    late = await lateness(lambda: load(contestant, [], failed, each=5))
    await holder.wait()
    return late


async def row(contestant: Contestant, engine: str) -> str:
    """The contestant's line of the table."""
    await contestant.open()
    taken: list[float] = []
    failed: list[str] = []
    await load(contestant, [], [], each=20)
    started = time.perf_counter()
    late = await lateness(lambda: load(contestant, taken, failed))
    rate = len(taken) / (time.perf_counter() - started)
    locked = f"{await behind_a_lock(contestant, failed):.0f}" if engine == "sqlite" else "n/a"
    await contestant.close()
    taken.sort()
    p50, p99 = (taken[int(len(taken) * share)] * 1000 for share in (0.5, 0.99))
    figures = f"{rate:,.0f} | {p50:.1f} | {p99:.1f} | {taken[-1] * 1000:.1f} | {late:.0f} | {locked} | {len(failed)}"
    return f"| {contestant.title} | {figures} |"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    engine: str = parser.parse_args().engine
    lines = [
        "| append, 100 tasks | a second | p50, ms | p99 | slowest | ticker late, ms | behind a lock | failed |",
        f"|---|{'--:|' * 7}",
    ]
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as name, places(engine, Path(name)) as place:
        for key in KEYS[engine]:
            kind = contestants(engine)[key]
            if lacking := missing(kind):
                lines.append(f"| {kind.title} | not installed: {', '.join(lacking)}{' |' * 7}")
                continue
            lines.append(asyncio.run(row(kind(place(key, kind)), engine)))
    text = "\n".join(lines)
    print(text)
    report.write(f"latency on {report.NAMES[engine]}", text)


if __name__ == "__main__":
    main()

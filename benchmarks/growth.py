"""Growth: ``python -m benchmarks.growth [--engine sqlite|postgres] [--full]``.

What an operation costs among 10 thousand, 1 million and with ``--full`` 5 million log lines. The databases are open at
the same time, and each round asks each of them; a ratio is the median of the ratios to the smallest in the same round.
On SQLite everything runs on one core: whether the threads of a connection and of the loop share one is luck, which
doubles a short operation, and has nothing to do with how many lines there are.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks import report, workload
from benchmarks.workload import AGENT_IDS, agent_id
from orchdb import DatabaseManager, cursor_of

SIZES = (10_000, 1_000_000)
FULL = 5_000_000
LINES_AN_AGENT = 100
Operation = Callable[["Grown", int], Awaitable[object]]


class Grown:
    """A database of one size: a hundred lines for each agent there is, shared out among ten of them."""

    def __init__(self, db: DatabaseManager, logs: int) -> None:
        self.db = db
        self.agents = max(logs // LINES_AN_AGENT, len(AGENT_IDS))
        self._middle = ""

    async def find_middle(self) -> None:
        """A cursor of the middle of an agent's log."""
        start = self.db.get_agent_logs(AGENT_IDS[0], since="2025-01-01T01:00:00", limit=1)
        self._middle = cursor_of((await start)[0])

    async def append(self, number: int) -> object:
        return await self.db.create_agent_log(*workload.log(number))  # type: ignore[arg-type]

    async def get(self, number: int) -> object:
        return await self.db.get_agent(agent_id(random.randrange(self.agents)))

    async def latest(self, number: int) -> object:
        return await self.db.get_agent_logs_by_type(AGENT_IDS[number % 10], "tool_call", 100)

    async def filtered(self, number: int) -> object:
        return await self.db.get_agent_logs(AGENT_IDS[number % 10], "INFO", since="2025-01-01T01:00:00", limit=100)

    async def keyset(self, number: int) -> object:
        return await self.db.get_agent_logs(AGENT_IDS[0], after=self._middle, limit=100)


OPERATIONS: dict[str, tuple[Operation, int]] = {
    "append": (Grown.append, 500),
    "get by id": (Grown.get, 500),
    "latest 100": (Grown.latest, 30),
    "filtered page": (Grown.filtered, 30),
    "keyset page": (Grown.keyset, 30),
}


async def measure(places: dict[int, str], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Microseconds: operation → size → rounds."""
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with AsyncExitStack() as stack:
        grown = {size: Grown(await stack.enter_async_context(DatabaseManager(at)), size) for size, at in places.items()}
        for database in grown.values():
            await database.find_middle()
        for number in range(rounds + 1):
            for name, (operation, count) in OPERATIONS.items():
                for size in random.sample(list(grown), len(grown)):
                    started = time.perf_counter()
                    for index in range(count):
                        await operation(grown[size], number * count + index)
                    if number:
                        times[name][size].append((time.perf_counter() - started) / count * 1e6)
    return times


def table(times: dict[str, dict[int, list[float]]]) -> str:
    """The Markdown table."""
    sizes = sorted(next(iter(times.values())))
    heads = [f"{size:,} lines" for size in sizes]
    lines = [f"| µs (ratio to {heads[0]}) | {' | '.join(heads)} |", f"|---|{'--:|' * len(sizes)}"]
    for name, found in times.items():
        cells = []
        for size in sizes:
            ratio = median(one / other for one, other in zip(found[size], found[sizes[0]], strict=True))
            cells.append(f"{median(found[size]):,.0f} ({ratio:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def on_sqlite(sizes: tuple[int, ...], rounds: int) -> str:
    """Measure on files."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder:
        places = {size: str(Path(folder) / f"{size}.db") for size in sizes}
        for size, place in places.items():
            workload.prepare_file(Path(place), size, max(size // LINES_AN_AGENT, len(AGENT_IDS)))
        return table(asyncio.run(measure(places, rounds)))


def on_postgres(sizes: tuple[int, ...], rounds: int) -> str:
    """Measure on a server."""
    from benchmarks.postgres_server import prepare, server  # noqa: PLC0415  # SQLite needs none of its drivers

    with server() as url:
        places = {
            size: asyncio.run(
                prepare(url, f"orchdb_benchmark_{size}", size, max(size // LINES_AN_AGENT, len(AGENT_IDS)))
            )
            for size in sizes
        }
        return table(asyncio.run(measure(places, rounds)))


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--full", action="store_true", help="5 million lines too")
    parser.add_argument("--quick", action="store_true", help="100 thousand instead of a million; nothing is written")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    sizes = (10_000, 100_000) if arguments.quick else (*SIZES, FULL) if arguments.full else SIZES
    run = on_sqlite if arguments.engine == "sqlite" else on_postgres
    text = run(sizes, arguments.rounds)
    print(text)
    if not arguments.quick:
        report.write(f"growth on {report.NAMES[arguments.engine]}", text)


if __name__ == "__main__":
    main()

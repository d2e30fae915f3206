"""What orchestrators ask for: ``python -m benchmarks.asked [--only sqlite asyncpg psycopg] [--quick]``.

Each figure stands beside the plain operation that it is compared with, on the same database: rounds of both are
interleaved, and a ratio is the median of the ratios in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import make_url

from benchmarks import report, workload
from benchmarks.workload import AGENT_IDS, DEFINITION_ID, TASKS
from orchdb import DatabaseManager

DRIVERS = ("sqlite", "asyncpg", "psycopg")
LOGS = 100_000
RUNS = 1_000
PROMPTS = 1_000
INDEXES = {
    "uq_agent_logs_event": ("agent_logs (event_id) WHERE event_id IS NOT NULL", True),
    "idx_agent_logs_level": ("agent_logs (log_level, created_at, id) WHERE log_level NOT IN ('DEBUG', 'INFO')", False),
    "idx_prompts_created": ("prompts (created_at, id)", False),
    "idx_prompts_model": ("prompts (model_used, created_at, id)", False),
    "idx_prompts_type": ("prompts (prompt_type, created_at, id)", False),
    "idx_prompts_status": ("prompts (status, created_at, id) WHERE status <> 'completed'", False),
}
Operation = Callable[[DatabaseManager, int], Awaitable[object]]


class Asked:
    """The operations, each of which takes a number that never comes again."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    async def prepare(self, db: DatabaseManager) -> None:
        """Make the prompts that are changed, and a line that is repeated."""
        self.prompts = await db.create_prompts(
            {"agent_id": AGENT_IDS[number % 10], "prompt_type": "command", "prompt_text": "Which files?"}
            for number in range(PROMPTS)
        )
        await db.create_agent_log(*workload.log(0), event_id="again")  # type: ignore[arg-type]

    async def append(self, db: DatabaseManager, number: int) -> object:
        return await db.create_agent_log(*workload.log(number))  # type: ignore[arg-type]

    async def append_event(self, db: DatabaseManager, number: int) -> object:
        return await db.create_agent_log(*workload.log(number), event_id=f"event-{number}")  # type: ignore[arg-type]

    async def append_again(self, db: DatabaseManager, number: int) -> object:
        return await db.create_agent_log(*workload.log(number), event_id="again")  # type: ignore[arg-type]

    async def get(self, db: DatabaseManager, number: int) -> object:
        return await db.get_orchestrator_agent(DEFINITION_ID)

    async def get_or_create(self, db: DatabaseManager, number: int) -> object:
        return await db.get_or_create_orchestrator_agent("scout")

    async def update(self, db: DatabaseManager, number: int) -> object:
        prompt = self.prompts[number % PROMPTS]
        return await db.update_prompt(prompt, response_text="a.py", tokens_input=9, status="completed", cost_usd=number)

    async def complete(self, db: DatabaseManager, number: int) -> object:
        prompt = self.prompts[number % PROMPTS]
        return await db.complete_prompt(prompt, "a.py", tokens_input=9, cost_usd=number)

    async def create(self, db: DatabaseManager, number: int) -> object:
        return await db.create_prompt(AGENT_IDS[number % 10], "command", "Which files?", model_used="large")

    async def reap(self, db: DatabaseManager, number: int) -> object:
        return await db.reap_agents()


async def timed(db: DatabaseManager, operation: Operation, first: int, count: int, tasks: int) -> float:
    """Microseconds an operation, by so many tasks at once."""
    numbers = iter(range(first, first + count))

    async def work() -> None:
        for number in numbers:
            await operation(db, number)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return (time.perf_counter() - started) / count * 1e6


def ratio(times: dict[str, list[float]], name: str, base: str) -> str:
    """The median of the ratios, and the time."""
    ratios = [one / other for one, other in zip(times[name], times[base], strict=True)]
    return f"{median(times[name]):,.0f} ({median(ratios):.2f})"


async def pairs(db: DatabaseManager, rounds: int, count: int) -> list[tuple[str, str]]:
    """What is asked for, beside what it is compared with."""
    asked = Asked()
    await asked.prepare(db)
    compared: dict[str, tuple[str, Operation, int]] = {}
    for tasks, words in ((1, "1 task"), (TASKS, f"{TASKS} tasks")):
        append, update = f"append, {words}", f"update of a prompt by id, {words}"
        compared[append] = (append, asked.append, tasks)
        compared[f"append with a new event_id, {words}"] = (append, asked.append_event, tasks)
        compared[f"append with an event_id that is there, {words}"] = (append, asked.append_again, tasks)
        compared[update] = (update, asked.update, tasks)
        compared[f"complete_prompt, {words}"] = (update, asked.complete, tasks)
    compared["get by id, 1 task"] = ("get by id, 1 task", asked.get, 1)
    compared["get_or_create that is there, 1 task"] = ("get by id, 1 task", asked.get_or_create, 1)
    times: dict[str, list[float]] = defaultdict(list)
    number = 0
    for index in range(rounds + 1):
        for name in random.sample(list(compared), len(compared)):
            _, operation, tasks = compared[name]
            size = count if tasks == 1 else count * 4
            found = await timed(db, operation, number, size, tasks)
            number += size
            if index:
                times[name].append(found)
    return [(name, ratio(times, name, base)) for name, (base, _, _) in compared.items()]


async def open_runs(db: DatabaseManager, count: int, seconds: float, stack: AsyncExitStack) -> None:
    """Open so many runs until the stack ends."""
    for _ in range(count):
        await stack.enter_async_context(db.agent_run("scout", "session-2", lease_seconds=seconds))


async def heartbeats(place: str, rounds: int, count: int) -> list[tuple[str, str]]:
    """A renewal with one and with many runs, and appends beside many, in the same rounds."""
    asked, times, number = Asked(), dict[str, list[float]](), 0
    async with DatabaseManager(place) as idle, DatabaseManager(place) as one, AsyncExitStack() as stack:
        many = await stack.enter_async_context(DatabaseManager(place))
        await open_runs(one, 1, 3600, stack)
        await open_runs(many, RUNS, 3600, stack)
        busy = await stack.enter_async_context(DatabaseManager(place))
        await open_runs(busy, RUNS, 60, stack)
        managers = {
            "reap_agents, no run": (idle, asked.reap, 1),
            "reap_agents with a renewal, 1 run": (one, asked.reap, 1),
            f"reap_agents with a renewal, {RUNS:,} runs": (many, asked.reap, 1),
            "append, no run": (idle, asked.append, TASKS),
            f"append, {RUNS:,} runs": (busy, asked.append, TASKS),
        }
        for index in range(rounds + 1):
            for name in random.sample(list(managers), len(managers)):
                db, operation, tasks = managers[name]
                size = count if tasks == 1 else count * 10
                found = await timed(db, operation, number, size, tasks)
                number += size
                if index:
                    times.setdefault(name, []).append(found)
    bases = ["reap_agents, no run"] * 3 + ["append, no run"] * 2
    return [(name, ratio(times, name, base)) for name, base in zip(managers, bases, strict=True)]


def statement_on(place: str, statement: str) -> None:
    """Run a statement as another program."""
    url = make_url(place) if "://" in place else None
    if url is None:
        connection: Any = sqlite3.connect(place, isolation_level=None)
    else:
        import psycopg  # noqa: PLC0415  # SQLite needs none of its drivers

        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(plain, autocommit=True)
    connection.execute(statement)
    connection.close()


async def indexes(place: str, rounds: int, count: int) -> list[tuple[str, str]]:
    """What each index costs the writes of its table: the ratio to the same without it."""
    asked, lines, number = Asked(), list[tuple[str, str]](), 10_000_000
    async with DatabaseManager(place) as db:
        await asked.prepare(db)
        for name, (rows, unique) in INDEXES.items():
            logs = name.endswith(("event", "level"))
            operations = {"append": asked.append} if logs else {"create": asked.create, "complete": asked.complete}
            times: dict[str, list[float]] = defaultdict(list)
            for _ in range(rounds):
                for there in ("without", "with"):
                    made = f"CREATE {'UNIQUE ' if unique else ''}INDEX {name} ON {rows}"
                    statement_on(place, made if there == "with" else f"DROP INDEX {name}")
                    for operation, call in operations.items():
                        await timed(db, call, number, TASKS, TASKS)  # the statements are prepared anew
                        times[f"{operation} {there}"].append(await timed(db, call, number + TASKS, count * 4, TASKS))
                        number += TASKS + count * 4
            lines += [
                (f"{name}: {operation}", ratio(times, f"{operation} with", f"{operation} without"))
                for operation in operations
            ]
    return lines


@contextmanager
def prepared(drivers: list[str]) -> Iterator[dict[str, str]]:
    """A database for each driver."""
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder:
        places: dict[str, str] = {}
        if "sqlite" in drivers:
            places["sqlite"] = str(Path(folder) / "asked.db")
            workload.prepare_file(Path(places["sqlite"]), LOGS)
        others = [driver for driver in drivers if driver != "sqlite"]
        if not others:
            yield places
            return
        from benchmarks.postgres_server import prepare, server  # noqa: PLC0415  # SQLite needs none of its drivers

        with server() as url:
            for driver in others:
                made = make_url(asyncio.run(prepare(url, f"orchdb_benchmark_{driver}", LOGS)))
                named = made.set(drivername=f"postgresql+{driver}")
                places[driver] = named.render_as_string(hide_password=False)
            yield places


async def measure(place: str, rounds: int, count: int) -> list[tuple[str, str]]:
    """All lines of one driver's column."""
    async with DatabaseManager(place) as db:
        found = await pairs(db, rounds, count)
    found += await heartbeats(place, rounds, count)
    return found + await indexes(place, rounds, count)


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asked", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=DRIVERS, default=list(DRIVERS))
    parser.add_argument("--quick", action="store_true", help="a few short rounds; nothing is written")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    rounds, count = (3, 100) if arguments.quick else (arguments.rounds, 200)
    with prepared(arguments.only) as places:
        columns = {driver: dict(asyncio.run(measure(place, rounds, count))) for driver, place in places.items()}
    lines = [f"| µs an operation (ratio to the plain one) | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    names = next(iter(columns.values()))
    lines += [f"| {name} | {' | '.join(found[name] for found in columns.values())} |" for name in names]
    print("\n".join(lines))
    if not arguments.quick and len(columns) == len(DRIVERS):
        report.write("what orchestrators ask for", "\n".join(lines))


if __name__ == "__main__":
    main()

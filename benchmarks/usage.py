"""Usage: ``python -m benchmarks.usage [--engine sqlite|postgres] [--rounds N] [--quick]``.

What the questions of ``usage`` and ``agent_tree`` cost on a million prompts, beside the statement that a user would
write by hand for the same figures. Both are asked in turn; a figure is the median of the rounds, warm.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.usage_rows import LARGE_SESSION, Size, fill_file, fill_server, row_id
from orchdb import DatabaseManager

Raw = Callable[[str], Awaitable[Any]]
SINCE = "2025-03-20T00:00:00.000000"
ROOT = row_id(2, 0)
ZONE = "Europe/Berlin"

FIGURES = (
    "count(*) AS n, sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed, count(cost_usd) AS priced, "
    "sum(tokens_input) AS ti, sum(tokens_output) AS tou, sum(tokens_cache_read) AS tr, sum(tokens_cache_write) AS tw, "
    "sum(cost_usd) AS usd, avg(latency_ms) AS mean, max(latency_ms) AS longest, min(created_at) AS first, "
    "max(created_at) AS last"
)
TOGETHER = (
    "sum(n), sum(failed), sum(priced), sum(ti), sum(tou), sum(tr), sum(tw), sum(usd), sum(mean * n), max(longest), "
    "min(first), max(last), sum(CASE WHEN a.cost_usd > coalesce(usd, 0) THEN a.cost_usd - coalesce(usd, 0) END)"
)
LIVING = "deleted_at IS NULL"
BY_AGENT = f"SELECT agent_id, {FIGURES} FROM prompts WHERE {LIVING} GROUP BY agent_id"
BY_AGENT_OF = f"SELECT agent_id, {FIGURES} FROM prompts WHERE {LIVING} AND agent_id IN ({{0}}) GROUP BY agent_id"
OF_DELETED = f"agent_id NOT IN (SELECT id FROM agents WHERE NOT {LIVING})"
BEYOND = (
    "UNION ALL SELECT {0}, 0, 0, 0, 0, 0, 0, 0, sum(a.cost_usd - coalesce(usd, 0)), NULL, NULL, NULL, NULL "
    "FROM agents a "
    f"LEFT JOIN (SELECT agent_id, sum(cost_usd) AS usd FROM prompts WHERE {LIVING} GROUP BY agent_id) s "
    "ON s.agent_id = a.id WHERE a.cost_usd > coalesce(usd, 0) AND a.deleted_at IS NULL {1}"
)
SESSION = f"SELECT id FROM agents WHERE session_id = '{LARGE_SESSION}' AND {LIVING}"
SUBTREE = (
    f"WITH RECURSIVE below AS (SELECT id FROM agents WHERE id = '{ROOT}' "
    "UNION SELECT c.id FROM agents c JOIN below ON c.parent_agent_id = below.id) "
)
DAY = {"sqlite": "substr({0}created_at, 1, 10)", "postgres": "({0}created_at AT TIME ZONE 'UTC')::date"}
ZONED = {
    "sqlite": "substr({0}created_at, 1, 14) || (substr({0}created_at, 15, 2) / 15)",
    "postgres": f"({{0}}created_at AT TIME ZONE '{ZONE}')::date",
}


def by_agent_key(key: str, where: str = "", sums: str = BY_AGENT) -> str:
    """Everything, told apart by what is known of agents."""
    return (
        f"SELECT a.{key}, {TOGETHER} FROM agents a LEFT JOIN ({sums}) s ON s.agent_id = a.id "
        f"WHERE a.{LIVING} {where} GROUP BY a.{key}"
    )


def by_prompt_key(own: str, of_agent: str, where: str = "") -> str:
    """Everything, told apart by what is known of prompts."""
    beyond = BEYOND.format(of_agent, f"GROUP BY {of_agent}" if of_agent != "NULL" else "")
    prompts = f"SELECT {own}, {FIGURES} FROM prompts WHERE {LIVING} AND {OF_DELETED} {where} GROUP BY {own}"
    if where:
        beyond = beyond.replace("a.deleted_at", f"a.created_at >= '{SINCE}' AND a.deleted_at")
    return f"{prompts} {beyond}"


class Question(NamedTuple):
    """One question.

    Attributes:
        ask: What asks orchdb.
        by_hand: The statement, for each engine.
        limits: Milliseconds that it may take, for each engine.
    """

    ask: Callable[[DatabaseManager], Awaitable[Any]]
    by_hand: dict[str, str]
    limits: tuple[int, int]


def _both(statement: str) -> dict[str, str]:
    return dict.fromkeys(("sqlite", "postgres"), statement)


def _by_time(period: dict[str, str]) -> dict[str, str]:
    return {engine: by_prompt_key(text.format(""), text.format("a.")) for engine, text in period.items()}


TREE = (
    f"SELECT a.*, d.name, s.* FROM agents a LEFT JOIN ({BY_AGENT_OF.format(SESSION)}) s ON s.agent_id = a.id "
    f"LEFT JOIN orchestrator_agents d ON d.id = a.orchestrator_agent_id WHERE a.session_id = '{LARGE_SESSION}'"
)
OF_SESSION = by_agent_key("id", f"AND a.session_id = '{LARGE_SESSION}'", BY_AGENT_OF.format(SESSION))
OF_SUBTREE = SUBTREE + by_agent_key(
    "session_id", "AND a.id IN (SELECT id FROM below)", BY_AGENT_OF.format("SELECT id FROM below")
)
OF_DEFINITIONS = f"SELECT u.*, d.name FROM ({by_agent_key('orchestrator_agent_id')}) u JOIN orchestrator_agents d "
OF_DEFINITIONS += "ON d.id = u.orchestrator_agent_id"

QUESTIONS: dict[str, Question] = {
    "a session of 200 agents, by agent": Question(
        lambda db: db.usage("agent", session_id=LARGE_SESSION), _both(OF_SESSION), (10, 10)
    ),
    "a subtree": Question(lambda db: db.usage((), agent_id=ROOT, subtree=True), _both(OF_SUBTREE), (10, 10)),
    "agent_tree of 200": Question(lambda db: db.agent_tree(session_id=LARGE_SESSION), _both(TREE), (10, 10)),
    "7 days by model": Question(
        lambda db: db.usage("model", since=SINCE, until="2025-03-27"),
        _both(by_prompt_key("model_used", "NULL", f"AND created_at >= '{SINCE}' AND created_at < '2025-03-27'")),
        (100, 50),
    ),
    "everything by session": Question(lambda db: db.usage("session"), _both(by_agent_key("session_id")), (500, 250)),
    "everything by definition": Question(lambda db: db.usage("definition"), _both(OF_DEFINITIONS), (500, 250)),
    "everything by model": Question(
        lambda db: db.usage("model"), _both(by_prompt_key("model_used", "NULL")), (1_000, 500)
    ),
    "everything by day": Question(lambda db: db.usage("day"), _by_time(DAY), (1_000, 500)),
    f"everything by day, {ZONE}": Question(lambda db: db.usage("day", tz=ZONE), _by_time(ZONED), (1_000, 500)),
    "percentiles by model": Question(
        lambda db: db.usage("model", percentiles=True),
        _both(by_prompt_key("model_used, latency_ms", "NULL").replace("SELECT NULL, 0", "SELECT NULL, NULL, 0")),
        (1_500, 1_500),
    ),
}


async def measure(place: str, engine: str, raw: Raw, rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of orchdb and of the statement by hand, for each question."""
    found: dict[str, tuple[float, float]] = {}
    async with DatabaseManager(place) as db:
        for name, question in QUESTIONS.items():
            times: tuple[list[float], list[float]] = [], []
            by_hand = question.by_hand[engine]
            for number in range(rounds + 1):
                asked = (lambda: question.ask(db)), (lambda: raw(by_hand))  # noqa: B023
                for ask, taken in zip(asked, times, strict=True):
                    started = time.perf_counter()
                    await ask()
                    if number:
                        taken.append((time.perf_counter() - started) * 1000)
            found[name] = median(times[0]), median(times[1])
            print(f"{name}: {found[name][0]:,.1f} ms, by hand {found[name][1]:,.1f} ms", flush=True)
    return found


def table(found: dict[str, tuple[float, float]], engine: str) -> str:
    """The Markdown table."""
    lines = ["| warm, ms | limit | orchdb | by hand | ratio |", "|---|--:|--:|--:|--:|"]
    for name, (ours, theirs) in found.items():
        limit = QUESTIONS[name].limits[engine == "postgres"]
        lines.append(f"| {name} | {limit:,} | {ours:,.1f} | {theirs:,.1f} | {ours / theirs:.2f} |")
    return "\n".join(lines)


async def on_sqlite(folder: Path, size: Size, rounds: int) -> dict[str, tuple[float, float]]:
    """Measure on a file."""
    import aiosqlite  # noqa: PLC0415  # Postgres needs none of it

    path = folder / "usage.db"
    fill_file(path, size)
    async with aiosqlite.connect(path) as connection:

        async def raw(statement: str) -> Any:
            return await connection.execute_fetchall(statement)

        return await measure(str(path), "sqlite", raw, rounds)


async def on_postgres(url: str, size: Size, rounds: int) -> dict[str, tuple[float, float]]:
    """Measure on a server."""
    import asyncpg  # noqa: PLC0415

    from benchmarks.postgres_server import prepare  # noqa: PLC0415

    place = await prepare(url, "orchdb_benchmark_usage", 0, 0)
    connection = await asyncpg.connect(place)
    await connection.execute("TRUNCATE orchestrator_agents CASCADE")
    await fill_server(connection, size)
    try:
        return await measure(place, "postgres", connection.fetch, rounds)
    finally:
        await connection.close()


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usage", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="a tenth of the prompts; nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size = Size(4_000, 200) if arguments.quick else Size()
    if arguments.engine == "sqlite":
        with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder:
            found = asyncio.run(on_sqlite(Path(folder), size, arguments.rounds))
    else:
        from benchmarks.postgres_server import server  # noqa: PLC0415  # SQLite needs none of its drivers

        with server() as url:
            found = asyncio.run(on_postgres(url, size, arguments.rounds))
    text = table(found, arguments.engine)
    print(text)
    if not arguments.quick:
        report.write(f"usage on {report.NAMES[arguments.engine]}", text)


if __name__ == "__main__":
    main()

"""Copying from a file to a server and back: how quick, how much memory; ``python -m benchmarks.transfer [--logs N]``.

Beside each direction stands the quickest way that is known: a reader's rows straight into COPY, or into one
``executemany`` after another, with the indexes made afterwards, neither restartable nor verified.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from benchmarks.postgres_server import named, server
from orchdb import DatabaseManager
from orchdb.schema.tables import metadata
from orchdb.transfer import TransferReport, copy_database

_WORDS = [f"word{number}" for number in range(5000)]
_AGENTS = 1000
_AT = "2026-11-{:02}T{:02}:{:02}:{:02}.{:06}"


async def make(path: Path, logs: int, prompts: int) -> None:
    """Make a file with so many log lines, about 250 bytes each, and prompts, about 5 kB each."""
    async with DatabaseManager(path) as db:
        definition = await db.create_orchestrator_agent("scout")
        agents = [await db.create_agent(definition, f"session-{number // 20}") for number in range(_AGENTS)]
    picker = random.Random(1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO agent_logs (agent_id, log_type, message, details, created_at) VALUES (?, ?, ?, ?, ?)",
            _logs(picker, agents, logs),
        )
        connection.executemany(
            "INSERT INTO prompts (id, agent_id, prompt_type, prompt_text, response_text, status, model_used, "
            "tokens_input, tokens_output, cost_usd, created_at) "
            "VALUES (?, ?, 'adw', ?, ?, 'completed', 'm', ?, ?, ?, ?)",
            _prompts(picker, agents, prompts),
        )


def _logs(picker: random.Random, agents: list[str], count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        text = " ".join(picker.choices(_WORDS, k=12))
        details = json.dumps({"step": number, "ratio": picker.random(), "path": f"src/{text[:9]}.py", "ok": True})
        yield agents[number % _AGENTS], "milestone", text, details, _time(number)


def _prompts(picker: random.Random, agents: list[str], count: int) -> Iterator[tuple[Any, ...]]:
    body = " ".join(picker.choices(_WORDS, k=2000))
    for number in range(count):
        start = picker.randrange(10_000)
        id_ = str(UUID(int=(1_760_000_000_000 + number) << 80 | 7 << 76 | picker.getrandbits(62) | 2 << 62))
        figures = (picker.randrange(9000), picker.randrange(3000), picker.randrange(10**9) / 1e9)
        yield id_, agents[number % _AGENTS], body[start : start + 1500], body[:3500], *figures, _time(number)


def _time(number: int) -> str:
    return _AT.format(number // 86_400 % 28 + 1, number // 3600 % 24, number // 60 % 60, number % 60, number % 10**6)


async def plain_to_server(path: Path, url: str) -> None:
    """The quickest way into a server: rows as they are read, as records of COPY."""
    connection = await asyncpg.connect(url)
    made = await connection.fetch("SELECT indexdef, indexname FROM pg_indexes WHERE schemaname = 'public'")
    afterwards = [row["indexdef"] for row in made if "UNIQUE INDEX" not in row["indexdef"]]
    for row in made:
        if "UNIQUE INDEX" not in row["indexdef"]:
            await connection.execute(f"DROP INDEX {row['indexname']}")
    with closing(sqlite3.connect(path)) as source:
        for table in metadata.sorted_tables:
            names = table.columns.keys()
            cursor = source.execute(f"SELECT {', '.join(names)} FROM {table.name}")
            times = [index for index, name in enumerate(names) if name.endswith("_at")]
            records = map(_record_maker(times), _rows_of(cursor))
            await connection.copy_records_to_table(table.name, records=records, columns=names)
    for statement in afterwards:
        await connection.execute(statement)
    await connection.close()


def _rows_of(cursor: sqlite3.Cursor) -> Iterator[Any]:
    while rows := cursor.fetchmany(5000):
        yield from rows


def _record_maker(times: list[int]) -> Callable[[Any], list[Any]]:
    def make_record(row: Any) -> list[Any]:
        record = list(row)
        for index in times:
            if record[index] is not None:
                record[index] = datetime.fromisoformat(record[index]).replace(tzinfo=UTC)
        return record

    return make_record


async def plain_to_file(url: str, path: Path) -> None:
    """The quickest way into a file: text from the server's cursor into executemany."""
    connection = await asyncpg.connect(url)
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        made = target.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql GLOB 'CREATE [IT]*'").fetchall()
        made += target.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql GLOB 'CREATE UNIQUE*'").fetchall()
        made = [row for row in made if row[0] != "table"]
        for kind, name, _ in made:
            target.execute(f"DROP {kind} {name}")
        for table in metadata.sorted_tables:
            names = table.columns.keys()
            shown = ", ".join(_cast(name, column) for name, column in table.columns.items())
            sql = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            async with connection.transaction():
                cursor = await connection.cursor(f"SELECT {shown} FROM {table.name}")
                while records := await cursor.fetch(5000):
                    target.execute("BEGIN")
                    target.executemany(sql, map(tuple, records))
                    target.execute("COMMIT")
        for _, _, sql in made:
            target.execute(sql)
    await connection.close()


def _cast(name: str, column: Any) -> str:
    if name.endswith("_at"):
        return f"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
    return (
        f"{name}::text"
        if ("id" in name and name != "id") or name in ("metadata", "details", "context", "config")
        else (f"{name}::text" if name == "id" and column.autoincrement is not True else name)
    )


async def fresh(url: str, name: str) -> str:
    """An empty database with orchdb's tables."""
    connection = await asyncpg.connect(url)
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    place = named(url, name)
    async with DatabaseManager(place):
        pass
    return place


async def timed(what: str, rows: int, call: Awaitable[Any]) -> None:
    """Show how quick a copy was, and what it took of this process: the server has its own."""
    began, worked = time.perf_counter(), time.process_time()
    report = await call
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    line = f"{what:<24}{rows:>10,} rows, {worked / rows * 1e6:5.1f} us of CPU a row here; "
    if isinstance(report, TransferReport):
        line += f"copied {rows / report.copying_seconds:>8,.0f}/s"
        if report.verified:
            line += f", and verified {rows / report.seconds:>8,.0f}/s, equal: {report.equal}"
    else:
        line += f"copied {rows / seconds:>8,.0f}/s"
    print(line, flush=True)


async def measure(logs: int, prompts: int, driver: str) -> None:
    """Copy there and back, and by the quickest way."""
    rows = logs + prompts + _AGENTS + 1
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder, server() as url:
        first, back, plain = (Path(folder) / name for name in ("first.db", "back.db", "plain.db"))
        await make(first, logs, prompts)
        print(f"{first.stat().st_size / 1e6:,.0f} MB")
        place = await fresh(url, "orchdb_benchmark_copy")
        ours = place.replace("postgresql://", f"postgresql+{driver}://")
        await timed("file to server", rows, copy_database(first, ours))
        await timed("server to file", rows, copy_database(ours, back))
        print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB of memory")
        other = await fresh(url, "orchdb_benchmark_plain")
        await timed("quickest to server", rows, plain_to_server(first, other))
        alone = (await fresh(url, "orchdb_benchmark_alone")).replace("postgresql://", f"postgresql+{driver}://")
        await timed("file to server, alone", rows, copy_database(first, alone, verify=False))
        async with DatabaseManager(plain):
            pass
        await timed("quickest to file", rows, plain_to_file(place, plain))
        back.unlink()
        await timed("server to file, alone", rows, copy_database(ours, back, verify=False))


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--driver", default="asyncpg", choices=("asyncpg", "psycopg"))
    options = parser.parse_args()
    asyncio.run(measure(options.logs, options.prompts, options.driver))


if __name__ == "__main__":
    sys.exit(main())

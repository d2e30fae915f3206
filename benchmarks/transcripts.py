"""Importing transcripts: how long, and how much memory; ``python -m benchmarks.transcripts [--postgres]``.

The transcripts are made here, in the shapes that Claude Code writes: 600 rows a megabyte, two thirds of them progress,
a response in two rows, each with a call, its result, and a sub-agent for every session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.postgres_server import make_tables, named, server
from orchdb import DatabaseManager
from orchdb.transcripts import import_transcripts

_WORDS = [f"word{number}" for number in range(5000)]


def make(folder: Path, megabytes: float, sessions: int | None = None) -> None:
    """Write transcripts of so many megabytes.

    Args:
        folder: Where to.
        megabytes: How much, about.
        sessions: In how many sessions; by default one for every two megabytes.
    """
    picker = random.Random(1)
    count = sessions or max(round(megabytes / 2), 1)
    for _ in range(count):
        session = _uuid(picker)
        place = folder / "projects" / "-home-someone-work" / f"{session}.jsonl"
        size = int(megabytes * 1e6 / count)
        _write(place, picker, session, None, int(size * 0.9))
        _write(place.with_suffix("") / "subagents" / "agent-a1.jsonl", picker, session, "a1", int(size * 0.1))


def _write(path: Path, picker: random.Random, session: str, agent: str | None, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    always: dict[str, Any] = {"sessionId": session, "cwd": "/home/someone/work", "version": "2.1.70"}
    if agent:
        always |= {"agentId": agent, "isSidechain": True}
    written, second = 0, picker.randrange(80_000_000)
    with path.open("w") as file:
        for row in _rows(picker):
            second += 1
            at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_740_000_000 + second))
            written += file.write(json.dumps(row | always | {"uuid": _uuid(picker), "timestamp": at}) + "\n")
            if written >= size:
                return


def _rows(picker: random.Random) -> Iterator[dict[str, Any]]:
    number = 0
    while True:
        number += 1
        if number % 10 == 1:
            yield {"type": "user", "message": {"role": "user", "content": _text(picker, 40)}}
        name, call = f"msg_{_uuid(picker)}", f"toolu_{_uuid(picker)}"
        usage = {
            "input_tokens": picker.randrange(10),
            "cache_read_input_tokens": picker.randrange(100_000),
            "cache_creation_input_tokens": 900,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 900},
            "output_tokens": picker.randrange(1, 500),
        }
        for block in (
            {"type": "text", "text": _text(picker, 80)},
            {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": _text(picker, 30)}},
        ):
            message = {"id": name, "role": "assistant", "model": "claude-opus-4-6", "content": [block], "usage": usage}
            yield {"type": "assistant", "message": message, "requestId": _uuid(picker)}
        for _ in range(6):
            data = {"type": "bash_progress", "output": _text(picker, 70)}
            yield {"type": "progress", "data": data, "toolUseID": call, "parentToolUseID": call}
        result = {"type": "tool_result", "tool_use_id": call, "content": _text(picker, 600)}
        yield {
            "type": "user",
            "message": {"role": "user", "content": [result]},
            "toolUseResult": {"stdout": result["content"]},
        }


def _text(picker: random.Random, words: int) -> str:
    return " ".join(picker.choices(_WORDS, k=words))


def _uuid(picker: random.Random) -> str:
    return str(UUID(int=picker.getrandbits(128), version=4))


async def measure(url: str, folder: Path) -> None:
    """Import, and import again; print what it took."""
    async with DatabaseManager(url) as db:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        processor = time.process_time()
        first = await import_transcripts(db, [folder])
        processor = time.process_time() - processor
        second = await import_transcripts(db, [folder])
    size = sum(path.stat().st_size for path in folder.rglob("*.jsonl")) / 1e6
    rows, memory = sum(first.rows.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for part in (
        f"{url.partition(':')[0]:<19}{size:8.1f} MB, {rows:,} rows: {first.prompts:,} prompts, {first.lines:,} lines",
        f"{first.seconds:8.2f} s, of the processor {processor:.2f} s; {size / first.seconds:.1f} MB/s",
        f"again {second.seconds:.3f} s; memory {memory / 1e3:.0f} MB, {before / 1e3:.0f} before",
    ):
        print(part, end="; ")
    print()


def main() -> None:
    """Measure, on SQLite and on Postgres."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=17)
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--postgres", action="store_true", help="on Postgres too, with both drivers")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchdb-transcripts-")))
        make(folder, options.megabytes, options.sessions)
        asyncio.run(measure(f"sqlite+aiosqlite:///{folder / 'orchdb.db'}", folder))
        if options.postgres:
            url = stack.enter_context(server())
            for driver in ("asyncpg", "psycopg"):
                place = named(url, f"transcripts_{driver}").replace("postgresql://", f"postgresql+{driver}://")
                _create(url, f"transcripts_{driver}")
                asyncio.run(make_tables(place))
                asyncio.run(measure(place, folder))


def _create(url: str, name: str) -> None:
    import asyncpg  # noqa: PLC0415  # only for Postgres

    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()

    asyncio.run(run())


if __name__ == "__main__":
    main()

"""What it costs to begin, and to read very much: ``python -m benchmarks.start [--lines 1000000]``.

``import orchdb`` beside ``import sqlalchemy.ext.asyncio``, and connecting to an existing database beside SQLAlchemy's
own engine, its first connection and a statement, each in a new process; and the memory while a million lines are
iterated.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import report, workload
from orchdb import DatabaseManager

ROUNDS = 15
_IMPORT = "import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"
_CONNECT = """\
import asyncio, sys, time
from orchdb import DatabaseManager
import orchdb.sqlite
async def main():
    started = time.perf_counter()
    db = DatabaseManager(sys.argv[1])
    await db.connect()
    print(time.perf_counter() - started)
    await db.close()
asyncio.run(main())
"""
_PREPARE = """\
import pathlib, sys
from benchmarks.workload import prepare_file
prepare_file(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
"""
_ENGINE = """\
import asyncio, sys, time
import aiosqlite
import orchdb.sqlite
from sqlalchemy.ext.asyncio import create_async_engine
async def main():
    started = time.perf_counter()
    engine = create_async_engine("sqlite+aiosqlite:///" + sys.argv[1])
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        print(time.perf_counter() - started)
    await engine.dispose()
asyncio.run(main())
"""


def timed(program: str, *arguments: str) -> float:
    """Milliseconds, as the program prints them in seconds."""
    folders = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": folders}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is imported has been compiled before, as it is for a user
    command = [sys.executable, "-c", program, *arguments]
    return float(subprocess.check_output(command, env=environment, text=True)) * 1000


def compared(one: str, other: str, *arguments: str) -> tuple[float, float]:
    """The medians of two programs, run in turn."""
    pairs = [(timed(one, *arguments), timed(other, *arguments)) for _ in range(ROUNDS + 1)][1:]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


async def iterate(path: str, lines: int) -> list[float]:
    """The process's largest size, in MB, after each tenth of the lines."""
    sizes: list[float] = []
    seen = 0
    async with DatabaseManager(path) as db:
        for agent_id in workload.AGENT_IDS:
            async for _ in db.iter_agent_logs(agent_id):
                seen += 1
                if seen % (lines // 10) == 0:
                    sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert seen == lines
    return sizes


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    lines: int = parser.parse_args().lines
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder:
        path = Path(folder) / "orchestrator.db"
        workload.prepare_file(path, 1000)
        ours, theirs = compared(_IMPORT.format(module="orchdb"), _IMPORT.format(module="sqlalchemy.ext.asyncio"))
        connect, engine = compared(_CONNECT, _ENGINE, str(path))
        large = Path(folder) / "large.db"
        subprocess.run([sys.executable, "-c", _PREPARE, str(large), str(lines)], check=True)
        sizes = asyncio.run(iterate(str(large), lines))
    text = "\n".join(
        [
            "| | orchdb | SQLAlchemy | |",
            "|---|--:|--:|--:|",
            f"| import, ms | {ours:.0f} | {theirs:.0f} | ratio {ours / theirs:.2f} |",
            f"| connect to an existing database, ms | {connect:.1f} | {engine:.1f} | {connect - engine:.1f} more |",
            f"| memory after a tenth of {lines:,} lines, MB | {sizes[0]:.0f} | | {sizes[-1]:.0f} after all |",
        ]
    )
    print(text)
    report.write("start", text)


if __name__ == "__main__":
    main()

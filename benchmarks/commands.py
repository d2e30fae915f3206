"""Usage: ``python -m benchmarks.commands [--rounds N] [--quick] [--db PATH_OR_URL]``.

What the commands that look cost as processes on a million prompts, beyond ``python -c "import typer, rich"``: all
in turn, several times; a figure is the median of the rounds. CPU time is that of the process alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.usage_rows import LARGE_SESSION, Size, fill_file

START = (sys.executable, "-c", "import typer, rich")
ORCHDB = (sys.executable, "-m", "orchdb")
ALONE = (("--version",), ("--help",))
COMMANDS = (
    *(("sessions",), ("sessions", "--all"), ("usage",), ("usage", "--by", "model,day"), ("agents",), ("prompts",)),
    *(("logs",), ("top", "--once"), ("tree", LARGE_SESSION), ("show", LARGE_SESSION), ("status",)),
)


def seconds(command: tuple[str, ...]) -> tuple[float, float]:
    """What a process takes: of the processor, and by the clock."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return used.ru_utime + used.ru_stime, took


def measure(place: str, rounds: int) -> None:
    """Run all commands in turn, and print what they take."""
    calls = {"import typer, rich": START}
    calls |= {f"orchdb {' '.join(words)}": (*ORCHDB, *words) for words in ALONE}
    calls |= {f"orchdb {' '.join(words)}": (*ORCHDB, *words, "--db", place) for words in COMMANDS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, command in calls.items():
            taken = seconds(command)
            if number:  # the first round warms up
                found[name].append(taken)
    start = [median(taken) for taken in zip(*found["import typer, rich"], strict=True)]
    print(f"| {'command':<34} | CPU s | wall s | CPU beyond | wall beyond | CPU ratio |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, each in found.items():
        cpu, wall = (median(taken) for taken in zip(*each, strict=True))
        beyond = f"{cpu - start[0]:10.2f} | {wall - start[1]:11.2f}"
        print(f"| {name:<34} | {cpu:5.2f} | {wall:6.2f} | {beyond} | {cpu / start[0]:9.2f} |")


def main() -> None:
    """Make the rows unless a database is named, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    parser.add_argument("--db", help="a database that has them already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as folder:
        path = Path(folder) / "usage.db"
        if given.db is None:
            fill_file(path, Size(agents=400, sessions=20) if given.quick else Size())
        measure(given.db or str(path), given.rounds)


if __name__ == "__main__":
    main()

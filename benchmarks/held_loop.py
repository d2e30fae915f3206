"""What a host's event loop notices of what is written: ``python -m benchmarks.held_loop [--engine sqlite|postgres]``.

The loop of the program wakes each millisecond and logs or makes spans; the store is up, then stopped for ten seconds,
then back, and in between nobody writes. Said is how late the loop woke at worst, by the clock, which has what else the
machine does in it, and how long of that the other threads of the program were at work: that is what can be orchdb's.
A call's own time is processor time.

A stopped store is a file that another connection has locked, or a server whose processes get no time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from orchdb import DatabaseManager
from orchdb.integrations.logging import DatabaseHandler
from orchdb.integrations.opentelemetry import OrchdbSpanProcessor
from tests.support.stoppable_server import running_server

TICK = 0.001
TEXT = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "What is there? " * 100}]}])
log = logging.getLogger("benchmark.held_loop")


@dataclass
class Phase:
    """What the loop noticed of some seconds.

    Attributes:
        late: Seconds by which it woke late, each time.
        held: Those of them in which other threads of the program were at work.
        calls: Seconds of the processor that a round of spans and a record took.
    """

    late: list[float] = field(default_factory=lambda: list[float]())
    held: list[float] = field(default_factory=lambda: list[float]())
    calls: list[float] = field(default_factory=lambda: list[float]())

    def told(self, name: str) -> str:
        """Say it in a line."""
        late, held, calls = (sorted(each) for each in (self.late, self.held, self.calls))
        return (
            f"{name:22} {len(late):6} ticks: late at most {late[-1] * 1000:6.2f} ms, p99 {_p99(late):5.2f}; "
            f"held by other threads at most {held[-1] * 1000:5.2f}, p99 {_p99(held):5.2f}; "
            f"a round at most {calls[-1] * 1000:5.2f} ms of processor, mostly {calls[len(calls) // 2] * 1e6:3.0f} µs"
        )


def _p99(values: list[float]) -> float:
    return values[len(values) * 99 // 100] * 1000


def _others() -> float:
    """Seconds that the threads beside this one have worked."""
    return time.process_time() - time.thread_time()


async def watched(seconds: float, tracer: Tracer, rate: int) -> Phase:
    """Let the program work for so long, with so many rounds a second."""
    phase, began, rounds = Phase(), time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        others = _others()
        await asyncio.sleep(TICK)
        late = max(time.perf_counter() - now - TICK, 0.0)
        phase.late.append(late)
        phase.held.append(max(min(late, _others() - others), 0.0))
        if rounds < (time.perf_counter() - began) * rate:
            rounds += 1
            before = time.thread_time()
            with tracer.start_as_current_span("invoke_agent lead"):
                given = {"gen_ai.input.messages": TEXT, "gen_ai.usage.input_tokens": 40}
                with tracer.start_as_current_span("chat a-model", attributes=given):
                    log.info("Round %d", rounds, extra={"round": rounds})
            phase.calls.append(time.thread_time() - before)
    return phase


async def measure(url: object, stopped: contextlib.AbstractContextManager[None], seconds: float, rate: int) -> None:
    """Go through the phases, and say what each was like."""
    alone = TracerProvider(shutdown_on_exit=False).get_tracer("benchmark")
    log.propagate = False
    log.setLevel(logging.INFO)
    nobody = logging.NullHandler()
    log.addHandler(nobody)
    handler = DatabaseHandler(url, exit_timeout=60, lock_timeout=1)  # type: ignore[arg-type]
    processor = OrchdbSpanProcessor(url, exit_timeout=60, lock_timeout=1)  # type: ignore[arg-type]
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    print((await watched(seconds, alone, rate)).told("nobody"))
    log.addHandler(handler)
    print((await watched(seconds, tracer, rate)).told("begins, and up"))
    with stopped:
        print((await watched(2 * seconds, tracer, rate)).told("stopped"))
    print((await watched(2 * seconds, tracer, rate)).told("back"))
    log.removeHandler(handler)
    print((await watched(seconds, alone, rate)).told("nobody"))
    for each in (handler.close, processor.shutdown):
        await asyncio.to_thread(each)
    print(f"dropped: {handler.dropped} records, {processor.dropped} beginnings and ends of spans")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def _without_time(data: Path) -> Iterator[None]:
    server = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


async def _prepared(url: object) -> None:
    async with DatabaseManager(url):  # type: ignore[arg-type]
        pass


def main() -> None:
    """Measure on one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--driver", choices=("asyncpg", "psycopg"), default="asyncpg")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=int, default=200, help="rounds a second: two spans and a record each")
    arguments = parser.parse_args()
    if arguments.engine == "postgres":
        with running_server() as server:
            url = server.url(arguments.driver)
            asyncio.run(_prepared(url))
            asyncio.run(measure(url, _without_time(server.data), arguments.seconds, arguments.rate))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "held_loop.db"
        asyncio.run(_prepared(path))
        asyncio.run(measure(path, _locked(path), arguments.seconds, arguments.rate))


if __name__ == "__main__":
    main()

"""Records of ``logging`` at a rate: ``python -m benchmarks.log_records [--engine sqlite|postgres] [--seconds 30]``.

Four threads log 10,000 records a second in all, first to a ``QueueHandler`` whose listener throws them away, then to a
``DatabaseHandler``. What a call takes of its caller's time is the processor time of the thread, and of the clock; the
rows are counted afterwards by another connection.
"""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import queue
import statistics
import tempfile
import threading
import time
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.contestants import Contestant
from benchmarks.databases import places
from orchdb.integrations.logging import DatabaseHandler

THREADS, RATE, PAUSE = 4, 10_000, 0.01


def _log(logger: logging.Logger, seconds: float, taken: list[tuple[float, float, int]]) -> None:
    """Log bursts, so many that the rate is held, and note what they took."""
    began, done, wanted = time.perf_counter(), 0, int(seconds * RATE / THREADS)
    processor = clock = 0.0
    while done < wanted:
        burst = min(int((time.perf_counter() - began) * RATE / THREADS), wanted) - done
        before, cpu = time.perf_counter(), time.thread_time()
        for number in range(burst):
            logger.info("step %d of %s took %.1f ms", number, "a run", 1.5)
        processor += time.thread_time() - cpu
        clock += time.perf_counter() - before
        done += burst
        time.sleep(PAUSE)
    taken.append((processor / done, clock / done, done))


def measured(name: str, handler: logging.Handler, seconds: float) -> int:
    """Log for so long, say what a call took; how many records there were."""
    began = time.perf_counter()
    logger = logging.getLogger(f"benchmark.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    taken: list[tuple[float, float, int]] = []
    threads = [threading.Thread(target=_log, args=(logger, seconds, taken)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processor, clock = (statistics.mean(each[index] for each in taken) * 1e6 for index in (0, 1))
    records = sum(each[2] for each in taken)
    print(
        f"{name:16} {records:8} records, {records / (time.perf_counter() - began):8.0f} a second: "
        f"{processor:6.2f} µs of the caller's processor time, {clock:6.2f} µs of its time"
    )
    return records


def main() -> None:
    """Measure one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    records: queue.Queue[object] = queue.Queue(-1)
    listener = logging.handlers.QueueListener(records, logging.NullHandler())
    listener.start()
    measured("QueueHandler", logging.handlers.QueueHandler(records), arguments.seconds)
    listener.stop()
    with tempfile.TemporaryDirectory() as folder, places(arguments.engine, Path(folder)) as place:
        url = place("log_records", Contestant)
        handler = DatabaseHandler(url, exit_timeout=60)
        logged = measured("DatabaseHandler", handler, arguments.seconds)
        before = time.perf_counter()
        handler.close()
        print(f"stored {time.perf_counter() - before:.2f} s later; {handler.dropped} dropped")
        plain = url.replace("+asyncpg", "+psycopg") if "://" in url else f"sqlite:///{url}"
        engine = create_engine(plain)
        with engine.connect() as connection:
            query = "SELECT count(*) FROM system_logs WHERE component = 'benchmark.DatabaseHandler'"
            stored = connection.execute(text(query)).scalar_one()
        engine.dispose()
    print(f"{logged - stored} of {logged} are missing")


if __name__ == "__main__":
    main()

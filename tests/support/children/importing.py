"""Imports transcripts again and again in processes that are killed at random moments, and then once to its end.

The processes are forked from this one, which has loaded everything: so the moments lie in the import.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time

from orchdb import DatabaseManager, prices
from orchdb.transcripts import Progress, import_transcripts, importing

importing._ROWS = 8


async def main(url: str, path: str, told: int) -> None:
    async with DatabaseManager(url) as db:

        def tell(_: Progress) -> None:
            os.write(told, b".")

        report = await import_transcripts(db, [path], progress=tell)
        print("added", report.prompts, report.lines, flush=True)


def forked(url: str, path: str, picker: random.Random | None) -> None:
    """Import in a child; with a picker, kill it after some batches and a moment."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        asyncio.run(main(url, path, writing))
        os._exit(0)
    os.close(writing)
    if picker is not None:
        for _ in range(picker.randrange(8)):
            os.read(reading, 1)
        time.sleep(picker.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
    while os.read(reading, 100):
        pass
    _, status = os.waitpid(pid, 0)
    assert picker is not None or status == 0
    os.close(reading)


def run(url: str, path: str, kills: str) -> None:
    prices.price_list()
    picker = random.Random(4)
    for _ in range(int(kills)):
        forked(url, path, picker)
    forked(url, path, None)


run(*sys.argv[1:])

"""One contestant in a process of its own: it waits for a line, does a round, and answers with a line.

``python -m benchmarks.worker <engine> <key> <place>``; started by ``benchmarks.crew``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from typing import Any, TextIO

from benchmarks import workload
from benchmarks.contestants import Contestant, contestants
from benchmarks.workload import AGENT_IDS, BULK, INVALID_EVERY, LATEST, TASKS

# Long enough for the system to settle: in the first tenth of a second a process has its threads on one core or not,
# as it happens.
SIZES = {"append": 2000, "append100": 6000, "update100": 6000, "bulk": BULK, "get": 2000, "latest": 200, "errors": 2000}
Answer = dict[str, Any]


class Rounds:
    """The rounds that a contestant can be asked for."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.number = 0

    async def run(self, name: str, share: float) -> Answer:
        """One round: seconds for each operation, and for writes what was acknowledged, failed and found."""
        size = max(int(SIZES[name] * share * (1 if name == "bulk" else self.contestant.share)), 1)
        if name.endswith("100") or name == "errors":
            size = max(size // TASKS, 1) * TASKS
        gc.collect()
        os.sync()  # a sync of this contestant's may have to write what the others left: not at its expense
        answer: Answer = await getattr(self, name)(size)
        return answer

    async def append(self, size: int) -> Answer:
        return await self._write(size, 1, self._append)

    async def append100(self, size: int) -> Answer:
        return await self._write(size, TASKS, self._append)

    async def errors(self, size: int) -> Answer:
        async def append(number: int) -> None:
            await self.contestant.append(workload.log(number, valid=bool((number - self.number) % INVALID_EVERY)))

        return await self._write(size, TASKS, append, invalid=size // INVALID_EVERY)

    async def update100(self, size: int) -> Answer:
        async def update(number: int) -> None:
            await self.contestant.update(workload.change(number))

        return await self._timed(size, TASKS, update)

    async def bulk(self, size: int) -> Answer:
        lines = [workload.log(self.number + index) for index in range(size)]
        before = await self.contestant.count()
        started = time.perf_counter()
        await self.contestant.bulk(lines)
        seconds = (time.perf_counter() - started) / size
        self.number += size
        return {"seconds": seconds, "acknowledged": size, "found": await self.contestant.count() - before, "failed": 0}

    async def get(self, size: int) -> Answer:
        async def get(number: int) -> None:
            assert isinstance(await self.contestant.get(AGENT_IDS[number % len(AGENT_IDS)]), dict)

        return await self._timed(size, 1, get)

    async def latest(self, size: int) -> Answer:
        async def latest(number: int) -> None:
            assert len(await self.contestant.latest(AGENT_IDS[number % len(AGENT_IDS)], LATEST)) == LATEST

        return await self._timed(size, 1, latest)

    async def _append(self, number: int) -> None:
        await self.contestant.append(workload.log(number))

    async def _write(self, size: int, tasks: int, one: Callable[[int], Awaitable[None]], invalid: int = 0) -> Answer:
        before = await self.contestant.count()
        answer = await self._timed(size, tasks, one)
        answer["found"] = await self.contestant.count() - before
        answer["failed"] -= invalid
        return answer

    async def _timed(self, size: int, tasks: int, one: Callable[[int], Awaitable[None]]) -> Answer:
        first, each = self.number, size // tasks
        failed: list[str] = []

        async def task(index: int) -> None:
            for number in range(first + index * each, first + (index + 1) * each):
                try:
                    await one(number)
                except Exception as error:
                    failed.append(f"{type(error).__name__}: {error}"[:200])

        started = time.perf_counter()
        if tasks == 1:
            await task(0)
        else:
            await asyncio.gather(*map(task, range(tasks)))
        seconds = (time.perf_counter() - started) / size
        self.number += size
        return {"seconds": seconds, "acknowledged": size - len(failed), "failed": len(failed), "errors": failed[-1:]}


async def serve(kind: type[Contestant], place: str, answers: TextIO) -> None:
    """Answer one request after the other until the input ends."""
    contestant = kind(place)
    try:
        await contestant.open()
    except BaseException as error:
        print(json.dumps({"broken": f"{type(error).__name__}: {error}"[:300]}), file=answers, flush=True)
        raise
    rounds = Rounds(contestant)
    for line in sys.stdin:
        name, share = json.loads(line)
        try:
            if name == "prepare":
                await contestant.prepare()
                answer: Answer = {}
            else:
                answer = await rounds.run(name, share)
        except Exception as error:
            answer = {"broken": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)
    await contestant.close()


def main() -> None:
    """Serve on the standard streams; what the libraries print goes to the error stream."""
    engine, key, place, *pin = sys.argv[1:]
    if pin:
        os.sched_setaffinity(0, {0})
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with redirect_stdout(sys.stderr):
        asyncio.run(serve(contestants(engine)[key], place, answers))


if __name__ == "__main__":
    main()

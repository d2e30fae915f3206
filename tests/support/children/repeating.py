"""Appends lines with event ids, from a number on, and says how far it has come; arguments: URL, agent, first, end."""

from __future__ import annotations

import asyncio
import sys

from orchdb import DatabaseManager

_AT_A_TIME = 40


async def _append(url: str, agent: str, first: int, end: int) -> None:
    async with DatabaseManager(url) as db:
        for start in range(first, end, _AT_A_TIME):
            numbers = range(start, min(start + _AT_A_TIME, end))
            await asyncio.gather(
                *(db.create_agent_log(agent, "INFO", "milestone", f"{n}", event_id=f"{n}") for n in numbers)
            )
            print(numbers[-1] + 1, flush=True)


url, agent, first, end = sys.argv[1:]
asyncio.run(_append(url, agent, int(first), int(end)))

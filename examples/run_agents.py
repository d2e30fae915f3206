"""Agents that end with the block of the program that runs them, and a sweep for those whose program has died.

    python examples/run_agents.py

Each of three scouts is a run below the lead's: one finds something, one fails, and one takes too long.
"""

from __future__ import annotations

import asyncio

from orchdb import DatabaseManager


async def scout(db: DatabaseManager, lead_id: str, place: str, seconds: float) -> None:
    """Look at one place, as a run of its own."""
    async with db.agent_run("scout", "session-1", parent_agent_id=lead_id, config={"place": place}) as run:
        await run.log("milestone", f"Looks at {place}")
        await asyncio.sleep(seconds)
        if place == "the attic":
            raise FileNotFoundError("there is no ladder")
        await run.log("milestone", f"Has seen {place}", {"found": 3})


async def main() -> None:
    """Send the scouts, and say what became of them."""
    async with DatabaseManager("data/runs.db") as db:
        for agent_id in await db.reap_agents():  # of an earlier program that was killed
            print(f"{agent_id} was lost")
        async with db.agent_run("lead", "session-1") as lead:
            places = {"the cellar": 0.01, "the attic": 0.01, "the garden": 3600.0}
            scouts = (asyncio.wait_for(scout(db, lead.id, *place), 1) for place in places.items())
            await asyncio.gather(*scouts, return_exceptions=True)
        for row in reversed(await db.list_agents(parent_agent_id=lead.id)):
            config = row["config"] or {}
            print(f"{config['place']}: {row['status']}", *filter(None, [row["error_message"]]))


asyncio.run(main())

"""Records of Python's ``logging`` beside the agents that they are about.

    python examples/log_records.py

What the scouts log becomes lines of their own log, without a word about them; the rest is the system's.
"""

from __future__ import annotations

import asyncio
import logging

from orchdb import DatabaseManager
from orchdb.integrations.logging import DatabaseHandler

log = logging.getLogger("expedition")


async def scout(db: DatabaseManager, lead_id: str, place: str) -> None:
    """Look at one place; nothing here knows of the database but the run."""
    async with db.agent_run("scout", "session-1", parent_agent_id=lead_id):
        log.info("Looks at %s", place, extra={"place": place})
        await asyncio.sleep(0.01)
        if place == "the attic":
            try:
                raise FileNotFoundError("there is no ladder")
            except FileNotFoundError:
                log.exception("Cannot get there")


async def main() -> None:
    """Send the scouts, and show what was logged."""
    handler = DatabaseHandler("data/logs.db")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    async with DatabaseManager("data/logs.db") as db:
        log.info("Sets out")
        async with db.agent_run("lead", "session-1") as lead:
            await asyncio.gather(*(scout(db, lead.id, place) for place in ("the cellar", "the attic")))
        await asyncio.to_thread(handler.flush)
        (line, *_) = await db.list_recent_system_logs(1)
        print(f"{line['component']}: {line['message']}")
        for row in reversed(await db.list_agents(parent_agent_id=lead.id)):
            messages = [line["message"] for line in await db.get_agent_logs(row["id"])]
            print(f"scout: {', then '.join(messages)}")


asyncio.run(main())

# mypy: disable-error-code="no-untyped-call, no-untyped-def"
# pyright: basic
# fmt: off
"""Connecting and closing by hand: lists the definitions that are stored.

The snippet stands as it was first written; only the imports and the last line were added. Run
``basic_context_manager.py`` before it, so that there is something to list.
"""
import asyncio

from orchdb import DatabaseManager


async def explicit_example():
    db = DatabaseManager("data/orchestrator.db")
    try:
        await db.connect()

        agents = await db.list_orchestrator_agents()
        for agent in agents:
            print(f"{agent['name']}: {agent['description']}")
    finally:
        await db.close()

asyncio.run(explicit_example())

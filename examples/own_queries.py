"""Your own SQL: reading on ``db.conn``, writing on ``tx.conn`` together with orchdb's operations."""

import asyncio

from sqlalchemy import text

from orchdb import DatabaseManager


async def main() -> None:
    async with DatabaseManager() as db:
        async with db.transaction() as tx:  # all of it or nothing
            await tx.conn.execute(text("CREATE TABLE IF NOT EXISTS notes (agent_id TEXT, note TEXT)"))
            scout = await tx.get_or_create_orchestrator_agent("scout")
            agent = await tx.create_agent(scout, "session-1", status="executing")
            await tx.conn.execute(
                text("INSERT INTO notes VALUES (:agent, :note)"), {"agent": agent, "note": "looks at the tests"}
            )

        statement = text("SELECT status, note FROM agents JOIN notes ON agent_id = id WHERE session_id = :session")
        for status, note in await db.conn.execute(statement, {"session": "session-1"}):
            print(f"{status}: {note}")


asyncio.run(main())

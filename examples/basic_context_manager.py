# mypy: disable-error-code="index, no-untyped-call, no-untyped-def"
# pyright: basic, reportOptionalSubscript=false
# fmt: off
"""The recommended pattern: the block connects, prepares the schema and closes.

The snippet stands as it was first written; only the import has changed. The name of a definition is unique, so a second
run on the same file ends in a DuplicateError.
"""
import asyncio

from orchdb import DatabaseManager


async def example():
    # Auto-connects, initializes schema, and closes on exit
    async with DatabaseManager("data/orchestrator.db") as db:
        # Create orchestrator agent definition
        agent_id = await db.create_orchestrator_agent(
            name="scout-report-suggest",
            description="Scouts codebase and suggests fixes",
            agent_type="utility",
            capabilities="codebase_exploration,issue_detection",
            default_model="claude-sonnet-3.5"
        )

        # Create runtime agent instance
        runtime_id = await db.create_agent(
            orchestrator_agent_id=agent_id,
            session_id="550e8400-e29b-41d4-a716-446655440000",
            status="executing"
        )

        # Log agent activity
        await db.create_agent_log(
            agent_id=runtime_id,
            log_level="INFO",
            log_type="state_change",
            message="Agent started execution",
            details={"phase": "exploration"}
        )

        # Query agent state
        agent = await db.get_agent(runtime_id)
        print(f"Agent status: {agent['status']}")

asyncio.run(example())

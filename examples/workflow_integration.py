# mypy: disable-error-code="no-untyped-call, no-untyped-def"
# pyright: basic
# fmt: off
"""Tracking a workflow's agents: created as pending, then executing, with a log line.

The snippet stands as it was first written, with what it left out: the function around it, ``now_iso()``, and a
definition whose id takes the place of ``"..."``.
"""
import asyncio
import uuid
from datetime import UTC, datetime

from orchdb import DatabaseManager


def now_iso():
    return datetime.now(UTC).isoformat()

async def workflow():
    async with DatabaseManager() as db:  # Uses default data/orchestrator.db
        definition_id = await db.get_or_create_orchestrator_agent("planner", agent_type="planner")

        # Track orchestrator agent execution
        session_id = str(uuid.uuid4())

        # Create agent instances for SDLC workflow
        planner_id = await db.create_agent(
            orchestrator_agent_id=definition_id,
            session_id=session_id,
            status="pending"
        )

        # Update status as workflow progresses
        await db.update_agent(planner_id, status="executing", started_at=now_iso())

        # Log activities
        await db.create_agent_log(
            agent_id=planner_id,
            log_level="INFO",
            log_type="execution",
            message="Plan phase completed",
            details={"files_created": 5}
        )

        print(f"Session {session_id}: {await db.get_agent(planner_id)}")

asyncio.run(workflow())

"""Indexes in the shape of the queries.

The scope comes first, then the time, then the id, which breaks ties; and every foreign key has an index.

Downgrade: the six indexes of the first schema come back. Nothing is lost.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OLD = {
    "idx_agents_session": "agents (session_id)",
    "idx_agents_orch": "agents (orchestrator_agent_id)",
    "idx_prompts_agent": "prompts (agent_id)",
    "idx_prompts_status": "prompts (status)",
    "idx_agent_logs_agent": "agent_logs (agent_id)",
    "idx_system_logs_level": "system_logs (log_level)",
}
NEW = {
    "idx_orchestrator_agents_created": "orchestrator_agents (created_at, id)",
    "idx_agents_created": "agents (created_at, id)",
    "idx_agents_session": "agents (session_id, created_at, id)",
    "idx_agents_orch": "agents (orchestrator_agent_id, created_at, id)",
    "idx_agents_parent": "agents (parent_agent_id, created_at, id)",
    "idx_agents_status": "agents (status, created_at, id)",
    "idx_prompts_agent": "prompts (agent_id, created_at, id)",
    "idx_agent_logs_created": "agent_logs (created_at, id)",
    "idx_agent_logs_type": "agent_logs (log_type, created_at, id)",
    "idx_agent_logs_agent": "agent_logs (agent_id, created_at, id)",
    "idx_system_logs_created": "system_logs (created_at, id)",
    "idx_system_logs_level": "system_logs (log_level, created_at, id)",
    "idx_system_logs_component": "system_logs (component, created_at, id)",
}


def upgrade() -> None:
    _replace(OLD, NEW)


def downgrade() -> None:
    _replace(NEW, OLD)


def _replace(present: dict[str, str], wanted: dict[str, str]) -> None:
    for name in present | wanted:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    for name, columns in wanted.items():
        op.execute(f"CREATE INDEX {name} ON {columns}")

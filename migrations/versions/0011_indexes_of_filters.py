"""Indexes of the filters: prompts of all agents, and the grave lines of the agents' log.

The index of levels has no DEBUG and no INFO, and that of statuses no completed prompt: nearly all rows are such, and
cost nothing. On SQLite their conditions say <> because IN costs each insertion more than the index.

Downgrade: the indexes are dropped. Nothing is lost.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXES = {
    "idx_prompts_created": "prompts (created_at, id)",
    "idx_prompts_model": "prompts (model_used, created_at, id)",
    "idx_prompts_type": "prompts (prompt_type, created_at, id)",
    "idx_prompts_status": "prompts (status, created_at, id) WHERE status <> 'completed'",
    "idx_agent_logs_level": "agent_logs (log_level, created_at, id) WHERE log_level <> 'DEBUG' AND log_level <> 'INFO'",
}


def upgrade() -> None:
    for name, rows in INDEXES.items():
        op.execute(f"DROP INDEX IF EXISTS {name}")
        op.execute(f"CREATE INDEX {name} ON {rows}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")

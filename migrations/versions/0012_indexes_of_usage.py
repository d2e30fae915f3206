"""Indexes of usage: the figures of prompts stand beside the times and the agents they are summed by.

The two indexes of prompts by agent and by time are made anew with more columns: sums are read from them alone, in the
order of agents or of times. Without ``prompt_type``: with the model beside it a row could be longer than an index of
Postgres takes. And agents that were deleted softly are found without a look at the others.

Downgrade: the two indexes have their three and two columns again. Nothing is lost.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FIGURES = (
    "deleted_at, status, cost_usd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, latency_ms, "
    "model_used"
)
OLD = {
    "idx_prompts_agent": "prompts (agent_id, created_at, id)",
    "idx_prompts_created": "prompts (created_at, id)",
}
NEW = {
    "idx_prompts_agent": f"prompts (agent_id, created_at, id, {FIGURES})",
    "idx_prompts_created": f"prompts (created_at, id, agent_id, {FIGURES})",
    "idx_agents_deleted": "agents (id) WHERE deleted_at IS NOT NULL",
}


def upgrade() -> None:
    _replace(NEW)


def downgrade() -> None:
    _replace(OLD)


def _replace(wanted: dict[str, str]) -> None:
    for name in NEW:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    for name, rows in wanted.items():
        op.execute(f"CREATE INDEX {name} ON {rows}")

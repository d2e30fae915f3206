"""Cache tokens of prompts.

Providers price what is read from and written to their cache apart, so prompts count it apart.

Downgrade: the two counts are dropped; a warning says how many prompts have one.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

from orchdb.schema.rebuilding import announce, column_names, rebuild

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = ("tokens_cache_read", "tokens_cache_write")


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    present = column_names(op.get_bind(), "prompts") if on_sqlite else []
    for column in COLUMNS:
        if column not in present:
            op.execute(f"ALTER TABLE prompts ADD COLUMN {column} {'INTEGER' if on_sqlite else 'BIGINT'} DEFAULT 0")


def downgrade() -> None:
    counted = " OR ".join(f"{column} <> 0" for column in COLUMNS)
    announce(op.get_bind(), f"prompts WHERE {counted}", "the downgrade loses the cache tokens of %d prompts")
    if op.get_context().dialect.name == "sqlite":
        rebuild(op.get_bind(), "prompts", columns=dict.fromkeys(COLUMNS))
    else:
        for column in COLUMNS:
            op.execute(f"ALTER TABLE prompts DROP COLUMN {column}")

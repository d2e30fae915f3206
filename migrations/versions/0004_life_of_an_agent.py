"""The life of an agent: created, started, changed.

``started_at`` may be empty now: it says when the agent started to run, which may be never.
``created_at`` is filled from ``started_at``, which so far was the time of creation, and ``updated_at`` from
``completed_at`` or else ``started_at``.

Downgrade: ``created_at`` and ``updated_at`` are dropped; an agent that never started gets its ``created_at`` as
``started_at``, because the first schema wants one. Warnings say how many rows that concerns.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

from orchdb.schema.rebuilding import announce, column_names, rebuild

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NOW = "(strftime('%Y-%m-%dT%H:%M:%f000', 'now'))"
REQUIRED = f"TEXT NOT NULL DEFAULT {NOW}"
FILLED = {"created_at": "started_at", "updated_at": "coalesce(completed_at, started_at)"}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _upgrade_on_sqlite()
        return
    op.execute("ALTER TABLE agents ALTER COLUMN started_at DROP NOT NULL, ALTER COLUMN started_at DROP DEFAULT")
    for column, source in FILLED.items():
        op.execute(f"ALTER TABLE agents ADD COLUMN {column} TIMESTAMP WITH TIME ZONE")
        op.execute(f"UPDATE agents SET {column} = {source}")  # noqa: S608  # own text
        op.execute(f"ALTER TABLE agents ALTER COLUMN {column} SET NOT NULL, ALTER COLUMN {column} SET DEFAULT now()")


def _upgrade_on_sqlite() -> None:
    # Another program may have added columns of these names: what they hold stands above what can be guessed.
    present = column_names(op.get_bind(), "agents")
    rebuild(
        op.get_bind(),
        "agents",
        columns={"started_at": "TEXT", "created_at": REQUIRED, "updated_at": REQUIRED},
        values={
            column: f"coalesce({column}, {source})" if column in present else source
            for column, source in FILLED.items()
        },
    )


def downgrade() -> None:
    connection = op.get_bind()
    announce(
        connection,
        "agents WHERE started_at IS NULL",
        "the downgrade gives %d agents that never started their created_at as started_at",
    )
    announce(
        connection,
        "agents WHERE started_at <> created_at OR coalesce(completed_at, started_at, created_at) <> updated_at",
        "the downgrade loses the created_at and updated_at of %d agents",
    )
    if op.get_context().dialect.name == "sqlite":
        rebuild(
            connection,
            "agents",
            columns={"started_at": REQUIRED, "created_at": None, "updated_at": None},
            values={"started_at": "coalesce(started_at, created_at)"},
        )
        return
    op.execute("UPDATE agents SET started_at = created_at WHERE started_at IS NULL")
    op.execute("ALTER TABLE agents ALTER COLUMN started_at SET NOT NULL, ALTER COLUMN started_at SET DEFAULT now()")
    op.execute("ALTER TABLE agents DROP COLUMN created_at, DROP COLUMN updated_at")

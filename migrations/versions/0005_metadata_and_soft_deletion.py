"""Metadata and soft deletion.

Definitions, agents and prompts carry an object of the caller's, and the time they were deleted. A name is unique among
the living, so that the name of a deleted definition can be used again.

Downgrade: the metadata is dropped. The first schema knows no deletion, so softly deleted rows come back as living ones:
no row is lost. Where that would give two definitions the same name, the deleted one's gets its id behind it. Warnings
say how many rows each of these concerns.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

from orchdb.schema.rebuilding import announce, column_names, rebuild

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("orchestrator_agents", "agents", "prompts")
CONSTRAINT = "uq_orchestrator_agents_name"
NAME_IS_TAKEN = """\
deleted_at IS NOT NULL AND EXISTS (
    SELECT 1 FROM orchestrator_agents AS other
    WHERE other.name = orchestrator_agents.name AND other.id <> orchestrator_agents.id
)"""
NEW_NAME = "name || ' (deleted ' || id || ')'"


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    for table in TABLES:
        # Callers asked for metadata before there was any; a column that another program added for it is taken over.
        present = column_names(op.get_bind(), table) if on_sqlite else []
        for column, kind in _columns(on_sqlite).items():
            if column not in present:
                op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    if on_sqlite:
        rebuild(op.get_bind(), "orchestrator_agents", constraints={CONSTRAINT: None})
    else:
        op.execute(f"ALTER TABLE orchestrator_agents DROP CONSTRAINT {CONSTRAINT}")
    op.execute(f"CREATE UNIQUE INDEX {CONSTRAINT} ON orchestrator_agents (name) WHERE deleted_at IS NULL")


def _columns(on_sqlite: bool) -> dict[str, str]:
    if on_sqlite:
        return {"metadata": "TEXT", "deleted_at": "TEXT"}
    return {"metadata": "JSONB", "deleted_at": "TIMESTAMP WITH TIME ZONE"}


def downgrade() -> None:
    _announce()
    op.execute(f"DROP INDEX {CONSTRAINT}")
    if op.get_context().dialect.name == "sqlite":
        _downgrade_on_sqlite()
    else:
        _downgrade_on_postgres()


def _announce() -> None:
    for table in TABLES:
        announce(
            op.get_bind(),
            f"{table} WHERE metadata IS NOT NULL",
            f"the downgrade loses {table}.metadata in %d rows",
        )
        announce(
            op.get_bind(),
            f"{table} WHERE deleted_at IS NOT NULL",
            f"the downgrade brings back %d softly deleted rows of {table}: the first schema knows no deletion",
        )
    announce(
        op.get_bind(),
        f"orchestrator_agents WHERE {NAME_IS_TAKEN}",
        "the downgrade renames %d softly deleted rows of orchestrator_agents, because another row has their name",
    )


def _downgrade_on_sqlite() -> None:
    dropped = {"metadata": None, "deleted_at": None}
    rebuild(
        op.get_bind(),
        "orchestrator_agents",
        columns=dropped,
        constraints={CONSTRAINT: "UNIQUE (name)"},
        values={"name": f"CASE WHEN {NAME_IS_TAKEN} THEN {NEW_NAME} ELSE name END"},
    )
    rebuild(op.get_bind(), "agents", columns=dropped)
    rebuild(op.get_bind(), "prompts", columns=dropped)


def _downgrade_on_postgres() -> None:
    op.execute("ALTER TABLE orchestrator_agents DISABLE TRIGGER USER")  # updated_at stays what it was
    op.execute(f"UPDATE orchestrator_agents SET name = {NEW_NAME} WHERE {NAME_IS_TAKEN}")  # noqa: S608  # own text
    op.execute("ALTER TABLE orchestrator_agents ENABLE TRIGGER USER")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} DROP COLUMN metadata, DROP COLUMN deleted_at")
    op.execute(f"ALTER TABLE orchestrator_agents ADD CONSTRAINT {CONSTRAINT} UNIQUE (name)")

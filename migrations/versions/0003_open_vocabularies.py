"""Taxonomies are open, lifecycles are closed.

``agent_type``, ``prompt_type`` and ``log_type`` take any word; ``status`` and ``log_level`` keep their lists, and
agents may be pending.

Downgrade: the first schema knows fewer words. An agent_type it does not know becomes ``utility``, a prompt_type
``command``, a log_type ``milestone``, and a pending agent ``initializing``; a warning says how many rows that changes.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from typing import NamedTuple

from alembic import op

from orchdb.schema.rebuilding import announce, rebuild

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


class Vocabulary(NamedTuple):
    """What a column may hold before and after, and what stands for a word that the first schema does not know."""

    table: str
    column: str
    old: str
    new: str
    substitute: str

    @property
    def constraint(self) -> str:
        return f"ck_{self.table}_{self.column}"


VOCABULARIES = (
    Vocabulary(
        "orchestrator_agents",
        "agent_type",
        "agent_type IN ('planner', 'builder', 'reviewer', 'tester', 'orchestrator', 'utility')",
        "agent_type <> ''",
        "utility",
    ),
    Vocabulary(
        "agents",
        "status",
        "status IN ('initializing', 'planning', 'executing', 'reviewing', 'completed', 'failed', 'cancelled')",
        "status IN "
        "('pending', 'initializing', 'planning', 'executing', 'reviewing', 'completed', 'failed', 'cancelled')",
        "initializing",
    ),
    Vocabulary(
        "prompts",
        "prompt_type",
        "prompt_type IN ('adw', 'command', 'followup', 'correction', 'tool_call')",
        "prompt_type <> ''",
        "command",
    ),
    Vocabulary(
        "agent_logs",
        "log_type",
        "log_type IN ('state_change', 'milestone', 'error', 'performance', 'tool_call', 'cost_update')",
        "log_type <> ''",
        "milestone",
    ),
)


def upgrade() -> None:
    for vocabulary in VOCABULARIES:
        if op.get_context().dialect.name == "sqlite":
            rebuild(op.get_bind(), vocabulary.table, constraints={vocabulary.constraint: f"CHECK ({vocabulary.new})"})
        else:
            _replace_check(vocabulary, vocabulary.new)


def downgrade() -> None:
    for vocabulary in VOCABULARIES:
        table, column, old, _, substitute = vocabulary
        announce(
            op.get_bind(),
            f"{table} WHERE NOT ({old})",
            f"the downgrade sets {table}.{column} to {substitute!r} in %d rows, whose words the first schema lacks",
        )
        if op.get_context().dialect.name == "sqlite":
            rebuild(
                op.get_bind(),
                table,
                constraints={vocabulary.constraint: f"CHECK ({old})"},
                values={column: f"CASE WHEN {old} THEN {column} ELSE '{substitute}' END"},
            )
            continue
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {vocabulary.constraint}")
        op.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")  # updated_at stays what it was
        op.execute(f"UPDATE {table} SET {column} = '{substitute}' WHERE NOT ({old})")  # noqa: S608  # own text
        op.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {vocabulary.constraint} CHECK ({old})")


def _replace_check(vocabulary: Vocabulary, check: str) -> None:
    op.execute(
        f"ALTER TABLE {vocabulary.table} DROP CONSTRAINT {vocabulary.constraint}, "
        f"ADD CONSTRAINT {vocabulary.constraint} CHECK ({check})"
    )

"""Log lines that can be sent again, and leases, by which a run is known to be alive.

A line may have an ``event_id``, which is unique. The process of a run holds a lease: one row for each process and
length of lease, which it renews for all its runs. ``clock`` is what a lease runs out by, and ``clock_id`` what that
clock is compared within; ``renewed_at`` is for people.

Downgrade: the event ids and the leases are dropped; a warning says how many there are.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

from orchdb.schema.rebuilding import announce, column_names, rebuild

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

LOGS = ("agent_logs", "system_logs")
KEY = "fk_agents_lease_id"
REFERENCE = "FOREIGN KEY (lease_id) REFERENCES leases (id) ON DELETE SET NULL"
LEASES = """\
CREATE TABLE leases (
    id {uuid} NOT NULL,
    owner {uuid} NOT NULL,
    seconds {number} NOT NULL,
    renewed_at {time} NOT NULL,
    clock {number} NOT NULL,
    clock_id TEXT NOT NULL,
    {name}PRIMARY KEY (id)
)"""
SQLITE = {"uuid": "TEXT", "number": "REAL", "time": "TEXT", "name": ""}
POSTGRES = {
    "uuid": "UUID",
    "number": "DOUBLE PRECISION",
    "time": "TIMESTAMP WITH TIME ZONE",
    "name": "CONSTRAINT leases_pkey ",
}


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    op.execute(LEASES.format(**(SQLITE if on_sqlite else POSTGRES)))
    if on_sqlite:
        rebuild(op.get_bind(), "agents", columns={"lease_id": "TEXT"}, constraints={KEY: REFERENCE})
    else:
        op.execute(f"ALTER TABLE agents ADD COLUMN lease_id UUID, ADD CONSTRAINT {KEY} {REFERENCE}")
    op.execute("CREATE INDEX idx_agents_lease ON agents (lease_id) WHERE lease_id IS NOT NULL")
    for table in LOGS:
        # Another program may have been earlier.
        if not on_sqlite or "event_id" not in column_names(op.get_bind(), table):
            op.execute(f"ALTER TABLE {table} ADD COLUMN event_id TEXT")
        op.execute(f"CREATE UNIQUE INDEX uq_{table}_event ON {table} (event_id) WHERE event_id IS NOT NULL")


def downgrade() -> None:
    for table in LOGS:
        announce(
            op.get_bind(), f"{table} WHERE event_id IS NOT NULL", f"the downgrade loses {table}.event_id in %d rows"
        )
    announce(op.get_bind(), "agents WHERE lease_id IS NOT NULL", "the downgrade loses the leases of %d running agents")
    for name in ("idx_agents_lease", *(f"uq_{table}_event" for table in LOGS)):
        op.execute(f"DROP INDEX IF EXISTS {name}")
    for table, column in (("agents", "lease_id"), *((table, "event_id") for table in LOGS)):
        if op.get_context().dialect.name == "sqlite":
            rebuild(op.get_bind(), table, columns={column: None}, constraints={KEY: None})
        else:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    op.execute("DROP TABLE leases")

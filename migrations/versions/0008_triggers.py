"""Triggers for what other programs write.

Their plain SQL updates move ``updated_at``, unless they set it themselves, and their ``created_at`` gets the one form.
On Postgres times are no text, so only ``updated_at`` needs a trigger.

Downgrade: the one trigger on orchestrator_agents comes back. Nothing is lost.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = ("orchestrator_agents", "agents", "prompts", "agent_logs", "system_logs")
TOUCHED = {
    "orchestrator_agents": "name, description, agent_type, capabilities, default_model, metadata, deleted_at",
    "agents": (
        "session_id, parent_agent_id, status, context, config, started_at, completed_at, cost_usd, error_message, "
        "metadata, deleted_at"
    ),
}

UPDATED_SQLITE = """\
CREATE TRIGGER trg_{table}_updated_at AFTER UPDATE OF {columns} ON {table}
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE {table} SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000', 'now') WHERE id = NEW.id;
END"""
CREATED_SQLITE = """\
CREATE TRIGGER trg_{table}_created_at AFTER INSERT ON {table}
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE {table} SET created_at = coalesce(
        (
            SELECT strftime('%Y-%m-%dT%H:%M:%S', substr(NEW.created_at, 1, 19) || zone)
                || substr(replace(substr(NEW.created_at, 20), zone, '') || '000000', 1, 7)
            FROM (SELECT ltrim(substr(NEW.created_at, 21), '0123456789') AS zone)
            WHERE NEW.created_at GLOB '????-??-??[T ]??:??:??.[0-9]*'
        ),
        strftime('%Y-%m-%dT%H:%M:%f000', NEW.created_at),
        NEW.created_at
    ) WHERE id = NEW.id;
END"""
UPDATED_POSTGRES = """\
CREATE TRIGGER trg_{table}_updated_at BEFORE UPDATE OF {columns} ON {table} FOR EACH ROW
WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) EXECUTE FUNCTION orchdb_touch_updated_at()"""

OLD_SQLITE = """\
CREATE TRIGGER trg_orchestrator_agents_updated_at AFTER UPDATE ON orchestrator_agents
BEGIN
    UPDATE orchestrator_agents SET updated_at = (strftime('%Y-%m-%dT%H:%M:%f000', 'now')) WHERE id = NEW.id;
END"""
OLD_POSTGRES = """\
CREATE TRIGGER trg_orchestrator_agents_updated_at BEFORE UPDATE ON orchestrator_agents
FOR EACH ROW EXECUTE FUNCTION orchdb_touch_updated_at()"""


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        connection = op.get_bind()
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS trg_orchestrator_agents_updated_at")
        for table, columns in TOUCHED.items():
            connection.exec_driver_sql(UPDATED_SQLITE.format(table=table, columns=columns))
        for table in TABLES:
            connection.exec_driver_sql(CREATED_SQLITE.format(table=table))
        return
    op.execute("DROP TRIGGER trg_orchestrator_agents_updated_at ON orchestrator_agents")
    for table, columns in TOUCHED.items():
        op.execute(UPDATED_POSTGRES.format(table=table, columns=columns))


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        connection = op.get_bind()
        names = [f"trg_{table}_updated_at" for table in TOUCHED] + [f"trg_{table}_created_at" for table in TABLES]
        for name in names:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        connection.exec_driver_sql(OLD_SQLITE)
        return
    for table in TOUCHED:
        op.execute(f"DROP TRIGGER trg_{table}_updated_at ON {table}")
    op.execute(OLD_POSTGRES)

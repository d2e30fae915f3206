"""Times in other spellings of other programs: brought into the one form, when they are inserted and when they change.

The triggers understand more, and bend nothing any more: so far any number was taken for a julian day, and a time
without a day for one of the year 2000. Updates are looked at too. Rows that were written before, or adopted, get the
one form wherever their time is understood; the rest stays as it is. Triggers of other programs are not run for it.
On Postgres times are no text: nothing changes.

Downgrade: the triggers of revision 0008 come back. The times keep the one form.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from alembic import op

from orchdb.schema.rebuilding import add_function, without_triggers
from orchdb.schema.spellings import one_form

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIMES = {
    "orchestrator_agents": ("created_at", "updated_at", "deleted_at"),
    "agents": ("created_at", "updated_at", "started_at", "completed_at", "deleted_at"),
    "prompts": ("created_at", "completed_at", "deleted_at"),
    "agent_logs": ("created_at",),
    "system_logs": ("created_at",),
}
ONE_FORM = "'????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'"
INSERTED = """\
CREATE TRIGGER trg_{table}_created_at AFTER INSERT ON {table}
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE {table} SET created_at = created_at WHERE id = NEW.id;
END"""
CHANGED = """\
CREATE TRIGGER trg_{table}_created_at_changed AFTER UPDATE OF created_at ON {table}
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE {table} SET created_at = (
        {meant}
    ) WHERE id = NEW.id AND (
        {meant}
    ) IS NOT NULL;
END"""
MEANT = """\
SELECT CASE
            WHEN given GLOB '[1-9]*' AND given NOT GLOB '*[^0-9.]*' AND given NOT GLOB '*.*.*'
                AND instr(given || '.', '.') IN (11, 14, 17, 20)
            THEN strftime('%Y-%m-%dT%H:%M:%S', substr(given, 1, 10), 'unixepoch')
                || '.' || substr(replace(substr(given, 11), '.', '') || '000000', 1, 6)
            WHEN given GLOB '2[0-9][0-9][0-9][0-9][0-9][0-9].[0-9]*'
            THEN strftime('%Y-%m-%dT%H:%M:%f000', given)
            WHEN (length(stamp) = 10 OR stamp GLOB '??????????[T ][0-9][0-9]:[0-9][0-9]*') AND stamp > '0001-01-02'
                AND date(substr(stamp, 1, 10), '+0 days') = substr(stamp, 1, 10)
                AND substr(stamp, 12, 2) < '24' AND substr(stamp, 21) NOT GLOB '*[^0-9]*'
            THEN strftime('%Y-%m-%dT%H:%M:%S', substr(stamp, 1, 19) || CASE
                WHEN zone IN ('', 'Z', 'UTC', 'GMT') THEN ''
                WHEN zone GLOB '[-+][0-9][0-9]' THEN zone || ':00'
                WHEN zone GLOB '[-+][0-9][0-9][0-9][0-9]' THEN substr(zone, 1, 3) || ':' || substr(zone, 4)
                WHEN zone GLOB '[-+][0-9][0-9]:[0-9][0-9]' THEN zone
            END) || '.' || substr(substr(stamp, 21) || '000000', 1, 6)
        END
        FROM (
            SELECT given, trim(zone) AS zone, substr(given, 1, length(given) - length(zone)) AS stamp
            FROM (
                SELECT given, ltrim(substr(given, 12), '0123456789:.,') AS zone
                FROM (
                    SELECT CASE
                        WHEN spelled GLOB '????????[T ]??????*'
                        THEN substr(spelled, 1, 4) || '-' || substr(spelled, 5, 2) || '-' || substr(spelled, 7, 5)
                            || ':' || substr(spelled, 12, 2) || ':' || substr(spelled, 14)
                        ELSE spelled
                    END AS given
                    FROM (SELECT upper(trim(CAST(NEW.created_at AS TEXT))) AS spelled)
                )
            )
        )"""
OLD = """\
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


def upgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        return
    connection = op.get_bind()
    add_function(connection, "orchdb_time", one_form)
    for table, columns in TIMES.items():
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS trg_{table}_created_at")
        with without_triggers(connection, table):
            for column in columns:
                connection.exec_driver_sql(_in_the_one_form(table, column))
        connection.exec_driver_sql(INSERTED.format(table=table))
        connection.exec_driver_sql(CHANGED.format(table=table, meant=MEANT))


def _in_the_one_form(table: str, column: str) -> str:
    # Only ASCII, because the function takes no text that is no UTF-8, and because only that can be a time.
    return (
        f"UPDATE {table} SET {column} = orchdb_time({column}) "  # noqa: S608  # own text
        f"WHERE CASE WHEN {column} NOT GLOB {ONE_FORM} AND {column} NOT GLOB '*[^ -~]*' "
        f"AND instr({column}, char(0)) = 0 THEN orchdb_time({column}) IS NOT NULL ELSE false END"
    )


def downgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        return
    connection = op.get_bind()
    for table in TIMES:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS trg_{table}_created_at")
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS trg_{table}_created_at_changed")
        connection.exec_driver_sql(OLD.format(table=table))

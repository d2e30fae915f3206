"""What is stored: the five tables at the head revision, and that of leases.

They mirror ``schema/schema_orchestrator.sql`` and what ``alembic upgrade head`` makes; a test holds the three together.
Indexes follow the queries of ``orchdb.operations``: the scope, then the time, then the id.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Table,
    event,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from orchdb.driver_errors import COLUMNS
from orchdb.rows import AGENT_STATUSES, COLUMNS_OF, LOG_LEVELS, PROMPT_STATUSES
from orchdb.schema.column_types import (
    CheckedType,
    Choice,
    Cost,
    Count,
    FreeText,
    Identifier,
    JsonDocument,
    JsonObjectDocument,
    Label,
    Name,
    RowNumber,
    Seconds,
    Timestamp,
    Word,
)

metadata = MetaData()

# An index over some of the rows costs the others nothing but a look at its condition: cheaper with <> than with IN.
GRAVE = "log_level <> 'DEBUG' AND log_level <> 'INFO'"
"""Which lines an index of the agents' log has: the few that are looked for by their level among the many."""
UNFINISHED = "status <> 'completed'"
"""Which prompts an index has: nearly all are completed."""

TRIGGERS: set[str] = set()
"""The names of our triggers; any other one belongs to another program."""


class present(FunctionElement[str]):  # noqa: N801  # an SQL function
    """The present, as each engine stores a time."""

    inherit_cache = True


@compiles(present, "sqlite")
def _present_as_text(element: present, compiler: SQLCompiler, **options: object) -> str:
    return "(strftime('%Y-%m-%dT%H:%M:%f000', 'now'))"


@compiles(present)
def _present_as_timestamp(element: present, compiler: SQLCompiler, **options: object) -> str:
    return "now()"


def _one_of(column: str, words: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


orchestrator_agents = Table(
    "orchestrator_agents",
    metadata,
    Column("id", Identifier(), primary_key=True),
    Column("name", Word(), nullable=False),
    Column("description", FreeText()),
    Column("agent_type", Label(), nullable=False),
    Column("capabilities", FreeText()),
    Column("default_model", Name()),
    Column("created_at", Timestamp(), nullable=False, server_default=present()),
    Column("updated_at", Timestamp(), nullable=False, server_default=present()),
    Column("metadata", JsonObjectDocument()),
    Column("deleted_at", Timestamp()),
    CheckConstraint("agent_type <> ''", name="ck_orchestrator_agents_agent_type"),
)
_UNIQUE_NAME = Index("uq_orchestrator_agents_name", orchestrator_agents.c.name, unique=True)
Index("idx_orchestrator_agents_created", orchestrator_agents.c.created_at, orchestrator_agents.c.id)

leases = Table(
    "leases",
    metadata,
    Column("id", Identifier(), primary_key=True),
    Column("owner", Identifier(), nullable=False),
    Column("seconds", Seconds(), nullable=False),
    Column("renewed_at", Timestamp(), nullable=False),
    Column("clock", Seconds(), nullable=False),
    Column("clock_id", Name(), nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Identifier(), primary_key=True),
    Column(
        "orchestrator_agent_id",
        Identifier(),
        ForeignKey("orchestrator_agents.id", name="fk_agents_orchestrator_agent_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("session_id", Word(), nullable=False),
    Column(
        "parent_agent_id",
        Identifier(),
        ForeignKey("agents.id", name="fk_agents_parent_agent_id", ondelete="SET NULL"),
    ),
    Column("status", Choice(AGENT_STATUSES), nullable=False, server_default=text("'initializing'")),
    Column("context", JsonObjectDocument()),
    Column("config", JsonObjectDocument()),
    Column("started_at", Timestamp()),
    Column("completed_at", Timestamp()),
    Column("cost_usd", Cost(), server_default=text("0.0")),
    Column("error_message", FreeText()),
    Column("created_at", Timestamp(), nullable=False, server_default=present()),
    Column("updated_at", Timestamp(), nullable=False, server_default=present()),
    Column("metadata", JsonObjectDocument()),
    Column("deleted_at", Timestamp()),
    Column("lease_id", Identifier(), ForeignKey("leases.id", name="fk_agents_lease_id", ondelete="SET NULL")),
    CheckConstraint(_one_of("status", AGENT_STATUSES), name="ck_agents_status"),
)
Index("idx_agents_created", agents.c.created_at, agents.c.id)
Index("idx_agents_session", agents.c.session_id, agents.c.created_at, agents.c.id)
Index("idx_agents_orch", agents.c.orchestrator_agent_id, agents.c.created_at, agents.c.id)
Index("idx_agents_parent", agents.c.parent_agent_id, agents.c.created_at, agents.c.id)
Index("idx_agents_status", agents.c.status, agents.c.created_at, agents.c.id)
_PARTIAL = {Index("idx_agents_lease", agents.c.lease_id): "lease_id IS NOT NULL", _UNIQUE_NAME: "deleted_at IS NULL"}
"""The indexes over some of the rows only, and which those are."""
_PARTIAL[Index("idx_agents_deleted", agents.c.id)] = "deleted_at IS NOT NULL"

prompts = Table(
    "prompts",
    metadata,
    Column("id", Identifier(), primary_key=True),
    Column(
        "agent_id",
        Identifier(),
        ForeignKey("agents.id", name="fk_prompts_agent_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("prompt_type", Label(), nullable=False),
    Column("prompt_name", Name()),
    Column("prompt_text", FreeText(), nullable=False),
    Column("response_text", FreeText()),
    Column("status", Choice(PROMPT_STATUSES), nullable=False, server_default=text("'pending'")),
    Column("model_used", Word()),
    Column("tokens_input", Count(), server_default=text("0")),
    Column("tokens_output", Count(), server_default=text("0")),
    Column("cost_usd", Cost(), server_default=text("0.0")),
    Column("latency_ms", Count()),
    Column("created_at", Timestamp(), nullable=False, server_default=present()),
    Column("completed_at", Timestamp()),
    Column("error_message", FreeText()),
    Column("metadata", JsonObjectDocument()),
    Column("deleted_at", Timestamp()),
    Column("tokens_cache_read", Count(), server_default=text("0")),
    Column("tokens_cache_write", Count(), server_default=text("0")),
    CheckConstraint("prompt_type <> ''", name="ck_prompts_prompt_type"),
    CheckConstraint(_one_of("status", PROMPT_STATUSES), name="ck_prompts_status"),
)
# What usage is summed up from, so that it reads these two alone. Without the type of prompts: with the model beside it
# a row could be longer than an index of Postgres takes.
_FIGURES = [
    *(prompts.c.deleted_at, prompts.c.status, prompts.c.cost_usd, prompts.c.tokens_input, prompts.c.tokens_output),
    *(prompts.c.tokens_cache_read, prompts.c.tokens_cache_write, prompts.c.latency_ms, prompts.c.model_used),
]
Index("idx_prompts_agent", prompts.c.agent_id, prompts.c.created_at, prompts.c.id, *_FIGURES)
Index("idx_prompts_created", prompts.c.created_at, prompts.c.id, prompts.c.agent_id, *_FIGURES)
Index("idx_prompts_model", prompts.c.model_used, prompts.c.created_at, prompts.c.id)
Index("idx_prompts_type", prompts.c.prompt_type, prompts.c.created_at, prompts.c.id)
_PARTIAL[Index("idx_prompts_status", prompts.c.status, prompts.c.created_at, prompts.c.id)] = UNFINISHED

agent_logs = Table(
    "agent_logs",
    metadata,
    Column("id", RowNumber(), Identity(), primary_key=True),
    Column(
        "agent_id",
        Identifier(),
        ForeignKey("agents.id", name="fk_agent_logs_agent_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("log_level", Choice(LOG_LEVELS), nullable=False, server_default=text("'INFO'")),
    Column("log_type", Label(), nullable=False),
    Column("message", FreeText(), nullable=False),
    Column("details", JsonDocument()),
    Column("created_at", Timestamp(), nullable=False, server_default=present()),
    Column("event_id", Label()),
    CheckConstraint(_one_of("log_level", LOG_LEVELS), name="ck_agent_logs_log_level"),
    CheckConstraint("log_type <> ''", name="ck_agent_logs_log_type"),
    sqlite_autoincrement=True,
)
Index("idx_agent_logs_created", agent_logs.c.created_at, agent_logs.c.id)
Index("idx_agent_logs_type", agent_logs.c.log_type, agent_logs.c.created_at, agent_logs.c.id)
Index("idx_agent_logs_agent", agent_logs.c.agent_id, agent_logs.c.created_at, agent_logs.c.id)
_PARTIAL[Index("idx_agent_logs_level", agent_logs.c.log_level, agent_logs.c.created_at, agent_logs.c.id)] = GRAVE

system_logs = Table(
    "system_logs",
    metadata,
    Column("id", RowNumber(), Identity(), primary_key=True),
    Column("log_level", Choice(LOG_LEVELS), nullable=False, server_default=text("'INFO'")),
    Column("component", Word(), nullable=False),
    Column("message", FreeText(), nullable=False),
    Column("details", JsonDocument()),
    Column("created_at", Timestamp(), nullable=False, server_default=present()),
    Column("event_id", Label()),
    CheckConstraint(_one_of("log_level", LOG_LEVELS), name="ck_system_logs_log_level"),
    sqlite_autoincrement=True,
)
Index("idx_system_logs_created", system_logs.c.created_at, system_logs.c.id)
Index("idx_system_logs_level", system_logs.c.log_level, system_logs.c.created_at, system_logs.c.id)
Index("idx_system_logs_component", system_logs.c.component, system_logs.c.created_at, system_logs.c.id)

for _log in (agent_logs, system_logs):
    _PARTIAL[Index(f"uq_{_log.name}_event", _log.c.event_id, unique=True)] = "event_id IS NOT NULL"


def _name_the_columns() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, CheckedType):
                column.type.column = f"{table.name}.{column.name}"
                column.type.required = not column.nullable


_name_the_columns()


def _name_the_constraints() -> None:
    """Tell the errors which column a constraint of ours is about: not every engine does."""
    for table in metadata.tables.values():
        COLUMNS[f"{table.name}_pkey"] = "id"
        for key in table.foreign_key_constraints:
            COLUMNS[str(key.name)] = key.column_keys[0]
        for constraint in table.constraints:
            column = str(constraint.name).removeprefix(f"ck_{table.name}_")
            if column in table.c:
                COLUMNS[str(constraint.name)] = column
        COLUMNS.update({str(index.name): index.columns.keys()[0] for index in table.indexes if index.unique})


_name_the_constraints()


# Other programs write with plain SQL. Their updates move updated_at too, and a time in another ISO form is brought into
# the one form, as far as SQL can do that, because the order of every list compares times as text.
_TOUCHED = {
    "orchestrator_agents": "name, description, agent_type, capabilities, default_model, metadata, deleted_at",
    "agents": (
        "session_id, parent_agent_id, status, context, config, started_at, completed_at, cost_usd, error_message, "
        "metadata, deleted_at"
    ),
}
_TOUCH_SQLITE = """\
CREATE TRIGGER trg_{table}_updated_at AFTER UPDATE OF {columns} ON {table}
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE {table} SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000', 'now') WHERE id = NEW.id;
END"""
# Each insertion pays for the size of its trigger, also where that has nothing to do (11 µs more when all of this was in
# it): so the work is done by the trigger on updates.
_CREATED_SQLITE = """\
CREATE TRIGGER trg_{table}_created_at AFTER INSERT ON {table}
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE {table} SET created_at = created_at WHERE id = NEW.id;
END"""
_CHANGED_SQLITE = """\
CREATE TRIGGER trg_{table}_created_at_changed AFTER UPDATE OF created_at ON {table}
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE {table} SET created_at = (
        {meant}
    ) WHERE id = NEW.id AND (
        {meant}
    ) IS NOT NULL;
END"""
# Seconds since 1970, also their thousandths and so on, julian days, and ISO 8601, in a ``stamp`` and a ``zone``; NULL
# for what is none of these. ``spellings.understood`` understands as much and a little more.
_MEANT_SQLITE = """\
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
_TOUCH_FUNCTION_POSTGRES = """\
CREATE OR REPLACE FUNCTION orchdb_touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END$$"""
_TOUCH_POSTGRES = """\
CREATE TRIGGER trg_{table}_updated_at BEFORE UPDATE OF {columns} ON {table} FOR EACH ROW
WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) EXECUTE FUNCTION orchdb_touch_updated_at()"""


@event.listens_for(metadata, "before_create")
def _over_some_of_the_rows(target: MetaData, connection: Connection, **_: object) -> None:
    # Not where the indexes are declared: an option of a dialect loads that dialect, and Postgres's costs a sixth of the
    # time that importing orchdb takes.
    for index, where in _PARTIAL.items():
        index.dialect_options[connection.dialect.name]["where"] = text(where)


def _after_create(statement: str, dialect: str) -> None:
    if statement.startswith("CREATE TRIGGER "):
        TRIGGERS.add(statement.split()[2])
    ddl = DDL(statement.replace("%", "%%")).execute_if(dialect=dialect)  # type: ignore[no-untyped-call]
    event.listen(metadata, "after_create", ddl)


def _add_triggers() -> None:
    _after_create(_TOUCH_FUNCTION_POSTGRES, "postgresql")
    for table, columns in _TOUCHED.items():
        _after_create(_TOUCH_SQLITE.format(table=table, columns=columns), "sqlite")
        _after_create(_TOUCH_POSTGRES.format(table=table, columns=columns), "postgresql")
    for table in COLUMNS_OF:
        _after_create(_CREATED_SQLITE.format(table=table), "sqlite")
        _after_create(_CHANGED_SQLITE.format(table=table, meant=_MEANT_SQLITE), "sqlite")


_add_triggers()

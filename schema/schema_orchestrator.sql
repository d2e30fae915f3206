-- The schema of orchdb on SQLite at revision 0012: five tables and one of leases, their indexes and triggers, and the revision itself.
--
-- DatabaseManager applies this file to an empty database when it first connects. By hand: sqlite3 new.db < this file.
-- `alembic upgrade head` makes the same from the revisions in migrations/, and orchdb/tables.py says it in Python;
-- a test holds the three together.
--
-- ids    UUID text; the two logs count their rows, and a number is never given twice (AUTOINCREMENT)
-- times  UTC text of 26 characters, YYYY-MM-DDTHH:MM:SS.ffffff, which sorts as text
-- JSON   text; context, config and metadata hold an object, details any value
-- costs  US dollars
--
-- Lifecycles (status, log_level) are closed and checked; taxonomies (agent_type, prompt_type, log_type) are the user's.
-- A row with a deleted_at is softly deleted.


-- Definitions of agents: what an agent of this name is and can do.
CREATE TABLE orchestrator_agents (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    agent_type TEXT NOT NULL,
    capabilities TEXT,
    default_model TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    metadata TEXT,
    deleted_at TEXT,
    PRIMARY KEY (id),
    CONSTRAINT ck_orchestrator_agents_agent_type CHECK (agent_type <> '')
);

-- The name is unique among the living, so that the name of a deleted definition can be used again.
CREATE UNIQUE INDEX uq_orchestrator_agents_name ON orchestrator_agents (name) WHERE deleted_at IS NULL;
CREATE INDEX idx_orchestrator_agents_created ON orchestrator_agents (created_at, id);


-- What says that a process with open runs is alive: one row for each process and length of lease, renewed as long as it
-- runs. ``clock`` goes on whatever the time of day is set to, until a restart of the machine gives another ``clock_id``.
CREATE TABLE leases (
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    seconds REAL NOT NULL,
    renewed_at TEXT NOT NULL,
    clock REAL NOT NULL,
    clock_id TEXT NOT NULL,
    PRIMARY KEY (id)
);


-- Running instances of a definition. started_at is set when the agent starts to run, completed_at when it has ended.
CREATE TABLE agents (
    id TEXT NOT NULL,
    orchestrator_agent_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    parent_agent_id TEXT,
    status TEXT NOT NULL DEFAULT 'initializing',
    context TEXT,
    config TEXT,
    started_at TEXT,
    completed_at TEXT,
    cost_usd REAL DEFAULT 0.0,
    error_message TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    metadata TEXT,
    deleted_at TEXT,
    lease_id TEXT,
    PRIMARY KEY (id),
    CONSTRAINT fk_agents_orchestrator_agent_id
        FOREIGN KEY (orchestrator_agent_id) REFERENCES orchestrator_agents (id) ON DELETE CASCADE,
    CONSTRAINT fk_agents_parent_agent_id FOREIGN KEY (parent_agent_id) REFERENCES agents (id) ON DELETE SET NULL,
    CONSTRAINT fk_agents_lease_id FOREIGN KEY (lease_id) REFERENCES leases (id) ON DELETE SET NULL,
    CONSTRAINT ck_agents_status CHECK (status IN
        ('pending', 'initializing', 'planning', 'executing', 'reviewing', 'completed', 'failed', 'cancelled'))
);

-- Each index has the shape of a query: the scope, then the time, then the id, which breaks ties.
CREATE INDEX idx_agents_created ON agents (created_at, id);
CREATE INDEX idx_agents_session ON agents (session_id, created_at, id);
CREATE INDEX idx_agents_orch ON agents (orchestrator_agent_id, created_at, id);
CREATE INDEX idx_agents_parent ON agents (parent_agent_id, created_at, id);
CREATE INDEX idx_agents_status ON agents (status, created_at, id);
CREATE INDEX idx_agents_deleted ON agents (id) WHERE deleted_at IS NOT NULL;
CREATE INDEX idx_agents_lease ON agents (lease_id) WHERE lease_id IS NOT NULL;


-- Prompts and, once they have come, their responses with tokens and cost. Cache tokens are priced apart, so they are
-- counted apart: they are not part of tokens_input.
CREATE TABLE prompts (
    id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    prompt_type TEXT NOT NULL,
    prompt_name TEXT,
    prompt_text TEXT NOT NULL,
    response_text TEXT,
    status TEXT NOT NULL DEFAULT 'pending',
    model_used TEXT,
    tokens_input INTEGER DEFAULT 0,
    tokens_output INTEGER DEFAULT 0,
    cost_usd REAL DEFAULT 0.0,
    latency_ms INTEGER,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    completed_at TEXT,
    error_message TEXT,
    metadata TEXT,
    deleted_at TEXT,
    tokens_cache_read INTEGER DEFAULT 0,
    tokens_cache_write INTEGER DEFAULT 0,
    PRIMARY KEY (id),
    CONSTRAINT fk_prompts_agent_id FOREIGN KEY (agent_id) REFERENCES agents (id) ON DELETE CASCADE,
    CONSTRAINT ck_prompts_prompt_type CHECK (prompt_type <> ''),
    CONSTRAINT ck_prompts_status CHECK (status IN ('pending', 'streaming', 'completed', 'failed', 'cancelled'))
);

-- Behind the order of the lists these two have the figures, so that usage is summed up from them alone.
CREATE INDEX idx_prompts_agent ON prompts (agent_id, created_at, id,
    deleted_at, status, cost_usd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, latency_ms,
    model_used);
CREATE INDEX idx_prompts_created ON prompts (created_at, id, agent_id,
    deleted_at, status, cost_usd, tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, latency_ms,
    model_used);
CREATE INDEX idx_prompts_model ON prompts (model_used, created_at, id);
CREATE INDEX idx_prompts_type ON prompts (prompt_type, created_at, id);
CREATE INDEX idx_prompts_status ON prompts (status, created_at, id) WHERE status <> 'completed';


-- What agents log: only ever appended to.
CREATE TABLE agent_logs (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    agent_id TEXT NOT NULL,
    log_level TEXT NOT NULL DEFAULT 'INFO',
    log_type TEXT NOT NULL,
    message TEXT NOT NULL,
    details TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    event_id TEXT,
    CONSTRAINT fk_agent_logs_agent_id FOREIGN KEY (agent_id) REFERENCES agents (id) ON DELETE CASCADE,
    CONSTRAINT ck_agent_logs_log_level CHECK (log_level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')),
    CONSTRAINT ck_agent_logs_log_type CHECK (log_type <> '')
);

CREATE INDEX idx_agent_logs_created ON agent_logs (created_at, id);
CREATE INDEX idx_agent_logs_type ON agent_logs (log_type, created_at, id);
CREATE INDEX idx_agent_logs_agent ON agent_logs (agent_id, created_at, id);
CREATE INDEX idx_agent_logs_level ON agent_logs (log_level, created_at, id)
    WHERE log_level <> 'DEBUG' AND log_level <> 'INFO';
-- A line that is sent again is not written again. One without an event_id costs nothing here.
CREATE UNIQUE INDEX uq_agent_logs_event ON agent_logs (event_id) WHERE event_id IS NOT NULL;


-- What the system around the agents logs: only ever appended to.
CREATE TABLE system_logs (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    log_level TEXT NOT NULL DEFAULT 'INFO',
    component TEXT NOT NULL,
    message TEXT NOT NULL,
    details TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000', 'now')),
    event_id TEXT,
    CONSTRAINT ck_system_logs_log_level CHECK (log_level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'))
);

CREATE INDEX idx_system_logs_created ON system_logs (created_at, id);
CREATE INDEX idx_system_logs_level ON system_logs (log_level, created_at, id);
CREATE INDEX idx_system_logs_component ON system_logs (component, created_at, id);
CREATE UNIQUE INDEX uq_system_logs_event ON system_logs (event_id) WHERE event_id IS NOT NULL;


-- Updates by other programs move updated_at too, unless they set it themselves.
CREATE TRIGGER trg_orchestrator_agents_updated_at AFTER UPDATE OF name, description, agent_type, capabilities, default_model, metadata, deleted_at ON orchestrator_agents
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE orchestrator_agents SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER trg_agents_updated_at AFTER UPDATE OF session_id, parent_agent_id, status, context, config, started_at, completed_at, cost_usd, error_message, metadata, deleted_at ON agents
WHEN NEW.updated_at IS OLD.updated_at
BEGIN
    UPDATE agents SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000', 'now') WHERE id = NEW.id;
END;


-- A created_at that another program writes in another ISO form is brought into the one form: every order, page and
-- retention compares times as text. Its fraction keeps the digits it has. What is no time stays as it is.
CREATE TRIGGER trg_orchestrator_agents_created_at AFTER INSERT ON orchestrator_agents
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE orchestrator_agents SET created_at = created_at WHERE id = NEW.id;
END;

CREATE TRIGGER trg_orchestrator_agents_created_at_changed AFTER UPDATE OF created_at ON orchestrator_agents
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE orchestrator_agents SET created_at = (
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
        )
    ) WHERE id = NEW.id AND (
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
        )
    ) IS NOT NULL;
END;

CREATE TRIGGER trg_agents_created_at AFTER INSERT ON agents
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agents SET created_at = created_at WHERE id = NEW.id;
END;

CREATE TRIGGER trg_agents_created_at_changed AFTER UPDATE OF created_at ON agents
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agents SET created_at = (
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
        )
    ) WHERE id = NEW.id AND (
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
        )
    ) IS NOT NULL;
END;

CREATE TRIGGER trg_prompts_created_at AFTER INSERT ON prompts
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE prompts SET created_at = created_at WHERE id = NEW.id;
END;

CREATE TRIGGER trg_prompts_created_at_changed AFTER UPDATE OF created_at ON prompts
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE prompts SET created_at = (
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
        )
    ) WHERE id = NEW.id AND (
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
        )
    ) IS NOT NULL;
END;

CREATE TRIGGER trg_agent_logs_created_at AFTER INSERT ON agent_logs
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agent_logs SET created_at = created_at WHERE id = NEW.id;
END;

CREATE TRIGGER trg_agent_logs_created_at_changed AFTER UPDATE OF created_at ON agent_logs
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agent_logs SET created_at = (
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
        )
    ) WHERE id = NEW.id AND (
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
        )
    ) IS NOT NULL;
END;

CREATE TRIGGER trg_system_logs_created_at AFTER INSERT ON system_logs
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE system_logs SET created_at = created_at WHERE id = NEW.id;
END;

CREATE TRIGGER trg_system_logs_created_at_changed AFTER UPDATE OF created_at ON system_logs
WHEN NEW.created_at NOT GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE system_logs SET created_at = (
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
        )
    ) WHERE id = NEW.id AND (
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
        )
    ) IS NOT NULL;
END;


-- The revision, where Alembic keeps it.
CREATE TABLE orchdb_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT orchdb_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO orchdb_version (version_num) VALUES ('0012');

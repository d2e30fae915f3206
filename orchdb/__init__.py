"""orchdb: the async data layer for agent orchestrators.

Definitions of agents, their running instances, prompts with tokens and costs, and append-only logs, in one SQLite file
with no set-up, and in Postgres by changing one URL.
"""

import logging

from orchdb.cursors import cursor_of
from orchdb.errors import (
    ConnectionLostError,
    ConstraintError,
    DuplicateError,
    InvalidValueError,
    MissingParentError,
    NotConnectedError,
    OperationError,
    OrchdbError,
    SchemaError,
    SchemaOutOfDateError,
)
from orchdb.manager import DatabaseManager, Transaction
from orchdb.operations.runs import AgentRun
from orchdb.operations.usage_rows import AgentNode, UsageKey, UsageRow
from orchdb.rows import (
    AGENT_STATUSES,
    KNOWN_AGENT_TYPES,
    KNOWN_LOG_TYPES,
    KNOWN_PROMPT_TYPES,
    LOG_LEVELS,
    PROMPT_STATUSES,
    AgentChanges,
    AgentLogRow,
    AgentRow,
    AgentStatus,
    LogLevel,
    NewAgentLog,
    NewPrompt,
    NewSystemLog,
    OrchestratorAgentChanges,
    OrchestratorAgentRow,
    PromptChanges,
    PromptRow,
    PromptStatus,
    SystemLogRow,
)
from orchdb.schema.naive_times import NaiveDatetimeWarning

# What goes wrong is raised too: where a program has no logging, Python would print each failure that it handles.
logging.getLogger("orchdb").addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "AGENT_STATUSES",
    "KNOWN_AGENT_TYPES",
    "KNOWN_LOG_TYPES",
    "KNOWN_PROMPT_TYPES",
    "LOG_LEVELS",
    "PROMPT_STATUSES",
    "AgentChanges",
    "AgentLogRow",
    "AgentNode",
    "AgentRow",
    "AgentRun",
    "AgentStatus",
    "ConnectionLostError",
    "ConstraintError",
    "DatabaseManager",
    "DuplicateError",
    "InvalidValueError",
    "LogLevel",
    "MissingParentError",
    "NaiveDatetimeWarning",
    "NewAgentLog",
    "NewPrompt",
    "NewSystemLog",
    "NotConnectedError",
    "OperationError",
    "OrchdbError",
    "OrchestratorAgentChanges",
    "OrchestratorAgentRow",
    "PromptChanges",
    "PromptRow",
    "PromptStatus",
    "SchemaError",
    "SchemaOutOfDateError",
    "SystemLogRow",
    "Transaction",
    "UsageKey",
    "UsageRow",
    "cursor_of",
]

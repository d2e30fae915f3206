"""orchdb: the async data layer for agent orchestrators.

Definitions of agents, their running instances, prompts with tokens and costs, and append-only logs, in one SQLite file
with no set-up, and in Postgres by changing one URL.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from orchdb.operations.retention import Prunable
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
    "Prunable",
    "SchemaError",
    "SchemaOutOfDateError",
    "SystemLogRow",
    "Transaction",
    "UsageKey",
    "UsageRow",
    "cursor_of",
]

# Loaded when it is first asked for: SQLAlchemy takes longer than the rest of a short program, such as `orchdb --help`.
_PLACES = {
    "cursors": ("cursor_of",),
    "errors": (
        "ConnectionLostError",
        "ConstraintError",
        "DuplicateError",
        "InvalidValueError",
        "MissingParentError",
        "NotConnectedError",
        "OperationError",
        "OrchdbError",
        "SchemaError",
        "SchemaOutOfDateError",
    ),
    "manager": (
        "DatabaseManager",
        "Transaction",
    ),
    "operations.retention": ("Prunable",),
    "operations.runs": ("AgentRun",),
    "operations.usage_rows": (
        "AgentNode",
        "UsageKey",
        "UsageRow",
    ),
    "rows": (
        "AGENT_STATUSES",
        "KNOWN_AGENT_TYPES",
        "KNOWN_LOG_TYPES",
        "KNOWN_PROMPT_TYPES",
        "LOG_LEVELS",
        "PROMPT_STATUSES",
        "AgentChanges",
        "AgentLogRow",
        "AgentRow",
        "AgentStatus",
        "LogLevel",
        "NewAgentLog",
        "NewPrompt",
        "NewSystemLog",
        "OrchestratorAgentChanges",
        "OrchestratorAgentRow",
        "PromptChanges",
        "PromptRow",
        "PromptStatus",
        "SystemLogRow",
    ),
    "schema.naive_times": ("NaiveDatetimeWarning",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name."""
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

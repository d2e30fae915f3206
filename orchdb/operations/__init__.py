"""The operations, cut along the tables. ``DatabaseManager`` and a transaction have the same ones."""

from __future__ import annotations

from orchdb.operations.agent_logs import AgentLogOperations
from orchdb.operations.agents import AgentOperations
from orchdb.operations.orchestrator_agents import OrchestratorAgentOperations
from orchdb.operations.prompts import PromptOperations
from orchdb.operations.retention import RetentionOperations
from orchdb.operations.system_logs import SystemLogOperations
from orchdb.operations.usage import UsageOperations


class Operations(
    OrchestratorAgentOperations,
    AgentOperations,
    PromptOperations,
    AgentLogOperations,
    SystemLogOperations,
    RetentionOperations,
    UsageOperations,
):
    """All operations on the five tables, the same for a manager and for a transaction.

    An id that is malformed is the id of no row. Besides what a method lists, each of them may raise
    ``NotConnectedError`` (before ``connect()``, after the end), ``OperationError`` (locked for too long, disk full,
    read-only, no server) and ``ConnectionLostError`` (a write may have been applied or not).
    """


__all__ = ["Operations"]

"""The operations, cut along the tables. ``DatabaseManager`` and a transaction have the same ones."""

from __future__ import annotations

from orchdb.operations.agent_logs import AgentLogOperations
from orchdb.operations.agents import AgentOperations
from orchdb.operations.orchestrator_agents import OrchestratorAgentOperations
from orchdb.operations.prompts import PromptOperations
from orchdb.operations.retention import RetentionOperations
from orchdb.operations.system_logs import SystemLogOperations


class Operations(
    OrchestratorAgentOperations,
    AgentOperations,
    PromptOperations,
    AgentLogOperations,
    SystemLogOperations,
    RetentionOperations,
):
    """All operations on the five tables."""


__all__ = ["Operations"]

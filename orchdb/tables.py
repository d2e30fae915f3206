"""The five tables as SQLAlchemy Core sees them, for portable queries of your own on ``db.conn`` and ``tx.conn``.

Their column types check what goes in and bring what comes out into the forms that the operations give, on both engines.
"""

from __future__ import annotations

from orchdb.schema.tables import agent_logs, agents, metadata, orchestrator_agents, prompts, system_logs

__all__ = ["agent_logs", "agents", "metadata", "orchestrator_agents", "prompts", "system_logs"]

"""The operations on ``orchestrator_agents``: the definitions of agents."""

from __future__ import annotations

from typing import Unpack

from orchdb.operations.table_operations import TableOperations, checked_names
from orchdb.rows import JsonObject, OrchestratorAgentChanges, OrchestratorAgentRow, Time
from orchdb.statements import TableStatements
from orchdb.tables import orchestrator_agents
from orchdb.values import new_id, now

_TABLE: TableStatements[OrchestratorAgentRow] = TableStatements(orchestrator_agents)
_INSERT = _TABLE.insert(
    (
        "id",
        "name",
        "description",
        "agent_type",
        "capabilities",
        "default_model",
        "metadata",
        "created_at",
        "updated_at",
    )
)
_CHANGES = frozenset(OrchestratorAgentChanges.__annotations__)


class OrchestratorAgentOperations(TableOperations):
    """Definitions of agents: created, changed, deleted softly or for good."""

    async def create_orchestrator_agent(
        self,
        name: str,
        description: str | None = None,
        agent_type: str = "utility",
        capabilities: str | None = None,
        default_model: str | None = None,
        metadata: JsonObject | None = None,
    ) -> str:
        """The id of a new definition.

        Args:
            name: Unique among the definitions that are not deleted.
            agent_type: Any non-empty text; ``KNOWN_AGENT_TYPES`` holds the usual ones.

        Raises:
            DuplicateError: A living definition has this name.
            InvalidValueError: A value does not fit its column.
        """
        moment = now()
        values = {
            "id": new_id(),
            "name": name,
            "description": description,
            "agent_type": agent_type,
            "capabilities": capabilities,
            "default_model": default_model,
            "metadata": metadata,
            "created_at": moment,
            "updated_at": moment,
        }
        await self._verbs.insert("create_orchestrator_agent", _INSERT, values)
        return str(values["id"])

    async def get_orchestrator_agent(
        self, agent_id: str, *, include_deleted: bool = False
    ) -> OrchestratorAgentRow | None:
        """The definition, or ``None``."""
        return await self._verbs.fetch_one("get_orchestrator_agent", _TABLE.one(include_deleted), {"row_id": agent_id})

    async def list_orchestrator_agents(
        self,
        *,
        name: str | None = None,
        agent_type: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        include_deleted: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[OrchestratorAgentRow]:
        """The definitions, newest first.

        Args:
            since: Created at this time or later, as far as another program's spelling of it is understood.
            until: Created before this time.
            after: Continue after the row whose ``cursor_of`` this is.
        """
        return await self._list(
            "list_orchestrator_agents",
            _TABLE,
            {"name": name, "agent_type": agent_type},
            newest_first=True,
            since=since,
            until=until,
            include_deleted=include_deleted,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def update_orchestrator_agent(self, agent_id: str, **changes: Unpack[OrchestratorAgentChanges]) -> bool:
        """Whether there is such a definition; it then has the changes, and ``updated_at`` is now unless given.

        Raises:
            DuplicateError: Another living definition has the new name.
            InvalidValueError: A value does not fit its column.
            TypeError: A name is unknown, or cannot be changed.
        """
        checked_names("update_orchestrator_agent", changes, _CHANGES)
        return await self._change("update_orchestrator_agent", _TABLE, agent_id, changes)

    async def delete_orchestrator_agent(self, agent_id: str, *, soft: bool = False) -> bool:
        """Whether there was such a definition.

        Args:
            soft: Only hide it: ``restore_orchestrator_agent`` brings it back, and its agents stay visible. Otherwise it
                goes for good, with its agents, their prompts and their logs.
        """
        return await self._delete("delete_orchestrator_agent", _TABLE, agent_id, soft=soft)

    async def restore_orchestrator_agent(self, agent_id: str) -> bool:
        """Whether there was such a softly deleted definition; it is living again.

        Raises:
            DuplicateError: A living definition has taken the name meanwhile.
        """
        return await self._restore("restore_orchestrator_agent", _TABLE, agent_id)

"""The operations on ``orchestrator_agents``: the definitions of agents."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Unpack
from uuid import UUID

from orchdb.operations.arguments import checked_names
from orchdb.operations.creation import CreationOperations, may_exist, new_row_id, time_of_creation
from orchdb.operations.page import Page
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import JsonObject, OneOrSeveral, OrchestratorAgentChanges, OrchestratorAgentRow, Time
from orchdb.schema.tables import orchestrator_agents
from orchdb.schema.values import new_id, now

_TABLE: TableStatements[OrchestratorAgentRow] = TableStatements(orchestrator_agents, ("name",))
_NAMES = (
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
_INSERT = _TABLE.insert(_NAMES)
_CHANGES = frozenset(OrchestratorAgentChanges.__annotations__)


class OrchestratorAgentOperations(CreationOperations):
    """Definitions of agents: created, changed, deleted softly or for good."""

    async def create_orchestrator_agent(
        self,
        name: str,
        description: str | None = None,
        agent_type: str = "utility",
        capabilities: str | None = None,
        default_model: str | None = None,
        metadata: JsonObject | None = None,
        *,
        id: str | UUID | None = None,
        created_at: Time | None = None,
        exist_ok: bool = False,
    ) -> str:
        """Create a definition of an agent.

        Args:
            name: Unique among the definitions that are not deleted: at most 500 characters, which is what fits an index
                of Postgres.
            description: What it is for.
            agent_type: Any non-empty text of at most 500 characters; ``KNOWN_AGENT_TYPES`` holds the usual ones.
            capabilities: What it can do, as text.
            default_model: The model that its instances use if nothing else is said.
            metadata: A JSON object, as a mapping.
            id: Its id: any UUID. By default a new one, which sorts in the order of creation.
            created_at: When it was created: ISO 8601 text, or a ``datetime``; without a zone it is UTC. By default now.
            exist_ok: Take a definition that has the id for this one, and leave it as it is: so the call can be
                repeated. By default that is an error.

        Returns:
            The id of the definition, 36 characters of UUID.

        Raises:
            DuplicateError: A living definition has this name, or, without ``exist_ok``, one has this id.
            InvalidValueError: A value does not fit its column.
        """
        row_id = new_row_id("create_orchestrator_agent", _TABLE.table.name, id)
        moment = time_of_creation("create_orchestrator_agent", _TABLE.table.name, created_at)
        values = _new_definition(row_id, moment, name, description, agent_type, capabilities, default_model, metadata)
        if may_exist("create_orchestrator_agent", _TABLE.table.name, exist_ok):
            await self._insert_unless("create_orchestrator_agent", _TABLE, _NAMES, values, "id")
        else:
            await self._executor.insert("create_orchestrator_agent", _INSERT, values)
        return row_id

    async def get_or_create_orchestrator_agent(
        self,
        name: str,
        description: str | None = None,
        agent_type: str = "utility",
        capabilities: str | None = None,
        default_model: str | None = None,
        metadata: JsonObject | None = None,
    ) -> str:
        """Get the living definition of a name, or create it if there is none, whoever else does so at the same time.

        Args:
            name: The name: at most 500 characters.
            description: What it is for. This and what follows says what it is created with; one that is there already
                stays as it is.
            agent_type: Any non-empty text of at most 500 characters; ``KNOWN_AGENT_TYPES`` holds the usual ones.
            capabilities: What it can do, as text.
            default_model: The model that its instances use if nothing else is said.
            metadata: A JSON object, as a mapping.

        Returns:
            The id of the definition, 36 characters of UUID.

        Raises:
            InvalidValueError: A value does not fit its column.
        """
        operation = "get_or_create_orchestrator_agent"
        found = await self._executor.fetch_value(operation, _TABLE.ids("name"), {"key_0": name})
        if found is not None:
            return str(found)
        values = _new_definition(new_id(), now(), name, description, agent_type, capabilities, default_model, metadata)
        return str(await self._insert_unless(operation, _TABLE, _NAMES, values, "name"))

    async def get_orchestrator_agent(
        self, agent_id: str, *, include_deleted: bool = False
    ) -> OrchestratorAgentRow | None:
        """Get one definition.

        Args:
            agent_id: The id of the definition.
            include_deleted: Return the row also where it was deleted softly.

        Returns:
            The row; ``None`` if there is no such definition.
        """
        return await self._executor.fetch_one(
            "get_orchestrator_agent", _TABLE.one(include_deleted), {"row_id": agent_id}
        )

    async def list_orchestrator_agents(
        self,
        *,
        name: OneOrSeveral[str] | None = None,
        agent_type: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        include_deleted: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[OrchestratorAgentRow]:
        """List definitions, newest first; of all filters that are given, each must fit.

        A filter takes one value, or several of which one must fit; of none, no definition has one.

        Args:
            name: Only the one with this name; with ``include_deleted`` there may be several.
            agent_type: Only those of this type.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            include_deleted: Also rows that were deleted softly.
            limit: The most rows to return; 0 for none. By default all of them.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``, descending; an empty list if none fits.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, ``limit`` or ``offset`` is no whole
                number from 0, or ``after`` is no cursor of this table. Of several values the place, from 0, is told.
        """
        page = Page(limit, offset, after, since, until, include_deleted, newest_first=True)
        return await self._list("list_orchestrator_agents", _TABLE, {"name": name, "agent_type": agent_type}, page)

    async def update_orchestrator_agent(self, agent_id: str, **changes: Unpack[OrchestratorAgentChanges]) -> bool:
        """Change a definition; only the columns that are named.

        ``updated_at`` becomes now unless it is given. Without changes it only looks whether the definition is there.

        Args:
            agent_id: The id of the definition.
            **changes: What to change: ``name``, ``description``, ``agent_type``, ``capabilities``, ``default_model``,
                ``metadata``, ``updated_at``; as in ``OrchestratorAgentChanges``. ``None`` empties a column.

        Returns:
            True if there is such a definition; False if not, or if it was deleted softly.

        Raises:
            DuplicateError: Another living definition has the new name.
            InvalidValueError: A value does not fit its column.
            TypeError: A name is unknown, or cannot be changed; the message lists those that can.
        """
        checked_names("update_orchestrator_agent", changes, _CHANGES)
        return await self._change("update_orchestrator_agent", _TABLE, agent_id, changes)

    async def delete_orchestrator_agent(self, agent_id: str, *, soft: bool = False) -> bool:
        """Delete a definition, for good or softly.

        Args:
            agent_id: The id of the definition.
            soft: Only hide it: ``restore_orchestrator_agent`` brings it back, its agents stay visible, and its name is
                free for another one. By default it goes for good, with its agents, their prompts and their logs.

        Returns:
            True if there was such a definition; False if not. One that is hidden already can only be deleted for good.
        """
        return await self._delete("delete_orchestrator_agent", _TABLE, agent_id, soft=soft)

    async def restore_orchestrator_agent(self, agent_id: str) -> bool:
        """Restore a definition that was deleted softly.

        Args:
            agent_id: The id of the definition.

        Returns:
            True if there was such a softly deleted definition; False if not.

        Raises:
            DuplicateError: A living definition has taken the name meanwhile.
        """
        return await self._restore("restore_orchestrator_agent", _TABLE, agent_id)


def _new_definition(
    row_id: str,
    moment: datetime,
    name: str,
    description: str | None,
    agent_type: str,
    capabilities: str | None,
    default_model: str | None,
    metadata: JsonObject | None,
) -> dict[str, Any]:
    return {
        "id": row_id,
        "name": name,
        "description": description,
        "agent_type": agent_type,
        "capabilities": capabilities,
        "default_model": default_model,
        "metadata": metadata,
        "created_at": moment,
        "updated_at": moment,
    }

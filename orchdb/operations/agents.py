"""The operations on ``agents``: the running instances."""

from __future__ import annotations

from typing import Any, Unpack

from orchdb.operations.table_operations import TableOperations, checked_cost, checked_names
from orchdb.rows import ENDED_STATUSES, RUNNING_STATUSES, AgentChanges, AgentRow, AgentStatus, JsonObject, Time
from orchdb.statements import TableStatements
from orchdb.tables import agents
from orchdb.values import new_id, now
from orchdb.verbs import failures_reported

_TABLE: TableStatements[AgentRow] = TableStatements(agents)
_INSERT = _TABLE.insert(
    (
        "id",
        "orchestrator_agent_id",
        "session_id",
        "parent_agent_id",
        "status",
        "context",
        "config",
        "metadata",
        "started_at",
        "completed_at",
        "created_at",
        "updated_at",
    )
)
_CHANGES = frozenset(AgentChanges.__annotations__)


class AgentOperations(TableOperations):
    """Running instances: their lifecycle, and what they cost."""

    async def create_agent(
        self,
        orchestrator_agent_id: str,
        session_id: str,
        parent_agent_id: str | None = None,
        status: AgentStatus = "initializing",
        context: JsonObject | str | None = None,
        config: JsonObject | str | None = None,
        metadata: JsonObject | None = None,
    ) -> str:
        """The id of a new agent.

        ``started_at`` is set if the status is a running one, ``completed_at`` if it is an ended one.

        Args:
            context: A JSON object, as a mapping or as text; likewise ``config``.

        Raises:
            MissingParentError: The definition or the parent agent does not exist.
            InvalidValueError: A value does not fit its column.
        """
        moment = now()
        values: dict[str, Any] = {
            "id": new_id(),
            "orchestrator_agent_id": orchestrator_agent_id,
            "session_id": session_id,
            "parent_agent_id": parent_agent_id,
            "status": status,
            "context": context,
            "config": config,
            "metadata": metadata,
            "started_at": moment if status in RUNNING_STATUSES else None,
            "completed_at": moment if status in ENDED_STATUSES else None,
            "created_at": moment,
            "updated_at": moment,
        }
        await self._verbs.insert("create_agent", _INSERT, values)
        return str(values["id"])

    async def get_agent(self, agent_id: str, *, include_deleted: bool = False) -> AgentRow | None:
        """The agent, or ``None``."""
        return await self._verbs.fetch_one("get_agent", _TABLE.one(include_deleted), {"row_id": agent_id})

    async def list_agents(
        self,
        session_id: str | None = None,
        *,
        status: AgentStatus | None = None,
        orchestrator_agent_id: str | None = None,
        parent_agent_id: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        include_deleted: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[AgentRow]:
        """The agents, newest first.

        Args:
            since: Created at this time or later, as far as another program's spelling of it is understood.
            until: Created before this time.
            after: Continue after the row whose ``cursor_of`` this is.
        """
        return await self._list(
            "list_agents",
            _TABLE,
            {
                "session_id": session_id,
                "status": status,
                "orchestrator_agent_id": orchestrator_agent_id,
                "parent_agent_id": parent_agent_id,
            },
            newest_first=True,
            since=since,
            until=until,
            include_deleted=include_deleted,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def update_agent(
        self, agent_id: str, *, if_status: AgentStatus | None = None, **changes: Unpack[AgentChanges]
    ) -> bool:
        """Whether there is such an agent, with that status if one is asked for; it then has the changes.

        A new status moves the times: a running one sets ``started_at`` if it was empty, an ended one ``completed_at``,
        and one that has not ended clears ``completed_at``. ``updated_at`` is now. A time that is given wins.

        Args:
            if_status: Change the agent only if it still has this status: compare and set, in one statement.

        Raises:
            MissingParentError: The new parent agent does not exist.
            InvalidValueError: A value does not fit its column, or the new parent agent is this one or below it.
            TypeError: A name is unknown, or cannot be changed.
        """
        checked_names("update_agent", changes, _CHANGES)
        fields, kept = status_times(dict(changes), has_start=True)
        return await self._change("update_agent", _TABLE, agent_id, fields, kept=kept, if_status=if_status)

    async def add_agent_cost(self, agent_id: str, usd: float) -> bool:
        """Whether there is such an agent; its cost has grown by that much, whoever else adds at the same time.

        Args:
            usd: US dollars; the sum is rounded to 1e-9.

        Raises:
            InvalidValueError: ``usd`` is no finite number, or the sum would not be one.
        """
        with failures_reported("add_agent_cost", _TABLE.table.name):
            dollars = checked_cost("usd", usd)
        return await self._add("add_agent_cost", _TABLE, agent_id, {"cost_usd": dollars})

    async def delete_agent(self, agent_id: str, *, soft: bool = False) -> bool:
        """Whether there was such an agent.

        Args:
            soft: Only hide it: ``restore_agent`` brings it back, and its prompts and logs stay visible. Otherwise it
                goes for good, with its prompts and logs; its child agents lose their parent.
        """
        return await self._delete("delete_agent", _TABLE, agent_id, soft=soft)

    async def restore_agent(self, agent_id: str) -> bool:
        """Whether there was such a softly deleted agent; it is living again."""
        return await self._restore("restore_agent", _TABLE, agent_id)


def status_times(changes: dict[str, Any], *, has_start: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The changes with the times that a new status brings, and those that only fill what is empty."""
    if "status" not in changes:
        return changes, {}
    kept: dict[str, Any] = {}
    status = changes["status"]
    if status in ENDED_STATUSES:
        kept["completed_at"] = now()
    elif status is not None:
        changes.setdefault("completed_at", None)
        if has_start and status in RUNNING_STATUSES:
            kept["started_at"] = now()
    return changes, {name: value for name, value in kept.items() if name not in changes}

"""The operations on ``agents``: the running instances."""

from __future__ import annotations

from typing import Any, Unpack
from uuid import UUID

from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.operations.arguments import checked_cost, checked_flag, checked_names
from orchdb.operations.creation import CreationOperations, may_exist, new_row_id, time_of_creation
from orchdb.operations.filters import FLAG
from orchdb.operations.page import Page
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import (
    ENDED_STATUSES,
    RUNNING_STATUSES,
    AgentChanges,
    AgentRow,
    AgentStatus,
    JsonObject,
    OneOrSeveral,
    Time,
)
from orchdb.schema.tables import agents
from orchdb.schema.values import now

_TABLE: TableStatements[AgentRow] = TableStatements(
    agents,
    ("session_id", "parent_agent_id", "orchestrator_agent_id", "root", "status"),
    conditions={"root": "parent_agent_id IS NULL"},
)
_NAMES = (
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
    "cost_usd",
    "error_message",
    "created_at",
    "updated_at",
)
_INSERT = _TABLE.insert(_NAMES)
_CHANGES = frozenset(AgentChanges.__annotations__)


class AgentOperations(CreationOperations):
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
        *,
        started_at: Time | None = None,
        completed_at: Time | None = None,
        cost_usd: float | None = 0.0,
        error_message: str | None = None,
        id: str | UUID | None = None,
        created_at: Time | None = None,
        exist_ok: bool = False,
    ) -> str:
        """Create an agent: a running instance of a definition.

        Where they are not given, ``started_at`` is set if the status is a running one, and ``completed_at`` if it is an
        ended one: to the time of creation.

        Args:
            orchestrator_agent_id: The definition that it is an instance of.
            session_id: The session that it belongs to: any text of at most 500 characters, which is what fits an index
                of Postgres.
            parent_agent_id: The agent that started it; ``None`` for one at the root.
            status: One of ``AGENT_STATUSES``.
            context: A JSON object, as a mapping or as text.
            config: A JSON object, as a mapping or as text.
            metadata: A JSON object, as a mapping.
            started_at: When it started to run: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
            completed_at: When it ended, likewise.
            cost_usd: What it has cost so far, in US dollars; ``None`` for unknown.
            error_message: What went wrong.
            id: Its id: any UUID. By default a new one, which sorts in the order of creation.
            created_at: When it was created, as text or a ``datetime``. By default now.
            exist_ok: Take an agent that has the id for this one, and leave it as it is: so the call can be repeated.
                By default that is an error.

        Returns:
            The id of the agent, 36 characters of UUID.

        Raises:
            MissingParentError: The definition or the parent agent does not exist.
            DuplicateError: An agent has this id, and ``exist_ok`` is not set.
            InvalidValueError: A value does not fit its column.
        """
        row_id = new_row_id("create_agent", _TABLE.table.name, id)
        moment = time_of_creation("create_agent", _TABLE.table.name, created_at)
        if parent_agent_id is not None and str(parent_agent_id) == row_id:
            with failures_reported("create_agent", _TABLE.table.name):
                raise InvalidValueError(
                    "agents.parent_agent_id: no row can be its own ancestor", column="parent_agent_id"
                )
        if started_at is None and status in RUNNING_STATUSES:
            started_at = moment
        if completed_at is None and status in ENDED_STATUSES:
            completed_at = moment
        values: dict[str, Any] = {
            "id": row_id,
            "orchestrator_agent_id": orchestrator_agent_id,
            "session_id": session_id,
            "parent_agent_id": parent_agent_id,
            "status": status,
            "context": context,
            "config": config,
            "metadata": metadata,
            "started_at": started_at,
            "completed_at": completed_at,
            "cost_usd": cost_usd,
            "error_message": error_message,
            "created_at": moment,
            "updated_at": moment,
        }
        if may_exist("create_agent", _TABLE.table.name, exist_ok):
            await self._insert_unless("create_agent", _TABLE, _NAMES, values, "id")
        else:
            await self._executor.insert("create_agent", _INSERT, values)
        return row_id

    async def get_agent(self, agent_id: str, *, include_deleted: bool = False) -> AgentRow | None:
        """Get one agent.

        Args:
            agent_id: Its id.
            include_deleted: Return the row also where it was deleted softly.

        Returns:
            The row; ``None`` if there is no such agent.
        """
        return await self._executor.fetch_one("get_agent", _TABLE.one(include_deleted), {"row_id": agent_id})

    async def list_agents(
        self,
        session_id: OneOrSeveral[str] | None = None,
        *,
        status: OneOrSeveral[AgentStatus] | None = None,
        orchestrator_agent_id: OneOrSeveral[str] | None = None,
        parent_agent_id: OneOrSeveral[str] | None = None,
        root: bool = False,
        since: Time | None = None,
        until: Time | None = None,
        include_deleted: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[AgentRow]:
        """List agents, newest first; of all filters that are given, each must fit.

        A filter takes one value, or several of which one must fit; of none, no agent has one.

        Args:
            session_id: Only those of this session.
            status: Only those with this status now.
            orchestrator_agent_id: Only instances of this definition.
            parent_agent_id: Only those that this agent started.
            root: Only those that no agent started.
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
        with failures_reported("list_agents", _TABLE.table.name):
            checked_flag("root", root)
        page = Page(limit, offset, after, since, until, include_deleted, newest_first=True)
        return await self._list(
            "list_agents",
            _TABLE,
            {
                "session_id": session_id,
                "status": status,
                "orchestrator_agent_id": orchestrator_agent_id,
                "parent_agent_id": parent_agent_id,
                "root": FLAG if root else None,
            },
            page,
        )

    async def update_agent(
        self, agent_id: str, *, if_status: AgentStatus | None = None, **changes: Unpack[AgentChanges]
    ) -> bool:
        """Change an agent; only the columns that are named.

        A new status moves the times: a running one sets ``started_at`` and an ended one ``completed_at`` where it is
        empty, and one that has not ended clears ``completed_at``. ``updated_at`` becomes now. A time that is given
        wins. Without changes it only looks whether the agent is there.

        Args:
            agent_id: Its id.
            if_status: Change the agent only if it still has this status: compare and set, in one statement. By default
                whatever it is.
            **changes: What to change: ``session_id``, ``parent_agent_id``, ``status``, ``context``, ``config``,
                ``metadata``, ``started_at``, ``completed_at``, ``updated_at``, ``cost_usd`` (US dollars),
                ``error_message``; as in ``AgentChanges``. ``None`` empties a column.

        Returns:
            True if there is such an agent, with that status if one is asked for; False if not, or if it was deleted
            softly.

        Raises:
            MissingParentError: The new parent agent does not exist.
            InvalidValueError: A value does not fit its column, or the new parent agent is this one or below it.
            TypeError: A name is unknown, or cannot be changed; the message lists those that can.
        """
        checked_names("update_agent", changes, _CHANGES)
        fields, fill_null = status_times(dict(changes), has_start=True)
        return await self._change("update_agent", _TABLE, agent_id, fields, fill_null=fill_null, if_status=if_status)

    async def add_agent_cost(self, agent_id: str, usd: float) -> bool:
        """Add to the cost of an agent, in one statement: whoever else adds at the same time, nothing is lost.

        Args:
            agent_id: Its id.
            usd: US dollars, also below 0; the sum is rounded to 1e-9.

        Returns:
            True if there is such an agent; False if not, or if it was deleted softly.

        Raises:
            InvalidValueError: ``usd`` is no finite number, or the sum would not be one.
        """
        with failures_reported("add_agent_cost", _TABLE.table.name):
            dollars = checked_cost("usd", usd)
        return await self._add("add_agent_cost", _TABLE, agent_id, {"cost_usd": dollars})

    async def delete_agent(self, agent_id: str, *, soft: bool = False) -> bool:
        """Delete an agent, for good or softly.

        Args:
            agent_id: Its id.
            soft: Only hide it: ``restore_agent`` brings it back, and its prompts and logs stay visible. By default it
                goes for good, with its prompts and logs; its child agents lose their parent.

        Returns:
            True if there was such an agent; False if not. One that is hidden already can only be deleted for good.
        """
        return await self._delete("delete_agent", _TABLE, agent_id, soft=soft)

    async def restore_agent(self, agent_id: str) -> bool:
        """Restore an agent that was deleted softly.

        Args:
            agent_id: Its id.

        Returns:
            True if there was such a softly deleted agent; False if not.
        """
        return await self._restore("restore_agent", _TABLE, agent_id)


def status_times(changes: dict[str, Any], *, has_start: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add the times that a new status brings.

    Args:
        changes: The changes of a row, by column; they are added to.
        has_start: True for agents, which have ``started_at``.

    Returns:
        The changes with those times, and the times that only fill what is empty.
    """
    if "status" not in changes:
        return changes, {}
    fill_null: dict[str, Any] = {}
    status = changes["status"]
    if status in ENDED_STATUSES:
        fill_null["completed_at"] = now()
    elif status is not None:
        changes.setdefault("completed_at", None)
        if has_start and status in RUNNING_STATUSES:
            fill_null["started_at"] = now()
    return changes, {name: value for name, value in fill_null.items() if name not in changes}

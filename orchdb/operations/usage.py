"""Usage: what prompts have used and cost, grouped, and along the tree of agents."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable
from datetime import UTC, tzinfo
from typing import Any, cast

from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.operations.agent_trees import nested
from orchdb.operations.arguments import checked_flag, checked_number
from orchdb.operations.filters import checked_filters, without_branches
from orchdb.operations.table_operations import TableOperations
from orchdb.operations.usage_rows import AgentNode, UsageKey, UsageRow
from orchdb.operations.usage_statements import KEYS, TIME_KEYS, Scope, tree, usage
from orchdb.operations.usage_totals import grouped, hold_several_hours
from orchdb.rows import OneOrSeveral, Time
from orchdb.schema.sums import Width
from orchdb.schema.tables import agents, prompts


class UsageOperations(TableOperations):
    """Usage and cost."""

    async def usage(
        self,
        group_by: OneOrSeveral[UsageKey] = ("session",),
        *,
        session_id: OneOrSeveral[str] | None = None,
        agent_id: OneOrSeveral[str] | None = None,
        subtree: bool = False,
        orchestrator_agent_id: OneOrSeveral[str] | None = None,
        model_used: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        tz: str = "UTC",
        percentiles: bool = False,
        include_deleted: bool = False,
        limit: int | None = None,
    ) -> list[UsageRow]:
        """Sum up what prompts have used and cost, in groups: one statement, of one moment, exact to the nano-dollar.

        An agent costs the sum of its prompts, and what its own ``cost_usd`` holds beyond that sum. That is
        ``unattributed_usd``, which is part of ``cost_usd``; it has no model, type and status, and its time is when the
        agent was created. However it is grouped, the rows add up to the same.

        Args:
            group_by: Any of ``session``, ``agent``, ``definition``, ``model``, ``prompt_type``, ``status``, ``day`` and
                ``hour``, one or several; ``()`` for one row, the total.
            session_id: Only agents that are in this session now, or in one of several.
            agent_id: Only this agent, or several.
            subtree: With all agents below them, in whichever session.
            orchestrator_agent_id: Only agents of this definition, or of several.
            model_used: Only prompts that this model was asked, or one of several.
            since: Only prompts created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is
                UTC. By default from the first one on.
            until: Only prompts created before this time, likewise. By default to the last one.
            tz: The zone whose days and hours are meant, by its IANA name, such as ``Europe/Berlin``.
            percentiles: Also tell the latencies that 50, 90, 95 and 99 of 100 prompts do not exceed.
            include_deleted: Count prompts and agents too that were deleted softly. By default neither those prompts are
                counted nor those of such agents.
            limit: The most groups to return. By default all that have a prompt or a cost.

        Returns:
            A row for each group, the dearest first; by day and hour in time, and the dearest first within them. An
            empty list if there is nothing, but for ``()``, which always gives one row.

        Raises:
            InvalidValueError: A group, a filter, the zone or ``limit`` is none, or ``subtree`` lacks an ``agent_id``.
        """
        with failures_reported("usage", prompts.name):
            keys = _checked_keys(group_by)
            zone = _zone(tz)
            checked_number("limit", limit)
            checked_flag("subtree", subtree)
            checked_flag("percentiles", percentiles)
            checked_flag("include_deleted", include_deleted)
            if subtree and agent_id is None:
                raise InvalidValueError("subtree: needs an agent_id to begin at", column="subtree")
            about = {"session_id": session_id, "id": agent_id, "orchestrator_agent_id": orchestrator_agent_id}
            shape, values = without_branches(checked_filters(about))
            model, of_model = without_branches(checked_filters({"model_used": model_used}))
        times = {name: time for name, time in (("since", since), ("until", until)) if time is not None}
        scope = Scope(shape, model, tuple(times), bool(subtree), bool(include_deleted))
        plain = tuple(key for key in keys if key not in TIME_KEYS)
        width, given = _width(keys, zone), {**values, **of_model, **times}
        rows = await self._executor.fetch_all("usage", usage(plain, scope, width, bool(percentiles)), given)
        if width == "quarter" and hold_several_hours(rows, zone):
            finer = usage(plain, scope, "second", bool(percentiles))
            rows = await self._executor.fetch_all("usage", finer, given)
        return grouped(rows, keys, zone, percentiles=bool(percentiles), limit=limit)

    async def agent_tree(
        self, session_id: str | None = None, agent_id: str | None = None, *, include_deleted: bool = False
    ) -> list[AgentNode]:
        """Get the agents of a session, or one and all below it, as a tree with what each has used.

        Args:
            session_id: The agents that are in this session now. One whose parent is in another session, or gone, stands
                at the top.
            agent_id: This agent and all below it, in whichever session.
            include_deleted: Show agents, and count prompts, that were deleted softly too. By default who is below such
                an agent stands below the next one above it.

        Returns:
            The agents at the top, each with its ``children``, oldest first; an empty list if there are none.

        Raises:
            InvalidValueError: Neither a session nor an agent is given, or both are.
        """
        with failures_reported("agent_tree", agents.name):
            checked_flag("include_deleted", include_deleted)
            if (session_id is None) == (agent_id is None):
                raise InvalidValueError("agent_tree: give either session_id or agent_id")
        values = {"session_id": session_id} if agent_id is None else {"id": agent_id}
        statement = tree(agent_id is None, bool(include_deleted))
        rows: list[Any] = await self._executor.fetch_all("agent_tree", statement, values)
        return nested(rows, agent_id, include_deleted=bool(include_deleted))


def _checked_keys(group_by: object) -> tuple[UsageKey, ...]:
    """The keys, each once."""
    asked: tuple[object, ...] = (group_by,)
    if not isinstance(group_by, str):
        if not isinstance(group_by, Iterable):
            raise InvalidValueError(f"group_by: must be any of {', '.join(KEYS)}", column="group_by")
        asked = tuple(cast("Iterable[object]", group_by))
    for key in asked:
        if key not in KEYS:
            raise InvalidValueError(f"group_by: must be any of {', '.join(KEYS)}", column="group_by")
    return cast("tuple[UsageKey, ...]", tuple(dict.fromkeys(asked)))


def _zone(name: object) -> tzinfo:
    if name == "UTC":  # which needs no database of zones
        return UTC
    if isinstance(name, str):
        try:
            return zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise InvalidValueError("tz: must be the IANA name of a time zone, such as Europe/Berlin", column="tz")


def _width(keys: tuple[UsageKey, ...], zone: tzinfo) -> Width | None:
    """How long the stretches of UTC are that days and hours of the zone are made of."""
    if not any(key in TIME_KEYS for key in keys):
        return None
    if zone is not UTC:
        return "quarter"
    return "hour" if "hour" in keys else "day"

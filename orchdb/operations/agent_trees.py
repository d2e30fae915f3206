"""Trees of agents: what a statement gives in rows, put below each other, however deep or wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

from orchdb.operations.usage_rows import AgentNode
from orchdb.operations.usage_totals import OF_TREES, Totals
from orchdb.rows import AgentRow

_COLUMNS = (*AgentRow.__annotations__, "definition_name")
_values = itemgetter(*_COLUMNS)


def nested(rows: Sequence[Mapping[str, Any]], top: str | None, *, include_deleted: bool) -> list[AgentNode]:
    """The agents that stand at the top, each with those below it, oldest first.

    Args:
        rows: The agents with their figures, in any order.
        top: The agent that is at the top whatever it has above it; ``None`` for those with nobody above them here.
        include_deleted: Show those too that were deleted softly. Otherwise who is below one belongs to the next above.
    """
    ordered = sorted(rows, key=lambda row: (str(row["created_at"]), row["id"]))
    above = _above(ordered, top)
    hidden = set[str]() if include_deleted else {row["id"] for row in ordered if row["deleted_at"] is not None}
    shown: dict[str, str | None] = {}
    for row in _downwards(ordered, above):
        parent = above[row["id"]]
        shown[row["id"]] = shown[parent] if parent is not None and parent in hidden else parent
    nodes = {row["id"]: _node(row) for row in ordered if row["id"] not in hidden}
    totals = {row["id"]: Totals(row, OF_TREES) for row in ordered if row["id"] not in hidden}
    roots: list[AgentNode] = []
    for key, node in nodes.items():
        parent = shown[key]
        node["usage"] = totals[key].row({})
        (roots if parent is None else nodes[parent]["children"]).append(node)
    for key in reversed(shown):
        if key not in hidden:
            node, parent = nodes[key], shown[key]
            node["subtree_usage"] = totals[key].row({}) if node["children"] else node["usage"].copy()
            if parent is not None:
                totals[parent].add(totals[key])
    return roots


def _above(ordered: Sequence[Mapping[str, Any]], top: str | None) -> dict[str, str | None]:
    """Who stands right above each agent here; another program's circle is cut above its oldest agent."""
    there = {row["id"] for row in ordered}
    above: dict[str, str | None] = {}
    for row in ordered:
        parent = row["parent_agent_id"]
        above[row["id"]] = parent if parent in there and row["id"] != top else None
    safe: set[str | None] = {None}
    for row in ordered:
        line: dict[str, None] = {}
        agent: str | None = row["id"]
        while agent is not None and agent not in safe and agent not in line:
            line[agent] = None
            agent = above[agent]
        if agent in line:
            members = [*line][[*line].index(agent) :]
            first = next(other["id"] for other in ordered if other["id"] in members)
            above[first] = None
        safe.update(line)
    return above


def _downwards(ordered: Sequence[Mapping[str, Any]], above: Mapping[str, str | None]) -> list[Mapping[str, Any]]:
    """The agents, each behind the one above it."""
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in ordered:
        below.setdefault(above[row["id"]], []).append(row)
    found = [*below.get(None, [])]
    for row in found:  # it grows while it is gone through
        found += below.get(row["id"], [])
    return found


def _node(row: Mapping[str, Any]) -> AgentNode:
    node: dict[str, Any] = dict(zip(_COLUMNS, _values(row), strict=True))
    node["usage"] = node["subtree_usage"] = None
    node["children"] = []
    return cast(AgentNode, node)

"""``orchdb tree``: the agents of a session below each other, with what each has cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchdb.cli import options
from orchdb.cli.amounts import bar, compact, digits, dollars, summed
from orchdb.cli.running import FINDING, fail, reading, run_reading
from orchdb.cli.view import Column, View
from orchdb.money import nanos

if TYPE_CHECKING:
    from orchdb.operations.usage_rows import AgentNode

_DEEPEST = 12
"""Below that a line says how deep it is, and is not moved to the right any more."""
_COLUMNS = (
    Column("agent", "name", grows=True),
    Column("id", "id", "id", spare=2),
    Column("status", "status", "word"),
    Column("prompts", "prompts", "count", spare=3),
    Column("tokens", "tokens", "number", spare=1),
    Column("cost", "cost", "number"),
    Column("with below", "below", "number"),
    Column("", "bar", "bar", spare=4),
)
_PLAIN = ("depth", "id", "definition_name", "status", "cost_usd", "subtree_usd", "prompts", "tokens")


def tree(
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="A session, or an agent, whose tree it is then: its id or the beginning of it.",
            autocompletion=options.complete_id,
        ),
    ],
    deleted: Annotated[bool, typer.Option("--deleted", help="Also what was deleted softly.")] = False,
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    full: options.Full = False,
) -> None:
    """Show the agents of a session as a tree, with what each has cost.

    Beside it stands what it and all below it have cost. An agent whose parent is in another session, or gone, stands at
    the top. With --json it is one agent a line, each with its "depth", behind the one above it.

    Examples:

        orchdb tree session-1

        orchdb tree session-1 --json | jq -c '[.depth, .definition_name, .usage.cost_usd]'
    """
    view = View.of(db, as_json, plain, full=full)

    async def find() -> None:
        from orchdb.cli.filters import one_of
        from orchdb.inspection.identifiers import find_agents, find_sessions, shortened

        async with reading(view.location) as manager:
            sessions, agents = await find_sessions(manager, session), await find_agents(manager, session)
            if not sessions and not agents:
                fail(f"no session and no agent has the id {session}, or one that begins so", FINDING)
            if sessions:
                roots = await manager.agent_tree(one_of(f"SESSION {session}", sessions), include_deleted=deleted)
            else:
                roots = await manager.agent_tree(agent_id=one_of(f"SESSION {session}", agents), include_deleted=deleted)
            lines = [*_lines(roots)]
            short = await shortened(manager, [node["id"] for _, _, node in lines]) if view.for_people else {}
        _show(view, lines, short)

    run_reading(find())


def _lines(roots: Sequence[AgentNode]) -> Iterator[tuple[int, str, AgentNode]]:
    """Each agent with its depth and the lines that lead to it, behind the one above it."""
    waiting = [(0, "", "", node) for node in reversed(roots)]
    while waiting:
        depth, before, mark, node = waiting.pop()
        yield depth, before + mark, node
        inner = before + {"├─ ": "│  ", "└─ ": "   ", "": ""}[mark] if depth < _DEEPEST else f"({depth + 1}) "
        last = len(node["children"]) - 1
        for place, child in reversed([*enumerate(node["children"])]):
            kind = "" if depth >= _DEEPEST else "└─ " if place == last else "├─ "
            waiting.append((depth + 1, inner, kind, child))


def _show(view: View, lines: Sequence[tuple[int, str, AgentNode]], short: dict[str, str]) -> None:
    if view.as_json:
        view.console.lines(_as_json(view, depth, node) for depth, _, node in lines)
        return
    nodes = [node for _, _, node in lines]
    if not view.for_people:
        rows = [_figures(node) | {"depth": depth} for depth, _, node in lines]
        view.rows(rows, [Column(name, name) for name in _PLAIN], nothing="No agents.")
        return
    usages = [node["usage"] for node in nodes]
    places = digits(usages)
    plainer = {} if view.console.encoding.startswith("utf") else str.maketrans("├└│─", "|`|-")
    most = max((nanos(usage["cost_usd"]) for usage in usages), default=0)
    shown = [
        _figures(node)
        | {
            "name": f"{guide.translate(plainer)}{node['definition_name'] or '-'}",
            "tokens": compact(_tokens(node["usage"])),
            "cost": dollars(node["usage"]["cost_usd"], places),
            "below": dollars(node["subtree_usage"]["cost_usd"], places) if node["children"] else "",
            "bar": bar(node["usage"], most, view.console),
        }
        for _, guide, node in lines
    ]
    if shown:
        total = summed(usages)
        figures = {"prompts": total["prompts"], "tokens": compact(_tokens(total)), "bar": ""}
        shown.append({"name": "total", "id": "", "cost": dollars(total["cost_usd"], places), "below": "", **figures})
    view.rows(shown, _COLUMNS, nothing="No agents.", short=short)


def _as_json(view: View, depth: int, node: AgentNode) -> str:
    from orchdb.cli.cells import json_line

    return json_line({"depth": depth, **{name: value for name, value in node.items() if name != "children"}})


def _tokens(usage: Any) -> int:
    names = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")
    return sum(usage[name] for name in names)


def _figures(node: AgentNode) -> dict[str, Any]:
    return {
        "id": node["id"],
        "definition_name": node["definition_name"],
        "status": node["status"],
        "cost_usd": node["usage"]["cost_usd"],
        "subtree_usd": node["subtree_usage"]["cost_usd"],
        "prompts": node["usage"]["prompts"],
        "tokens": _tokens(node["usage"]),
    }

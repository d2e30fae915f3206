"""The options that several commands share, so that they are called and explained the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

_OUTPUT = "Output"


def _complete_session(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    from orchdb.cli.completion import sessions

    return sessions(context.params.get("db"), incomplete)


def _complete_agent(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    from orchdb.cli.completion import agents

    return agents(context.params.get("db"), incomplete)


def complete_id(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The ids of sessions and agents that begin so, for a shell."""
    from orchdb.cli.completion import ids

    return ids(context.params.get("db"), incomplete)


Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="PATH_OR_URL",
        help="The database. Without it ORCHESTRATOR_DB_URL, then ORCHESTRATOR_DB_PATH, then data/orchestrator.db.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="For programs: JSON, of a list one object a line.", rich_help_panel=_OUTPUT)
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="For grep and awk: tabs, no colours, nothing cut. So it is where the output is no terminal.",
        rich_help_panel=_OUTPUT,
    ),
]
Utc = Annotated[bool, typer.Option("--utc", help="Times in UTC, not in this machine's zone.", rich_help_panel=_OUTPUT)]
Full = Annotated[bool, typer.Option("--full", help="Whole ids and whole texts.", rich_help_panel=_OUTPUT)]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only from then on: 30m, 2h, 3d, today, yesterday, or a time such as 2026-11-26T09:00.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Only before then, likewise.", show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="The most rows to show.")]
All = Annotated[bool, typer.Option("--all", help="All rows, however many there are.")]
Sessions = Annotated[
    list[str] | None,
    typer.Option(
        "--session",
        "-s",
        metavar="SESSION",
        help="Only of this session, by its id or the beginning of it. Can be repeated, as the other filters.",
        show_default=False,
        autocompletion=_complete_session,
    ),
]
Agents = Annotated[
    list[str] | None,
    typer.Option(
        "--agent",
        "-a",
        metavar="ID",
        help="Only of this agent, by its id or the beginning of it.",
        show_default=False,
        autocompletion=_complete_agent,
    ),
]

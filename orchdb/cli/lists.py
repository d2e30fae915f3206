"""``orchdb sessions``, ``agents`` and ``prompts``: what there is, with the filters of the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from orchdb.cli import options
from orchdb.cli.columns import AGENTS, PROMPTS, SESSIONS
from orchdb.cli.running import reading, run_reading
from orchdb.cli.view import View


def sessions(
    db: options.Db = None,
    since: options.Since = None,
    until: options.Until = None,
    limit: options.Limit = 20,
    everything: options.All = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """List the sessions, the newest first.

    With how many agents each has, how many are at work and have failed, cost, tokens (all that were read and written),
    duration and last activity. The newest is the one whose newest agent is.

    Examples:

        orchdb sessions --since 2h

        orchdb sessions --json | jq -r 'select(.failed > 0) | .session_id'
    """
    from orchdb.cli.filters import when
    from orchdb.inspection.identifiers import shortened_sessions
    from orchdb.inspection.sessions import list_sessions

    view = View.of(db, as_json, plain, utc, full)
    start, end = when("--since", since, utc=utc), when("--until", until, utc=utc)

    async def find() -> None:
        async with reading(view.location) as manager:
            found = await list_sessions(manager, since=start, until=end, limit=None if everything else limit)
            names = [row["session_id"] for row in found]
            short = await shortened_sessions(manager, names) if view.for_people else {}
        view.rows(_for(view, found, _with_sums), SESSIONS, nothing="No sessions.", short=short)

    run_reading(find())


def agents(
    db: options.Db = None,
    session: options.Sessions = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status", metavar="STATUS", help="Only with this status: failed, executing ...", show_default=False
        ),
    ] = None,
    root: Annotated[bool, typer.Option("--root", help="Only those without a parent.")] = False,
    since: options.Since = None,
    until: options.Until = None,
    limit: options.Limit = 20,
    everything: options.All = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """List the agents, the newest first.

    Examples:

        orchdb agents --session 01a2 --status failed,cancelled

        orchdb agents --since today --json | jq -r .error_message
    """
    from orchdb.cli.filters import sessions as sessions_meant
    from orchdb.cli.filters import when, words
    from orchdb.inspection.identifiers import names_of_definitions

    view = View.of(db, as_json, plain, utc, full)
    start, end = when("--since", since, utc=utc), when("--until", until, utc=utc)

    async def find() -> None:
        async with reading(view.location) as manager:
            found = await manager.list_agents(
                await sessions_meant(manager, session),
                status=words(status),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # refused there
                root=root,
                since=start,
                until=end,
                limit=None if everything else limit,
            )
            names = await names_of_definitions(manager, (row["orchestrator_agent_id"] for row in found))
            rows = [{**row, "definition_name": names.get(row["orchestrator_agent_id"])} for row in found]
            short = await view.short(manager, rows, "id")
        view.rows(_for(view, rows, _with_seconds), AGENTS, nothing="No agents.", short=short)

    run_reading(find())


def prompts(
    db: options.Db = None,
    session: options.Sessions = None,
    agent: options.Agents = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status", metavar="STATUS", help="Only with this status: failed, pending ...", show_default=False
        ),
    ] = None,
    prompt_type: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only of this type.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help="Only of this model.", show_default=False)
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    limit: options.Limit = 20,
    everything: options.All = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """List the prompts, the newest first.

    A prompt in full, with its response: orchdb show ID.

    Examples:

        orchdb prompts --status failed --since yesterday

        orchdb prompts --agent 01a215e6-7d --json | jq .cost_usd
    """
    from orchdb.cli.filters import agents as agents_meant
    from orchdb.cli.filters import sessions as sessions_meant
    from orchdb.cli.filters import when, words

    view = View.of(db, as_json, plain, utc, full)
    start, end = when("--since", since, utc=utc), when("--until", until, utc=utc)

    async def find() -> None:
        async with reading(view.location) as manager:
            rows = await manager.list_prompts(
                await agents_meant(manager, agent),
                session_id=await sessions_meant(manager, session),
                status=words(status),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # refused there
                prompt_type=words(prompt_type),
                model_used=words(model),
                since=start,
                until=end,
                newest_first=True,
                limit=None if everything else limit,
            )
            short = await view.short(manager, rows, "id", "agent_id")
        view.rows(_for(view, rows, _with_sums), PROMPTS, nothing="No prompts.", short=short)

    run_reading(find())


def seconds_between(start: str | None, end: str | None) -> float | None:
    """How long it took, or has taken until now if it has not ended; ``None`` if it has not begun."""
    from orchdb.cli.cells import moment

    if start is None:
        return None
    begun, ended = moment(start), datetime.now(UTC) if end is None else moment(end)
    return None if begun is None or ended is None else round((ended - begun).total_seconds(), 3)


def _for(
    view: View, rows: Sequence[Mapping[str, Any]], add: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """The rows, with what columns show beside what is stored; programs get what is stored."""
    return rows if view.as_json else [add(row) for row in rows]


def _with_sums(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")
    added: dict[str, Any] = {"tokens": sum(row[name] or 0 for name in names)}
    if "first_at" in row:
        added["seconds"] = seconds_between(row["first_at"], None if row["running"] else row["last_at"])
    return {**row, **added}


def _with_seconds(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "seconds": seconds_between(row["started_at"], row["completed_at"])}

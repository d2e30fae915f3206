"""``orchdb logs``: the newest lines of the agents' or the system's log, or those that come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchdb.cli import cells, options
from orchdb.cli.columns import LINES, SYSTEM_LINES
from orchdb.cli.running import end_with_reader, reading, run_reading
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from orchdb.cli.filters import Levels
    from orchdb.manager import DatabaseManager


def logs(
    db: options.Db = None,
    session: options.Sessions = None,
    agent: options.Agents = None,
    level: Annotated[
        list[str] | None,
        typer.Option(
            "--level",
            "-l",
            metavar="LEVEL",
            help="Only of this level: error, or warning+ for it and above.",
            show_default=False,
        ),
    ] = None,
    log_type: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only of this type.", show_default=False)
    ] = None,
    system: Annotated[bool, typer.Option("--system", help="The log of the system, not of agents.")] = False,
    component: Annotated[
        list[str] | None,
        typer.Option("--component", metavar="NAME", help="With --system, only about this.", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with the lines that come, until Ctrl-C.")
    ] = False,
    since: options.Since = None,
    until: options.Until = None,
    limit: options.Limit = 50,
    everything: options.All = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """List the newest log lines, or follow them as they come.

    The newest line comes last, as in a file.

    Examples:

        orchdb logs --level warning+ --since 2h

        orchdb logs --follow --session 01a2

        orchdb logs --json --all | jq -r .message
    """
    from orchdb.cli.filters import levels, when, words
    from orchdb.errors import InvalidValueError

    for option, given in (("--session", session), ("--agent", agent), ("--type", log_type)):
        if system and given:
            raise InvalidValueError(f"{option} is of the agents' log, and --system is another")
    if component and not system:
        raise InvalidValueError("--component is of the log of the system: add --system")
    if follow and until is not None:
        raise InvalidValueError("--until would never be reached by --follow: leave one of them out")
    view = View.of(db, as_json, plain, utc, full)
    source = _Source(
        view,
        session,
        agent,
        levels(level),
        words(log_type),
        words(component),
        system=system,
        since=when("--since", since, utc=utc),
        until=when("--until", until, utc=utc),
        limit=None if everything else limit,
    )
    run_reading(source.show(follow=follow))


class _Source:
    """Where the lines come from, and what they are filtered by."""

    def __init__(
        self,
        view: View,
        sessions: list[str] | None,
        agents: list[str] | None,
        levels: Levels,
        types: list[str] | None,
        components: list[str] | None,
        *,
        system: bool,
        **page: Any,
    ) -> None:
        self._view = view
        self._sessions, self._agents = sessions, agents
        self._filters: dict[str, Any] = levels._asdict()
        self._filters |= {"component": components} if system else {"log_type": types}
        self._system = system
        self._page = page
        self._columns = SYSTEM_LINES if system else LINES

    async def show(self, *, follow: bool) -> None:
        """Write the lines there are, and with ``follow`` those that come."""
        from orchdb.cli import filters

        async with reading(self._view.location) as db:
            if not self._system:
                self._filters["session_id"] = await filters.sessions(db, self._sessions)
                self._filters["agent_id"] = await filters.agents(db, self._agents)
            coming = self._tail(db) if follow else None  # before the look at what is there, so that none is missed
            rows: list[Any] = await self._recent(db)
            keys = () if self._system else ("agent_id",)
            short = await self._view.short(db, rows, *keys)
            shown = [*reversed(rows)]
            if coming is None:
                self._view.rows(shown, self._columns, nothing="No log lines.", short=short)
                return
            for row in shown:
                _write(self._view, self._columns, row)
            seen = {row["id"] for row in shown}
            watching = asyncio.create_task(end_with_reader())
            async for row in coming:
                if row["id"] not in seen:
                    _write(self._view, self._columns, row)
            watching.cancel()  # never: the lines have no end

    async def _recent(self, db: DatabaseManager) -> list[Any]:
        found: list[Any]
        if self._system:
            found = [*await db.list_recent_system_logs(**self._page, **self._filters)]
        else:
            found = [*await db.list_recent_agent_logs(**self._page, **self._filters)]
        return found

    def _tail(self, db: DatabaseManager) -> AsyncIterator[Mapping[str, Any]]:
        if self._system:
            return db.tail_system_logs(**self._filters)
        return db.tail_agent_logs(**self._filters)


def _write(view: View, columns: tuple[Column, ...], row: Mapping[str, Any]) -> None:
    """Write one line as it comes: in no table, whose widths would have to be known; for programs as in a list."""
    if not view.for_people:
        view.rows([row], columns, nothing="")
        return
    from rich.text import Text

    when = cells.zoned(row["created_at"], view.zone)
    time = cells.visible(row["created_at"]) if when is None else f"{when:%m-%d %H:%M:%S} {cells.zone_of(when)}"
    level = row["log_level"]
    whose = row.get("component") or str(row.get("agent_id"))[: None if view.full else 18]
    text = Text.assemble(
        (f"{time} ", "dim"),
        (f"{cells.visible(level):<8} ", cells.STYLES.get(level, "")),
        (f"{cells.visible(whose)} ", "cyan"),
        cells.visible(row["message"] if view.full else row["message"][: view.console.width]),
    )
    if view.full:
        view.console.print(text, soft_wrap=True)
    else:
        view.console.print(text, no_wrap=True, overflow="ellipsis")

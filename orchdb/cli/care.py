"""``orchdb init`` and ``reap``: what changes a database on purpose."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from orchdb.cli import options
from orchdb.cli.running import tell
from orchdb.cli.view import Column, View

_REAPED = (Column("agent", "id", "id"),)


def init(
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
) -> None:
    """Make a database, or its tables.

    An SQLite file is made with its folder, for its owner only; on a server the tables are made in a database that is
    empty. What is there already stays as it is; an older schema is not upgraded: orchdb upgrade does that.

    Examples:

        orchdb init

        orchdb init --db postgresql://user@host/database
    """
    from orchdb.inspection.status import get_status
    from orchdb.manager import DatabaseManager

    view = View.of(db, as_json, plain)

    async def make() -> dict[str, object]:
        async with DatabaseManager(view.location.url, upgrade=False):
            pass
        found = await get_status(view.location, view.location.source.variable or ("default" if db is None else "--db"))
        return {"place": found["place"], "engine": found["engine"], "revision": found["revision"]}

    made = asyncio.run(make())
    view.fields(made, [Column(name, name) for name in made])


def reap(
    db: options.Db = None,
    idle_for: Annotated[
        str | None,
        typer.Option(
            "--idle-for",
            metavar="SPAN",
            help="Also those that nobody holds and that were idle for so long: 30m, 2h, 1d.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    full: options.Full = False,
) -> None:
    """End the agents whose process has died.

    They become failed, with the message "owner lost"; whether a run's lease has run out is judged by the database's
    clock. Nothing else is changed. Prints the ids of those that were ended.

    Examples:

        orchdb reap

        orchdb reap --idle-for 2h
    """
    from orchdb.cli.filters import span
    from orchdb.cli.versions import current_revision
    from orchdb.manager import DatabaseManager

    view = View.of(db, as_json, plain, full=full)
    seconds = span("--idle-for", idle_for)

    async def end() -> None:
        await current_revision(view.location)  # what is not there is not made, neither the file nor its tables
        async with DatabaseManager(view.location.url, upgrade=False) as manager:
            rows = [{"id": ended} for ended in await manager.reap_agents(idle_for=seconds)]
            short = await view.short(manager, rows, "id")
        view.rows(rows, _REAPED, nothing="Nobody had to be ended.", short=short)
        if rows and view.for_people:
            tell(f"{len(rows)} ended.")

    asyncio.run(end())

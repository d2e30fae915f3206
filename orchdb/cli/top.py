"""``orchdb top``: the agents that are at work, live on a terminal, or as they are now."""

from __future__ import annotations

from typing import Annotated

import typer

from orchdb.cli import options
from orchdb.cli.columns import BOARD
from orchdb.cli.running import reading, run_reading
from orchdb.cli.view import View


def top(
    db: options.Db = None,
    session: options.Sessions = None,
    stuck_after: Annotated[
        str, typer.Option("--stuck-after", metavar="SPAN", help="Without a sign of life for so long one is stuck.")
    ] = "5m",
    every: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.1, help="How often to look.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """Watch the agents that are at work, live.

    What asks for attention comes first: stale is one whose process has died (orchdb reap ends it), stuck one of which
    nothing was seen for a while. Arrows choose one, enter shows its log, escape goes back, q ends. Where the output is
    no terminal, and with --json, it is shown once.

    Examples:

        orchdb top --session 01a2

        orchdb top --json | jq 'select(.sign != "working")'
    """
    from orchdb.cli.filters import sessions as sessions_meant
    from orchdb.cli.filters import span
    from orchdb.inspection.board import get_board

    view = View.of(db, as_json, plain, utc, full)
    stuck = span("--stuck-after", stuck_after) or 0.0

    async def show_once() -> None:
        async with reading(view.location) as manager:
            rows = await get_board(manager, session_id=await sessions_meant(manager, session), stuck_seconds=stuck)
            short = await view.short(manager, rows, "id")
        view.rows(rows, BOARD, nothing="Nobody is at work.", short=short)

    if once or not view.for_people:
        run_reading(show_once())
        return
    from orchdb.cli.board import watch

    watch(view, session, stuck, every)

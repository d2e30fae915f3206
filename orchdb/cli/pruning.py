"""``orchdb prune``: old log lines go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from orchdb.cli import options
from orchdb.cli.running import tell
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from orchdb.rows import LogLevel

_DRY = (Column("table", "table"), Column("rows", "rows", "count"), Column("bytes", "bytes", "count"))


def prune(
    before: Annotated[
        str,
        typer.Argument(metavar="WHEN", help="Lines from before then: 30d, 12h, yesterday, or a time."),
    ],
    db: options.Db = None,
    level: Annotated[
        str | None, typer.Option("--level", metavar="LEVEL", help="Only of this level.", show_default=False)
    ] = None,
    keep_errors: Annotated[bool, typer.Option("--keep-errors", help="ERROR and CRITICAL stay.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, only say what would go.")] = False,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="FILE", help="A new file to keep them in: gzipped JSON Lines."),
    ] = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
) -> None:
    """Delete old log lines, and give their space back.

    In short batches, between which others write. With --archive a line is deleted only when it is in the file and on
    the disk.

    Examples:

        orchdb prune 30d --keep-errors --dry-run

        orchdb prune 7d --level DEBUG --archive debug-lines.jsonl.gz
    """
    from orchdb.cli.filters import when
    from orchdb.engines import look_at
    from orchdb.manager import DatabaseManager

    if dry_run and archive is not None:
        raise typer.BadParameter("--dry-run and --archive do not go together")
    view = View.of(db, as_json, plain)
    moment = when("WHEN", before, utc=False)
    assert moment is not None
    wanted = cast("LogLevel | None", None if level is None else level.upper())

    async def work() -> None:
        async with look_at(view.location):
            pass  # what is not there is not made
        async with DatabaseManager(view.location.url, upgrade=False) as manager:
            if dry_run:
                told = await manager.prune(moment, log_level=wanted, keep_errors=keep_errors, dry_run=True)
                rows = [{"table": name, **found._asdict()} for name, found in told.items()]
                view.rows(rows, _DRY, nothing="")
                return
            deleted = await manager.prune(moment, log_level=wanted, keep_errors=keep_errors, archive=archive)
        done = {"deleted": deleted, "archive": None if archive is None else str(archive.expanduser().absolute())}
        view.fields(done, [Column(name, name) for name in done])
        if view.for_people:
            tell(f"{deleted:,} lines deleted.")

    asyncio.run(work())

"""``orchdb history``, ``upgrade`` and ``downgrade``: the revisions of the schema."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchdb.cli import options
from orchdb.cli.running import REFUSED, fail, run_reading, tell
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from orchdb.location import Location

_HISTORY = (
    Column("revision", "revision"),
    Column("state", "state"),
    Column("what it does", "summary", grows=True),
)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


def history(
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    full: options.Full = False,
) -> None:
    """List the revisions of the schema.

    The oldest first: those that the database has, the one it is at, and those that are missing. Nothing is made.

    Examples:

        orchdb history

        orchdb history --json | jq -r 'select(.state == "missing") | .revision'
    """
    from orchdb.schema.downgrading import known_revisions

    view = View.of(db, as_json, plain, full=full)
    current = run_reading(current_revision(view.location))
    known = known_revisions()
    numbers = [each.revision for each in known]
    at = numbers.index(current) if current in numbers else -1
    states = ["applied" if place < at else "current" if place == at else "missing" for place in range(len(known))]
    rows = [{**each._asdict(), "state": state} for each, state in zip(known, states, strict=True)]
    view.rows(rows, _HISTORY, nothing="There are no revisions.")
    if current is not None and current not in numbers:
        tell(f"The database has the revision {current}, which this orchdb does not know: upgrade orchdb.")


def upgrade(
    dry_run: DryRun = False,
    db: options.Db = None,
) -> None:
    """Bring the schema to the newest revision.

    An SQLite file is copied beside itself first. It is one transaction: all of it is there afterwards, or nothing.

    Examples:

        orchdb upgrade --dry-run

        orchdb upgrade --db postgresql://user@host/database
    """
    from orchdb.manager import DatabaseManager
    from orchdb.schema.downgrading import known_revisions

    view = View.of(db, as_json=False, plain=False)
    before = run_reading(current_revision(view.location))
    newest = known_revisions()[-1].revision
    if before == newest:
        tell(f"The database has the newest revision, {newest}.")
        return
    for each in known_revisions():
        if before is None or each.revision > before:
            view.console.lines([f"{each.revision}  {each.summary}"])
    if dry_run:
        tell("Nothing was changed.")
        return

    async def bring() -> None:
        async with DatabaseManager(view.location.url, upgrade=True):
            pass

    asyncio.run(bring())
    tell(f"Upgraded from {before or 'no revision'} to {newest}.")


def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="The one to go back to, such as 0009.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    db: options.Db = None,
) -> None:
    """Take the schema back to an older revision.

    An older schema cannot hold everything: what was lost is said. No backup is made. Programs that are connected have
    to be stopped first.

    Examples:

        orchdb downgrade 0009 --dry-run

        orchdb downgrade 0009 --yes
    """
    from orchdb.schema import downgrading

    view = View.of(db, as_json=False, plain=False)
    before = run_reading(current_revision(view.location))
    undone = [each for each in reversed(downgrading.known_revisions()) if revision < each.revision <= (before or "")]
    if before is None or not undone:
        fail(f"the database has the revision {before or 'none'}, which is not newer than {revision}", REFUSED)
    for each in undone:
        view.console.lines([f"undo {each.revision}  {each.summary}"])
    if dry_run:
        tell("Nothing was changed.")
        return
    if not yes and not (
        sys.stdin.isatty() and typer.confirm("What an older schema cannot hold is lost. Go on?", err=True)
    ):
        fail("nothing was changed: say --yes to go on", REFUSED)
    for loss in downgrading.downgrade(view.location.url, revision):
        tell(f"Lost: {loss}", style="yellow")
    tell(f"Downgraded from {before} to {revision}.")


async def current_revision(location: Location) -> str | None:
    """The revision that the database has; that of the first class has no stamp, and is as good as the first one.

    Raises:
        SchemaError: It is no database of orchdb.
        OperationError: It is not there, or cannot be read.
    """
    from orchdb.engines import look_at
    from orchdb.errors import SchemaError
    from orchdb.schema.revisions import examine

    async with look_at(location) as look:
        found = await examine(look.connection)
    if not found.ours and found.revision is None:
        raise SchemaError("the database has no tables of orchdb's: orchdb init makes them in an empty one")
    return found.revision

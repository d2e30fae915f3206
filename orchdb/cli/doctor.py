"""``orchdb doctor``: what is wrong with a database, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchdb.cli import cells, options
from orchdb.cli.running import FINDING, run_reading
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from orchdb.looking import Finding

_COLUMNS = (
    Column("result", "gravity", "word"),
    Column("check", "check"),
    Column("message", "message"),
    Column("advice", "advice"),
)


def doctor(
    db: options.Db = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what reads every page of a file.")] = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
) -> None:
    """Look for what is wrong, and say what to do.

    The schema, the rows, the file or the server. Nothing is changed. The exit code is 1 if there is a warning or an
    error, and 0 if there are notes at most.

    Examples:

        orchdb doctor

        orchdb doctor --json | jq -r 'select(.gravity == "error") | .advice'
    """
    from orchdb.inspection.doctor import examine_database

    view = View.of(db, as_json, plain)
    found = run_reading(examine_database(view.location, quick=quick))
    if view.for_people:
        _print(view, found)
    else:
        view.rows([asdict(finding) for finding in found], _COLUMNS, nothing="")
    if any(finding.gravity in ("warning", "error") for finding in found):
        raise typer.Exit(FINDING)


def _print(view: View, found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        text = Text(cells.visible(finding.message))
        if finding.advice:
            text.append(f"\n→ {cells.visible(finding.advice)}", style="bold")
        table.add_row(Text(finding.gravity, style=cells.STYLES[finding.gravity]), cells.visible(finding.check), text)
    view.console.print(table)
    wrong = sum(finding.gravity in ("warning", "error") for finding in found)
    view.console.print(f"\n{wrong} of {len(found)} checks ask for something." if wrong else "\nNothing is wrong.")

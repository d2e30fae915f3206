"""``orchdb scaffold``: the generated module of a project, planned, shown and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchdb.cli.output import Output
from orchdb.cli.running import REFUSED

if TYPE_CHECKING:
    from orchdb.scaffold import Plan

REMARKS = {"create": "new", "keep": "is the same already", "overwrite": "differs"}


def scaffold(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The project; it is made if it is missing.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A YAML file; database.path says where the database is. By default config.yml in FOLDER.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Write the database module that a project carries.

    These are the folder adws/ and the file data/.gitignore.
    """
    from orchdb.scaffold import ScaffoldService

    service = ScaffoldService(folder)
    plan = service.build_plan(config)
    console = Output()
    _show(plan, console, force=force)
    if dry_run:
        console.print("Nothing was written.")
        return
    refused = service.apply(plan, force=force).refused
    if refused:
        remark = f"Left as it is, because it differs: {', '.join(refused)}. With --force it is overwritten."
        Output(stderr=True).print(remark, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(REFUSED)


def _show(plan: Plan, console: Output, *, force: bool) -> None:
    source = f" (configured by {plan.configuration})" if plan.configuration else ""
    console.print(f"{plan.folder}{source}", highlight=False, markup=False, soft_wrap=True)
    for file in plan.files:
        action = "leave" if file.action == "overwrite" and not force else file.action
        line = f"  {action:<10} {file.path}  ({REMARKS[file.action]})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

"""``orchdb copy``: a whole database into another one, and whether both are the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchdb.cli import options
from orchdb.cli.output import Output
from orchdb.cli.running import FINDING, tell
from orchdb.cli.view import Column, View

if TYPE_CHECKING:
    from orchdb.transfer import TransferProgress, TransferReport

_COLUMNS = (
    Column("table", "table"),
    Column("rows", "rows_from", "count"),
    Column("there", "rows_to", "count"),
    Column("content", "hash_from"),
    Column("there", "hash_to"),
    Column("result", "result", "word"),
)
_UNVERIFIED = "--unverified"


def copy(
    from_: Annotated[str, typer.Argument(metavar="FROM", help="The database to read: a path or a URL.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="The empty database to fill; a file is made.")],
    verify: Annotated[bool, typer.Option("--verify", help="Write nothing: only compare the two.")] = False,
    unverified: Annotated[bool, typer.Option(_UNVERIFIED, help="Do not compare the two after copying.")] = False,
    findings: Annotated[
        Path,
        typer.Option(
            "--findings", metavar="FILE", help="Where each value and row is told that the target cannot hold."
        ),
    ] = Path("orchdb-copy-findings.jsonl"),
    as_json: options.Json = False,
    plain: options.Plain = False,
) -> None:
    """Copy a database into an empty one, of any engine, and compare both.

    The source is read as it was at one moment. A copy that was broken off, however, goes on where it was when the same
    command is given again. The exit code is 1 if the two are not the same, or the target cannot hold a row. Both places
    are given, whatever ORCHESTRATOR_DB_URL and ORCHESTRATOR_DB_PATH say.

    Examples:

        orchdb copy data/orchestrator.db postgresql://user@host/database

        orchdb copy --verify data/orchestrator.db postgresql://user@host/database
    """
    from orchdb.transfer import compare_databases, copy_database

    if verify and unverified:
        raise typer.BadParameter(f"--verify and {_UNVERIFIED} do not go together")
    view = View.of(from_, as_json, plain)
    progress = show_progress()
    if verify:
        report = asyncio.run(compare_databases(from_, to, progress=progress))
    else:
        report = asyncio.run(copy_database(from_, to, verify=not unverified, findings=findings, progress=progress))
    _show(view, report)
    if report.changed or report.left_out:
        for line in _told(report, findings):
            tell(line)
    if not report.equal or report.left_out:
        raise typer.Exit(FINDING)


def _show(view: View, report: TransferReport) -> None:
    if view.as_json:
        view.json(report.to_dict())
        return
    rows: list[dict[str, Any]] = [
        {"table": name, **table, "result": _result(report.verified, equal=table["equal"])}
        for name, table in report.to_dict()["tables"].items()
    ]
    view.rows(rows, _COLUMNS, nothing="")
    if view.for_people:
        went_on = ", going on with what was there" if report.resumed else ""
        rate = report.copied / report.copying_seconds if report.copying_seconds else 0.0
        said = (
            f"{report.copied:,} rows copied ({rate:,.0f} a second){went_on}" if report.copying_seconds else "Compared"
        )
        tell(f"{said} in {report.seconds:.1f} s.")
        if report.verified:
            tell("Both hold the same." if report.equal else "They do not hold the same.")


def _result(verified: bool, *, equal: bool) -> str:
    if not verified:
        return "copied"
    return "equal" if equal else "different"


def _told(report: TransferReport, findings: Path) -> list[str]:
    found = f"{report.changed:,} values were changed, {report.left_out:,} rows left out: {findings} has each of them."
    return [found, *(f"  {rule}: {said}" for rule, said in report.rules.items())]


def show_progress() -> Callable[[TransferProgress], None] | None:
    """What shows on a terminal how far a copy is; ``None`` where there is none."""
    if not sys.stderr.isatty():
        return None
    messages, last = Output(stderr=True), [""]

    def show(progress: TransferProgress) -> None:
        text = f"{progress.doing} {progress.table}"
        if progress.total:
            text = f"{progress.done / progress.total:4.0%}  {text}  {progress.rate:,.0f} rows/s"
        if progress.seconds_left is not None:
            text += f"  {progress.seconds_left:.0f} s left"
        over = progress.doing == "verifying" and progress.done >= progress.total
        if text != last[0]:
            messages.file.write(f"\r{text:<70}" + ("\n" if over else ""))
            messages.file.flush()
        last[0] = text

    return show

"""Spans of OpenTelemetry on the command line: ``orchdb import traces.jsonl`` and ``orchdb export --otlp``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from orchdb.cli import options
from orchdb.cli.running import FINDING, REFUSED, fail, reading, tell

if TYPE_CHECKING:
    from sqlalchemy import URL

    from orchdb.integrations.otlp import OtlpReport


def import_spans(url: URL, paths: list[Path], *, dry_run: bool, content: bool, as_json: bool) -> None:
    """Import files of OTLP-JSON, and say what was found in each.

    Args:
        url: Where to.
        paths: The files.
        dry_run: Only say what there is.
        content: Whether to store what models and tools were given and gave.
        as_json: Whether to say it for programs.

    Raises:
        typer.Exit: Something could not be read, or was refused.
    """
    from orchdb.integrations.otlp import import_otlp
    from orchdb.manager import DatabaseManager

    async def run() -> list[OtlpReport]:
        if dry_run:
            return [await import_otlp(None, path, content=content) for path in paths]
        async with DatabaseManager(url) as db:
            return [await import_otlp(db, path, content=content) for path in paths]

    reports = asyncio.run(run())
    for path, report in zip(paths, reports, strict=True):
        typer.echo(json.dumps({"path": str(path), **asdict(report)}) if as_json else _told(path, report))
    if any(report.damaged or report.refused for report in reports):
        raise typer.Exit(FINDING)


def _told(path: Path, report: OtlpReport) -> str:
    parts = [f"{number:,} {name}" for name, number in asdict(report).items() if number or name in {"agents", "prompts"}]
    return f"{path}: " + ", ".join(parts).replace("_", " ")


def export(
    out: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Where to; without it to standard output.", show_default=False),
    ] = None,
    otlp: Annotated[
        bool, typer.Option("--otlp", help="As OTLP-JSON: spans of the GenAI conventions of OpenTelemetry.")
    ] = False,
    session: options.Sessions = None,
    db: options.Db = None,
) -> None:
    """Write agents, prompts and tool calls for another program: as spans.

    One ExportTraceServiceRequest a line, for each agent one, as OTLP receivers take them.

    Examples:

        orchdb export --otlp traces.jsonl

        orchdb export --otlp --session 01a2 > traces.jsonl
    """
    from orchdb.cli.filters import sessions
    from orchdb.cli.running import located
    from orchdb.integrations.otlp import export_otlp

    if not otlp:
        raise typer.BadParameter("say as what: --otlp")
    location = located(db)

    async def run(file: IO[str]) -> int:
        count = 0
        async with reading(location) as manager:
            chosen = await sessions(manager, session)
            async for message in export_otlp(manager, session_id=chosen):
                file.write(json.dumps(message) + "\n")
                count += 1
        return count

    try:
        opened = None if out is None else out.open("w", encoding="utf-8")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}", REFUSED)
    with opened or contextlib.nullcontext(sys.stdout) as file:
        count = asyncio.run(run(file))
    if out is not None:
        tell(f"{count:,} agents were written to {out}.")

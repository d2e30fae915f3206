"""``orchdb import``: recorded runs of other tools come in."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchdb.cli import options
from orchdb.cli.output import Output

if TYPE_CHECKING:
    from orchdb.transcripts import ImportReport, Progress, Tally, Transcript

SOURCES = {"claude": "Claude Code", "codex": "Codex", "swe": "SWE-agent"}


def run_import(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[claude|codex|swe] [PATH]...",
            help="One format only; files and folders. By default ~/.claude and ~/.codex.",
            show_default=False,
        ),
    ] = None,
    db: options.Db = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, only say what would be new.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: follow the files as they grow, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the report as one JSON object a line.")] = False,
    no_content: Annotated[
        bool, typer.Option("--no-content", help="Leave out prompts, answers and what tools were given and gave.")
    ] = False,
) -> None:
    """Import recorded runs of Claude Code, Codex and SWE-agent, each row once.

    A file of OTLP-JSON, the spans of an agent's run, is known by how it begins.

    Examples: orchdb import --dry-run · orchdb import claude --no-content · orchdb import runs/ --db runs.db
    """
    from orchdb.cli.spans import import_spans
    from orchdb.integrations.traces import is_otlp
    from orchdb.location import resolve
    from orchdb.transcripts import find_transcripts

    words = [*(what or ())]
    sources = [words.pop(0)] if words and words[0] in SOURCES else None
    if watch and dry_run:
        raise typer.BadParameter("--watch and --dry-run do not go together")
    for path in words:
        if not Path(path).expanduser().exists():
            raise typer.BadParameter(f"there is no {path}", param_hint="PATH")
    spans = [path for path in map(Path, words) if is_otlp(path.expanduser())]
    if spans:
        if watch:
            raise typer.BadParameter("--watch follows transcripts, and no files of spans")
        url = resolve(db, "--db")
        import_spans(url, [*map(Path.expanduser, spans)], dry_run=dry_run, content=not no_content, as_json=as_json)
        words = [word for word in words if Path(word) not in spans]
        if not words:
            return
    paths = words or None
    found = find_transcripts(paths, sources=sources)
    messages = Output(stderr=True)
    _announce(found, messages)
    command = _Command(resolve(db, "--db"), paths, sources, messages, content=not no_content, as_json=as_json)
    asyncio.run(command.watch() if watch else command.once(dry_run=dry_run))


class _Command:
    """One call of the command."""

    def __init__(
        self,
        url: object,
        paths: list[str] | None,
        sources: list[str] | None,
        messages: Output,
        *,
        content: bool,
        as_json: bool,
    ) -> None:
        self._url = url
        self._paths = paths
        self._sources = sources
        self._messages = messages
        self._content = content
        self._as_json = as_json
        self._output = Output()

    async def once(self, *, dry_run: bool) -> None:
        """Import once, or say what an import would do."""
        from orchdb.manager import DatabaseManager
        from orchdb.transcripts import import_transcripts

        progress = _progress(self._messages)
        options = {"sources": self._sources, "content": self._content}
        if dry_run and not _is_there(self._url):
            report = await import_transcripts(None, self._paths, dry_run=True, progress=progress, **options)  # type: ignore[arg-type]
        else:
            async with DatabaseManager(self._url) as db:  # type: ignore[arg-type]
                report = await import_transcripts(db, self._paths, dry_run=dry_run, progress=progress, **options)  # type: ignore[arg-type]
        self._show(report)
        if report.unreadable:
            raise typer.Exit(1)

    async def watch(self) -> None:
        """Import, and follow the files until somebody ends it."""
        from orchdb.manager import DatabaseManager
        from orchdb.transcripts import watch_transcripts

        async with DatabaseManager(self._url) as db:  # type: ignore[arg-type]
            first = True
            async for report in watch_transcripts(db, self._paths, sources=self._sources, content=self._content):
                if first or self._as_json:
                    self._show(report)
                else:
                    self._write(_news(report))
                first = False

    def _show(self, report: ImportReport) -> None:
        self._write(json.dumps(report.to_dict()) if self._as_json else "\n".join(summary(report)))

    def _write(self, text: str) -> None:
        self._output.print(text, markup=False, highlight=False, soft_wrap=True)


def _is_there(url: object) -> bool:
    """Whether there is a database to compare with: a dry run makes none."""
    drivername, database = getattr(url, "drivername", ""), getattr(url, "database", None)
    return not drivername.startswith("sqlite") or bool(database and Path(database).exists())


def _announce(found: list[Transcript], messages: Output) -> None:
    """Say what will be read."""
    if not found:
        messages.print("There are no transcripts here.", highlight=False)
    for source, name in SOURCES.items():
        files = [each for each in found if each.source == source]
        if files:
            top = files[0].path.parent
            while any(top not in each.path.parents for each in files):
                top = top.parent
            line = f"{name}: {_many(len(files), 'file')}, {_size(sum(each.size for each in files))} in {top}"
            messages.print(line, markup=False, highlight=False, soft_wrap=True)


def _progress(messages: Output) -> Callable[[Progress], None] | None:
    """On a terminal, a line that tells how far it is."""
    if not sys.stderr.isatty():
        return None

    def tell(progress: Progress) -> None:
        rate = progress.done / progress.seconds if progress.seconds else 0.0
        left = (progress.total - progress.done) / rate if rate else 0.0
        part = progress.done / progress.total if progress.total else 1.0
        text = (
            f"{part:4.0%}  {_size(progress.done)} of {_size(progress.total)}  {_size(int(rate))}/s  {left:.0f} s left"
        )
        end = "\n" if progress.files_done == progress.files else ""
        messages.file.write(f"\r{text:<70}{end}")
        messages.file.flush()

    return tell


def _news(report: ImportReport) -> str:
    """What has come, in one line."""
    sessions = ", ".join(sorted(report.sessions))
    news = f"{_many(report.prompts, 'prompt')}, {_many(report.lines, 'log line')}, ${report.added.cost_usd:.4f}"
    return f"{sessions}: {news}"


def summary(report: ImportReport) -> list[str]:
    """Write a report for people.

    Args:
        report: The report.

    Returns:
        Its lines.
    """
    done = "Would import" if report.dry_run else "Imported"
    rows = sum(report.rows.values())
    lines = [
        f"{done} {_many(len(report.sessions), 'session')}, {_many(report.agents, 'agent')}, "
        f"{_many(report.prompts, 'prompt')}, {_many(report.lines, 'log line')}",
        f"from {_many(report.files_read, 'file')} ({_many(rows, 'row')}) in {report.seconds:.1f} s; "
        f"{_many(report.files_unchanged, 'file')} had nothing new.",
    ]
    if report.prompts_corrected:
        lines.append(f"{_many(report.prompts_corrected, 'prompt')} had grown.")
    if report.prompts:
        lines += ["", f"Cost    ${report.added.cost_usd:,.4f}", f"Tokens  {_tokens(report.added)}"]
    if report.naive.rows:
        lines += ["", *_why(report)]
    if report.prices_missing:
        lines += [
            "",
            "There are no costs: pip install 'orchdb[prices]' brings the prices, orchdb reprice fills them in.",
        ]
    if report.unpriced:
        models = f" ({', '.join(sorted(report.unknown_models))})" if report.unknown_models else ""
        lines.append(f"{_many(report.unpriced, 'prompt')} without a price{models}.")
    if report.unknown:
        kinds = ", ".join(f"{name} ({number})" for name, number in sorted(report.unknown.items()))
        lines.append(f"Rows of unknown types, kept as log lines: {kinds}")
    if report.damaged:
        lines.append(f"{_many(report.damaged, 'row')} could not be read:")
    return lines + [f"  {finding}" for finding in report.findings]


def _why(report: ImportReport) -> list[str]:
    """Why a naive count shows another number."""
    naive, right = report.naive, report.added
    lines = [f"A count of every row would show ${naive.flat_usd:,.4f} and {_tokens(naive)}:"]
    repeats, copies = report.repeats, report.copies
    lines.append(f"  - ${repeats.flat_usd:,.4f}  {_many(repeats.rows, 'row')} repeat the usage of a response")
    if copies.rows:
        lines.append(f"  - ${copies.flat_usd:,.4f}  {_many(copies.rows, 'response')} stand in another session too")
    if report.one_hour_usd:
        lines.append(f"  + ${report.one_hour_usd:,.4f}  cache writes for an hour cost more than those for five minutes")
    lines.append(f"  = ${right.cost_usd:,.4f}")
    if report.subagents.rows:
        lines.append(f"A count of the sessions' own files would miss ${report.subagents.cost_usd:,.4f} of sub-agents.")
    return lines


def _tokens(tally: Tally) -> str:
    return (
        f"{tally.tokens_input:,} in, {tally.tokens_output:,} out, {tally.tokens_cache_read:,} from the cache, "
        f"{tally.tokens_cache_write:,} to it"
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number >= 100_000 else f"{number / 1e3:.1f} kB"

"""The commands in their groups. A command's module is loaded when the command is called, and no sooner.

A new command is a function in a module of its own group, and a line in ``COMMANDS``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import typer.core
import typer.main

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter  # pyright: ignore[reportPrivateUsage]
    from typer._click.shell_completion import CompletionItem  # pyright: ignore[reportPrivateUsage]

_WRONG_CALL: Any = typer.BadParameter.__base__
"""What Typer raises for a call that it does not understand; it has no public name."""
LOOK, CARE, BEGIN = "Look", "Care", "Begin"


class Entry(NamedTuple):
    """A command.

    Attributes:
        name: What it is called by.
        place: Its module below ``orchdb.cli``, and the function in it.
        group: The group in the help.
        summary: What it does, in a line: the first one of its docstring.
    """

    name: str
    place: str
    group: str
    summary: str

    def function(self) -> Callable[..., None]:
        """Load the function."""
        module, _, name = self.place.partition(":")
        found: Callable[..., None] = getattr(importlib.import_module(f"orchdb.cli.{module}"), name)
        return found


COMMANDS = (
    Entry("status", "status:status", LOOK, "Show where the database is, and what is in it."),
    Entry("sessions", "lists:sessions", LOOK, "List the sessions, the newest first."),
    Entry("agents", "lists:agents", LOOK, "List the agents, the newest first."),
    Entry("prompts", "lists:prompts", LOOK, "List the prompts, the newest first."),
    Entry("logs", "logs:logs", LOOK, "List the newest log lines, or follow them as they come."),
    Entry("show", "show:show", LOOK, "Show a definition, an agent, a prompt or a session, by its id."),
    Entry("usage", "usage:usage", LOOK, "Sum up what prompts have used and cost."),
    Entry("tree", "tree:tree", LOOK, "Show the agents of a session as a tree, with what each has cost."),
    Entry("top", "top:top", LOOK, "Watch the agents that are at work, live."),
    Entry("sql", "sql:sql", LOOK, "Run a query of your own; it can only read."),
    Entry("init", "care:init", CARE, "Make a database, or its tables."),
    Entry("doctor", "doctor:doctor", CARE, "Look for what is wrong, and say what to do."),
    Entry("reap", "care:reap", CARE, "End the agents whose process has died."),
    Entry("reprice", "reprice:reprice", CARE, "Price prompts whose cost nobody has reported."),
    Entry("prune", "pruning:prune", CARE, "Delete old log lines, and give their space back."),
    Entry("backup", "backups:backup", CARE, "Make a consistent copy of a database as a new file."),
    Entry("restore", "backups:restore", CARE, "Bring a backup back."),
    Entry("copy", "copying:copy", CARE, "Copy a database into an empty one, of any engine, and compare both."),
    Entry("upgrade", "versions:upgrade", CARE, "Bring the schema to the newest revision."),
    Entry("downgrade", "versions:downgrade", CARE, "Take the schema back to an older revision."),
    Entry("history", "versions:history", CARE, "List the revisions of the schema."),
    Entry(
        "import",
        "importing:run_import",
        BEGIN,
        "Import recorded runs of Claude Code, Codex and SWE-agent, each row once.",
    ),
    Entry("export", "spans:export", CARE, "Write agents, prompts and tool calls for another program: as spans."),
    Entry("demo", "demo:demo", BEGIN, "Play a small session of several agents, and show what was stored."),
    Entry("scaffold", "scaffolding:scaffold", BEGIN, "Write the database module that a project carries."),
)
_BY_NAME = {entry.name: entry for entry in COMMANDS}
_HEAD = """\
Usage: orchdb [--version] [--help] COMMAND ...

The async data layer for agent orchestrators: see what is there.
"""
_FOOT = """\
orchdb COMMAND --help has the options and examples. Every command takes --db PATH_OR_URL;
without it ORCHESTRATOR_DB_URL, then ORCHESTRATOR_DB_PATH, then data/orchestrator.db.
Shell completion: orchdb --install-completion
Exit codes: 0 done, 1 a finding, 2 wrong call, 3 cannot reach the database, 4 refused.
"""


def help_text() -> str:
    """The help that fits one screen."""
    parts = [_HEAD]
    for group in dict.fromkeys(entry.group for entry in COMMANDS):
        found = [entry for entry in COMMANDS if entry.group == group]
        parts.append(f"{group}\n" + "".join(f"  {entry.name:<12}{entry.summary}\n" for entry in found))
    return "\n".join([*parts, _FOOT])


class Commands(typer.core.TyperGroup):
    """The commands, each loaded when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # For what is misspelt, and for a shell: those that sound alike, or begin so, are looked for here.
        self.commands = {
            name: typer.core.TyperCommand(name, short_help=entry.summary) for name, entry in _BY_NAME.items()
        }
        self._only_names = False
        self._called = ""

    def list_commands(self, ctx: Context) -> list[str]:
        """The names, in the order of the help."""
        return [*_BY_NAME]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """The command that is called."""
        entry = _BY_NAME.get(cmd_name)
        if entry is None or self._only_names:
            return self.commands.get(cmd_name)
        from orchdb.cli.running import explained

        self._called = entry.name
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(entry.name)(explained(entry.function()))
        return typer.main.get_command(single)

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, of which none is loaded, and the options."""
        self._only_names = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._only_names = False

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the options that stand before the command; where there is nothing at all, the help is what is meant."""
        if not args and not ctx.resilient_parsing:
            typer.echo(help_text(), nl=False)
            raise typer.Exit
        return super().parse_args(ctx, args)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Begin, unless the call is wrong."""
        with self._in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Context) -> Any:
        """Run the command, unless the call is wrong."""
        with self._in_one_line():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _in_one_line(self) -> Generator[None]:
        """Tell a wrong call as any other error; what was given is repeated there, and may be a URL with a password."""
        try:
            yield
        except _WRONG_CALL as error:
            told = error.format_message().removesuffix(".")
            place = error.ctx.command_path if error.ctx else f"orchdb {self._called}".rstrip()
        else:
            return
        from orchdb.cli.running import USAGE, fail

        fail(f"{told[:1].lower()}{told[1:]}{'' if told.endswith('?') else '.'} See {place} --help", USAGE)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help without loading the commands, or Rich."""
        formatter.write(help_text())


def _print_version(wanted: bool) -> None:
    if wanted:
        from orchdb import __version__

        typer.echo(f"orchdb {__version__}")
        raise typer.Exit


def _start(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """The async data layer for agent orchestrators."""


application = typer.Typer(
    cls=Commands,
    callback=_start,
    # A traceback with the values of variables would show prompts and passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

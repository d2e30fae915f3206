"""The commands, and what all of them have in common: the version, and errors as one line instead of a traceback.

A new command is a function in a module of its own, and its name in ``COMMANDS``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from orchdb import OrchdbError, __version__
from orchdb.cli.demo import demo
from orchdb.cli.importing import run_import
from orchdb.cli.output import Output
from orchdb.cli.scaffolding import scaffold

COMMANDS: tuple[Callable[..., None], ...] = (demo, scaffold)


def explained(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with an orchdb error told in one line on standard error and exit code 1."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        try:
            command(**values)
        except (OrchdbError, ExceptionGroup) as failure:
            error = _first(failure)
            if not isinstance(error, OrchdbError):
                raise error from None
            # What the option holds goes to the manager, which knows it by the name of its own parameter.
            told = str(error).replace("db_path", "--db", 1) if error.column == "db_path" else str(error)
            Output(stderr=True).print(f"Error: {told}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None

    return run


def _first(failure: Exception) -> Exception:
    """The first failure of tasks that ran at the same time: those of the others mostly have the same cause."""
    while isinstance(failure, ExceptionGroup):
        failure = cast("ExceptionGroup[Exception]", failure).exceptions[0]
    return failure


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orchdb {__version__}")
        raise typer.Exit


def _start(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """The async data layer for agent orchestrators."""
    # Each failure is logged where it arises; without a handler Python would print it beside our own line.
    logging.getLogger("orchdb").addHandler(logging.NullHandler())


application = typer.Typer(
    callback=_start,
    no_args_is_help=True,
    add_completion=False,
    # A traceback with the values of variables would show prompts and passwords.
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    application.command()(explained(_command))
application.command("import")(explained(run_import))

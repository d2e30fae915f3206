"""What runs a command: its errors as one line and an exit code, its database, its end by Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import select
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import typer

from orchdb.cli.output import Output

if TYPE_CHECKING:
    from orchdb.location import Location
    from orchdb.manager import DatabaseManager

DONE = 0
FINDING = 1
"""There is nothing of that kind, or something was found that should not be."""
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
INTERRUPTED = 128 + signal.SIGINT
_LOOK_SECONDS = 0.5
_OF_THE_OUTPUT = frozenset((errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EINVAL))

Result = TypeVar("Result")


def explained(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with an error told in one line on standard error, and with its exit code."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        # Each failure is logged where it arises; without a handler Python would print it beside our own line.
        logging.getLogger("orchdb").addHandler(logging.NullHandler())
        try:
            command(**values)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as failure:
            error = _first(failure)
            told = _told(error)
            if told is None:
                raise error from None
        else:
            return
        fail(*told)

    return run


def fail(message: str, code: int) -> NoReturn:
    """End the command with a line on standard error."""
    tell(f"Error: {message}", style="red")
    raise typer.Exit(code) from None


def tell(message: str, style: str = "") -> None:
    """Write a line about what the command does, on standard error; of a URL in it the password is left out."""
    from orchdb.cli.cells import visible, without_password

    Output(stderr=True).print(
        visible(without_password(message)), style=style, markup=False, highlight=False, soft_wrap=True
    )


def _first(failure: Exception) -> Exception:
    """The first failure of tasks that ran at the same time: those of the others mostly have the same cause."""
    while isinstance(failure, ExceptionGroup):
        failure = cast("ExceptionGroup[Exception]", failure).exceptions[0]
    return failure


def _told(error: Exception) -> tuple[str, int] | None:
    """What to say of an error, and the exit code; ``None`` if it is a mistake in orchdb."""
    from orchdb.errors import ConstraintError, InvalidValueError, OrchdbError, SchemaError, SchemaOutOfDateError

    if isinstance(error, InvalidValueError):
        # What the option holds goes to the manager, which knows it by the name of its own parameter.
        return str(error).replace("db_path", "--db", 1) if error.column == "db_path" else str(error), USAGE
    if isinstance(error, SchemaOutOfDateError):  # the library's words are for those who have no command line
        return f"{error.message.partition(': run ')[0]}: run orchdb upgrade", REFUSED
    if isinstance(error, (SchemaError, ConstraintError)):
        return str(error), REFUSED
    if isinstance(error, OrchdbError):
        return str(error), UNREACHABLE
    if isinstance(error, OSError):  # of a server that has gone, unless it is that of our own output
        from orchdb.driver_errors import translate

        return None if error.errno in _OF_THE_OUTPUT else (str(translate(error, "reading", None)), UNREACHABLE)
    if type(error).__module__.startswith("sqlalchemy."):
        from sqlalchemy.exc import DBAPIError

        from orchdb.driver_errors import translate

        if isinstance(error, DBAPIError):  # of a query on db.conn
            return str(translate(error, "reading", None)), UNREACHABLE
    return None


def located(db: str | None) -> Location:
    """Where the database is: what ``--db`` says, or else the environment."""
    from orchdb.location import locate

    return locate(db, "--db")


@asynccontextmanager
async def reading(location: Location) -> AsyncGenerator[DatabaseManager]:
    """The database, to be read: nothing of it is made or changed.

    Raises:
        OrchdbError: It is not there, or cannot be read.
    """
    from orchdb.manager import DatabaseManager

    _require(location)
    async with DatabaseManager(location.url, read_only=True) as db:
        yield db


def _require(location: Location) -> None:
    from orchdb.errors import InvalidValueError, OperationError
    from orchdb.location import MEMORY

    if location.url.get_backend_name() == "sqlite":
        if location.url.database == MEMORY:
            raise InvalidValueError("--db: a database in memory is empty: name a file or a server")
        if not Path(location.url.database or "").exists():
            raise OperationError(f"{location.url.database} does not exist, and `orchdb init` makes it")


def run_reading(work: Coroutine[Any, Any, Result]) -> Result:
    """Run what only reads: Ctrl-C ends it at once, whatever a driver is waiting for."""

    async def run() -> Result:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows, beside the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _end)
        return await work

    return asyncio.run(run())


async def end_with_reader() -> None:
    """End the command when nobody reads its output any more, also while there is nothing to write."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows, and not where there is no file
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)
        while not output.poll(0):  # noqa: ASYNC110  # a pipe tells nobody that its reader has gone
            await asyncio.sleep(_LOOK_SECONDS)
        os._exit(FINDING)


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)  # nothing was written, so nothing has to be brought to an end

"""The command line: ``orchdb``. It needs the extra ``cli``."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
from typing import NoReturn


def main() -> None:
    """Run the command line; the exit codes are those of ``orchdb --help``."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201  # without Rich there is nothing nicer
            f"orchdb: the command line needs {' and '.join(missing)}: pip install 'orchdb[cli]'", file=sys.stderr
        )
        raise SystemExit(3)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a terminal that does not know each character
    try:
        from orchdb.cli.application import application

        application(prog_name="orchdb")
    except KeyboardInterrupt:  # while something is loaded
        raise SystemExit(130) from None
    except OSError as error:  # of the database's files each is told by its command
        _give_up(error)


def _give_up(error: OSError) -> NoReturn:
    """End because the output cannot be written, such as to a disk that is full: a line, and no traceback."""
    with contextlib.suppress(OSError, ValueError):
        # What is still buffered goes nowhere, so that Python's own flush at the end has nothing to complain about.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    with contextlib.suppress(OSError):
        print(f"Error: the output could not be written: {error.strerror}", file=sys.stderr)  # noqa: T201
    raise SystemExit(3) from None

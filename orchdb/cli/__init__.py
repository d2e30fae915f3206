"""The command line: ``orchdb``. It needs the extra ``cli``."""

from __future__ import annotations

import importlib.util
import io
import sys


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

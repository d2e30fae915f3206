"""The command line as its users have it: in this process, as a process of its own, and in a terminal."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from typer.testing import CliRunner, Result

import orchdb
from orchdb.cli.application import application

TIMEOUT = 60
_PACKAGE = str(Path(orchdb.__file__).parents[1])


def run(*arguments: str, **variables: str) -> Result:
    """The result of ``orchdb`` with these arguments, piped, in this process."""
    environment = {"COLUMNS": "120", "NO_COLOR": None, "FORCE_COLOR": None, **variables}
    return CliRunner(env=environment).invoke(application, arguments, prog_name="orchdb")


def done(*arguments: str, **variables: str) -> str:
    """What ``orchdb`` writes, after checking that it did what it was asked."""
    result = run(*arguments, **variables)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(code: int, *arguments: str) -> str:
    """What a failed command says, after checking its exit code, and that it is one line and no traceback."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("Error: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def process(*arguments: str, variables: Mapping[str, str] = MappingProxyType({}), **options: Any) -> Any:
    """``orchdb`` as a process of its own, as ``subprocess.Popen``."""
    command = [sys.executable, "-W", "error", "-m", "orchdb", *arguments]
    environment = {**os.environ, "PYTHONPATH": _PACKAGE, **variables}
    return _Bounded(command, env=environment, **options)


class _Bounded(subprocess.Popen[bytes]):
    """A process that is killed after a while: who waits for its line would else wait for ever."""

    def __enter__(self) -> Self:
        self._timer = threading.Timer(TIMEOUT, self.kill)
        self._timer.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._timer.cancel()
        self._timer.join()


# Forking in a process with threads is deprecated, so the child itself makes the terminal the one that Ctrl-C is for.
_IN_ITS_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from orchdb.cli import main
main()
"""


@dataclass(frozen=True)
class Shown:
    """What was shown in a terminal.

    Attributes:
        text: All of it, with the control sequences.
        code: The exit code.
    """

    text: str
    code: int

    @property
    def lines(self) -> list[str]:
        """Its lines, without what colours them."""
        from rich.text import Text

        return Text.from_ansi(self.text.replace("\r", "")).plain.splitlines()


def in_terminal(
    *arguments: str, columns: int = 80, rows: int = 24, keys: Sequence[tuple[str, bytes]] = (), **variables: str
) -> Shown:
    """Run ``orchdb`` in a pseudo-terminal of this size.

    Args:
        keys: What to type, each as soon as something has been shown since the last one.
    """
    terminal, inside = pty.openpty()
    ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # In dev mode the event loop tells on the same terminal what took long.
    left_out = ("COLUMNS", "LINES", "NO_COLOR", "PYTHONDEVMODE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"PYTHONPATH": _PACKAGE, "TERM": "xterm-256color", **variables}
    command = [sys.executable, "-W", "error", "-c", _IN_ITS_TERMINAL, *arguments]
    child = subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=environment
    )
    os.close(inside)
    text, since, waiting = b"", 0, [*keys]
    deadline = time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 0.1)
            try:
                portion = os.read(terminal, 65_536) if ready else b""
            except OSError:  # how Linux says that the other end is closed
                break
            if ready and not portion:
                break
            text += portion
            if waiting and waiting[0][0].encode() in text[since:]:
                since = len(text)
                os.write(terminal, waiting.pop(0)[1])
        else:
            child.kill()
    finally:
        os.close(terminal)
        code = child.wait(timeout=TIMEOUT)
    return Shown(text.decode(), code)

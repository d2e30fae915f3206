"""Where the commands write: a console that ends quietly when nobody reads any more, as in ``orchdb demo | head -1``."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable
from itertools import islice
from typing import NoReturn

from rich.console import Console

_AT_A_TIME = 500
"""Lines."""


class Output(Console):
    """Rich's console; when its reader has gone it raises ``BrokenPipeError``, which ends the command without a word."""

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines as they are, at once, without a look at the width of the terminal."""
        remaining = iter(lines)
        try:
            # In portions: of one write that is longer than a pipe, Python does not notice that nobody reads the rest.
            while portion := "".join(f"{line}\n" for line in islice(remaining, _AT_A_TIME)):
                self.file.write(portion)
                self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> NoReturn:
        # Rich raises SystemExit here, which the event loop reports with a traceback.
        self.quiet = True
        with contextlib.suppress(io.UnsupportedOperation):
            # What is still buffered goes nowhere, so that Python's own flush at the end has nothing to complain about.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")

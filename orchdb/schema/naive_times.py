"""The warning of a ``datetime`` that says no time zone, shown where the caller gave it."""

from __future__ import annotations

import warnings
from inspect import currentframe
from types import FrameType

# Between the caller and us stand our own coroutines, and where a task runs one of them the event loop's code.
_NOT_THE_CALLER = frozenset({"orchdb", "asyncio", "contextlib", "sqlalchemy"})


class NaiveDatetimeWarning(UserWarning):
    """A ``datetime`` without a time zone was taken as UTC. ``datetime.now()`` is local time: ``datetime.now(UTC)``."""


def warn_of_naive(column: str) -> None:
    """Warn at the line of the caller; of a coroutine that a task runs by itself, at the line that runs the loop.

    Args:
        column: The column or parameter, for the message.
    """
    frame = _caller(currentframe())
    warnings.warn_explicit(
        f"{column}: a datetime without a time zone is taken as UTC; datetime.now(UTC) has one",
        NaiveDatetimeWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "<unknown>"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _caller(frame: FrameType | None) -> FrameType:
    assert frame is not None
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _NOT_THE_CALLER:
        frame = frame.f_back
    return frame

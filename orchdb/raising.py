"""Raising one error in the place of another, with nothing of the other attached."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=BaseException)


class raised_as(Generic[Kind]):  # noqa: N801  # read as a verb, like those of contextlib
    """Raise what ``become`` makes of an exception of this block: a driver's own holds the values.

    What is raised has the context that it would have had outside the block, and never the exception it stands for; nor
    is that kept by a frame of its traceback.

    Args:
        kinds: The exceptions it is for; any other one passes.
        become: Gives the error to raise; where it gives the exception itself, that passes too.
    """

    __slots__ = ("_around", "_become", "_kinds")

    def __init__(self, kinds: type[Kind] | tuple[type[Kind], ...], become: Callable[[Kind], BaseException]) -> None:
        self._kinds = kinds
        self._become = become

    def __enter__(self) -> None:
        self._around = sys.exception()  # the caller's own, if this runs in an except block

    def __exit__(self, _: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None or not isinstance(error, self._kinds):
            return
        failure = self._become(error)
        if failure is error:
            return
        del error, traceback
        try:
            raise failure
        finally:
            failure.__context__ = self._around  # not before: raising sets it
            del failure

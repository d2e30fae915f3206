"""What runs in the thread of an SQLite connection, and how it fails there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchdb.foreign_triggers import Connection


class Work(ABC):
    """What runs in the connection's thread.

    Attributes:
        several: Whether it is several statements, which stand or fall together.
        alike: The same object in works that ``together`` can run as one; ``None`` if this one runs by itself.
    """

    several = False
    alike: object | None = None

    @abstractmethod
    def __call__(self, connection: Connection) -> Any:
        """Run it; the result is the caller's."""

    def together(self, works: Sequence[Any], connection: Connection) -> list[Any] | None:
        """The results of works that are alike; ``None`` if it cannot be told what each of them gave."""
        return None

    def explained(self, error: Exception, connection: Connection) -> Exception:
        """The error that says more of why the work failed, if there is more to say."""
        return error


@dataclass(eq=False, repr=False, slots=True)
class Failure:
    """An exception on its way from the thread to the caller."""

    error: Exception


def attempt(work: Work, connection: Connection, *, alone: bool = False) -> Any:
    """The result of the work or its failure; work of several statements is undone as a whole.

    Args:
        work: What to run.
        connection: Where to run it.
        alone: Whether work of several statements has a transaction for itself, which the caller rolls back.
    """
    try:
        if not work.several or alone:
            return work(connection)
        connection.execute("SAVEPOINT several")
        try:
            result = work(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO several")
                connection.execute("RELEASE several")
            raise
        connection.execute("RELEASE several")
    except Exception as error:
        return Failure(error)
    return result

"""The filters of a list: one value each or several, and the shape of the statement that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from orchdb.errors import InvalidValueError
from orchdb.rows import LOG_LEVELS
from orchdb.schema.several import Placed

FLAG: Final = object()
"""What a filter has that is a condition of the table's own, and takes no value."""
MOST_BRANCHES = 16
"""Up to so many values a list has a branch for each, which is in the list's order already."""


class Shape(NamedTuple):
    """Which filters a statement has, whatever their values are.

    Attributes:
        equal: Those with one value.
        among: Those with several, of any number.
        branched: One with several that has a branch for each; empty if there is none.
        branches: How many.
        words: Instead, the values of the branches of ``branched``, where only some of them are in its index.
        flags: The tables' own conditions without a value.
    """

    equal: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    branched: str = ""
    branches: int = 0
    words: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class Different(tuple[Placed, ...]):
    """Several values of a filter: the different ones, each with its place among those that were given."""

    __slots__ = ()


_ONE: Any = (str, bytes, bytearray, Mapping, UUID, Different)
"""What is one value, although some of these can be iterated; or has been told already."""


def one_or_several(given: Any) -> Any:
    """Tell several values from one.

    Args:
        given: What a caller gave. Text is one value, and so are bytes and mappings, which no column takes.

    Returns:
        The value, or ``Different`` ones.
    """
    if isinstance(given, _ONE) or not isinstance(given, Iterable):
        return given
    known: set[str] = set()
    different: list[Placed] = []
    for placed in enumerate(iter(cast(Any, given))):
        text = _text(placed[1])
        if text is None or text not in known:
            different.append(placed)
        if text is not None:
            known.add(text)
    return Different(different)


def _text(value: object) -> str | None:
    """The text that the value is compared as; ``None`` for what is refused later, or is the id of no row."""
    if isinstance(value, Enum):
        value = value.value
    return str(value) if isinstance(value, (str, UUID)) else None


def checked_filters(filters: Mapping[str, Any], scope: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the filters of a list.

    Args:
        filters: By name; one that is ``None`` does not filter. ``min_level`` becomes a filter for ``log_level``.
        scope: Filters that always do.

    Returns:
        Those that filter, with one value or ``Different`` ones each.

    Raises:
        InvalidValueError: ``min_level`` is no level.
    """
    given = {name: one_or_several(value) for name, value in filters.items() if value is not None}
    if "min_level" in given:
        level = _at_least(given.pop("min_level"), given.pop("log_level", None))
        if level is not None:
            given["log_level"] = level
    if scope is not None:
        given |= {name: one_or_several(value) for name, value in scope.items()}
    return given


def _at_least(min_level: Any, log_level: Any) -> Any:
    """A filter for the level from both; ``None`` if every one fits. A level that there is not stays, to be refused."""
    if not isinstance(min_level, str) or min_level not in LOG_LEVELS:
        raise InvalidValueError(f"min_level: must be one of {', '.join(LOG_LEVELS)}", column="min_level")
    fitting = LOG_LEVELS[LOG_LEVELS.index(min_level) :]
    if log_level is None:
        return None if fitting == LOG_LEVELS else Different(enumerate(fitting))
    if not isinstance(log_level, Different):
        return Different() if log_level in LOG_LEVELS and log_level not in fitting else log_level
    return Different(placed for placed in log_level if placed[1] not in LOG_LEVELS or placed[1] in fitting)


def without_branches(filters: Mapping[str, Any]) -> tuple[Shape, dict[str, Any]]:
    """Choose the shape of a statement that may give the rows in any order, or has an order of its own.

    Args:
        filters: By name, all of them given.

    Returns:
        The shape and what it is run with.
    """
    values = dict(filters)
    among = tuple(sorted(name for name, value in values.items() if isinstance(value, Different)))
    flags = tuple(sorted(name for name, value in values.items() if value is FLAG))
    equal = tuple(sorted(values.keys() - {*among, *flags}))
    return Shape(equal, among, flags=flags), values


def with_branches(
    filters: Mapping[str, Any],
    columns: Container[str],
    order: Iterable[str],
    partial: Mapping[str, Collection[str]],
) -> tuple[Shape, dict[str, Any]]:
    """Choose the shape of a list: its rows have to be found in its order.

    Args:
        filters: By name, all of them given.
        columns: Those of the table: a filter on another one's has no branches.
        order: The filters that have an index, in the order of preference: one of them leads.
        partial: The filters whose index has some of their values only, and those values.

    Returns:
        The shape and what it is run with.
    """
    shape, values = without_branches(filters)
    first = next((name for name in order if name in values), "")
    value = values.get(first)
    equal, among = (tuple(name for name in names if name != first) for names in (shape.equal, shape.among))
    if first in partial:
        asked = [given for _, given in value] if isinstance(value, Different) else [value]
        if not asked or any(not isinstance(given, str) or given not in partial[first] for given in asked):
            return shape, values  # nearly every row fits: they are found in the order of all
        words = tuple(word for word in partial[first] if word in asked)
        return shape._replace(equal=equal, among=among, branched=first, words=words), values
    if isinstance(value, Different) and first in columns and 0 < len(value) <= MOST_BRANCHES:
        shape = shape._replace(among=among, branched=first, branches=len(value))
        values |= {f"{first}_{number}": placed for number, placed in enumerate(value)}
    return shape, values

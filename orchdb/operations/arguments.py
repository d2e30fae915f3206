"""The checks of what callers give, where no column does them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchdb.errors import InvalidValueError
from orchdb.schema.values import MAX_INTEGER, cost


def checked_names(operation: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse every name that is not allowed, before any SQL.

    Args:
        operation: The public method, for the message.
        names: What a caller gave.
        allowed: What may be given.

    Raises:
        TypeError: A name is unknown or protected; the message lists those there are.
    """
    unknown = sorted(set(names).difference(allowed))
    if unknown:
        raise TypeError(f"{operation}: unknown or protected: {', '.join(unknown)}{_instead(unknown, sorted(allowed))}")


def _instead(unknown: Sequence[str], known: Sequence[str]) -> str:
    """What there is, the names that may have been meant first."""
    from difflib import get_close_matches  # noqa: PLC0415  # for mistakes only

    meant = [match for name in unknown for match in get_close_matches(name, known, n=1)]
    hint = f" (did you mean {', '.join(dict.fromkeys(meant))}?)" if meant else ""
    return f"{hint}; there are {', '.join(known)}"


def checked_items(
    operation: str, items: Iterable[Mapping[str, Any]], required: Iterable[str], allowed: Iterable[str]
) -> list[Mapping[str, Any]]:
    """Check the items of a bulk creation: each has all required names and no unknown one.

    Args:
        operation: The public method, for the message.
        items: What a caller gave.
        required: The names that each item must have.
        allowed: The names that an item may have.

    Returns:
        The items as a list.

    Raises:
        TypeError: It is no list, an item is no mapping, or a name is missing or unknown.
    """
    if not isinstance(items, Iterable):
        raise TypeError(f"{operation}: must be given a list of mappings, not {type(items).__name__}")
    checked = list(items)
    required, allowed = frozenset(required), frozenset(allowed)
    for number, item in enumerate(checked):
        if not isinstance(item, Mapping):
            raise TypeError(f"{operation}: item {number} must be a mapping, not {type(item).__name__}")
        if item.keys() - allowed or required - item.keys():
            checked_names(f"{operation}, item {number}", item, allowed)
            raise TypeError(f"{operation}: item {number} lacks {', '.join(sorted(required - item.keys()))}")
    return checked


def checked_number(name: str, value: int | None, *, least: int = 0) -> None:
    """Refuse what is no whole number from ``least``; ``None`` passes.

    Args:
        name: The parameter, for the message.
        value: What a caller gave.
        least: The smallest number that is allowed.

    Raises:
        InvalidValueError: It is something else.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_INTEGER):
        return
    raise InvalidValueError(f"{name}: must be a whole number from {least}", column=name)


def checked_flag(name: str, value: object) -> None:
    """Refuse what is neither true nor false: text such as ``"no"`` would count as true.

    Args:
        name: The parameter, for the message.
        value: What a caller gave; ``None`` is as good as ``False``.

    Raises:
        InvalidValueError: It is something else.
    """
    if value is not None and not isinstance(value, bool):
        raise InvalidValueError(f"{name}: must be True or False", column=name)


def checked_cost(name: str, value: Any) -> float:
    """Read the US dollars that a parameter gives.

    Args:
        name: The parameter, for the message.
        value: What a caller gave.

    Returns:
        The dollars, rounded to 1e-9.

    Raises:
        InvalidValueError: It is no finite number.
    """
    dollars = cost(value, name)
    if dollars is None:
        raise InvalidValueError(f"{name}: must be a finite number", column=name)
    return dollars

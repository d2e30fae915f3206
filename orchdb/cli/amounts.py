"""Amounts that add up: money in whole nano-dollars with as many digits as it takes, short counts, and bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchdb.money import NANO, nanos

if TYPE_CHECKING:
    from rich.console import Console

_PLACES = (2, 4, 6, 9)
_WIDTH = 12
_PARTS = " ▏▎▍▌▋▊▉█"
_SUMS = (
    *("prompts", "failed", "unpriced", "tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write"),
)
_MONEY = ("cost_usd", "unattributed_usd")


def summed(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of rows of usage."""
    rows = list(rows)
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in _SUMS}
    return total | {name: sum(nanos(row[name]) for row in rows) / NANO for name in _MONEY}


def digits(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many digits behind the point say all costs exactly, so that a reader can add them up."""
    amounts = [nanos(row["cost_usd"]) for row in rows]
    return next(places for places in _PLACES if all(amount % 10 ** (9 - places) == 0 for amount in amounts))


def dollars(usd: float, places: int) -> str:
    """A cost with so many digits behind the point."""
    amount = nanos(usd)
    whole, rest = divmod(abs(amount), NANO)
    return f"{'-' if amount < 0 else ''}${whole:,}.{f'{rest:09}'[:places]}"


def compact(number: int) -> str:
    """A count in at most five characters: ``947``, ``12.9k``, ``1.87M``."""
    if number < 1000:
        return str(number)
    amount, units = float(number), iter(("k", "M", "G", "T", "P", "E"))
    unit = ""
    while amount >= 999.5:
        amount, unit = amount / 1000, next(units)
    return f"{amount:.{2 if amount < 9.995 else 1 if amount < 99.95 else 0}f}{unit}"


def bar(row: Mapping[str, Any], most: int, console: Console) -> str:
    """How much a cost is of the largest one, in nano-dollars."""
    share = max(nanos(row["cost_usd"]), 0) / most if most > 0 else 0.0
    if not console.encoding.startswith("utf"):
        return "#" * round(min(share, 1) * _WIDTH)
    eighths = round(min(share, 1) * _WIDTH * 8)
    return "█" * (eighths // 8) + _PARTS[eighths % 8].strip()

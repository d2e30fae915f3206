"""The sums of usage in Python: exact, in whole numbers, and what rows are made of them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import accumulate
from operator import add, itemgetter
from typing import Any, cast

from orchdb.money import NANO
from orchdb.operations.usage_rows import UsageRow
from orchdb.operations.usage_statements import TIME_KEYS, TOKENS

PERCENTILES = (50, 90, 95, 99)
_ADDED = ("prompts", "failed", "priced", *TOKENS, "latencies", "latency_sum", "nanos", "unattributed")
_REST = ("latency_max", "first_at", "last_at")
NOTHING: Mapping[str, Any] = dict.fromkeys((*_ADDED, *_REST))
OF_TREES = "sum_"
"""What the names of figures begin with, where they stand beside the columns of agents."""
_numbers = {prefix: itemgetter(*(prefix + name for name in _ADDED)) for prefix in ("", OF_TREES)}
_others = {prefix: itemgetter(*(prefix + name for name in _REST)) for prefix in ("", OF_TREES)}
_STRETCH = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(?:([0-3])|(\d\d):(\d\d)(?:\.\d{6})?))?)?", re.ASCII)
_QUARTER = timedelta(minutes=15)


class Totals:
    """What some prompts have used together.

    Args:
        row: The row of a statement that it begins with.
        prefix: What the names of its figures begin with.

    Attributes:
        numbers: What is added up, in the order of ``_ADDED``.
        latency_max: The longest latency.
        first_at: The first time of a prompt.
        last_at: The last one.
        latencies: How many prompts have which latency, where those are told apart.
    """

    __slots__ = ("first_at", "last_at", "latencies", "latency_max", "numbers")

    def __init__(self, row: Mapping[str, Any] = NOTHING, prefix: str = "") -> None:
        numbers: Sequence[Any] = _numbers[prefix](row)
        # An agent without prompts has none of their figures.
        self.numbers: Sequence[int] = [number or 0 for number in numbers] if None in numbers else numbers
        self.latency_max, self.first_at, self.last_at = _others[prefix](row)
        counts = row.get("latency_counts")
        self.latencies: dict[int, int] = {} if counts is None else _read(counts)

    def add(self, other: Totals) -> None:
        """Add other ones."""
        self.numbers = [*map(add, self.numbers, other.numbers)]
        self.latency_max = _of_both(max, self.latency_max, other.latency_max)
        self.first_at = _of_both(min, self.first_at, other.first_at)
        self.last_at = _of_both(max, self.last_at, other.last_at)
        for latency, prompts in other.latencies.items():
            self.latencies[latency] = self.latencies.get(latency, 0) + prompts

    def is_empty(self) -> bool:
        """Whether there is neither a prompt nor a cost."""
        return not any(self.numbers)

    def nanos(self) -> int:
        """The cost in nano-dollars."""
        return self.numbers[-2] + self.numbers[-1]

    def row(self, keys: Mapping[str, Any], *, percentiles: bool = False) -> UsageRow:
        """The row that callers see."""
        prompts, failed, priced, read, written, cache_read, cache_write, latencies, milliseconds, nanos, beyond = (
            self.numbers
        )
        row: dict[str, Any] = {
            **keys,
            "prompts": prompts,
            "failed": failed,
            "unpriced": prompts - priced,
            "tokens_input": read,
            "tokens_output": written,
            "tokens_cache_read": cache_read,
            "tokens_cache_write": cache_write,
            "cost_usd": (nanos + beyond) / NANO,
            "unattributed_usd": beyond / NANO,
            "latency_ms_mean": milliseconds / latencies if latencies else None,
            "latency_ms_max": self.latency_max,
        }
        if percentiles:
            row |= self._percentiles()
        row["first_at"], row["last_at"] = self.first_at, self.last_at
        return cast(UsageRow, row)

    def _percentiles(self) -> dict[str, int | None]:
        """The smallest latencies that so many of a hundred prompts do not exceed, as ``percentile_disc`` has them."""
        ordered = sorted(self.latencies)
        so_far = [*accumulate(self.latencies[latency] for latency in ordered)]
        if not ordered:
            return {f"latency_ms_p{share}": None for share in PERCENTILES}
        return {
            f"latency_ms_p{share}": ordered[bisect_left(so_far, -(-share * so_far[-1] // 100))] for share in PERCENTILES
        }


def _read(counts: str) -> dict[int, int]:
    """How many prompts have which latency, from pairs such as ``120:3``."""
    found: dict[int, int] = {}
    for pair in counts.split(","):
        latency, _, prompts = pair.partition(":")
        found[int(latency)] = found.get(int(latency), 0) + int(prompts)
    return found


def _of_both(choose: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


def grouped(
    rows: Iterable[Mapping[str, Any]], keys: Sequence[str], zone: tzinfo, *, percentiles: bool, limit: int | None
) -> list[UsageRow]:
    """The rows of a statement as those that callers see: a row for each group, in order.

    Args:
        rows: What the statement gave.
        keys: What it is grouped by, those of time included.
        zone: Where days and hours are told.
        percentiles: Whether they are asked for.
        limit: The most groups.
    """
    groups: dict[tuple[Any, ...], Totals] = {}
    names: dict[str, str | None] = {}
    clock = _Clock(zone)
    in_time = not {*TIME_KEYS}.isdisjoint(keys)
    for row in rows:
        told = clock.with_times(row) if in_time else row
        group = tuple([told[key] for key in keys])
        totals = groups.get(group)
        if totals is None:
            groups[group] = Totals(row)
        else:
            totals.add(Totals(row))
        if "definition" in keys:
            names[row["definition"]] = row["definition_name"]
    if keys:
        groups = {group: totals for group, totals in groups.items() if not totals.is_empty()}
    elif not groups:
        groups = {(): Totals()}
    ordered = _in_order(groups, [place for place, key in enumerate(keys) if key in TIME_KEYS])[:limit]
    return [totals.row(_named(keys, group, names), percentiles=percentiles) for group, totals in ordered]


def _in_order(
    groups: Mapping[tuple[Any, ...], Totals], times: Sequence[int]
) -> Sequence[tuple[tuple[Any, ...], Totals]]:
    """Days and hours in time, then the dearest first; what costs the same by its name."""
    # Three sorts by what is cheap to compare, from the last reason to the first, are quicker than one by all of it.
    ordered = sorted(groups.items(), key=lambda item: [(key is None, key or "") for key in item[0]])
    ordered.sort(key=lambda item: item[1].nanos(), reverse=True)
    if times:
        ordered.sort(key=lambda item: [(item[0][place] is None, item[0][place] or "") for place in times])
    return ordered


def _named(keys: Sequence[str], group: tuple[Any, ...], names: Mapping[str, str | None]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for key, value in zip(keys, group, strict=True):
        named[key] = value
        if key == "definition":
            named["definition_name"] = names[value]
    return named


class _Clock:
    """The days and hours of a zone that stretches of UTC are in."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._known: dict[Any, tuple[str | None, str | None]] = {}

    def with_times(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its day and its hour."""
        stretch = row["stretch"]
        found = self._known.get(stretch)
        if found is None:
            found = self._known[stretch] = self._read(stretch)
        return {**row, "day": found[0], "hour": found[1]}

    def _read(self, stretch: Any) -> tuple[str | None, str | None]:
        moment = _beginning(stretch)
        try:
            there = moment if moment is None or self._zone is UTC else moment.astimezone(self._zone)
        except (ValueError, OverflowError):
            return None, None
        if there is None:
            return None, None
        told = there.isoformat()  # strftime leaves out the zeros before a year
        return told[:10], f"{told[:13]}:00"


def _beginning(stretch: Any) -> datetime | None:
    """When a stretch of time begins; ``None`` for a time that nobody understands."""
    told = _STRETCH.fullmatch(stretch) if isinstance(stretch, str) else None
    if told is None:
        return None
    day, hour, quarter, minute, second = told.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{hour or '00'}:00").replace(tzinfo=UTC)
        return moment + timedelta(minutes=int(minute or 0) + 15 * int(quarter or 0), seconds=int(second or 0))
    except (ValueError, OverflowError):
        return None


def hold_several_hours(rows: Iterable[Mapping[str, Any]], zone: tzinfo) -> bool:
    """Whether a quarter of an hour of UTC is in more than one hour of the zone: only long ago, and in a few zones."""
    for moment in filter(None, map(_beginning, {row["stretch"] for row in rows})):
        try:
            offset = moment.astimezone(zone).utcoffset() or timedelta()
            later = (moment + _QUARTER - timedelta.resolution).astimezone(zone).utcoffset()
        except OverflowError:
            continue
        if offset % _QUARTER or later != offset:
            return True
    return False

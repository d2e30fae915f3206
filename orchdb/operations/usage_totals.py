"""The sums of usage in Python: exact, in whole numbers, and what rows are made of them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import accumulate
from typing import Any, cast

from orchdb.operations.usage_rows import UsageRow
from orchdb.operations.usage_statements import TIME_KEYS, TOKENS

PERCENTILES = (50, 90, 95, 99)
_ADDED = ("prompts", "failed", "priced", *TOKENS, "nanos", "latencies", "latency_sum", "unattributed")
_STRETCH = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(?:([0-3])|(\d\d):\d\d\.\d{6}))?)?", re.ASCII)
NANO = 1_000_000_000


class Totals:
    """What some prompts have used together.

    Attributes:
        numbers: What is added up, in the order of ``_ADDED``.
        latency_max: The longest latency.
        first_at: The first time of a prompt.
        last_at: The last one.
        latencies: How many prompts have which latency, where those are told apart.
    """

    __slots__ = ("first_at", "last_at", "latencies", "latency_max", "numbers")

    def __init__(self) -> None:
        self.numbers = [0] * len(_ADDED)
        self.latency_max: int | None = None
        self.first_at: str | None = None
        self.last_at: str | None = None
        self.latencies: dict[int, int] = {}

    def add_row(self, row: Mapping[str, Any], prefix: str = "") -> None:
        """Add a row of a statement."""
        self.numbers = [number + (row[prefix + name] or 0) for number, name in zip(self.numbers, _ADDED, strict=True)]
        self._stretch(row[f"{prefix}latency_max"], row[f"{prefix}first_at"], row[f"{prefix}last_at"])
        latency = row.get("latency")
        if latency is not None:
            self.latencies[latency] = self.latencies.get(latency, 0) + row["prompts"]

    def add(self, other: Totals) -> None:
        """Add other ones."""
        self.numbers = [one + more for one, more in zip(self.numbers, other.numbers, strict=True)]
        self._stretch(other.latency_max, other.first_at, other.last_at)

    def _stretch(self, latency_max: int | None, first_at: str | None, last_at: str | None) -> None:
        self.latency_max = _of_both(max, self.latency_max, latency_max)
        self.first_at = _of_both(min, self.first_at, first_at)
        self.last_at = _of_both(max, self.last_at, last_at)

    def is_empty(self) -> bool:
        """Whether there is neither a prompt nor a cost."""
        return not any(self.numbers)

    def nanos(self) -> int:
        """The cost in nano-dollars."""
        found = dict(zip(_ADDED, self.numbers, strict=True))
        return found["nanos"] + found["unattributed"]

    def row(self, keys: Mapping[str, Any], *, percentiles: bool = False) -> UsageRow:
        """The row that callers see."""
        found = dict(zip(_ADDED, self.numbers, strict=True))
        row: dict[str, Any] = {
            **keys,
            "prompts": found["prompts"],
            "failed": found["failed"],
            "unpriced": found["prompts"] - found["priced"],
            **{name: found[name] for name in TOKENS},
            "cost_usd": (found["nanos"] + found["unattributed"]) / NANO,
            "unattributed_usd": found["unattributed"] / NANO,
            "latency_ms_mean": found["latency_sum"] / found["latencies"] if found["latencies"] else None,
            "latency_ms_max": self.latency_max,
        }
        if percentiles:
            row |= self._percentiles()
        row |= {"first_at": self.first_at, "last_at": self.last_at}
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
    local = _Clock(zone)
    plain = [key for key in keys if key not in TIME_KEYS]
    by_day, by_hour = ("day" in keys), ("hour" in keys)
    for row in rows:
        told = {key: row[key] for key in plain}
        if by_day or by_hour:
            told["day"], told["hour"] = local.of(row["stretch"])
        group = tuple(told[key] for key in keys)
        totals = groups.get(group)
        if totals is None:
            totals = groups[group] = Totals()
        totals.add_row(row)
        if "definition" in told:
            names[told["definition"]] = row["definition_name"]
    if keys:
        groups = {group: totals for group, totals in groups.items() if not totals.is_empty()}
    elif not groups:
        groups = {(): Totals()}
    times = [place for place, key in enumerate(keys) if key in TIME_KEYS]
    ordered = sorted(groups.items(), key=lambda item: _order(*item, times))[:limit]
    return [totals.row(_named(keys, group, names), percentiles=percentiles) for group, totals in ordered]


def _order(group: tuple[Any, ...], totals: Totals, times: Sequence[int]) -> Any:
    """Days and hours in time, then the dearest first; what costs the same by its name."""
    in_time = tuple((group[place] is None, group[place] or "") for place in times)
    return in_time, -totals.nanos(), tuple((key is None, key or "") for key in group)


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

    def of(self, stretch: Any) -> tuple[str | None, str | None]:
        """The day and the hour."""
        found = self._known.get(stretch)
        if found is None:
            found = self._known[stretch] = self._read(stretch)
        return found

    def _read(self, stretch: Any) -> tuple[str | None, str | None]:
        told = _STRETCH.fullmatch(stretch) if isinstance(stretch, str) else None
        if told is None:
            return None, None
        day, hour, quarter, minute = told.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{hour or '00'}:00").replace(tzinfo=UTC)
            moment += timedelta(minutes=int(minute or 0) + 15 * int(quarter or 0))
            there = moment if self._zone is UTC else moment.astimezone(self._zone)
        except (ValueError, OverflowError):
            return None, None
        return there.strftime("%Y-%m-%d"), there.strftime("%Y-%m-%dT%H:00")

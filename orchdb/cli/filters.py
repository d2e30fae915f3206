"""What people write for a filter, and what the library takes for it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, NamedTuple, cast

from orchdb.errors import InvalidValueError
from orchdb.rows import LOG_LEVELS, LogLevel

if TYPE_CHECKING:
    from orchdb.manager import DatabaseManager

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE)


class Levels(NamedTuple):
    """A filter for log levels: some of them, or one and all above it."""

    log_level: Sequence[LogLevel] | None
    min_level: LogLevel | None


def words(given: Iterable[str] | None) -> list[str] | None:
    """The values of an option that can be repeated, or hold several with commas; ``None`` without it."""
    if not given:
        return None
    return [word.strip() for each in given for word in each.split(",") if word.strip()]


def levels(given: Iterable[str] | None) -> Levels:
    """What ``--level`` says: ``error``, ``warning+`` for that level and above, or several.

    Raises:
        InvalidValueError: There is no such level.
    """
    found = words(given)
    if found is None:
        return Levels(None, None)
    names = [word.rstrip("+").upper() for word in found]
    for name, word in zip(names, found, strict=True):
        if name not in LOG_LEVELS:
            raise InvalidValueError(
                f"--level: {word} is not one of {', '.join(LOG_LEVELS).lower()}, or with a + behind"
            )
    chosen = cast("list[LogLevel]", names)
    lowest = min(
        (LOG_LEVELS.index(name) for name, word in zip(chosen, found, strict=True) if "+" in word), default=None
    )
    if lowest is None:
        return Levels(chosen, None)
    if len(chosen) == 1:
        return Levels(None, chosen[0])
    return Levels([level for level in LOG_LEVELS if level in chosen or LOG_LEVELS.index(level) >= lowest], None)


def when(option: str, text: str | None, *, utc: bool, zone: tzinfo | None = None) -> datetime | None:
    """The time that ``--since`` or ``--until`` says: so long ago, a day, or a time.

    A day, and a time without an offset, is meant in ``zone``, and by default in this machine's.

    Raises:
        InvalidValueError: It is none of these.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    found = None
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2].lower()]: float(ago[1])})
        where = zone or (UTC if utc else None)
        now = datetime.now(where)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        days = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
        found = days.get(text.strip().lower()) or datetime.fromisoformat(text.strip())
        if found.tzinfo is None and where is not None:
            found = found.replace(tzinfo=where)
        return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise InvalidValueError(f"{option}: must be 30m, 2h, 3d, today, yesterday or a time such as 2026-11-26T09:00")


def span(option: str, text: str | None) -> float | None:
    """The seconds that a span such as ``30m`` has.

    Raises:
        InvalidValueError: It is none.
    """
    if text is None:
        return None
    found = _AGO.fullmatch(text.strip())
    if found is None:
        raise InvalidValueError(f"{option}: must be a span such as 45s, 30m, 2h or 1d")
    return timedelta(**{_UNITS[found[2].lower()]: float(found[1])}).total_seconds()


async def sessions(db: DatabaseManager, given: Iterable[str] | None) -> list[str] | None:
    """The ids of the sessions that ``--session`` means.

    Raises:
        InvalidValueError: It is the beginning of none or of several.
    """
    from orchdb.inspection.identifiers import find_sessions

    return await _meant("--session", find_sessions, db, given)


async def agents(db: DatabaseManager, given: Iterable[str] | None) -> list[str] | None:
    """The ids of the agents that ``--agent`` means.

    Raises:
        InvalidValueError: It is the beginning of none or of several.
    """
    from orchdb.inspection.identifiers import find_agents

    return await _meant("--agent", find_agents, db, given)


async def _meant(
    option: str,
    find: Callable[[DatabaseManager, str], Awaitable[list[str]]],
    db: DatabaseManager,
    given: Iterable[str] | None,
) -> list[str] | None:
    beginnings = words(given)
    if beginnings is None:
        return None
    return [one_of(f"{option} {beginning}", await find(db, beginning)) for beginning in beginnings]


def one_of(what: str, found: Sequence[str]) -> str:
    """The only one.

    Raises:
        InvalidValueError: There is none, or there are several.
    """
    if not found:
        raise InvalidValueError(f"{what}: there is none")
    if len(found) > 1:
        raise InvalidValueError(
            f"{what}: {len(found)} begin so: {', '.join(found[:5])}{' …' if len(found) > 5 else ''}"
        )
    return found[0]

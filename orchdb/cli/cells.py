"""How a value looks to people: texts that cannot move the cursor, times in a zone, money, counts, durations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

STYLES: Mapping[str, str] = {
    "pending": "dim",
    "initializing": "dim",
    "planning": "cyan",
    "executing": "cyan",
    "reviewing": "cyan",
    "streaming": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "DEBUG": "dim",
    "INFO": "",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
    "working": "green",
    "stuck": "bold yellow",
    "stale": "bold red",
    "ok": "green",
    "note": "cyan",
    "warning": "yellow",
    "error": "bold red",
}
"""The colour that stands beside a word: a status, a level, a sign of life, the result of a check."""

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# Controls, and what turns the direction of a line, breaks it, or is half of a character.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
    "|[\U000e0000-\U000e0fff]"
)
_UNSEEN_IN_LINES = re.compile(_UNSEEN.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


# The user's name ends at the first colon; a password that was not escaped may hold whatever a URL does not.
_PASSWORD = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*:/*[^\s:/@]*:).*@|(?P<named>\bpassword\s*=\s*)[^\s&'\")]+", re.IGNORECASE
)


def without_password(text: str) -> str:
    """The text; where it holds the URL of a server, as someone typed it, with three stars for the password."""
    return _PASSWORD.sub(lambda found: f"{found['before']}***@" if found["before"] else f"{found['named']}***", text)


def visible(text: str) -> str:
    """The text in one line, with what cannot be seen, or would act on the terminal, written as an escape."""
    return _UNSEEN.sub(_escape, text)


def visible_lines(text: str) -> str:
    """The same for a text that is shown as a whole: its lines stay lines."""
    return _UNSEEN_IN_LINES.sub(_escape, text.replace("\r\n", "\n"))


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_line(value: Any) -> str:
    """The value as one line of JSON; what could act on a terminal is written as an escape, which JSON reads back."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(value, ensure_ascii=False))


def moment(text: str) -> datetime | None:
    """The time that a row holds; ``None`` if another program wrote it so that nobody understands it."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def zoned(text: str, zone: tzinfo | None) -> datetime | None:
    """The time that a row holds in a zone; in the machine's without one."""
    found = moment(text)
    try:
        return None if found is None else found.astimezone(zone)
    except (OverflowError, OSError, ValueError):  # at the ends of the calendar
        return None


def zone_of(when: datetime) -> str:
    """The zone's name, or its offset if the name says nothing."""
    name = when.tzname() or ""
    return name if name and not name.startswith(("+", "-")) else f"UTC{when:%z}"


def exact_time(text: str, zone: tzinfo | None) -> str:
    """The time with its zone, for one value on a line of its own."""
    when = zoned(text, zone)
    return visible(text) if when is None else f"{when:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f" {zone_of(when)}"


def plain_time(text: str, zone: tzinfo | None) -> str:
    """The time as ISO 8601 with its offset, for programs that read lines."""
    when = zoned(text, zone)
    return visible(text) if when is None else when.isoformat(timespec="milliseconds")


def money(dollars: float) -> str:
    """US dollars: cents, or as many digits as a small amount needs."""
    if dollars and abs(dollars) < 0.01:
        return f"${dollars:.6f}"
    return f"${dollars:,.2f}"


def duration(seconds: float) -> str:
    """A span of time in its two largest units."""
    seconds = max(seconds, 0)
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for size, name, smaller, its_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{name}{whole % size // smaller:02}{its_name}"
    return f"{whole}s"


def size(number: int) -> str:
    """Bytes in a unit that people read."""
    amount = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"

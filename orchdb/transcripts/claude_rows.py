"""What single rows and values of Claude Code's files mean."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, cast

import orjson

from orchdb import LogLevel
from orchdb.transcripts.events import Event, Fact, Line, Usage

FINAL_COUNTS_MISSING = re.compile(r"2\.1\.(29|3\d|4\d|5\d)\b")
"""The versions whose last row of a response may be a count from the middle of the stream, without a stop reason."""
TITLES = {"summary": "summary", "ai-title": "aiTitle", "custom-title": "customTitle"}
KNOWN = frozenset(
    {
        "assistant",
        "user",
        "progress",
        "system",
        "attachment",
        "summary",
        "ai-title",
        "custom-title",
        "file-history-snapshot",
        "queue-operation",
        "agent-setting",
        "pr-link",
    }
)
"""The types of rows that are understood."""
_TYPES = {"compact_boundary": "milestone", "turn_duration": "performance", "api_error": "error"}
_LEVELS: dict[str, LogLevel] = {"error": "ERROR", "warning": "WARNING", "warn": "WARNING", "debug": "DEBUG"}


def words(value: object) -> str | None:
    """Take text that is not empty; ``None`` for everything else."""
    return value if isinstance(value, str) and value else None


def dictionary(value: object) -> Mapping[str, Any]:
    """Take an object; an empty one for everything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def blocks_of(content: object) -> list[Mapping[str, Any]]:
    """Give the blocks of a message's content; text is a block by itself."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else objects(content)


def objects(value: object) -> list[Mapping[str, Any]]:
    """Take the objects of a list, an empty one for each other thing in it; nothing for what is no list."""
    return [dictionary(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def clean(word: str, most: int = 500) -> str:
    """Make a name out of text from outside: no longer than a name may be, and with nothing that no name may have."""
    return word.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")[:most]


def storable(value: Mapping[str, Any]) -> dict[str, Any]:
    """Make an object that can be stored: one whose numbers or depth no column takes is kept as text."""
    try:
        orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):
        try:
            return {"json": json.dumps(value)}
        except (TypeError, ValueError, RecursionError):
            return {"json": None}
    return dict(value)


def moment(value: object) -> str | None:
    """Take the text of a time; ``None`` for everything else."""
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    return value if 1970 < when.year < 9998 else None


def event_name(row: Mapping[str, Any]) -> str:
    """Give the name of a row: its ``uuid``, or one made of what it says, which a copy of it has too."""
    name = words(row.get("uuid"))
    if name is not None:
        return name
    try:
        said = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        said = json.dumps(row, sort_keys=True).encode()
    return "row-" + hashlib.sha256(said).hexdigest()[:32]


def mark_of(text: str) -> str:
    """Give what the beginning of a text can be known by again, and not be read from."""
    return hashlib.blake2b(text[:200].encode("utf-8", "replace"), digest_size=8).hexdigest()


def text_of(content: object) -> str:
    """Join the texts of a message's content."""
    return "\n".join(block["text"] for block in blocks_of(content) if isinstance(block.get("text"), str))


def result_text(content: object) -> str:
    """Give a tool's result as text; what is no text, by its kind."""
    texts = [(block.get("text"), block.get("type", "block")) for block in blocks_of(content)]
    return "\n".join(text if isinstance(text, str) else f"[{sort}]" for text, sort in texts)


def sort_of(given: Mapping[str, Any]) -> str:
    """Give what a tool was called for, in a line: the first short text of its input."""
    for name in ("command", "file_path", "path", "pattern", "description", "query", "url", "prompt"):
        if isinstance(given.get(name), str):
            return str(given[name])[:200]
    return ""


def counts_of(usage: object) -> Usage | None:
    """Read the tokens of a row; ``None`` where there are none, or where they are no counts."""
    given = dictionary(usage)
    if not given:
        return None
    hour = dictionary(given.get("cache_creation"))
    written = count_of(given.get("cache_creation_input_tokens"))
    parts = count_of(hour.get("ephemeral_5m_input_tokens")) + count_of(hour.get("ephemeral_1h_input_tokens"))
    searches = dictionary(given.get("server_tool_use"))
    return Usage(
        count_of(given.get("input_tokens")),
        count_of(given.get("output_tokens")),
        count_of(given.get("cache_read_input_tokens")),
        max(written, parts),
        count_of(hour.get("ephemeral_1h_input_tokens")),
        count_of(searches.get("web_search_requests")),
    )


def figures_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Take the numbers of an object, and no text, which may be anything."""
    return {name: value for name, value in values.items() if isinstance(value, (int, float))}


def count_of(value: object) -> int:
    """Take a count; nought for what is none, or what no response can have."""
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**40 else 0


def other_line(agent: str, row: Mapping[str, Any], at: str) -> Iterator[Event]:
    """Tell of a row that is no message: what the system says, titles, and whatever is not known.

    Args:
        agent: The key of the agent.
        row: The row.
        at: When.
    """
    name = words(row.get("type")) or "row"
    event_id = event_name(row)
    if name == "system":
        sort = words(row.get("subtype")) or "system"
        level = _LEVELS.get(str(row.get("level")), "INFO")
        kind = "error" if level == "ERROR" else _TYPES.get(sort, "system")
        facts = figures_of({"durationMs": row.get("durationMs"), **dictionary(row.get("compactMetadata"))})
        facts |= {key: row[key] for key in ("logicalParentUuid",) if words(row.get(key))}
        yield Line(agent, event_id, at, kind, sort, words(row.get("content")) or "", level, facts)
        return
    if name in TITLES and isinstance(row.get(TITLES[name]), str):
        title = row[TITLES[name]]
        if not (name == "summary" and "leafUuid" in row):  # it may be about another file
            yield Fact(agent, at, content={f"title_{name}": title})
        yield Line(agent, event_id, at, "title", name, title[:500], "DEBUG", content={"row": row})
        return
    importance: LogLevel = "INFO" if name in ("pr-link", "queue-operation") else "DEBUG"
    text = words(row.get("content")) or words(row.get("prUrl")) or ""
    yield Line(agent, event_id, at, name[:100], name[:100], text[:500], importance, content={"row": row})

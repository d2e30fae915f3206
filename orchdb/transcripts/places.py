"""What the place and the first rows of a transcript say: whose it is, and when it began."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from orchdb.transcripts.claude_rows import dictionary, moment, words
from orchdb.transcripts.claude_threads import Place
from orchdb.transcripts.lines import head_of, tail_of

_ROLLOUT = re.compile(r"rollout-.*?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.jsonl$")


def is_uuid(text: str) -> bool:
    """Tell whether text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return len(text) == 36


def project_key(cwd: str) -> str:
    """Make the name of a project's folder from its path, as Claude Code does.

    Args:
        cwd: The path.

    Returns:
        The path with everything but letters and digits replaced; of a long one the beginning and a hash.
    """
    name = re.sub(r"[^a-zA-Z0-9]", "-", cwd)
    if len(name) <= 200:
        return name
    number = 0
    for character in cwd:
        number = (number * 31 + ord(character)) & 0xFFFFFFFF
    number = abs(number - 2**32 if number >= 2**31 else number)
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return f"{name[:200]}-{digits or '0'}"


def claude_place(path: Path) -> Place:
    """Find out whose file it is, from where it is and from its first rows.

    Args:
        path: The file.
    """
    parts = path.parts
    agent, meta, workflow, session, folder = "", None, None, "", path.parent
    if "subagents" in parts:
        at = len(parts) - 1 - parts[::-1].index("subagents")
        session, folder = parts[at - 1], Path(*parts[: at - 1])
        workflow = parts[at + 2] if len(parts) > at + 3 and parts[at + 1] == "workflows" else None
    aside = "subagents" in parts and not path.name.startswith("agent-")
    if path.name.startswith("agent-"):
        agent = path.stem.removeprefix("agent-")
        meta = _meta(path)
    elif not session and is_uuid(path.stem):
        session = path.stem
    if session and folder.parent.name == "projects":
        return Place(folder.name, session, agent, meta, workflow, aside)
    rows = [*head_of(path)]
    if not session:
        session = next((row["sessionId"] for row in rows if words(row.get("sessionId"))), path.stem)
    cwd = next((row["cwd"] for row in rows if words(row.get("cwd"))), None)
    in_place = folder.parent.name == "projects"
    return Place(project_key(cwd) if cwd and not in_place else folder.name, session, agent, meta, workflow, aside)


def _meta(path: Path) -> Mapping[str, Any] | None:
    try:
        return dictionary(orjson.loads(path.with_name(f"{path.stem}.meta.json").read_bytes())) or None
    except (OSError, ValueError):
        return None


def begin_of(path: Path, session: str | None = None) -> tuple[str, str, str]:
    """Find when a transcript began, when its session's own part began, and when it ended; text that sorts.

    Args:
        path: The file.
        session: The session; rows of another one are copies.
    """
    rows = head_of(path)
    times = [(found, row) for row in rows if (found := moment(row.get("timestamp")))]
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    first = times[0][0] if times else written
    last = max((found for row in tail_of(path) if (found := moment(row.get("timestamp")))), default=first)
    own = next((found for found, row in times if session is None or not _copied(row, session)), last)
    return first, own, last


def _copied(row: Mapping[str, Any], session: str) -> bool:
    return "forkedFrom" in row or (row.get("sessionId") or session) != session


def thread_of(path: Path) -> str | None:
    """Find the id that stands in the name of a Codex rollout."""
    found = _ROLLOUT.search(path.name)
    return found.group(1) if found else None


def fingerprint(path: Path, size: int) -> str:
    """Tell a file that has grown from another one of the same name: a hash of its beginning.

    Args:
        path: The file.
        size: How much of it was read before.
    """
    with path.open("rb") as file:
        return hashlib.sha256(file.read(min(size, 4096))).hexdigest()[:16]

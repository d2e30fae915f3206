"""Whose rollouts of Codex they are, and what the copy of a thread is told by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from orchdb.transcripts.claude_rows import dictionary, words
from orchdb.transcripts.lines import head_of, rows_of

_COPIED = ("response_item", "event_msg", "compacted")


class Identity(NamedTuple):
    """Whose rollout it is.

    Attributes:
        thread: Its id.
        session: The id of the session: of a sub-agent, the thread that started it.
        project: The folder that it works in.
        parent: The thread that started it, of a sub-agent.
        copied_from: The thread whose history it begins with.
        kind: What kind of sub-agent.
        facts: What else is known.
    """

    thread: str
    session: str
    project: str
    parent: str | None
    copied_from: str | None
    kind: str | None
    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """The key of the agent."""
        return f"codex/{self.thread}"


def identity_of(path: Path) -> Identity:
    """Find out whose rollout it is, from its first row.

    Args:
        path: The file.
    """
    meta = dictionary(next((row.get("payload") for row in head_of(path) if row.get("type") == "session_meta"), None))
    thread = words(meta.get("id")) or path.stem
    spawn = dictionary(dictionary(dictionary(meta.get("source")).get("subagent")).get("thread_spawn"))
    parent, forked = words(spawn.get("parent_thread_id")), words(meta.get("forked_from_id"))
    facts = {
        name: meta[name] for name in ("cwd", "originator", "cli_version", "model_provider") if words(meta.get(name))
    }
    branch = dictionary(meta.get("git")).get("branch")
    facts |= {"git_branch": branch} if words(branch) else {}
    facts |= {name: spawn[name] for name in ("depth", "agent_path", "agent_nickname", "agent_role") if spawn.get(name)}
    facts |= {"forked_from": forked} if forked else {}
    kind = words(spawn.get("agent_role")) if parent else ""
    if dictionary(meta.get("source")).get("subagent") and not parent:
        kind = "subagent"
    return Identity(thread, parent or thread, words(meta.get("cwd")) or "", parent, parent or forked, kind, facts)


def fingerprints(path: Path) -> list[bytes]:
    """Give a hash of each row of a thread, without its time: what a copy of it is told by.

    Args:
        path: The file.
    """
    return [mark for row in rows_of(path, 0) if row.value is not None and (mark := mark_of(row.value))]


def mark_of(row: Mapping[str, Any]) -> bytes:
    """Give the hash of a row without its time; nothing for a row that is written anew in a copy."""
    if row.get("type") not in _COPIED:
        return b""
    text = orjson.dumps([row["type"], row.get("payload")], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=8).digest()

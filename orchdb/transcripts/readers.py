"""What a reader has to be able to do, and which one reads which file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from orchdb.transcripts.claude_code import ClaudeCodeReader
from orchdb.transcripts.claude_rows import KNOWN, dictionary
from orchdb.transcripts.claude_threads import Place
from orchdb.transcripts.codex import ENDED, KNOWN_ITEMS, CodexReader
from orchdb.transcripts.codex_threads import Identity, fingerprints, identity_of
from orchdb.transcripts.events import Event, Restart
from orchdb.transcripts.files import Transcript
from orchdb.transcripts.lines import shown
from orchdb.transcripts.places import begin_of, claude_place, thread_of
from orchdb.transcripts.swe_agent import SweAgentReader, run_of


class Reader(Protocol):
    """Reads the rows of one file, in order, and tells what they say.

    Attributes:
        source: The format.
    """

    source: str

    @property
    def key(self) -> str:
        """The key of the agent whose file it is."""
        ...

    def begin(self) -> Iterator[Event]:
        """Tell whose file it is."""
        ...

    def read(self, row: Mapping[str, Any], offset: int, end: int) -> Iterator[Event]:
        """Tell what a row says."""
        ...

    def finish(self) -> Iterator[Event]:
        """Tell what is open, as far as it has come."""
        ...

    def restart(self) -> Restart:
        """Say where a later reader has to begin."""
        ...


class Job:
    """A file that is to be read, and whose it is.

    Args:
        transcript: The file.
        rollouts: The files of Codex by the ids of their threads.
    """

    def __init__(self, transcript: Transcript, rollouts: Mapping[str, Path]) -> None:
        self.transcript = transcript
        self.path = transcript.path
        self.name = shown(transcript.path)
        self.source = transcript.source
        self._rollouts = rollouts
        self.place: Place | None = None
        if self.source == "claude":
            self.place = claude_place(self.path)
            self.owner, self.session = self.place.key(), self.place.session
        elif self.source == "codex":
            self.identity = _in_session(identity_of(self.path), rollouts)
            self.owner, self.session = self.identity.key, self.identity.session
        else:
            self.run = run_of(self.path)
            self.owner, self.session = self.run.key, self.run.session

    def order(self) -> tuple[str, str, str]:
        """When its own part began and when it ended, and its name: what is copied belongs to the earliest."""
        _, own, last = begin_of(self.path, self.session if self.source == "claude" else None)
        return own, last, str(self.path)

    def reader(self, state: Mapping[str, Any] | None) -> Reader:
        """Make its reader.

        Args:
            state: What an earlier one left.
        """
        if self.source == "swe":
            return SweAgentReader(self.run)
        at = "" if state else begin_of(self.path)[0]
        if self.place is not None:
            return ClaudeCodeReader(self.place, state, at)
        other = self._above(self.identity.copied_from)
        in_copy = other is not None and (state or {}).get("next", 0) < ENDED
        return CodexReader(self.identity, state, at, fingerprints(other) if other is not None and in_copy else [])

    def _above(self, thread: str | None) -> Path | None:
        """The file of the thread that this one begins with a copy of, wherever Codex keeps it."""
        if thread is None or thread in self._rollouts:
            return self._rollouts.get(thread or "")
        for folder in self.path.parents:
            if folder.name in ("sessions", "archived_sessions"):
                places = (folder.parent / name for name in ("sessions", "archived_sessions"))
                return next((path for place in places for path in place.rglob(f"rollout-*-{thread}.jsonl")), None)
        return None


def _in_session(identity: Identity, rollouts: Mapping[str, Path]) -> Identity:
    """A sub-agent's session is that of the first thread above it."""
    above, met = identity.parent, {identity.thread}
    while above is not None and above in rollouts and above not in met:
        met.add(above)
        other = identity_of(rollouts[above])
        identity, above = identity._replace(session=other.session), other.parent
    return identity


def rollouts_of(transcripts: list[Transcript]) -> dict[str, Path]:
    """Find the files of Codex by the ids of their threads, also those beside the ones that were asked for."""
    found: dict[str, Path] = {}
    folders = {transcript.path.parent for transcript in transcripts if transcript.source == "codex"}
    for folder in folders:
        for path in folder.glob("rollout-*.jsonl"):
            thread = thread_of(path)
            if thread:
                found[thread] = path
    for transcript in transcripts:
        thread = thread_of(transcript.path) if transcript.source == "codex" else None
        if thread:
            found[thread] = transcript.path
    return found


def sort_of_row(source: str, row: Mapping[str, Any]) -> tuple[str, bool]:
    """Give the type of a row, and whether it is known."""
    name = row.get("type")
    if source == "swe":
        return "trajectory", True
    if source == "claude":
        return str(name)[:100], name in KNOWN if isinstance(name, str) else False
    inner = dictionary(row.get("payload")).get("type")
    sort = f"{name}/{inner}" if inner else str(name)
    return sort[:100], sort in KNOWN_ITEMS

"""Whose rows of Claude Code's they are: the place of a file, and the threads of rows in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchdb.transcripts.events import Response

MOST_GIVEN = 16_000_000
"""Characters that are kept of what a model is given at once; more fits no column."""
STALE = 5000
"""Rows after which an exchange that nothing was added to is taken for finished."""


class Place(NamedTuple):
    """What a file's place says of it.

    Attributes:
        project: The project's key, the name of its folder.
        session: The id of the session.
        agent: The id of the sub-agent that the file belongs to; ``""`` for the session's own file.
        meta: What the file beside a sub-agent's says of it.
        workflow: The run of a workflow that it is part of.
        aside: Whether it is about the session without being its own file, as the journal of a workflow is.
    """

    project: str
    session: str
    agent: str = ""
    meta: Mapping[str, Any] | None = None
    workflow: str | None = None
    aside: bool = False

    def key(self, agent: str | None = None) -> str:
        """Give the key of this agent, or of another one of the session."""
        name = self.agent if agent is None else agent
        return "/".join(("claude", self.project, self.session, name))


@dataclass
class OpenResponse:
    """A response that more rows may belong to."""

    response: Response
    offset: int
    last_row: int
    uuids: set[str]


@dataclass
class Thread:
    """One agent's rows: its own file, or a side chain in the session's."""

    agent: str
    pending: list[str] = field(default_factory=lambda: list[str]())
    given: int = 0
    asked: bool = False
    pending_from: int | None = None
    last_row: int = 0
    open: OpenResponse | None = None
    recent: OrderedDict[str, None] = field(default_factory=lambda: OrderedDict[str, None]())
    begin: int = 0

    def give(self, text: str, offset: int, *, asked: bool) -> None:
        self.asked = self.asked or asked
        if self.pending_from is None:
            self.pending_from = offset
        kept = text[: max(MOST_GIVEN - self.given, 0)]
        self.given += len(kept)
        self.pending.append(kept)

    def restart(self, end: int, row: int) -> int:
        """Where this thread is to be read from again."""
        places = [] if self.pending_from is None else [self.pending_from]
        if self.open is not None:
            places.append(self.open.offset)
        return end if row - self.last_row > STALE else min(places, default=end)

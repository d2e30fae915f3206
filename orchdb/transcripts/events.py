"""What every reader says of a recorded run, whatever its format: agents, responses, lines, and what was counted.

An agent is named by a ``key``, text that is the same wherever it is met; the ids of rows are made from such names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from orchdb import LogLevel

OWN_FILE = 9
"""Evidence of where an agent belongs: it has a file of its own, which says nothing of it; lower numbers are better."""
PLACEHOLDER = 10
"""Evidence that there is such an agent, and nothing else: somebody calls it the one above."""


class Usage(NamedTuple):
    """The tokens of one response, none of which is part of another, but for the last.

    Attributes:
        tokens_input: Read afresh.
        tokens_output: Written.
        tokens_cache_read: Read from the provider's cache.
        tokens_cache_write: Written to it, in all.
        tokens_cache_write_1h: The part of these that is kept for an hour, at a higher price.
        web_searches: Searches that the provider made.
    """

    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cache_read: int = 0
    tokens_cache_write: int = 0
    tokens_cache_write_1h: int = 0
    web_searches: int = 0


@dataclass(slots=True)
class AgentSeen:
    """There is an agent, and this is known of it.

    Attributes:
        key: What it is called.
        session: The session that it belongs to.
        project: The project that it works on.
        kind: What sort of agent; ``""`` for a session's own, ``None`` if this evidence does not tell.
        parent: The key of the agent above it; ``None`` for a session's own.
        evidence: How good the evidence for ``parent`` and ``kind`` is: lower is better.
        at: When it began, or when it was first heard of.
        own: Whether ``at`` is from its own transcript, and so the true beginning.
        facts: What else is known: names, numbers and places.
        only_if_known: Whether it is to be left out where nobody else knows of such an agent.
    """

    key: str
    session: str
    project: str
    kind: str | None
    parent: str | None
    evidence: int
    at: str
    own: bool = False
    facts: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    only_if_known: bool = False


@dataclass(slots=True)
class Response:
    """One answer of a model: what it was newly given, what it said, what it cost.

    Attributes:
        agent: The key of the agent that asked.
        key: What the source calls the response, wherever it is copied to.
        at: When its first part came.
        ended: When its last part came.
        model: The model that answered, if the source tells.
        given: The texts that the model was newly given.
        answer: The texts that it answered.
        usage: Its tokens; ``None`` if the source does not tell.
        raw_usage: The usage in the source's own words.
        kind: The ``prompt_type``.
        first: Where its first part stands: so one that is read from its middle can be told from a whole one.
        status: How it ended.
        facts: What else is known, and no text.
        reported_cost: US dollars, if the source tells.
        whole: Whether all parts were seen from the first on.
    """

    agent: str
    key: str
    at: str
    ended: str
    model: str | None
    given: list[str]
    answer: list[str]
    usage: Usage | None
    raw_usage: Mapping[str, Any] | None
    kind: str
    first: str
    status: Literal["completed", "failed", "cancelled"] = "completed"
    facts: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    reported_cost: float | None = None
    whole: bool = True


@dataclass(slots=True)
class Line:
    """Something that happened to an agent.

    Attributes:
        agent: The key of the agent.
        event_id: What the source calls it, wherever it is copied to.
        at: When.
        type: The ``log_type``.
        label: What it is, in names only.
        text: What was said, if anything.
        level: The ``log_level``.
        facts: Names and numbers.
        content: Contents.
    """

    agent: str
    event_id: str
    at: str
    type: str
    label: str
    text: str = ""
    level: LogLevel = "INFO"
    facts: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    content: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())


@dataclass(slots=True)
class Fact:
    """Something about an agent as a whole, of which the last one counts.

    Attributes:
        agent: The key of the agent.
        facts: Names, numbers and places.
        content: Contents, such as titles.
        at: When it was the case.
    """

    agent: str
    at: str
    facts: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    content: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())


class Counted(NamedTuple):
    """A row that carries usage, as somebody who counts rows would count it.

    Attributes:
        model: The model.
        usage: The tokens that the row tells.
        at: When.
        cost: US dollars, if the source tells.
        copied: Whether the row is a copy of another session's.
    """

    model: str
    usage: Usage
    at: str
    cost: float | None = None
    copied: bool = False


Event = AgentSeen | Response | Line | Fact | Counted


class Restart(NamedTuple):
    """Where a reader that is started later has to begin, to understand what comes then.

    Attributes:
        offset: The first byte, or the first number, to read again.
        state: What it has to know; JSON.
    """

    offset: int
    state: dict[str, Any]

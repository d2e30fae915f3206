"""The one mapping of neutral events to rows: which row an event is, and what stands in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid5

from orchdb import NewAgentLog, NewPrompt, prices
from orchdb.transcripts.claude_rows import clean, storable
from orchdb.transcripts.events import AgentSeen, Line, Response, Usage

_NAMES = UUID("6f0b5f5e-3a51-5b0e-9c7e-0d5d0a4f2c11")
"""Of this and the source's own names the ids are made, so that they are the same wherever a file is imported."""
SOURCES = {"claude": "Claude Code", "codex": "Codex", "swe": "SWE-agent"}
_MOST = 400
_LONGEST = 16_000_000
"""Characters of a text: four bytes each fit every column."""


def row_id(table: str, name: str) -> str:
    """Make the id of a row from what the source calls it.

    Args:
        table: The table.
        name: The name.

    Returns:
        A UUID of version 5.
    """
    return str(uuid5(_NAMES, clean(f"{table}\n{name}", len(name) + 100)))


def agent_id(key: str) -> str:
    """Make the id of an agent from its key."""
    return row_id("agents", key)


def prompt_id(source: str, key: str) -> str:
    """Make the id of a prompt from what the source calls the response."""
    return row_id("prompts", f"{source}/{key}")


def definition_of(source: str, seen: AgentSeen) -> dict[str, Any]:
    """Make the definition that an agent is an instance of: one for each kind of agent of each project.

    Args:
        source: The format.
        seen: The agent.

    Returns:
        The arguments of ``create_orchestrator_agent``.
    """
    kind = "subagent" if seen.kind is None else seen.kind
    name = _cut(":".join(part for part in (source, seen.project, kind) if part))
    return {
        "id": row_id("orchestrator_agents", f"{source}/{seen.project}/{kind}"),
        "name": name,
        "description": f"Recorded by {SOURCES[source]}.",
        "agent_type": _cut(kind or "orchestrator"),
        "metadata": {"source": source, "project": seen.project, "kind": kind or "session"},
    }


def _cut(word: str) -> str:
    """Of a long word the beginning, and a hash of the rest."""
    word = clean(word, len(word))
    if len(word) <= _MOST and len(word.encode("utf-8", "replace")) <= _MOST * 4:
        return word
    return f"{word[: _MOST - 17]}-{hashlib.sha256(word.encode('utf-8', 'replace')).hexdigest()[:16]}"


class Prices:
    """What responses cost, by the list of prices; nothing where it cannot be told.

    Args:
        cost_of: Prices one request; by default ``orchdb.prices.cost_of``.
    """

    def __init__(self, cost_of: Callable[..., float] | None = None) -> None:
        self._cost_of = cost_of or prices.cost_of
        self.missing = False
        self.unknown: set[str] = set()
        self._remembered: dict[tuple[str, Usage], float] = {}

    def price(self, model: str | None, usage: Usage | None, at: str) -> float | None:
        """Price one response; ``None`` for a model that the list does not have, or without the list."""
        if not model or usage is None or model in self.unknown or self.missing:
            return None
        key = (model + at[:13], usage)
        known = self._remembered.get(key)
        if known is None:
            try:
                known = self._cost_of(model, usage._asdict(), at=at)
            except LookupError:
                self.unknown.add(model)
                return None
            except ImportError:
                self.missing = True
                return None
            if len(self._remembered) > 10_000:
                self._remembered.clear()
            self._remembered[key] = known
        return known

    def name(self) -> str | None:
        """The name of the list; ``None`` without one."""
        return None if self.missing else prices.price_list()


class RowMapping:
    """Makes rows of events.

    Args:
        source: The format.
        content: Whether texts are kept: prompts, answers, and what tools were given and gave.
        prices: What responses cost.
    """

    def __init__(self, source: str, *, content: bool, prices: Prices) -> None:
        self.source = source
        self.content = content
        self.prices = prices

    def cost(self, response: Response) -> float | None:
        """The cost of a response: as the source reports it, or else by the list of prices."""
        if response.reported_cost is not None:
            return response.reported_cost
        return self.prices.price(response.model, response.usage, response.at)

    def prompt(self, response: Response) -> NewPrompt:
        """Make the row of a response."""
        usage = response.usage
        answer = "\n".join(response.answer)[:_LONGEST] if response.answer else None
        return {
            "id": prompt_id(self.source, response.key),
            "agent_id": agent_id(response.agent),
            "prompt_type": response.kind,
            "prompt_text": "\n\n".join(response.given)[:_LONGEST] if self.content else "",
            "response_text": answer if self.content else None,
            "status": response.status,
            "model_used": response.model and clean(response.model),
            "tokens_input": usage and usage.tokens_input,
            "tokens_output": usage and usage.tokens_output,
            "tokens_cache_read": usage and usage.tokens_cache_read,
            "tokens_cache_write": usage and usage.tokens_cache_write,
            "cost_usd": self.cost(response),
            "created_at": response.at,
            "completed_at": response.ended,
            "metadata": self.metadata(response),
        }

    def metadata(self, response: Response) -> dict[str, Any]:
        """What is kept of a response beside its columns: the source's own usage, and how it was priced."""
        priced = "reported" if response.reported_cost is not None else None
        if priced is None and self.cost(response) is not None:
            priced = self.prices.name()
        return {
            "source": self.source,
            "response": response.key,
            "first": response.first,
            "usage": None if response.raw_usage is None else storable(response.raw_usage),
            "price_list": priced,
            **self._parts(response.usage),
            **response.facts,
        }

    @staticmethod
    def _parts(usage: Usage | None) -> dict[str, int]:
        """What has a price of its own and no column."""
        parts = () if usage is None else ("tokens_cache_write_1h", "web_searches")
        return {name: getattr(usage, name) for name in parts if getattr(usage, name)}

    def line(self, line: Line) -> NewAgentLog:
        """Make the row of a line."""
        details: Mapping[str, Any] = line.facts | line.content if self.content else line.facts
        message = f"{line.label}: {line.text}" if self.content and line.text else line.label
        return {
            "agent_id": agent_id(line.agent),
            "log_level": line.level,
            "log_type": clean(line.type),
            "message": message,
            "details": storable(details) or None,
            "event_id": clean(f"{self.source}:{line.event_id}"),
            "created_at": line.at,
        }

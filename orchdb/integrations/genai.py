"""What spans of the GenAI conventions of OpenTelemetry say, under whatever name they say it.

The conventions are in development, and names change: they are in the tables at the top, the newest first, and nowhere
else. No dependency: spans that are recorded live and those of a file are read alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from orchdb.prices import cost_of, price_list

NAMES: Mapping[str, tuple[str, ...]] = {
    "operation": ("gen_ai.operation.name",),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "model": ("gen_ai.response.model", "gen_ai.request.model"),
    "response_id": ("gen_ai.response.id",),
    "finish_reasons": ("gen_ai.response.finish_reasons",),
    "conversation": ("gen_ai.conversation.id",),
    "agent_name": ("gen_ai.agent.name", "agent_name"),
    "agent_id": ("gen_ai.agent.id",),
    "agent_description": ("gen_ai.agent.description",),
    "agent_version": ("gen_ai.agent.version",),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read_tokens": ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.details.cache_read_tokens"),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
    ),
    "cost": ("gen_ai.usage.cost.amount", "operation.cost"),
    "tool_name": ("gen_ai.tool.name",),
    "tool_call_id": ("gen_ai.tool.call.id",),
    "tool_arguments": ("gen_ai.tool.call.arguments", "tool_arguments"),
    "tool_result": ("gen_ai.tool.call.result", "tool_response"),
    "input_messages": ("gen_ai.input.messages",),
    "output_messages": ("gen_ai.output.messages",),
    "system_instructions": ("gen_ai.system_instructions",),
    "error_type": ("error.type",),
    "span_kind": ("traceloop.span.kind",),
    # What orchdb's own export says beside the conventions, so that its import gives the same rows again.
    "own_id": ("orchdb.id",),
    "own_status": ("orchdb.status",),
    "own_log": ("orchdb.log_id",),
    "prompt_type": ("orchdb.prompt_type",),
    "prompt_name": ("orchdb.prompt_name",),
    "unattributed": ("orchdb.unattributed_usd",),
}
"""What is read, and the attributes that say it."""

CONTENT = ("input_messages", "output_messages", "system_instructions", "tool_arguments", "tool_result")
"""Those of them that hold what models and tools were given and gave."""

KINDS: Mapping[str, str] = {
    "invoke_agent": "agent",
    "chat": "inference",
    "generate_content": "inference",
    "text_completion": "inference",
    "embeddings": "inference",
    "execute_tool": "tool",
    "invoke_workflow": "group",
}
"""What a span is, by its operation; each other span only stands between others."""

_CANCELLATIONS = frozenset({"CancelledError", "asyncio.exceptions.CancelledError", "asyncio.CancelledError"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Seen:
    """A span, from wherever it comes.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them.
        parent_id: Those of the span around it; ``None`` for one at the root.
        name: What it is called.
        started: When it began, in nanoseconds since 1970.
        ended: When it ended, likewise; ``None`` while it has not.
        attributes: What it says.
        failure: The description of its status, if that is an error; may be empty.
        exceptions: The attributes of the exceptions that it recorded.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    started: int
    ended: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any]())
    failure: str | None = None
    exceptions: Sequence[Mapping[str, Any]] = ()

    def get(self, what: str) -> Any:
        """What the span says of this, by the table of names; ``None`` if nothing."""
        for name in NAMES[what]:
            found = self.attributes.get(name)
            if found is not None:
                return found
        return None

    @property
    def operation(self) -> str:
        """The operation; some say it only by the name of the span until they end."""
        return str(self.get("operation") or self.name.partition(" ")[0])

    @property
    def kind(self) -> str | None:
        """What it is: ``agent``, ``inference``, ``tool``, ``group``; or nothing to us."""
        kind = KINDS.get(self.operation)
        # Some say of a crew and of its tasks that they are agents, too.
        return "group" if kind == "agent" and self.get("span_kind") in {"workflow", "task"} else kind

    @property
    def subject(self) -> str:
        """The rest of its name: that of the agent, the model or the tool."""
        return self.name.partition(" ")[2]

    @property
    def status(self) -> Any:
        """How it ended: ``completed``, ``failed`` or ``cancelled``."""
        if self.get("own_status") in {"completed", "failed", "cancelled"}:
            return self.get("own_status")
        kinds = {str(each.get("exception.type")) for each in self.exceptions} | {str(self.get("error_type"))}
        if kinds & _CANCELLATIONS:
            return "cancelled"
        return "completed" if self.failure is None else "failed"

    @property
    def error_message(self) -> str | None:
        """What went wrong; ``None`` if nothing did."""
        if self.status != "failed":
            return None
        for each in self.exceptions:
            kind, text = each.get("exception.type"), each.get("exception.message")
            if kind or text:
                return ": ".join(str(part) for part in (kind, text) if part)
        return self.failure or str(self.get("error_type") or "failed")

    @property
    def latency_ms(self) -> int | None:
        """How long it took."""
        return None if self.ended is None else max(round((self.ended - self.started) / 1e6), 0)

    def tokens(self) -> dict[str, int | None]:
        """Its usage, by columns; what is unknown is ``None``."""
        counts = {name: _count(self.get(f"{name}_tokens")) for name in ("input", "output", "cache_read", "cache_write")}
        given, read, write = counts["input"], counts["cache_read"] or 0, counts["cache_write"] or 0
        return {
            # The count of the conventions has what came from the cache and went into it.
            "tokens_input": None if given is None else max(given - read - write, 0),
            "tokens_output": counts["output"],
            "tokens_cache_read": None if given is None else read,
            "tokens_cache_write": None if given is None else write,
        }

    def cost(self) -> tuple[float | None, str | None]:
        """What it cost, and by whose word; ``None`` if nobody knows."""
        reported = self.get("cost")
        if isinstance(reported, (int, float)) and not isinstance(reported, bool) and 0 <= reported < math.inf:
            return float(reported), "reported"
        model, tokens = self.get("model"), self.tokens()
        if not model or tokens["tokens_input"] is None:
            return None, None
        try:
            counts = {name: count or 0 for name, count in tokens.items()}
            return cost_of(str(model), counts, at=moment(self.started)), price_list()
        except (ImportError, LookupError):  # without the extra, or a model that is in no list: nothing is guessed
            return None, None


def moment(nanoseconds: int) -> datetime:
    """The time so many nanoseconds after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        return None
    return int(value)


def parsed(value: Any) -> Any:
    """What an attribute holds: a structure, mostly as the text of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def asked(span: Seen) -> tuple[str, str]:
    """What the model was newly given, and what kind of prompt that is.

    Each span repeats the whole conversation: new is what comes after the model's last answer in it.
    """
    messages = _messages(span.get("input_messages"))
    answers = [number for number, message in enumerate(messages) if message.get("role") == "assistant"]
    new = messages[answers[-1] + 1 :] if answers else messages
    texts = [_text_of(message) for message in new]
    if not answers:
        texts.insert(0, _text_of({"parts": parsed(span.get("system_instructions"))}))
    if span.operation == "embeddings":
        kind = "embeddings"
    elif not answers:
        kind = "command"
    else:
        parts = [part for message in new for part in _parts(message)]
        returned = [part for part in parts if part.get("type") == "tool_call_response"]
        kind = "tool_call" if parts and len(returned) == len(parts) else "followup"
    return "\n\n".join(filter(None, texts)), kind


def answered(span: Seen) -> str | None:
    """What the model answered; ``None`` where the span does not say it."""
    messages = _messages(span.get("output_messages"))
    return "\n\n".join(filter(None, map(_text_of, messages))) if messages else None


def _messages(value: Any) -> list[Mapping[str, Any]]:
    return _mappings(parsed(value))


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [cast("Mapping[str, Any]", value)]
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        return []
    return [cast("Mapping[str, Any]", each) for each in cast("Iterable[object]", value) if isinstance(each, Mapping)]


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _mappings(message.get("parts"))


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    texts = [content] if isinstance(content, str) else []
    return "\n\n".join(filter(None, [*texts, *map(_text_of_part, _parts(message))]))


def _text_of_part(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind == "tool_call":
        return f"{part.get('name')}({_told(part.get('arguments'))})"
    if kind == "tool_call_response":
        return _told(next((part[key] for key in ("result", "response") if part.get(key) is not None), None))
    content = part.get("content")
    return content if isinstance(content, str) else _told({k: v for k, v in part.items() if k != "type"})


def _told(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

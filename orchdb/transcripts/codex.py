"""Codex: rows of a rollout to neutral events.

A response is what stands between two counts of tokens; each count is written twice. A fork and a sub-agent begin with
a copy of the history of the thread that they come from, under new times, which is skipped.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from orchdb.transcripts.claude_rows import count_of, dictionary, moment, text_of, words
from orchdb.transcripts.codex_threads import Identity, mark_of
from orchdb.transcripts.events import (
    OWN_FILE,
    PLACEHOLDER,
    AgentSeen,
    Counted,
    Event,
    Line,
    Response,
    Restart,
    Usage,
)

_ITEMS = (
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "web_search_call",
    "local_shell_call",
    "ghost_snapshot",
)
_EVENTS = (
    "task_started",
    "task_complete",
    "turn_aborted",
    "user_message",
    "agent_message",
    "agent_reasoning",
    "token_count",
    "collab_agent_spawn_end",
    "context_compacted",
    "error",
)
KNOWN_ITEMS = frozenset(
    {"session_meta", "turn_context", "compacted"}
    | {f"response_item/{name}" for name in _ITEMS}
    | {f"event_msg/{name}" for name in _EVENTS}
)
_CALLS = ("function_call", "custom_tool_call", "web_search_call", "local_shell_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_OF_SPAWNED = ("call_id", "sender_thread_id", "new_thread_id", "new_agent_nickname", "new_agent_role", "model")
ENDED = 2**31
"""Where the copy stands that a thread begins with, once it has ended."""
_AHEAD = 50
"""Rows of the thread above that a copy may have left out in one place."""


class CodexReader:
    """Reads the rows of one rollout, in order.

    Args:
        identity: Whose it is.
        state: What an earlier reader left in ``restart``; ``None`` at the beginning.
        at: When the file was begun.
        above: The hashes of the rows that it may begin with a copy of.
    """

    source = "codex"

    def __init__(self, identity: Identity, state: Mapping[str, Any] | None, at: str, above: Sequence[bytes]) -> None:
        self._first = not state
        state = state or {}
        self._identity = identity
        self._at: str = state.get("at", at)
        self._above: Sequence[bytes] = above
        self._next: int = state.get("next", 0)
        self._model: str | None = state.get("model")
        self._number: int = state.get("responses", 0)
        self._last: Any = state.get("last")
        self._begin: int | None = None
        self._end = 0
        self._given: list[str] = []
        self._later: list[str] = []
        self._later_from: int | None = None
        self._asked = self._later_asked = False
        self._answer: list[str] = []
        self._answered = False
        self._started: str | None = None
        self._texts: deque[tuple[str, ...]] = deque(map(tuple, state.get("texts", ())), maxlen=4)
        self._texts_before = [*self._texts]

    @property
    def key(self) -> str:
        """The key of the agent whose file it is."""
        return self._identity.key

    def begin(self) -> Iterator[Event]:
        """Tell whose file it is."""
        who = self._identity
        if who.parent is None:
            yield AgentSeen(
                who.key, who.session, who.project, who.kind, None, OWN_FILE, self._at, self._first, who.facts
            )
            return
        above = f"codex/{who.parent}"
        yield AgentSeen(above, who.session, who.project, "", None, PLACEHOLDER, self._at)
        yield AgentSeen(who.key, who.session, who.project, who.kind, above, OWN_FILE, self._at, self._first, who.facts)

    def read(self, row: Mapping[str, Any], offset: int, end: int) -> Iterator[Event]:
        """Tell what a row says.

        Args:
            row: The row.
            offset: Where it begins.
            end: Where the next one begins.
        """
        self._end = end
        self._at = moment(row.get("timestamp")) or self._at
        name, payload = row.get("type"), dictionary(row.get("payload"))
        if self._is_copy(row):
            if payload.get("type") == "token_count":
                yield from self._inherited(payload)
            return
        if name == "turn_context":
            self._model = words(payload.get("model")) or self._model
        elif name == "response_item":
            yield from self._item(payload, offset)
        elif name == "event_msg":
            yield from self._event(payload, offset)
        elif name != "session_meta":
            yield self._line(str(name)[:100], str(name)[:100], offset, level="DEBUG", content={"row": dict(row)})

    def finish(self) -> Iterator[Event]:
        """Tell nothing: a response has its tokens, or is not there yet."""
        yield from ()

    def restart(self) -> Restart:
        """Say where a later reader has to begin."""
        places = [place for place in (self._begin, self._later_from) if place is not None]
        state = {
            "at": self._at,
            "model": self._model,
            "responses": self._number,
            "last": self._last,
            "texts": [[*text] for text in (self._texts_before if places else self._texts)],
            "next": self._next if self._next < len(self._above) else ENDED,
        }
        return Restart(min(places, default=self._end), state)

    def _is_copy(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is still of the copied beginning, which ends with the first row that the other has not."""
        if self._next >= len(self._above):
            return False
        mark = mark_of(row)
        if not mark:
            return False
        for place in range(self._next, min(self._next + _AHEAD, len(self._above))):
            if self._above[place] == mark:
                self._next = place + 1
                return True
        self._next = len(self._above)
        return False

    def _inherited(self, payload: Mapping[str, Any]) -> Iterator[Event]:
        info = dictionary(payload.get("info"))
        usage = _usage(info.get("last_token_usage"))
        counts = [info.get("last_token_usage"), info.get("total_token_usage")]
        if usage is not None and any(usage):
            yield Counted(self._model or "", usage, self._at, copied=counts != self._last)
        self._last = counts

    def _item(self, payload: Mapping[str, Any], offset: int) -> Iterator[Event]:
        sort = payload.get("type")
        if sort == "message":
            text = text_of(payload.get("content"))
            role = words(payload.get("role")) or "user"
            if self._is_paired(role, text, "item"):
                return
            if role == "assistant":
                self._say(text, offset)
            else:
                self._give(text, offset, asked=role == "user")
                yield from self._message(role, text, offset)
        elif sort == "reasoning":
            self._say("", offset)
            text = text_of(payload.get("summary"))
            if text:
                yield self._line("thinking", "thinking", offset, text, "DEBUG")
        elif sort in _CALLS:
            self._say("", offset)
            tool = words(payload.get("name")) or str(sort).removesuffix("_call")
            given = next((payload[name] for name in ("arguments", "input", "action") if payload.get(name)), None)
            facts = {"tool": tool, "tool_use_id": words(payload.get("call_id"))}
            text = given[:200] if isinstance(given, str) else ""
            yield self._line("tool_call", tool, offset, text, facts=facts, content={"input": given})
        elif sort in _OUTPUTS:
            output = payload.get("output")
            text = output if isinstance(output, str) else orjson.dumps(output).decode()
            self._give(text, offset, asked=False)
            about: dict[str, Any] = {"tool_use_id": words(payload.get("call_id")), "characters": len(text)}
            yield self._line("tool_result", "result", offset, text[:200], facts=about, content={"content": text})
        else:
            yield self._line(str(sort)[:100], str(sort)[:100], offset, level="DEBUG", content={"row": dict(payload)})

    def _event(self, payload: Mapping[str, Any], offset: int) -> Iterator[Event]:
        sort = words(payload.get("type")) or "event"
        if sort == "token_count":
            yield from self._count(payload, offset)
        elif sort in ("agent_message", "agent_reasoning", "user_message"):
            text = words(payload.get("message")) or words(payload.get("text")) or ""
            role = {"agent_message": "assistant", "user_message": "user"}.get(sort)
            if role is None or self._is_paired(role, text, "event"):
                return
            if role == "assistant":
                self._say(text, offset)
            else:
                self._give(text, offset, asked=True)
                yield from self._message("user", text, offset)
        elif sort == "turn_aborted":
            if self._answered:
                yield self._response(None, None, "cancelled")
            yield self._line("state_change", sort, offset, str(payload.get("reason", "")), "WARNING")
        elif sort == "collab_agent_spawn_end":
            facts = {name: payload[name] for name in _OF_SPAWNED if words(payload.get(name))}
            yield self._line("tool_call", sort, offset, facts=facts, content={"row": dict(payload)})
        else:
            kind = "error" if sort == "error" else "state_change" if sort in _EVENTS else sort[:100]
            level = "ERROR" if sort == "error" else "INFO" if sort in _EVENTS else "DEBUG"
            yield self._line(kind, sort[:100], offset, level=level, content={"row": dict(payload)})

    def _message(self, role: str, text: str, offset: int) -> Iterator[Event]:
        level = "INFO" if role == "user" else "DEBUG"
        yield self._line("user_message", role, offset, text[:500], level, {"characters": len(text)})

    def _give(self, text: str, offset: int, *, asked: bool) -> None:
        """The model is given something: with the next call, if it has begun to answer this one."""
        if self._answered:
            self._later.append(text)
            self._later_asked = self._later_asked or asked
            self._later_from = offset if self._later_from is None else self._later_from
        else:
            self._given.append(text)
            self._asked = self._asked or asked
            self._begin = offset if self._begin is None else self._begin

    def _say(self, text: str, offset: int) -> None:
        """The model answers."""
        if not self._answered and self._begin is None:
            self._begin = offset
        self._answered, self._started = True, self._started or self._at
        if text:
            self._answer.append(text)

    def _is_paired(self, role: str, text: str, form: str) -> bool:
        """Whether it is the second of the two forms, event and item, in which a text is written."""
        mark = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
        other = (role, mark, "item" if form == "event" else "event")
        if other in self._texts:
            self._texts.remove(other)
            return True
        self._texts.append((role, mark, form))
        return False

    def _count(self, payload: Mapping[str, Any], offset: int) -> Iterator[Event]:
        info = dictionary(payload.get("info"))
        if not info:
            return
        last = info.get("last_token_usage")
        counts = [last, info.get("total_token_usage")]
        usage = _usage(last)
        if usage is None or not any(usage):  # a thread's inherited total
            self._last = counts
            return
        yield Counted(self._model or "", usage, self._at)
        if counts == self._last:
            return
        self._last = counts
        yield self._response(usage, dictionary(last), "completed")

    def _response(self, usage: Usage | None, raw: Mapping[str, Any] | None, status: Any) -> Response:
        self._number += 1
        name = f"{self._identity.thread}/{self._number}"
        kind = "command" if self._asked else "tool_call" if self._given else "followup"
        response = Response(
            self.key,
            name,
            self._started or self._at,
            self._at,
            self._model,
            self._given,
            self._answer,
            usage,
            raw,
            kind,
            name,
            status,
            {"parts": 1},
        )
        self._given, self._asked, self._begin = self._later, self._later_asked, self._later_from
        self._later, self._later_asked, self._later_from = [], False, None
        self._answer, self._answered, self._started = [], False, None
        self._texts_before = [*self._texts]
        return response

    def _line(
        self,
        kind: str,
        label: str,
        offset: int,
        text: str = "",
        level: Any = "INFO",
        facts: dict[str, Any] | None = None,
        content: dict[str, Any] | None = None,
    ) -> Line:
        name = f"{self._identity.thread}/{offset}"
        return Line(self.key, name, self._at, kind, label, text, level, facts or {}, content or {})


def _usage(counts: object) -> Usage | None:
    """Read a count of Codex, whose input includes what came from the cache, and its output the reasoning."""
    given = dictionary(counts)
    if not given:
        return None
    whole = count_of(given.get("input_tokens"))
    cached = min(count_of(given.get("cached_input_tokens")), whole)
    return Usage(whole - cached, count_of(given.get("output_tokens")), cached)

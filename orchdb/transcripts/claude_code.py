"""Claude Code: rows of a session's file, or of a sub-agent's, to neutral events.

One response is several rows, with tool results in between. What the model was newly given and what it answers, an
exchange, is told as a whole: when the next one begins, and as far as it has come at the end of what there is. A reader
that goes on later begins at the last exchange.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from typing import Any, cast

from orchdb.transcripts.claude_rows import (
    FINAL_COUNTS_MISSING,
    blocks_of,
    counts_of,
    dictionary,
    event_name,
    mark_of,
    moment,
    other_line,
    result_text,
    sort_of,
    text_of,
    words,
)
from orchdb.transcripts.claude_threads import STALE, OpenResponse, Place, Thread
from orchdb.transcripts.events import (
    OWN_FILE,
    PLACEHOLDER,
    AgentSeen,
    Counted,
    Event,
    Fact,
    Line,
    Response,
    Restart,
    Usage,
)

CALLS_OF_AGENTS = ("Task", "Agent")
_RECENT = 256
_LAST_LINE = re.compile(r"^agentId: ([\w-]+)", re.MULTILINE)
_TASK_ID = re.compile(r"<task-id>([\w-]+)</task-id>")
_CALL_ID = re.compile(r"<tool-use-id>([\w-]+)</tool-use-id>")
META, RESULT, RESULT_TEXT, PROGRESS, QUEUE, PROMPT = 1, 2, 3, 4, 5, 6
"""The evidence for the agent above, the best first."""


class ClaudeCodeReader:
    """Reads the rows of one file, in order.

    Args:
        place: What the file's place says.
        state: What an earlier reader left in ``restart``; ``None`` at the beginning.
        at: When the file was begun, for rows without a time.
    """

    source = "claude"

    def __init__(self, place: Place, state: Mapping[str, Any] | None, at: str) -> None:
        self.place = place
        self._at = at
        self._row = 0
        self._end = 0
        self._first = not state and not place.aside
        self._begun = False
        self._threads: dict[str, Thread] = {}
        self._calls: OrderedDict[str, tuple[str | None, str]] = OrderedDict()
        self._children: dict[str, int] = {}
        self._chains: OrderedDict[str, str] = OrderedDict()
        self._title = 0
        if state:
            self._at = state.get("at", at)
            self._chains.update(state.get("chains", {}))
            self._calls.update({call: (kind, hint) for call, kind, hint in state.get("calls", ())})
            for name, left in state.get("threads", {}).items():
                thread = self._threads[name] = Thread(name, begin=left["from"])
                thread.recent.update(dict.fromkeys(left["recent"]))

    @property
    def key(self) -> str:
        """The key of the agent whose file it is."""
        return self.place.key()

    def begin(self) -> Iterator[Event]:
        """Tell whose file it is."""
        place = self.place
        if not place.agent:
            yield AgentSeen(place.key(), place.session, place.project, "", None, OWN_FILE, self._at, self._first)
            return
        top = place.key("")
        yield AgentSeen(top, place.session, place.project, "", None, PLACEHOLDER, self._at)
        meta = place.meta or {}
        kind = words(meta.get("agentType")) or ("compact" if place.agent.startswith("acompact") else None)
        parent, facts = top, {"agent_id": place.agent}
        if isinstance(meta.get("toolUseId"), str):
            facts["tool_use_id"] = meta["toolUseId"]
        if place.workflow:
            facts["workflow"] = place.workflow
        above = meta.get("parentAgentId")
        if isinstance(above, str) and above and above != place.agent:
            parent = place.key(above)
            yield AgentSeen(parent, place.session, place.project, None, top, PLACEHOLDER, self._at)
        evidence = META if place.meta else OWN_FILE
        yield AgentSeen(place.key(), place.session, place.project, kind, parent, evidence, self._at, self._first, facts)

    def read(self, row: Mapping[str, Any], offset: int, end: int) -> Iterator[Event]:
        """Tell what a row says.

        Args:
            row: The row.
            offset: Where it begins.
            end: Where the next one begins.
        """
        self._row += 1
        self._end = end
        self._at = moment(row.get("timestamp")) or self._at
        thread = yield from self._thread_of(row)
        if offset < thread.begin:
            return
        if not self._begun:
            self._begun = True
            yield from self._whereabouts(row)
        name = row.get("type")
        if name == "assistant":
            yield from self._assistant(thread, row, offset)
        elif name == "user":
            yield from self._user(thread, row, offset)
        elif name == "progress":
            yield from self._progress(thread, row)
        elif name != "file-history-snapshot":
            yield from self._other(thread, row)

    def finish(self) -> Iterator[Event]:
        """Tell what is open, as far as it has come."""
        for thread in self._threads.values():
            if thread.open is not None:
                yield thread.open.response

    def restart(self) -> Restart:
        """Say where a later reader has to begin."""
        begins = {
            name: thread.restart(self._end, self._row)
            for name, thread in self._threads.items()
            if not name or name == self.place.agent or self._row - thread.last_row <= STALE
        }
        threads = {
            name: {"from": begin, "recent": [*self._threads[name].recent][-8:]} for name, begin in begins.items()
        }
        state: dict[str, Any] = {"threads": threads, "at": self._at}
        if self._chains:
            state["chains"] = dict([*self._chains.items()][-50:])
        if self._calls:
            state["calls"] = [[call, kind, hint] for call, (kind, hint) in [*self._calls.items()][-20:]]
        return Restart(min(begins.values(), default=self._end), state)

    def _thread_of(self, row: Mapping[str, Any]) -> Generator[Event, None, Thread]:
        """The thread that a row belongs to; of a new side chain, that there is such an agent."""
        name = self.place.agent
        if not name and row.get("isSidechain") is True:
            name = yield from self._chain_of(row)
        thread = self._threads.get(name)
        if thread is None:
            thread = self._threads[name] = Thread(name)
        thread.last_row = self._row
        return thread

    def _chain_of(self, row: Mapping[str, Any]) -> Generator[Event, None, str]:
        uuid, above = words(row.get("uuid")), words(row.get("parentUuid"))
        name = words(row.get("agentId")) or self._chains.get(above or "") or uuid or "sidechain"
        if uuid:
            self._chains[uuid] = name
            if len(self._chains) > STALE:
                self._chains.popitem(last=False)
        if name not in self._threads:
            text = text_of(dictionary(row.get("message")).get("content"))
            call, kind = next(
                ((call, kind) for call, (kind, hint) in self._calls.items() if hint == mark_of(text)), (None, None)
            )
            facts = {"agent_id": name} | ({"tool_use_id": call} if call else {})
            evidence = PROMPT if call else OWN_FILE
            yield self._child(self.place.key(""), name, kind, evidence, facts, own=True)
        return name

    def _child(
        self, parent: str, name: str, kind: str | None, evidence: int, facts: dict[str, Any], *, own: bool = False
    ) -> AgentSeen:
        place = self.place
        return AgentSeen(place.key(name), place.session, place.project, kind, parent, evidence, self._at, own, facts)

    def _whereabouts(self, row: Mapping[str, Any]) -> Iterator[Event]:
        names = {
            "cwd": "cwd",
            "gitBranch": "git_branch",
            "version": "version",
            "slug": "slug",
            "sessionKind": "session_kind",
        }
        facts = {ours: row[theirs] for theirs, ours in names.items() if isinstance(row.get(theirs), str)}
        if "cwd" not in facts:
            self._begun = False  # the first rows of a file say nothing of it
        if facts:
            yield Fact(self.key, self._at, facts)

    def _assistant(self, thread: Thread, row: Mapping[str, Any], offset: int) -> Iterator[Event]:
        message = dictionary(row.get("message"))
        name = event_name(row)
        agent = self.place.key(thread.agent)
        model = words(message.get("model"))
        if model == "<synthetic>":
            text = text_of(message.get("content"))
            level = "ERROR" if row.get("isApiErrorMessage") else "INFO"
            yield Line(agent, name, self._at, "error" if level == "ERROR" else "message", "synthetic", text, level)  # type: ignore[arg-type]
            return
        key = words(message.get("id")) or words(row.get("requestId")) or name
        usage = counts_of(message.get("usage"))
        if usage is not None:
            yield Counted(model or "", usage, self._at)
        if thread.open is not None and thread.open.response.key != key:
            if key in thread.recent:
                yield self._late(agent, key, name, model, usage, message)
                yield from self._blocks(thread, name, message, None)
                return
            yield from self._close(thread)
        elif thread.open is None and key in thread.recent:
            yield self._late(agent, key, name, model, usage, message)
            yield from self._blocks(thread, name, message, None)
            return
        if thread.open is None:
            self._open(thread, agent, key, name, model, offset)
        current = cast("OpenResponse", thread.open)
        known = name in current.uuids
        current.uuids.add(name)
        self._extend(current, row, message, usage, model)
        yield from self._blocks(thread, name, message, None if known else current.response)

    def _open(self, thread: Thread, agent: str, key: str, first: str, model: str | None, offset: int) -> None:
        kind = "command" if thread.asked or not thread.pending else "tool_call"
        begin = offset if thread.pending_from is None else thread.pending_from
        response = Response(agent, key, self._at, self._at, model, thread.pending, [], None, None, kind, first)
        thread.open = OpenResponse(response, begin, self._row, set())
        thread.pending, thread.given, thread.pending_from, thread.asked = [], 0, None, False

    def _close(self, thread: Thread) -> Iterator[Event]:
        done = cast("OpenResponse", thread.open)
        thread.open = None
        thread.recent[done.response.key] = None
        if len(thread.recent) > _RECENT:
            thread.recent.popitem(last=False)
        yield done.response

    def _extend(
        self,
        current: OpenResponse,
        row: Mapping[str, Any],
        message: Mapping[str, Any],
        usage: Usage | None,
        model: str | None,
    ) -> None:
        response = current.response
        response.ended = self._at
        response.model = response.model or model
        if usage is not None and (response.usage is None or usage.tokens_output > response.usage.tokens_output):
            response.usage, response.raw_usage = usage, message["usage"]
        if words(row.get("requestId")):
            response.facts["request_id"] = row["requestId"]
        if words(message.get("stop_reason")):
            response.facts["stop_reason"] = message["stop_reason"]
        final = not FINAL_COUNTS_MISSING.match(words(row.get("version")) or "") or bool(
            response.facts.get("stop_reason")
        )
        response.facts |= {"usage_final": final, "parts": len(current.uuids)}

    def _late(
        self, agent: str, key: str, first: str, model: str | None, usage: Usage | None, message: Mapping[str, Any]
    ) -> Response:
        """A row of a response that was told already: only its usage can add something."""
        raw = message.get("usage") if usage is not None else None
        return Response(
            agent, key, self._at, self._at, model, [], [], usage, raw, "tool_call", first, facts={}, whole=False
        )

    def _blocks(
        self, thread: Thread, name: str, message: Mapping[str, Any], response: Response | None
    ) -> Iterator[Event]:
        agent, number = self.place.key(thread.agent), 0
        for block in blocks_of(message.get("content")):
            event_id = f"{name}:{number}" if number else name
            sort = block.get("type")
            if sort == "text":
                if response is not None and isinstance(block.get("text"), str):
                    response.answer.append(block["text"])
            elif sort == "thinking":
                number += 1
                text = words(block.get("thinking")) or ""
                if text:
                    yield Line(agent, event_id, self._at, "thinking", "thinking", text, "DEBUG")
            elif sort in ("tool_use", "server_tool_use", "mcp_tool_use"):
                number += 1
                yield self._call(agent, event_id, block)

    def _call(self, agent: str, event_id: str, block: Mapping[str, Any]) -> Line:
        tool, call = words(block.get("name")) or "tool", words(block.get("id")) or ""
        given = dictionary(block.get("input"))
        facts: dict[str, Any] = {"tool": tool, "tool_use_id": call}
        if tool in CALLS_OF_AGENTS:
            kind = words(given.get("subagent_type"))
            facts["kind"] = kind
            self._calls[call] = (kind, mark_of(words(given.get("prompt")) or ""))
            if len(self._calls) > _RECENT:
                self._calls.popitem(last=False)
        return Line(
            agent,
            event_id,
            self._at,
            "tool_call",
            tool,
            sort_of(given),
            facts=facts,
            content={"input": block.get("input")},
        )

    def _user(self, thread: Thread, row: Mapping[str, Any], offset: int) -> Iterator[Event]:
        blocks = blocks_of(dictionary(row.get("message")).get("content"))
        agent, name, number = self.place.key(thread.agent), event_name(row), 0
        for block in blocks:
            event_id = f"{name}:{number}" if number else name
            if block.get("type") == "tool_result":
                number += 1
                text = result_text(block.get("content"))
                thread.give(text, offset, asked=False)
                yield self._result(agent, event_id, block, text)
                yield from self._child_of_result(agent, row, block, text)
            elif isinstance(block.get("text"), str):
                number += 1
                thread.give(block["text"], offset, asked=True)
                label = "compact summary" if row.get("isCompactSummary") else "meta" if row.get("isMeta") else "user"
                level = "DEBUG" if row.get("isMeta") else "INFO"
                facts = {"characters": len(block["text"])}
                yield Line(agent, event_id, self._at, "user_message", label, block["text"][:500], level, facts)  # type: ignore[arg-type]

    def _result(self, agent: str, event_id: str, block: Mapping[str, Any], text: str) -> Line:
        failed = block.get("is_error") is True
        facts = {"tool_use_id": words(block.get("tool_use_id")), "characters": len(text), "is_error": failed}
        content = {"content": text}
        return Line(
            agent,
            event_id,
            self._at,
            "tool_result",
            "failed" if failed else "result",
            text[:200],
            "WARNING" if failed else "INFO",
            facts,
            content,
        )

    def _child_of_result(
        self, agent: str, row: Mapping[str, Any], block: Mapping[str, Any], text: str
    ) -> Iterator[Event]:
        call = words(block.get("tool_use_id")) or ""
        if "forkedFrom" in row or (row.get("sessionId") or self.place.session) != self.place.session:
            return  # the copy of another session's, whose sub-agents are not started again
        result = dictionary(row.get("toolUseResult"))
        name = words(result.get("agentId"))
        evidence = RESULT
        if name is None and call in self._calls:
            found = _LAST_LINE.findall(text[-2000:])
            name, evidence = (found[-1], RESULT_TEXT) if found else (None, RESULT_TEXT)
        if name is not None:
            kind = words(result.get("agentType")) or self._calls.get(call, (None, ""))[0]
            yield from self._child_seen(agent, name, kind, evidence, call)

    def _child_seen(self, agent: str, name: str, kind: str | None, evidence: int, call: str) -> Iterator[Event]:
        if name == self.place.agent or self._children.get(name, PLACEHOLDER) <= evidence:
            return
        self._children[name] = evidence
        facts = {"agent_id": name} | ({"tool_use_id": call} if call else {})
        yield self._child(agent, name, kind, evidence, facts)

    def _progress(self, thread: Thread, row: Mapping[str, Any]) -> Iterator[Event]:
        data = dictionary(row.get("data"))
        name, call = words(data.get("agentId")), words(row.get("parentToolUseID")) or ""
        if data.get("type") == "agent_progress" and name is not None and call in self._calls:
            agent = self.place.key(thread.agent)
            yield from self._child_seen(agent, name, self._calls[call][0], PROGRESS, call)

    def _other(self, thread: Thread, row: Mapping[str, Any]) -> Iterator[Event]:
        agent = self.place.key(thread.agent)
        yield from other_line(agent, row, self._at)
        if row.get("type") == "queue-operation" and isinstance(row.get("content"), str):
            task, call = _TASK_ID.search(row["content"]), _CALL_ID.search(row["content"])
            if task is not None:
                found = call.group(1) if call else ""
                for seen in self._child_seen(agent, task.group(1), self._calls.get(found, (None, ""))[0], QUEUE, found):
                    assert isinstance(seen, AgentSeen)
                    seen.only_if_known = found not in self._calls  # commands in the background have such ids too
                    yield seen

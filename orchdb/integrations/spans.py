"""Spans of the GenAI conventions as rows: agents with their parents, prompts with usage, and tool calls as log lines.

Ids are derived from those of the spans, so whatever is written can be written again: after a lost connection, or where
a file is imported that was also recorded live.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid5

from orchdb.errors import ConstraintError, DuplicateError, MissingParentError, OperationError, OrchdbError
from orchdb.integrations.genai import Seen, answered, asked, moment, parsed
from orchdb.manager import DatabaseManager
from orchdb.operations.runs import AgentRun

logger = logging.getLogger("orchdb")

_NAMESPACE = UUID("5b0e6d0e-6f0f-5c8e-9d0a-6f7263686462")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST_TRACES = 10_000
"""That are remembered while spans of them are open: of some the end never comes."""
_AT_A_TIME = 8
"""Traces of which something is written at the same time."""
NO_AGENT = "no agent"
"""The definition of calls of a model that stand in no agent's span, and say no agent's name."""


def id_of_span(trace_id: str, span_id: str) -> str:
    """Derive the id of the row that a span becomes: of its agent, or of its prompt.

    Args:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.

    Returns:
        A UUID.
    """
    return str(uuid5(_NAMESPACE, f"{trace_id}:{span_id}"))


def id_of(span: Seen) -> str:
    """The id of the row that a span becomes: that of the row it was exported from, or one that follows from it."""
    own = span.get("own_id")
    return own if isinstance(own, str) and _UUID.fullmatch(own) else id_of_span(span.trace_id, span.span_id)


@dataclass
class _Node:
    """What is known of a span while its trace is open."""

    owner: str | None  # the agent that what is below the span belongs to
    session: str | None
    agent: str | None = None  # that it is itself
    is_open: bool = True


@dataclass
class _Trace:
    nodes: dict[str, _Node] = field(default_factory=lambda: dict[str, _Node]())
    open: int = 0
    implicit: dict[str, str] = field(default_factory=lambda: dict[str, str]())  # agents without a span, by name


class SpanRows:
    """Writes spans to a database as they begin and end.

    Args:
        db: Where to.
        lease_seconds: How long an agent counts as alive when nothing is heard from this process; ``None`` for spans
            that have all ended.
    """

    def __init__(self, db: DatabaseManager, lease_seconds: float | None) -> None:
        self._db = db
        self._lease_seconds = lease_seconds
        self._traces: dict[str, _Trace] = {}
        self._runs: dict[str, AbstractAsyncContextManager[AgentRun]] = {}

    async def begin(self, span: Seen) -> None:
        """Take the beginning of a span: that of an agent makes the agent, executing."""
        trace = self._trace(span.trace_id)
        if span.span_id in trace.nodes:
            return  # it was taken before a connection was lost
        above = trace.nodes.get(span.parent_id or "")
        conversation = span.get("conversation")
        session = (above.session if above else None) or (None if conversation is None else str(conversation))
        owner, agent = above.owner if above else None, None
        if span.kind == "agent":
            session = session or span.trace_id
            agent = owner = await self._begin_agent(span, session, owner)
        elif span.kind is None and above is None:
            session = None  # the conversation of a span that is nothing to us is none
        trace.nodes[span.span_id] = _Node(owner, session, agent)
        trace.open += 1

    async def end(self, span: Seen) -> None:
        """Take the end of a span: of an agent, of a call of a model or of a tool."""
        trace = self._trace(span.trace_id)
        if span.span_id not in trace.nodes:
            await self.begin(span)  # there was no room for its beginning
        node = trace.nodes[span.span_id]
        if span.kind == "agent":
            if node.agent is None:  # some say only at their end that they are agents
                node.agent = await self._begin_agent(span, node.session or span.trace_id, node.owner)
            await self._end_agent(node.agent, span)
        elif span.kind == "inference":
            await self._write_prompt(span, node.owner or await self._implicit(trace, span, node))
        elif span.kind == "tool" and node.owner is not None:
            await self._write_tool_call(span, node.owner)
        if node.is_open:
            node.is_open = False
            trace.open -= 1
        if trace.open <= 0:
            for agent_id in trace.implicit.values():
                await self._end_agent(agent_id, span, of_its_own=False)
            self._traces.pop(span.trace_id, None)

    def _trace(self, trace_id: str) -> _Trace:
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = _Trace()
            if len(self._traces) > _MOST_TRACES:
                del self._traces[next(iter(self._traces))]
        return trace

    # -- agents --

    async def _begin_agent(self, span: Seen, session: str, parent: str | None) -> str:
        own = span.name if span.name != span.operation else None  # some say the agent's name only at the end
        name = str(span.get("agent_name") or span.subject or own or NO_AGENT)
        description = span.get("agent_description")
        given = {"agent": span.get("agent_id"), "version": span.get("agent_version")}
        metadata = {"trace_id": span.trace_id, "span_id": span.span_id, **{k: v for k, v in given.items() if v}}
        agent_id = id_of(span)
        await self._open(agent_id, name, session, parent, span, metadata, str(description) if description else None)
        return agent_id

    async def _implicit(self, trace: _Trace, span: Seen, node: _Node) -> str:
        """The agent of calls whose agent has no span here: it was not recorded, or there is none."""
        name = str(span.get("agent_name") or NO_AGENT)
        agent_id = trace.implicit.get(name)
        if agent_id is None:
            agent_id = str(uuid5(_NAMESPACE, f"{span.trace_id}:{name}"))
            conversation = node.session or span.get("conversation") or span.trace_id
            await self._open(agent_id, name, str(conversation), None, span, {"trace_id": span.trace_id}, None)
            trace.implicit[name] = agent_id
        return agent_id

    async def _open(
        self,
        agent_id: str,
        name: str,
        session: str,
        parent: str | None,
        span: Seen,
        metadata: dict[str, Any],
        description: str | None,
    ) -> None:
        began = moment(span.started)
        definition = await self._db.get_or_create_orchestrator_agent(name[:500], description)
        try:
            if self._lease_seconds is None:
                await self._db.create_agent(
                    definition,
                    session,
                    parent,
                    "executing",
                    metadata=metadata,
                    id=agent_id,
                    created_at=began,
                    cost_usd=span.get("unattributed") or 0.0,
                    exist_ok=True,
                )
                return
            run = self._db.agent_run(
                definition,
                session,
                parent,
                metadata=metadata,
                lease_seconds=self._lease_seconds,
                id=agent_id,
                created_at=began,
            )
            await run.__aenter__()
            self._runs[agent_id] = run
        except DuplicateError:  # it was written before a connection was lost
            pass
        except MissingParentError as error:  # somebody has deleted its parent
            if error.column != "parent_agent_id" or parent is None:
                raise
            await self._open(agent_id, name, session, None, span, metadata, description)

    async def _end_agent(self, agent_id: str, span: Seen, *, of_its_own: bool = True) -> None:
        if of_its_own and span.get("own_status") in {"initializing", "pending", "planning", "executing", "reviewing"}:
            return  # it was exported while it was at work
        changes: dict[str, Any] = {"status": span.status, "error_message": span.error_message} if of_its_own else {}
        changes = {"status": "completed", **changes}
        # If it was reaped meanwhile, it keeps the end that it got.
        await self._db.update_agent(
            agent_id, if_status="executing", completed_at=moment(span.ended or span.started), **changes
        )
        run = self._runs.pop(agent_id, None)
        if run is not None:
            with suppress(OperationError):  # it was reaped
                await run.__aexit__(None, None, None)

    # -- prompts and tool calls --

    async def _write_prompt(self, span: Seen, agent_id: str) -> None:
        prompt_id = id_of(span)
        text, kind = asked(span)
        cost, priced_by = span.cost()
        model = span.get("model") or span.subject or None
        said = {name: span.get(name) for name in ("provider", "response_id", "finish_reasons")}
        usage = {key: value for key, value in span.attributes.items() if ".usage." in key}
        metadata = {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "operation": span.operation,
            **{name: value for name, value in said.items() if value},
            "usage": usage,
            **({"price_list": priced_by} if priced_by else {}),
        }
        status, error_message = span.status, span.error_message
        await self._db.create_prompt(
            agent_id,
            str(span.get("prompt_type") or kind),
            text,
            span.get("prompt_name"),
            status,
            None if model is None else str(model)[:500],
            metadata,
            response_text=answered(span),
            **cast("Any", span.tokens()),
            cost_usd=None if cost is None else 0.0,
            latency_ms=span.latency_ms,
            completed_at=moment(span.ended or span.started),
            error_message=error_message,
            id=prompt_id,
            created_at=moment(span.started),
            exist_ok=True,
        )
        if cost:
            await self._db.complete_prompt(prompt_id, status=status, cost_usd=cost, error_message=error_message)

    async def _write_tool_call(self, span: Seen, agent_id: str) -> None:
        said = {
            "call_id": span.get("tool_call_id"),
            "arguments": parsed(span.get("tool_arguments")),
            "result": parsed(span.get("tool_result")),
            "error": span.error_message,
        }
        details = {name: value for name, value in said.items() if value is not None}
        if span.get("own_log") is not None and await self._has_line(span, agent_id):
            return
        await self._db.create_agent_log(
            agent_id,
            "ERROR" if span.status == "failed" else "INFO",
            "tool_call",
            str(span.get("tool_name") or span.subject),
            {**details, "latency_ms": span.latency_ms},
            event_id=f"span:{span.trace_id}:{span.span_id}",
            created_at=moment(span.started),
        )

    async def _has_line(self, span: Seen, agent_id: str) -> bool:
        """Whether the line that a span was exported from is here."""
        began, message = moment(span.started), str(span.get("tool_name") or span.subject)
        lines = await self._db.get_agent_logs(
            agent_id, log_type="tool_call", since=began, until=began + timedelta(microseconds=1)
        )
        return any(line["message"] == message and line["id"] == span.get("own_log") for line in lines)


class SpanBatch:
    """Some beginnings and ends on their way to the database: those of a trace in order, the traces side by side.

    Args:
        rows: What writes them.
        spans: For each the trace that it is of, and what reads it: whether it begins, and the span.
    """

    def __init__(self, rows: SpanRows, spans: Iterable[tuple[Hashable, Callable[[], tuple[bool, Seen]]]]) -> None:
        self._rows = rows
        self._traces: dict[Hashable, deque[Callable[[], tuple[bool, Seen]]]] = {}
        for trace_id, event in spans:
            self._traces.setdefault(trace_id, deque()).append(event)
        self._refused = 0

    async def store(self) -> int:
        """Write them, beginning in each trace with the first one that is not written; how many were refused.

        Raises:
            OrchdbError: The database cannot be written to now; what is not written is kept for the next call.
        """
        waiting = [*self._traces.values()]

        async def work() -> None:
            while waiting:
                await self._store(waiting.pop())

        done = await asyncio.gather(*(work() for _ in range(_AT_A_TIME)), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
        return self._refused

    async def _store(self, spans: deque[Callable[[], tuple[bool, Seen]]]) -> None:
        while spans:
            begins, span = spans[0]()  # one by one: the program's own threads have their turn in between
            try:
                await (self._rows.begin(span) if begins else self._rows.end(span))
            except ConstraintError:  # logged; an agent that somebody has deleted, for one thing
                self._refused += 1
            except OrchdbError:
                raise
            except Exception as error:  # whatever a span says: the others are not lost with it
                logger.error("OrchdbSpanProcessor: a span could not be stored: %s", type(error).__name__)
                self._refused += 1
            spans.popleft()

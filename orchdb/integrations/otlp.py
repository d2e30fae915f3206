"""Spans in files: OTLP as JSON, as collectors and exporters write it, in and out."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchdb.cursors import cursor_of
from orchdb.errors import ConstraintError
from orchdb.integrations.genai import NAMES
from orchdb.integrations.spans import SpanRows, id_of_span
from orchdb.integrations.traces import Place, Traces, messages_of, object_of, parents_first, spans_of
from orchdb.manager import DatabaseManager
from orchdb.rows import AgentLogRow, AgentRow, OneOrSeveral, PromptRow

__all__ = ["OtlpReport", "export_otlp", "import_otlp"]

_PAGE = 200
_NOTHING = 5e-10
_TRACE, _SPAN = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_EVENT = re.compile(r"span:([0-9a-f]{32}):([0-9a-f]{16})")


@dataclass
class OtlpReport:
    """What an import has found.

    Attributes:
        spans: Spans that were read.
        agents: Those of them that are agents.
        prompts: Those that are calls of a model.
        tool_calls: Those that are calls of a tool.
        damaged: Lines that are no OTLP, and spans without ids or a time; nothing of them is stored.
        refused: Spans that the database refused.
    """

    spans: int = 0
    agents: int = 0
    prompts: int = 0
    tool_calls: int = 0
    damaged: int = 0
    refused: int = 0


async def import_otlp(
    db: DatabaseManager | None,
    lines: Iterable[str | bytes | Mapping[str, Any]] | os.PathLike[str],
    *,
    content: bool = True,
) -> OtlpReport:
    """Store the spans of agents from OTLP-JSON, as ``OrchdbSpanProcessor`` stores them live.

    Ids are derived from those of the spans: what is there already, imported or recorded live, is not stored again. A
    file has children before their parents, so spans wait for the rest of their traces in a temporary file.

    Args:
        db: Where to; ``None`` to find out what there is, and store nothing.
        lines: The path of a file; or its lines, such as the open file itself, or messages that are parsed already: one
            ``ExportTraceServiceRequest`` each.
        content: False leaves out what models and tools were given and gave.

    Returns:
        What was found.

    Raises:
        InvalidValueError: The file is one message in many lines, and too large.
        OperationError: The database cannot be written to now; the import can be repeated.
    """
    report, traces = OtlpReport(), Traces(content=content)
    try:
        for line in messages_of(Path(lines)) if isinstance(lines, os.PathLike) else lines:
            for span in spans_of(line):
                if span is None:
                    report.damaged += 1
                else:
                    traces.add(span)
        for trace_id, places in traces.places():
            await _take(db, traces, trace_id, places, report)
    finally:
        traces.close()
    return report


async def _take(
    db: DatabaseManager | None, traces: Traces, trace_id: str, places: list[Place], report: OtlpReport
) -> None:
    kinds: Counter[str | None] = Counter()
    rows = None if db is None else SpanRows(db, None)
    for place in parents_first(places):
        span = traces.span(trace_id, place)
        kinds[span.kind] += 1
        if rows is not None:
            await _taken(rows.begin(span), report)
    report.spans += len(places)
    report.agents += kinds["agent"]
    report.prompts += kinds["inference"]
    report.tool_calls += kinds["tool"]
    if rows is not None:
        for place in sorted(places, key=lambda place: place.ended):
            await _taken(rows.end(traces.span(trace_id, place)), report)


async def _taken(writing: Any, report: OtlpReport) -> None:
    try:
        await writing
    except ConstraintError:  # logged
        report.refused += 1


# -- out -------------------------------------------------------------------------------------------------------------


async def export_otlp(
    db: DatabaseManager, *, session_id: OneOrSeveral[str] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Give agents as spans of the GenAI conventions, a message for each agent with its prompts and tool calls.

    What came from spans keeps their ids. An agent that has not ended ends with its last change; a prompt that has not
    ended is left out.

    Args:
        db: Where from.
        session_id: Only agents of this session, or of these. By default all.

    Yields:
        ``ExportTraceServiceRequest`` messages, which ``json.dumps`` makes a line of; the newest agents come first.
    """
    after: str | None = None
    while page := await db.list_agents(session_id, limit=_PAGE, after=after):
        after = cursor_of(page[-1])
        for agent in page:
            scope = {"scope": {"name": "orchdb"}, "spans": await _spans_of_agent(db, agent)}
            resource = {"attributes": _given({"service.name": "orchdb"})}
            yield {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


async def _spans_of_agent(db: DatabaseManager, agent: AgentRow) -> list[dict[str, Any]]:
    definition = await db.get_orchestrator_agent(agent["orchestrator_agent_id"], include_deleted=True)
    name = "" if definition is None else definition["name"]
    ids, above = _ids_of_agent(agent), agent["parent_agent_id"]
    parent = None if above is None else await db.get_agent(above, include_deleted=True)
    parent_ids = None if parent is None else _ids_of_agent(parent)
    # A child whose parent is in another trace, which is another session, is at the root of its own.
    around = parent_ids[1] if parent_ids is not None and parent_ids[0] == ids[0] else None
    prompts, lines = await db.list_prompts(agent["id"]), db.iter_agent_logs(agent["id"], log_type="tool_call")
    return [
        _agent_span(
            agent, name, ids, around, (agent["cost_usd"] or 0.0) - sum(row["cost_usd"] or 0.0 for row in prompts)
        ),
        *(_prompt_span(prompt, agent, name, ids) for prompt in prompts if prompt["completed_at"] is not None),
        *[_tool_span(line, ids) async for line in lines],
    ]


def _ids_of_agent(agent: AgentRow) -> tuple[str, str]:
    recorded = _recorded(agent["metadata"])
    if recorded is not None and id_of_span(*recorded) == agent["id"]:
        return recorded
    trace = recorded[0] if recorded is not None else _digits(f"session:{agent['session_id']}", 32)
    return trace, _digits(f"agent:{agent['id']}", 16)


def _recorded(metadata: Any) -> tuple[str, str] | None:
    """The ids of the span that a row was."""
    given = object_of(metadata)
    trace_id, span_id = str(given.get("trace_id")), str(given.get("span_id"))
    return (trace_id, span_id) if _TRACE.fullmatch(trace_id) and _SPAN.fullmatch(span_id) else None


def _digits(text: str, number: int) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=number // 2).hexdigest()


def _agent_span(
    agent: AgentRow, name: str, ids: tuple[str, str], around: str | None, unattributed: float
) -> dict[str, Any]:
    started = agent["started_at"] or agent["created_at"]
    attributes = {
        "operation": "invoke_agent",
        "agent_name": name,
        "agent_id": agent["id"],
        "conversation": agent["session_id"],
        "own_id": agent["id"],
        "own_status": agent["status"],
        "unattributed": unattributed if unattributed > _NOTHING else None,
    }
    ended = agent["completed_at"] or agent["updated_at"]
    span = _made(ids, around, f"invoke_agent {name}", started, ended, attributes)
    return _with_error(span, agent["status"], agent["error_message"])


def _prompt_span(prompt: PromptRow, agent: AgentRow, name: str, ids: tuple[str, str]) -> dict[str, Any]:
    metadata = object_of(prompt["metadata"])
    span_ids = _recorded(metadata) or (ids[0], _digits(f"prompt:{prompt['id']}", 16))
    operation = str(metadata.get("operation") or "chat")
    read, write = prompt["tokens_cache_read"] or 0, prompt["tokens_cache_write"] or 0
    given = prompt["tokens_input"]
    attributes: dict[str, Any] = {
        "operation": operation,
        "provider": metadata.get("provider"),
        "model": prompt["model_used"],
        "response_id": metadata.get("response_id"),
        "conversation": agent["session_id"],
        "agent_name": name,
        "input_tokens": None if given is None else given + read + write,
        "output_tokens": prompt["tokens_output"],
        "cache_read_tokens": read or None,
        "cache_write_tokens": write or None,
        "cost": prompt["cost_usd"],
        "input_messages": _message("user", prompt["prompt_text"]),
        "output_messages": _message("assistant", prompt["response_text"]),
        "own_id": prompt["id"],
        "own_status": prompt["status"],
        "prompt_type": prompt["prompt_type"],
        "prompt_name": prompt["prompt_name"],
    }
    title = f"{operation} {prompt['model_used'] or ''}".strip()
    span = _made(span_ids, ids[1], title, prompt["created_at"], prompt["completed_at"] or "", attributes)
    return _with_error(span, prompt["status"], prompt["error_message"])


def _message(role: str, text: str | None) -> str | None:
    if not text:
        return None
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}], ensure_ascii=False)


def _tool_span(line: AgentLogRow, ids: tuple[str, str]) -> dict[str, Any]:
    details = object_of(line["details"])
    event = _EVENT.fullmatch(line["event_id"] or "")
    span_ids = (event[1], event[2]) if event else (ids[0], _digits(f"log:{line['id']}", 16))
    error = details.get("error")
    attributes = {
        "operation": "execute_tool",
        "tool_name": line["message"],
        "tool_call_id": details.get("call_id"),
        "tool_arguments": _json(details.get("arguments")),
        "tool_result": _json(details.get("result")),
        "own_log": None if event else line["id"],
    }
    latency = details.get("latency_ms")
    span = _made(span_ids, ids[1], f"execute_tool {line['message']}", line["created_at"], "", attributes)
    if isinstance(latency, int):
        span["endTimeUnixNano"] = str(int(span["startTimeUnixNano"]) + latency * 1_000_000)
    return _with_error(span, "failed" if error else None, None if error is None else str(error))


def _json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _made(
    ids: tuple[str, str],
    around: str | None,
    name: str,
    started: str,
    ended: str,
    said: Mapping[str, Any],
) -> dict[str, Any]:
    began = _nanoseconds(started)
    attributes = {NAMES[what][0]: value for what, value in said.items() if value is not None}
    return {
        "traceId": ids[0],
        "spanId": ids[1],
        **({} if around is None else {"parentSpanId": around}),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(began),
        "endTimeUnixNano": str(max(_nanoseconds(ended) or began, began)),
        "attributes": _given(attributes),
        "status": {},
    }


def _with_error(span: dict[str, Any], status: str | None, message: str | None) -> dict[str, Any]:
    if status in {"failed", "cancelled"}:
        span["status"] = {"code": 2, "message": message or status}
    if status == "cancelled":
        span["attributes"] += _given({NAMES["error_type"][0]: "CancelledError"})
    return span


def _nanoseconds(time: str) -> int:
    """Since 1970; 0 for a time that nobody understands."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return 0
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    since = found - datetime(1970, 1, 1, tzinfo=UTC)
    return max((since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000, 0)


def _given(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}

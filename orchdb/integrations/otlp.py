"""Spans in files: OTLP as JSON, as collectors and exporters write it, in and out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, cast

from orchdb.cursors import cursor_of
from orchdb.errors import ConstraintError
from orchdb.integrations.genai import NAMES, Seen
from orchdb.integrations.spans import SpanRows, id_of_span
from orchdb.manager import DatabaseManager
from orchdb.rows import AgentLogRow, AgentRow, OneOrSeveral, PromptRow

__all__ = ["OtlpReport", "export_otlp", "import_otlp"]

_PAGE = 200
_TRACE, _SPAN = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_EVENT = re.compile(r"span:([0-9a-f]{32}):([0-9a-f]{16})")
_ERROR = (2, "STATUS_CODE_ERROR")


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


async def import_otlp(db: DatabaseManager, lines: Iterable[str | bytes | Mapping[str, Any]]) -> OtlpReport:
    """Store the spans of agents from OTLP-JSON, as ``OrchdbSpanProcessor`` stores them live.

    Ids are derived from those of the spans: what is there already, imported or recorded live, is not stored again. All
    spans are held in memory, for a file has children before their parents.

    Args:
        db: Where to.
        lines: The lines of a file, such as the open file itself, or messages that are parsed already: one
            ``ExportTraceServiceRequest`` each.

    Returns:
        What was found.

    Raises:
        OperationError: The database cannot be written to now; the import can be repeated.
    """
    report = OtlpReport()
    traces: dict[str, dict[str, Seen]] = {}
    for line in lines:
        for span in _spans_of(line, report):
            traces.setdefault(span.trace_id, {})[span.span_id] = span
    rows = SpanRows(db, None)
    for spans in traces.values():
        report.spans += len(spans)
        for span in spans.values():
            report.agents += span.kind == "agent"
            report.prompts += span.kind == "inference"
            report.tool_calls += span.kind == "tool"
        for span in _parents_first(spans):
            await _taken(rows.begin(span), report)
        for span in sorted(spans.values(), key=lambda span: span.ended or span.started):
            await _taken(rows.end(span), report)
    return report


async def _taken(writing: Any, report: OtlpReport) -> None:
    try:
        await writing
    except ConstraintError:  # logged
        report.refused += 1


def _parents_first(spans: Mapping[str, Seen]) -> Iterator[Seen]:
    """Each span after the one around it, and in order of their beginnings; also those that are around each other."""
    waiting = sorted(spans.values(), key=lambda span: span.started)
    given = set[str]()
    for start in waiting:
        line: list[Seen] = []
        span: Seen | None = start
        while span is not None and span.span_id not in given:
            given.add(span.span_id)
            line.append(span)
            span = spans.get(span.parent_id or "")
        yield from reversed(line)


def _spans_of(line: str | bytes | Mapping[str, Any], report: OtlpReport) -> Iterator[Seen]:
    if isinstance(line, (str, bytes)):
        if not line.strip():
            return
        try:
            message = json.loads(line)
        except ValueError:
            report.damaged += 1
            return
    else:
        message = line
    resources = _object(message).get("resourceSpans")
    if not isinstance(resources, list):
        report.damaged += 1
        return
    for resource in _mappings(resources):
        scopes = chain(_mappings(resource.get("scopeSpans")), _mappings(resource.get("instrumentationLibrarySpans")))
        for given in chain.from_iterable(_mappings(scope.get("spans")) for scope in scopes):
            span = _span(given)
            if span is None:
                report.damaged += 1
            else:
                yield span


def _object(value: Any) -> Mapping[str, Any]:
    """A JSON object; of anything else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, Any]", each) for each in found if isinstance(each, Mapping)]


def _span(given: Mapping[str, Any]) -> Seen | None:
    trace_id, span_id = _hex(given.get("traceId"), 32), _hex(given.get("spanId"), 16)
    try:
        started, ended = int(given["startTimeUnixNano"]), int(given.get("endTimeUnixNano") or 0)
    except (KeyError, TypeError, ValueError):
        return None
    if trace_id is None or span_id is None or not 0 < started < 2**63 or not 0 <= ended < 2**63:
        return None
    status = _object(given.get("status"))
    failed = status.get("code") in _ERROR
    events = [event for event in _mappings(given.get("events")) if event.get("name") == "exception"]
    return Seen(
        trace_id,
        span_id,
        _hex(given.get("parentSpanId"), 16),
        str(given.get("name") or ""),
        started,
        ended or started,
        _attributes(given.get("attributes")),
        str(status.get("message") or "") if failed else None,
        [_attributes(event.get("attributes")) for event in events],
    )


def _hex(value: Any, digits: int) -> str | None:
    """An id: hexadecimal as OTLP says, or base64 as JSON of protocol buffers has it."""
    if not isinstance(value, str) or not value:
        return None
    text = value.lower()
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
        try:
            text = base64.b64decode(value, validate=True).hex()
        except ValueError:
            return None
    return text if len(text) == digits and text.strip("0") else None


def _attributes(value: Any) -> dict[str, Any]:
    return {str(each.get("key")): _plain(each.get("value")) for each in _mappings(value)}


def _plain(value: Any) -> Any:
    for kind, found in _object(value).items():
        if kind == "intValue":
            return int(found) if re.fullmatch(r"-?\d{1,19}", str(found)) else None
        if kind == "arrayValue":
            return [_plain(each) for each in _mappings(_object(found).get("values"))]
        if kind == "kvlistValue":
            return _attributes(_object(found).get("values"))
        if kind in {"stringValue", "doubleValue", "boolValue", "bytesValue"}:
            return found
    return None


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
        _agent_span(agent, name, ids, around),
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
    given = _object(metadata)
    trace_id, span_id = str(given.get("trace_id")), str(given.get("span_id"))
    return (trace_id, span_id) if _TRACE.fullmatch(trace_id) and _SPAN.fullmatch(span_id) else None


def _digits(text: str, number: int) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=number // 2).hexdigest()


def _agent_span(agent: AgentRow, name: str, ids: tuple[str, str], around: str | None) -> dict[str, Any]:
    started = agent["started_at"] or agent["created_at"]
    attributes = {
        "operation": "invoke_agent",
        "agent_name": name,
        "agent_id": agent["id"],
        "conversation": agent["session_id"],
    }
    ended = agent["completed_at"] or agent["updated_at"]
    span = _made(ids, around, f"invoke_agent {name}", started, ended, attributes, agent["status"])
    return _with_error(span, agent["status"], agent["error_message"])


def _prompt_span(prompt: PromptRow, agent: AgentRow, name: str, ids: tuple[str, str]) -> dict[str, Any]:
    metadata = _object(prompt["metadata"])
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
        "cost": prompt["cost_usd"] or None,
        "input_messages": _message("user", prompt["prompt_text"]),
        "output_messages": _message("assistant", prompt["response_text"]),
    }
    title = f"{operation} {prompt['model_used'] or ''}".strip()
    span = _made(
        span_ids, ids[1], title, prompt["created_at"], prompt["completed_at"] or "", attributes, prompt["status"]
    )
    return _with_error(span, prompt["status"], prompt["error_message"])


def _message(role: str, text: str | None) -> str | None:
    if not text:
        return None
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}], ensure_ascii=False)


def _tool_span(line: AgentLogRow, ids: tuple[str, str]) -> dict[str, Any]:
    details = _object(line["details"])
    event = _EVENT.fullmatch(line["event_id"] or "")
    span_ids = (event[1], event[2]) if event else (ids[0], _digits(f"log:{line['id']}", 16))
    error = details.get("error")
    attributes = {
        "operation": "execute_tool",
        "tool_name": line["message"],
        "tool_call_id": details.get("call_id"),
        "tool_arguments": _json(details.get("arguments")),
        "tool_result": _json(details.get("result")),
    }
    latency = details.get("latency_ms")
    span = _made(span_ids, ids[1], f"execute_tool {line['message']}", line["created_at"], "", attributes, None)
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
    status: str | None,
) -> dict[str, Any]:
    began = _nanoseconds(started)
    attributes = {NAMES[what][0]: value for what, value in said.items() if value is not None}
    if status is not None:
        attributes["orchdb.status"] = status
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

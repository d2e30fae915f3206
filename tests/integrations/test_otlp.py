"""Spans in files: imported they are what they would have been live, once; exported they can be imported."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError
from orchdb.integrations import traces
from orchdb.integrations.otlp import export_otlp, import_otlp
from orchdb.integrations.spans import id_of_span
from orchdb.integrations.traces import is_otlp
from tests.support.databases import dump

TRACE = "0af7651916cd43dd8448eb211c80319c"
START = 1_790_000_000_000_000_000
LEAD, CHAT, TOOL, HTTP, SCOUT, SCOUT_CHAT = (f"00000000000000{number:02x}" for number in range(1, 7))


def span(span_id: str, parent: str | None, name: str, at: int, *, status: Any = None, **said: Any) -> dict[str, Any]:
    """A span that begins so many milliseconds after the first and takes one for each that is left of a hundred."""
    attributes = [
        {"key": "gen_ai." + key.replace("__", "."), "value": {kind: value}} for key, (kind, value) in said.items()
    ]
    return {
        "traceId": TRACE,
        "spanId": span_id,
        **({"parentSpanId": parent} if parent else {}),
        "name": name,
        "startTimeUnixNano": str(START + at * 1_000_000),
        "endTimeUnixNano": str(START + (100 - at) * 1_000_000),
        "attributes": attributes,
        "status": status or {},
    }


def text(value: str) -> tuple[str, str]:
    return "stringValue", value


def number(value: int) -> tuple[str, str]:
    return "intValue", str(value)


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "x"}, "spans": [*spans]}]}]}


ASKED = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Was gibt es? 🔍"}]}])
SPANS = (  # as exporters write them: when they end, so children come first
    span(SCOUT_CHAT, SCOUT, "chat m", 5, usage__input_tokens=number(7), usage__output_tokens=number(3)),
    span(SCOUT, HTTP, "invoke_agent scout", 4, agent__name=text("scout"), conversation__id=text("its own")),
    span(HTTP, TOOL, "POST /", 3),
    span(TOOL, LEAD, "execute_tool ask", 2, tool__name=text("ask"), tool__call__result=text('{"a": [1]}')),
    span(
        CHAT,
        LEAD,
        "chat m",
        1,
        usage__input_tokens=number(50),
        usage__output_tokens=number(5),
        usage__cache_read__input_tokens=number(10),
        usage__cost__amount=("doubleValue", 0.25),
        request__model=text("m"),
        input__messages=text(ASKED),
    ),
    span(
        LEAD,
        None,
        "invoke_agent lead",
        0,
        agent__name=text("lead"),
        conversation__id=text("session-1"),
        status={"code": "STATUS_CODE_ERROR", "message": "out of wood"},
    ),
)


async def test_a_file_gives_agents_with_parents_prompts_and_tool_calls(db: DatabaseManager) -> None:
    lines: list[str | bytes] = [json.dumps(request(*SPANS[:3])), "\n", json.dumps(request(*SPANS[3:])).encode()]
    report = await import_otlp(db, lines)
    assert (report.spans, report.agents, report.prompts, report.tool_calls) == (6, 2, 2, 1)
    assert (report.damaged, report.refused) == (0, 0)
    scout, lead = await db.list_agents("session-1")
    assert (scout["parent_agent_id"], lead["parent_agent_id"]) == (lead["id"], None)
    assert lead["id"] == id_of_span(TRACE, LEAD)
    assert (lead["status"], lead["error_message"], lead["cost_usd"]) == ("failed", "out of wood", 0.25)
    assert (scout["status"], scout["started_at"]) == ("completed", "2026-09-21T14:13:20.004000")
    assert scout["completed_at"] == "2026-09-21T14:13:20.096000"
    (prompt,) = await db.list_prompts(lead["id"])
    assert (prompt["prompt_text"], prompt["latency_ms"], prompt["model_used"]) == ("Was gibt es? 🔍", 98, "m")
    assert (prompt["tokens_input"], prompt["tokens_cache_read"], prompt["cost_usd"]) == (40, 10, 0.25)
    (line,) = await db.get_agent_logs(lead["id"])
    assert line["details"] == {"result": {"a": [1]}, "latency_ms": 96}


async def test_a_second_import_changes_nothing(db: DatabaseManager) -> None:
    await import_otlp(db, [request(*SPANS)])
    before = await dump(db)
    report = await import_otlp(db, [request(*SPANS), request(*reversed(SPANS))])
    assert report.spans == 6
    assert await dump(db) == before


async def test_a_part_of_a_trace_does_no_harm_and_the_rest_comes_later(db: DatabaseManager) -> None:
    await import_otlp(db, [request(SPANS[0])])
    assert len(await db.list_agents()) == 1
    await import_otlp(db, [request(SPANS[1], SPANS[2])])
    await import_otlp(db, [request(*SPANS)])
    assert len(await db.list_prompts()) == 2


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "7",
        "{}",
        '{"resourceSpans": 7}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}, 7]}]}]}',
        json.dumps(request({**SPANS[1], "traceId": "zz"})),
        json.dumps(request({**SPANS[1], "startTimeUnixNano": "soon"})),
        json.dumps(request({**SPANS[1], "startTimeUnixNano": str(2**70)})),
    ],
)
async def test_damaged_lines_are_counted_and_the_others_are_stored(db: DatabaseManager, line: str) -> None:
    report = await import_otlp(db, [line, request(*SPANS)])
    assert report.damaged == 1
    assert len(await db.list_agents()) == 2


async def test_spans_that_are_around_each_other_come_to_an_end(db: DatabaseManager) -> None:
    one, other = {**SPANS[5], "parentSpanId": SCOUT}, {**SPANS[1], "parentSpanId": LEAD}
    await import_otlp(db, [request(one, other)])
    assert len(await db.list_agents(root=True)) == 1


async def test_what_is_exported_and_imported_elsewhere_is_the_same(db: DatabaseManager) -> None:
    await import_otlp(db, [request(*SPANS)])
    lines = [json.dumps(message) async for message in export_otlp(db, session_id="session-1")]
    assert len(lines) == 2
    async with DatabaseManager(":memory:") as copy:
        await import_otlp(copy, lines)
        columns = {
            "agents": ("id", "session_id", "parent_agent_id", "status", "cost_usd", "error_message", "completed_at"),
            "prompts": (
                "id",
                "prompt_text",
                "response_text",
                "tokens_input",
                "tokens_cache_read",
                "cost_usd",
                "status",
            ),
            "agent_logs": ("agent_id", "message", "details"),
        }
        for table, names in columns.items():
            ours, theirs = [
                [{name: row[name] for name in names} for row in rows[table]] for rows in await both(db, copy)
            ]
            assert ours == theirs


async def both(*databases: DatabaseManager) -> list[dict[str, list[dict[str, Any]]]]:
    """What is listed in each of them."""
    return [
        {
            "agents": [{**row} for row in await db.list_agents()],
            "prompts": [{**row} for row in await db.list_prompts()],
            "agent_logs": [{**row} for row in await db.list_recent_agent_logs()],
        }
        for db in databases
    ]


async def test_agents_that_never_were_spans_get_ids_of_their_own_and_every_field_of_a_span(db: DatabaseManager) -> None:
    async with db.agent_run("lead", "session-1") as lead, db.agent_run("scout", "session-1", lead.id) as scout:
        prompt = await scout.prompt("command", "What?", model_used="m")
        await db.complete_prompt(prompt, "That", tokens_input=3, tokens_cache_read=2, cost_usd=0.5)
        await scout.prompt("command", "Pending")
        await scout.log("tool_call", "ls", {"arguments": {"a": 1}})
        await scout.log("milestone", "Not a span")
    given = [message async for message in export_otlp(db)]
    spans = [each for message in given for each in message["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    assert len({each["traceId"] for each in spans}) == 1
    assert len({each["spanId"] for each in spans}) == len(spans) == 4
    by_name = {each["name"]: each for each in spans}
    assert by_name.keys() == {"invoke_agent lead", "invoke_agent scout", "chat m", "execute_tool ls"}
    assert by_name["invoke_agent scout"]["parentSpanId"] == by_name["invoke_agent lead"]["spanId"]
    assert by_name["chat m"]["parentSpanId"] == by_name["invoke_agent scout"]["spanId"]
    said = {each["key"]: each["value"] for each in by_name["chat m"]["attributes"]}
    assert said["gen_ai.usage.input_tokens"] == {"intValue": "5"}
    async with DatabaseManager(":memory:") as copy:
        report = await import_otlp(copy, given)
        assert (report.damaged, report.agents, report.prompts, report.tool_calls) == (0, 2, 1, 1)
        assert [row["cost_usd"] for row in await copy.list_prompts()] == [0.5]


async def a_session_of_its_own(db: DatabaseManager) -> None:
    """Agents that never were spans, with everything that an export can say of them."""
    async with db.agent_run("lead", "session-1") as lead:
        first = await lead.prompt("correction", "What?", prompt_name="ask", model_used="m")
        await db.complete_prompt(first, "That", tokens_input=3, tokens_cache_read=2, cost_usd=0.5)
        second = await lead.prompt("followup", "And?", model_used="m")
        await db.complete_prompt(second, status="cancelled")
        await lead.log("tool_call", "ls", {"arguments": {"a": 1}})
        await db.update_agent(lead.id, cost_usd=0.75)
        with suppress(ValueError):
            async with db.agent_run("scout", "session-1", lead.id) as scout:
                await scout.log("tool_call", "climb", {"error": "no ladder"}, log_level="ERROR")
                raise ValueError("no ladder")
    definition = await db.get_or_create_orchestrator_agent("at work")
    await db.create_agent(definition, "session-1", status="executing")


async def test_what_is_exported_can_be_imported_where_it_comes_from_and_changes_nothing(db: DatabaseManager) -> None:
    await a_session_of_its_own(db)
    before = await dump(db)
    lines = [json.dumps(message) async for message in export_otlp(db)]
    for _ in range(2):
        report = await import_otlp(db, lines)
        assert (report.damaged, report.refused) == (0, 0)
    assert await dump(db) == before


async def test_elsewhere_an_exported_session_is_the_same(db: DatabaseManager) -> None:
    await a_session_of_its_own(db)
    lines = [json.dumps(message) async for message in export_otlp(db)]
    left_out = {"updated_at", "metadata", "orchestrator_agent_id", "event_id", "details"}
    left_out |= {"started_at", "completed_at", "latency_ms"}  # a span has an end, and takes some time
    async with DatabaseManager(":memory:") as copy:
        for _ in range(2):
            await import_otlp(copy, lines)
        ours, theirs = await both(db, copy)
        for table in ("agents", "prompts", "agent_logs"):
            hidden = left_out | ({"id"} if table == "agent_logs" else set())
            rows = [
                [{k: v for k, v in row.items() if k not in hidden} for row in each[table]] for each in (ours, theirs)
            ]
            assert sorted(rows[0], key=repr) == sorted(rows[1], key=repr)
        names = [{row["name"] for row in await each.list_orchestrator_agents()} for each in (db, copy)]
        assert names[0] == names[1] == {"lead", "scout", "at work"}


@pytest.mark.parametrize("indent", [None, 2])
async def test_a_file_may_be_one_message_in_one_line_or_in_many(
    db: DatabaseManager, tmp_path: Path, indent: int | None
) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(request(*SPANS), indent=indent), encoding="utf-8")
    assert is_otlp(path)
    report = await import_otlp(db, path)
    assert (report.spans, report.agents, report.damaged) == (6, 2, 0)


async def test_a_message_in_many_lines_that_is_too_large_is_told(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(request(*SPANS), indent=2), encoding="utf-8")
    monkeypatch.setattr(traces, "_LARGEST", 100)
    with pytest.raises(InvalidValueError, match="one message"):
        await import_otlp(db, path)
    assert await db.list_agents() == []


async def test_spans_wait_for_their_traces_on_the_disk(tmp_path: Path) -> None:
    """What one trace takes is what an import takes, however many traces there are."""

    def lines() -> Any:
        for number in range(3_000):
            given = [{**each, "traceId": f"{number % 1_500 + 1:032x}"} for each in SPANS[:3] if number < 1_500]
            given += [{**each, "traceId": f"{number % 1_500 + 1:032x}"} for each in SPANS[3:] if number >= 1_500]
            for each in given:
                padding = {"key": "gen_ai.input.messages", "value": {"stringValue": "x" * 5_000}}
                each["attributes"] = [*each["attributes"], padding]
            yield json.dumps(request(*given))

    tracemalloc.start()
    try:
        report = await import_otlp(None, lines())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.spans, report.agents) == (9_000, 3_000)
    assert most < 5_000_000  # they are 45 MB


async def test_without_content_and_without_a_database(db: DatabaseManager) -> None:
    assert (await import_otlp(None, [request(*SPANS)])).prompts == 2
    await import_otlp(db, [request(*SPANS)], content=False)
    assert {row["prompt_text"] for row in await db.list_prompts()} == {""}
    assert sum(row["tokens_output"] or 0 for row in await db.list_prompts()) == 8
    (line,) = await db.list_recent_agent_logs()
    assert line["details"] == {"latency_ms": 96}

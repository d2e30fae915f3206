"""Spans of agents as rows, live: whose they become, what of them is stored, and that nobody waits for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Status, StatusCode, Tracer

from orchdb import AgentRow, DatabaseManager, InvalidValueError, PromptRow
from orchdb.integrations.genai import Seen
from orchdb.integrations.opentelemetry import OrchdbSpanProcessor, id_of_span
from tests.conftest import Target
from tests.support.databases import locked_by_another

AGENT: dict[str, Any] = {"gen_ai.operation.name": "invoke_agent"}
CHAT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "test",
    "gen_ai.request.model": "a-model",
}


@pytest.fixture
def processor(db: DatabaseManager, target: Target) -> Iterator[OrchdbSpanProcessor]:
    """A processor on the same database as ``db``."""
    made = OrchdbSpanProcessor(target.url)
    yield made
    made.shutdown()


@pytest.fixture
def tracer(processor: OrchdbSpanProcessor) -> Tracer:
    """What the program makes spans with."""
    return tracer_of(processor)


def tracer_of(processor: OrchdbSpanProcessor, **options: Any) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False, **options)
    provider.add_span_processor(processor)
    return provider.get_tracer("test")


def messages(*given: tuple[str, str]) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in given])


def usage(given: int, written: int, **more: int) -> dict[str, Any]:
    names = {"read": "cache_read.input_tokens", "write": "cache_write.input_tokens"}
    counts = {"gen_ai.usage.input_tokens": given, "gen_ai.usage.output_tokens": written}
    return counts | {f"gen_ai.usage.{names[name]}": count for name, count in more.items()}


async def agents(db: DatabaseManager, processor: OrchdbSpanProcessor) -> dict[str, AgentRow]:
    """The agents by the names of their definitions."""
    assert processor.force_flush()
    names = {row["id"]: row["name"] for row in await db.list_orchestrator_agents()}
    return {names[row["orchestrator_agent_id"]]: row for row in await db.list_agents()}


async def prompts(db: DatabaseManager, processor: OrchdbSpanProcessor) -> list[PromptRow]:
    assert processor.force_flush()
    return await db.list_prompts()


def run_of_two(tracer: Tracer) -> None:
    """A lead that asks a scout by a tool, with a span of something else in between."""
    lead = {**AGENT, "gen_ai.agent.name": "lead", "gen_ai.conversation.id": "session-1"}
    with tracer.start_as_current_span("invoke_agent lead", attributes=lead):
        first = {"gen_ai.input.messages": messages(("user", "What is there?")), **usage(50, 5, read=10, write=20)}
        with tracer.start_as_current_span("chat a-model", attributes={**CHAT, **first}):
            pass
        tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "ask", "gen_ai.tool.call.id": "c1"}
        with tracer.start_as_current_span("execute_tool ask", attributes=tool) as span:
            scout = {**AGENT, "gen_ai.agent.name": "scout", "gen_ai.conversation.id": "of its own"}
            with (
                tracer.start_as_current_span("POST /scout"),
                tracer.start_as_current_span("invoke_agent scout", attributes=scout),
                tracer.start_as_current_span("chat a-model", attributes={**CHAT, **usage(7, 3)}),
            ):
                pass
            span.set_attribute("gen_ai.tool.call.arguments", '{"q": "a"}')
            span.set_attribute("gen_ai.tool.call.result", "found it")
        history = messages(("user", "What is there?"), ("assistant", "I ask"), ("user", "And?"))
        last = {"gen_ai.input.messages": history, "gen_ai.output.messages": messages(("assistant", "Done"))}
        with tracer.start_as_current_span("chat a-model", attributes={**CHAT, **last, **usage(60, 6)}):
            pass


async def test_a_lead_and_its_scout_are_two_agents_with_their_prompts_and_tool_calls(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    run_of_two(tracer)
    found = await agents(db, processor)
    assert found.keys() == {"lead", "scout"}
    lead, scout = found["lead"], found["scout"]
    assert (lead["parent_agent_id"], scout["parent_agent_id"]) == (None, lead["id"])
    assert lead["session_id"] == scout["session_id"] == "session-1"
    assert lead["status"] == scout["status"] == "completed"
    assert lead["created_at"] == lead["started_at"]
    assert lead["started_at"] is not None
    assert scout["started_at"] is not None
    assert lead["started_at"] <= scout["started_at"]
    assert await db.list_prompts(scout["id"])
    first, last = await db.list_prompts(lead["id"])
    assert (first["prompt_text"], first["prompt_type"], first["response_text"]) == ("What is there?", "command", None)
    assert (last["prompt_text"], last["prompt_type"], last["response_text"]) == ("And?", "followup", "Done")
    assert (first["tokens_input"], first["tokens_output"]) == (20, 5)
    assert (first["tokens_cache_read"], first["tokens_cache_write"]) == (10, 20)
    assert (last["model_used"], last["status"]) == ("a-model", "completed")
    (line,) = await db.get_agent_logs(lead["id"])
    assert (line["log_level"], line["log_type"], line["message"]) == ("INFO", "tool_call", "ask")
    assert isinstance(line["details"], dict)
    assert line["details"]["arguments"] == {"q": "a"}
    assert (line["details"]["result"], line["details"]["call_id"]) == ("found it", "c1")
    assert await db.get_agent_logs(scout["id"]) == []


async def test_an_agent_is_executing_while_its_span_is_open_and_its_id_follows_from_the_span(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("invoke_agent lead") as span:  # some say what it is only at the end
        context = span.get_span_context()
        row = (await agents(db, processor))["lead"]
        assert row["status"] == "executing"
        assert row["id"] == id_of_span(f"{context.trace_id:032x}", f"{context.span_id:016x}")
        assert row["session_id"] == f"{context.trace_id:032x}"
    assert (await agents(db, processor))["lead"]["status"] == "completed"


async def test_the_session_is_the_conversation_of_the_group_around(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    group = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.conversation.id": "session-7"}
    with (
        tracer.start_as_current_span("invoke_workflow w", attributes=group),
        tracer.start_as_current_span("invoke_agent lead"),
    ):
        pass
    assert (await agents(db, processor))["lead"]["session_id"] == "session-7"


async def test_older_names_say_the_same(db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer) -> None:
    older: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "test",
        "gen_ai.response.model": "b-model",
        "gen_ai.usage.prompt_tokens": 50,
        "gen_ai.usage.completion_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 20,
    }
    with tracer.start_as_current_span("chat", attributes=older):
        pass
    (row,) = await prompts(db, processor)
    assert (row["model_used"], row["tokens_input"], row["tokens_output"]) == ("b-model", 30, 5)
    assert row["tokens_cache_write"] == 20
    assert row["metadata"] is not None
    assert row["metadata"]["provider"] == "test"


async def test_a_call_without_an_agent_is_one_of_an_agent_that_ends_with_the_trace(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("GET /"):
        for _ in range(2):
            with tracer.start_as_current_span("chat", attributes={**CHAT, **usage(1, 1)}):
                pass
        assert (await agents(db, processor))["no agent"]["status"] == "executing"
    found = await agents(db, processor)
    assert found.keys() == {"no agent"}
    assert found["no agent"]["status"] == "completed"
    assert len(await db.list_prompts(found["no agent"]["id"])) == 2


async def test_what_went_wrong_is_told(db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer) -> None:
    with (
        pytest.raises(ValueError, match="no ladder"),
        tracer.start_as_current_span("invoke_agent lead"),
        tracer.start_as_current_span("execute_tool climb"),
        tracer.start_as_current_span("chat a-model"),
    ):
        raise ValueError("no ladder")
    with tracer.start_as_current_span("invoke_agent scout") as span:
        span.set_attribute("error.type", "CancelledError")
        span.set_status(Status(StatusCode.ERROR))
    with tracer.start_as_current_span("invoke_agent builder") as span:
        span.set_status(Status(StatusCode.ERROR, "out of wood"))
    found = await agents(db, processor)
    outcomes = {name: (row["status"], row["error_message"]) for name, row in found.items()}
    assert outcomes == {
        "lead": ("failed", "ValueError: no ladder"),
        "scout": ("cancelled", None),
        "builder": ("failed", "out of wood"),
    }
    (line,) = await db.get_agent_logs(found["lead"]["id"])
    assert (line["log_level"], line["message"]) == ("ERROR", "climb")
    (row,) = await db.list_prompts()
    assert (row["status"], row["error_message"]) == ("failed", "ValueError: no ladder")


async def test_a_reported_cost_is_the_prompts_and_its_agents_and_an_unknown_one_is_none(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_extra(*_: object, **__: object) -> float:
        raise ImportError

    monkeypatch.setattr("orchdb.integrations.genai.cost_of", without_the_extra)
    with tracer.start_as_current_span("invoke_agent lead"):
        for cost in ({"operation.cost": 0.25}, {"gen_ai.usage.cost.amount": 0.5}, {}):
            with tracer.start_as_current_span("chat", attributes={**CHAT, **usage(1, 1), **cost}):
                pass
    lead = (await agents(db, processor))["lead"]
    assert lead["cost_usd"] == 0.75
    assert [row["cost_usd"] for row in await db.list_prompts(lead["id"])] == [0.25, 0.5, None]


async def test_without_a_reported_cost_the_list_of_prices_is_asked(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost_of(model: str, counts: dict[str, int], *, at: object) -> float:
        if model != "a-model":
            raise LookupError(model)
        return counts["tokens_input"] + counts["tokens_cache_read"] / 10

    monkeypatch.setattr("orchdb.integrations.genai.cost_of", cost_of)
    monkeypatch.setattr("orchdb.integrations.genai.price_list", lambda: "a list 1")
    for model in ("a-model", "unknown"):
        given = {**CHAT, "gen_ai.request.model": model, **usage(30, 1, read=20)}
        with tracer.start_as_current_span("chat", attributes=given):
            pass
    first, second = await prompts(db, processor)
    assert (first["cost_usd"], second["cost_usd"]) == (12.0, None)
    assert first["metadata"] is not None
    assert first["metadata"]["price_list"] == "a list 1"


async def test_spans_that_are_not_sampled_leave_nothing(db: DatabaseManager, target: Target) -> None:
    processor = OrchdbSpanProcessor(target.url)
    run_of_two(tracer_of(processor, sampler=ALWAYS_OFF))
    assert await agents(db, processor) == {}
    processor.shutdown()


ODD: tuple[dict[str, Any], ...] = (
    {"gen_ai.input.messages": "not JSON {", "gen_ai.output.messages": "7"},
    {"gen_ai.input.messages": "[1, null, {}]", "gen_ai.output.messages": '[{"parts": [3, {"type": "x", "a": 1}]}]'},
    {"gen_ai.usage.input_tokens": -1, "gen_ai.usage.output_tokens": True},
    {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 9},
    {"gen_ai.request.model": "x" * 600, "gen_ai.response.finish_reasons": ("a", "b")},
    {"gen_ai.conversation.id": 7, "gen_ai.input.messages": messages(("user", "\0\ud800"))},
    {"operation.cost": "dear", "error.type": "x"},
    {"operation.cost": float("nan")},
)


@pytest.mark.parametrize("odd", ODD)
async def test_whatever_a_span_says_it_harms_nobody(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer, odd: dict[str, Any]
) -> None:
    with tracer.start_as_current_span("invoke_agent lead"):
        with tracer.start_as_current_span("chat", attributes={**CHAT, **odd}):
            pass
        with tracer.start_as_current_span("chat", attributes={**CHAT, **usage(1, 1)}):
            pass
    assert (await agents(db, processor))["lead"]["status"] == "completed"
    assert len(await db.list_prompts()) == 2
    assert processor.dropped == 0


async def test_a_span_that_cannot_be_stored_takes_no_other_along(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(span: Seen) -> tuple[str, str]:
        if span.get("model") == "odd":
            raise RecursionError("What is private")
        return "", "command"

    monkeypatch.setattr("orchdb.integrations.spans.asked", fail)
    with tracer.start_as_current_span("invoke_agent lead"):
        for model in ("a", "odd", "b"):
            with tracer.start_as_current_span("chat", attributes={**CHAT, "gen_ai.request.model": model}):
                pass
    assert [row["model_used"] for row in await prompts(db, processor)] == ["a", "b"]
    assert (await agents(db, processor))["lead"]["status"] == "completed"
    assert processor.dropped == 1


async def test_an_agent_that_says_only_at_its_end_that_it_is_one_is_there(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    with (
        tracer.start_as_current_span("the workflow", attributes={**AGENT, "traceloop.span.kind": "workflow"}),
        tracer.start_as_current_span("late") as span,
        tracer.start_as_current_span("chat", attributes={**CHAT, **usage(3, 1)}),
    ):
        span.set_attributes({**AGENT, "gen_ai.agent.name": "scout"})
    found = await agents(db, processor)
    assert found["scout"]["status"] == "completed"
    assert found.keys() <= {"scout", "no agent"}


async def test_an_agent_without_a_name_is_called_like_its_span(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    for name in ("scout.agent", "invoke_agent"):
        with tracer.start_as_current_span(name, attributes=AGENT):
            pass
    assert (await agents(db, processor)).keys() == {"scout.agent", "no agent"}


async def test_an_agent_that_was_reaped_meanwhile_keeps_its_end(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("invoke_agent lead"):
        lead = (await agents(db, processor))["lead"]
        await db.update_agent(lead["id"], status="failed", error_message="owner lost")
    row = (await agents(db, processor))["lead"]
    assert (row["status"], row["error_message"]) == ("failed", "owner lost")


async def test_an_agent_that_somebody_deletes_takes_nothing_else_along(
    db: DatabaseManager, processor: OrchdbSpanProcessor, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("invoke_agent lead"):
        await db.delete_agent((await agents(db, processor))["lead"]["id"])
        with tracer.start_as_current_span("invoke_agent scout"):
            pass
        with tracer.start_as_current_span("chat", attributes={**CHAT, **usage(1, 1)}):
            pass
    with tracer.start_as_current_span("invoke_agent builder"):
        pass
    found = await agents(db, processor)
    assert found.keys() == {"scout", "builder"}
    assert found["scout"]["parent_agent_id"] is None
    assert processor.dropped == 1


async def test_shutting_down_stores_what_there_is_and_fails_the_agents_whose_spans_are_open(
    db: DatabaseManager, target: Target
) -> None:
    processor = OrchdbSpanProcessor(target.url)
    tracer = tracer_of(processor)
    run_of_two(tracer)
    tracer.start_span("invoke_agent endless")
    processor.shutdown()
    processor.shutdown()
    run_of_two(tracer)
    names = {row["id"]: row["name"] for row in await db.list_orchestrator_agents()}
    ends = sorted((names[row["orchestrator_agent_id"]], row["status"]) for row in await db.list_agents())
    assert ends == [("endless", "failed"), ("lead", "completed"), ("scout", "completed")]
    assert processor.dropped > 0


async def test_a_locked_database_is_waited_for_by_nobody_but_who_flushes_and_what_has_no_room_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    async with DatabaseManager(path) as db:
        processor = OrchdbSpanProcessor(path, capacity=10, lock_timeout=0.05, interval=0)
        tracer = tracer_of(processor)
        with locked_by_another(path):
            for _ in range(5):
                with tracer.start_as_current_span("invoke_agent lead"):
                    pass
            assert processor.force_flush(200) is False
            for _ in range(30):
                with tracer.start_as_current_span("invoke_agent lead"):
                    pass
            assert processor.dropped > 0
        assert processor.force_flush() is True
        processor.shutdown()
        statuses = [row["status"] for row in await db.list_agents()]
    assert len(statuses) >= 10
    assert set(statuses) == {"completed"}
    assert "items were dropped" in caplog.text


def test_a_place_that_is_none_is_told_at_once() -> None:
    with pytest.raises(InvalidValueError):
        OrchdbSpanProcessor("mysql://a/b")
    with pytest.raises(InvalidValueError):
        OrchdbSpanProcessor("a.db", lease_seconds=0)

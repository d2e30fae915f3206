"""Runs of other frameworks with their own fake models, as they come in by OrchdbSpanProcessor.

An orchestrator asks a scout by a tool. The frameworks are no dependencies of orchdb: what is not installed is skipped.
"""

# mypy: ignore-errors

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from orchdb import AgentRow, DatabaseManager
from orchdb.integrations.opentelemetry import OrchdbSpanProcessor
from orchdb.integrations.otlp import export_otlp, import_otlp
from tests.conftest import Target
from tests.integrations.test_opentelemetry import run_of_two

pytestmark = pytest.mark.filterwarnings("ignore")
_PROVIDER = TracerProvider(shutdown_on_exit=False)
QUESTION = "What is there?"


class Watched:
    """What the program does with its spans, and what is stored of them."""

    def __init__(self, db: DatabaseManager, processor: OrchdbSpanProcessor, provider: TracerProvider) -> None:
        self.db, self.processor, self.provider = db, processor, provider
        self.statuses: list[str] = []

    async def note(self) -> None:
        """Note how the agents stand when this is first called, in the middle of the run."""
        assert self.processor.force_flush()
        self.statuses = self.statuses or [row["status"] for row in await self.db.list_agents()]

    async def lead_and_scout(self) -> tuple[AgentRow, AgentRow]:
        """The two agents that there are to be."""
        assert self.processor.force_flush()
        assert set(self.statuses) == {"executing"}
        names = {row["id"]: row["name"] for row in await self.db.list_orchestrator_agents()}
        found = {names[row["orchestrator_agent_id"]]: row for row in await self.db.list_agents()}
        assert found.keys() == {"lead", "scout"}
        lead, scout = found["lead"], found["scout"]
        assert (lead["status"], scout["status"]) == ("completed", "completed")
        assert (lead["parent_agent_id"], scout["parent_agent_id"]) == (None, lead["id"])
        assert lead["session_id"] == scout["session_id"]
        assert self.processor.dropped == 0
        return lead, scout

    async def tokens(self) -> tuple[int, int]:
        """Those of all prompts: given, from the cache too, and written."""
        rows = await self.db.list_prompts()
        given = ("tokens_input", "tokens_cache_read", "tokens_cache_write")
        return sum(row[name] for row in rows for name in given), sum(row["tokens_output"] for row in rows)


@pytest.fixture
def watched(db: DatabaseManager, target: Target, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A provider of spans whose processor writes to the same database as ``db``."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    processor = OrchdbSpanProcessor(target.url)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    yield Watched(db, processor, provider)
    processor.shutdown()


async def test_pydantic_ai(watched: Watched) -> None:
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from pydantic_ai.models.test import TestModel

    settings = InstrumentationSettings(tracer_provider=watched.provider)
    Agent.instrument_all(settings)
    scout = Agent(TestModel(custom_output_text="found it"), name="scout")
    lead = Agent(TestModel(call_tools=["ask_scout"]), name="lead")
    totals: list[Any] = []

    @lead.tool_plain
    async def ask_scout(question: str) -> str:
        await watched.note()
        result = await scout.run(question)
        totals.append(result.usage)
        return result.output

    result = await lead.run(QUESTION)
    totals.append(result.usage)
    lead_row, scout_row = await watched.lead_and_scout()
    totals = [each() if callable(each) else each for each in totals]
    expected = sum(each.input_tokens for each in totals), sum(each.output_tokens for each in totals)
    assert await watched.tokens() == expected
    first, second = await watched.db.list_prompts(lead_row["id"])
    assert (first["prompt_text"], second["prompt_text"]) == (QUESTION, "found it")
    assert second["response_text"] == result.output
    assert [row["response_text"] for row in await watched.db.list_prompts(scout_row["id"])] == ["found it"]
    (line,) = await watched.db.get_agent_logs(lead_row["id"])
    assert (line["log_type"], line["message"], line["details"]["result"]) == ("tool_call", "ask_scout", "found it")


async def test_google_adk(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.adk")
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.adk.tools.agent_tool import AgentTool
    from google.genai import types

    totals: list[Any] = []

    class FakeModel(BaseLlm):
        script: list[Any] = []  # noqa: RUF012  # a field of a model

        async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
            await watched.note()
            counts = {"prompt_token_count": 50, "candidates_token_count": 5, "cached_content_token_count": 10}
            usage = types.GenerateContentResponseUsageMetadata(**counts)
            totals.append(usage)
            content = types.Content(role="model", parts=[self.script.pop(0)])
            yield LlmResponse(content=content, usage_metadata=usage, model_version="fake-1")

    _provider_for_all().add_span_processor(watched.processor)
    call = types.Part(function_call=types.FunctionCall(name="scout", args={"request": "a"}))
    scout = LlmAgent(name="scout", model=FakeModel(model="fake", script=[types.Part(text="found it")]))
    lead = LlmAgent(
        name="lead",
        model=FakeModel(model="fake", script=[call, types.Part(text="done")]),
        tools=[AgentTool(agent=scout)],
    )
    runner = InMemoryRunner(agent=lead, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    message = types.Content(role="user", parts=[types.Part(text=QUESTION)])
    async for _ in runner.run_async(user_id="u", session_id=session.id, new_message=message):
        pass
    lead_row, scout_row = await watched.lead_and_scout()
    assert lead_row["session_id"] == session.id
    expected = sum(each.prompt_token_count for each in totals), sum(each.candidates_token_count for each in totals)
    assert await watched.tokens() == expected == (150, 15)
    first, second = await watched.db.list_prompts(lead_row["id"])
    assert first["prompt_text"].endswith(QUESTION)
    assert (second["response_text"], second["tokens_cache_read"]) == ("done", 10)
    assert len(await watched.db.list_prompts(scout_row["id"])) == 1
    (line,) = await watched.db.get_agent_logs(lead_row["id"])
    assert (line["message"], line["details"]["arguments"]) == ("scout", {"request": "a"})


def _provider_for_all() -> Any:
    """The provider of the process, which can be set once."""
    if trace.get_tracer_provider() is not _PROVIDER:
        trace.set_tracer_provider(_PROVIDER)
    return _PROVIDER


def _answers(request: Any) -> Any:
    """What stands for OpenAI: the lead asks the scout, and is done when it has been answered."""
    given = json.loads(request.content)
    calls = given["model"] == "lead-model" and "found it" not in request.content.decode()
    text = "done" if given["model"] == "lead-model" else "found it"
    call = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "ask_scout", "arguments": '{"question": "a"}'}
    content = [{"type": "output_text", "text": text, "annotations": []}]
    said = {"type": "message", "id": "m1", "role": "assistant", "content": content}
    usage = {
        "input_tokens": 50,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 55,
    }
    answer = {"id": "r1", "object": "response", "created_at": 1, "status": "completed", "model": given["model"]}
    answer |= {"output": [{**(call if calls else said), "status": "completed"}], "usage": usage}
    return {**answer, "parallel_tool_calls": False, "tool_choice": "auto", "tools": []}


async def test_openai_agents(watched: Watched) -> None:
    openai = pytest.importorskip("openai")
    agents = pytest.importorskip("agents")
    of_agents = pytest.importorskip("opentelemetry.instrumentation.genai.openai_agents")
    of_calls = pytest.importorskip("opentelemetry.instrumentation.genai.openai")
    import httpx

    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=_answers(request)))
    client = openai.AsyncOpenAI(api_key="none", http_client=httpx.AsyncClient(transport=transport))
    agents.set_trace_processors([])  # the one that sends them to OpenAI
    instrumentors = (of_calls.OpenAIInstrumentor(), of_agents.OpenAIAgentsInstrumentor())
    for each in instrumentors:
        each.instrument(tracer_provider=watched.provider)
    totals: list[Any] = []
    try:
        scout = agents.Agent("scout", model=agents.OpenAIResponsesModel("scout-model", client))

        async def ask_scout(question: str) -> str:
            await watched.note()
            result = await agents.Runner.run(scout, question)
            totals.append(result.context_wrapper.usage)
            return str(result.final_output)

        model = agents.OpenAIResponsesModel("lead-model", client)
        lead = agents.Agent("lead", model=model, tools=[agents.function_tool(ask_scout)])
        result = await agents.Runner.run(lead, QUESTION)
        totals.append(result.context_wrapper.usage)
    finally:
        for each in instrumentors:
            each.uninstrument()
    lead_row, scout_row = await watched.lead_and_scout()
    expected = sum(each.input_tokens for each in totals), sum(each.output_tokens for each in totals)
    assert await watched.tokens() == expected == (150, 15)
    first, second = await watched.db.list_prompts(lead_row["id"])
    assert (first["prompt_text"], second["prompt_text"]) == (QUESTION, "found it")
    assert (second["response_text"], second["tokens_cache_read"], second["prompt_type"]) == ("done", 10, "tool_call")
    (prompt,) = await watched.db.list_prompts(scout_row["id"])
    assert (prompt["prompt_text"], prompt["response_text"], prompt["model_used"]) == ("a", "found it", "scout-model")
    (line,) = await watched.db.get_agent_logs(lead_row["id"])
    assert (line["message"], line["details"]["arguments"]) == ("ask_scout", {"question": "a"})
    assert line["details"]["result"] == "found it"


async def test_langgraph(watched: Watched) -> None:
    langchain = pytest.importorskip("opentelemetry.instrumentation.genai.langchain")
    from langchain.agents import create_agent
    from langchain_core.callbacks import UsageMetadataCallbackHandler
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool

    class FakeModel(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **options: Any) -> Any:
            return self

        def _get_ls_params(self, stop: Any = None, **options: Any) -> Any:
            return {"ls_provider": "fake", "ls_model_name": "fake-1", "ls_model_type": "chat"}

    def answering(*texts: str) -> FakeModel:
        tokens = {"input_tokens": 50, "output_tokens": 5, "total_tokens": 55, "input_token_details": {"cache_read": 10}}
        call = {"name": "ask_scout", "args": {"question": "a"}, "id": "c1"}
        told = {"usage_metadata": tokens, "response_metadata": {"model_name": "fake-1"}}
        return FakeModel(messages=iter(AIMessage(text, tool_calls=[] if text else [call], **told) for text in texts))

    totals = UsageMetadataCallbackHandler()
    instrumentor = langchain.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=watched.provider)
    try:
        scout = create_agent(answering("found it"), [], name="scout")

        @tool
        async def ask_scout(question: str) -> str:
            """Ask the scout."""
            await watched.note()
            result = await scout.ainvoke({"messages": [("user", question)]})
            return str(result["messages"][-1].content)

        lead = create_agent(answering("", "done"), [ask_scout], name="lead")
        await lead.ainvoke({"messages": [("user", QUESTION)]}, {"callbacks": [totals]})
    finally:
        instrumentor.uninstrument()
    lead_row, scout_row = await watched.lead_and_scout()
    (total,) = totals.usage_metadata.values()
    assert await watched.tokens() == (total["input_tokens"], total["output_tokens"]) == (150, 15)
    first, second = await watched.db.list_prompts(lead_row["id"])
    assert (first["prompt_text"], second["prompt_text"]) == (QUESTION, "found it")
    assert (second["response_text"], second["tokens_cache_read"]) == ("done", 10)
    assert [row["response_text"] for row in await watched.db.list_prompts(scout_row["id"])] == ["found it"]
    (line,) = await watched.db.get_agent_logs(lead_row["id"])
    assert (line["message"], line["details"]["arguments"]) == ("ask_scout", {"question": "a"})


async def test_a_file_of_an_exporter_is_taken_and_what_is_exported_is_what_a_receiver_reads(
    db: DatabaseManager, tmp_path: Path
) -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.otlp.json.file")
    messages = pytest.importorskip("opentelemetry.proto_json.collector.trace.v1.trace_service")
    path = tmp_path / "traces.jsonl"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter.FileSpanExporter(path)))
    run_of_two(provider.get_tracer("test"))
    provider.shutdown()
    with path.open(encoding="utf-8") as file:
        report = await import_otlp(db, file)
    assert (report.agents, report.prompts, report.tool_calls, report.damaged) == (2, 3, 1, 0)
    lead, scout = (await db.list_agents("session-1"))[::-1]
    assert scout["parent_agent_id"] == lead["id"]
    spans = 0
    async for message in export_otlp(db):
        read = messages.ExportTraceServiceRequest.from_json(json.dumps(message))
        spans += sum(len(scope.spans) for resource in read.resource_spans for scope in resource.scope_spans)
    assert spans == 6

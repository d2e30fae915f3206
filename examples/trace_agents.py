"""Agents of another framework, as they come in by OpenTelemetry; needs the extra ``otel``.

    python examples/trace_agents.py

In the place of a framework stands a program that makes the same spans: a lead that asks a scout by a tool.
"""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from orchdb import DatabaseManager
from orchdb.integrations.opentelemetry import OrchdbSpanProcessor


def chat(tracer: Tracer, asked: str, answered: str) -> None:
    """Make the span of a call of a model."""
    with tracer.start_as_current_span("chat a-model") as span:
        for name, role, text in (("input", "user", asked), ("output", "assistant", answered)):
            message = [{"role": role, "parts": [{"type": "text", "content": text}]}]
            span.set_attribute(f"gen_ai.{name}.messages", json.dumps(message))
        span.set_attribute("gen_ai.usage.input_tokens", 50)
        span.set_attribute("gen_ai.usage.output_tokens", 5)


def work(tracer: Tracer, session: str) -> None:
    """Make the spans of a run."""
    with tracer.start_as_current_span("invoke_agent lead", attributes={"gen_ai.conversation.id": session}):
        chat(tracer, "What is in the attic?", "I ask a scout")
        with (
            tracer.start_as_current_span("execute_tool ask_scout"),
            tracer.start_as_current_span("invoke_agent scout"),
        ):
            chat(tracer, "Look at the attic", "There is no ladder")


async def main() -> None:
    """Let it work, and show what has arrived."""
    processor = OrchdbSpanProcessor("data/traces.db")
    provider = TracerProvider()
    provider.add_span_processor(processor)
    session = str(uuid4())
    work(provider.get_tracer("example"), session)
    provider.shutdown()
    async with DatabaseManager("data/traces.db") as db:
        for agent in reversed(await db.list_agents(session)):
            definition = await db.get_orchestrator_agent(agent["orchestrator_agent_id"])
            assert definition is not None
            below = "" if agent["parent_agent_id"] is None else "  "
            for prompt in await db.list_prompts(agent["id"]):
                tokens = (prompt["tokens_input"] or 0) + (prompt["tokens_output"] or 0)
                answer = prompt["response_text"]
                print(f"{below}{definition['name']}, {agent['status']}: {answer} ({tokens} tokens)")


asyncio.run(main())

"""What is handed over while the store stands still: nobody waits for it, it has a bound, and no collector walks it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from orchdb import DatabaseManager
from orchdb.integrations.log_batches import LogBatch
from orchdb.integrations.logging import DatabaseHandler
from orchdb.integrations.opentelemetry import OrchdbSpanProcessor
from orchdb.integrations.spans import SpanBatch
from tests.integrations.test_logging import attached
from tests.integrations.test_opentelemetry import CHAT, messages, usage

logger_of = contextmanager(attached)
NO_TIME = 30
"""Seconds; only a call that waits takes so long."""


class Still:
    """A store whose thread stands still in the middle of its work, until it is let go."""

    def __init__(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        store = kind.store

        async def stand(batch: Any, *arguments: Any) -> int:
            self.reached.set()
            self.go.wait()  # of the thread itself, with whatever lock it may hold
            stored: int = await store(batch, *arguments)
            return stored

        monkeypatch.setattr(kind, "store", stand)

    def while_it_stands(self, call: Callable[[], object]) -> None:
        """Do this in another thread, which must come to an end meanwhile."""
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(NO_TIME)
        assert not thread.is_alive()


@pytest.fixture
def still_records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Still]:
    still = Still(LogBatch, monkeypatch)
    yield still
    still.go.set()


@pytest.fixture
def still_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Still]:
    still = Still(SpanBatch, monkeypatch)
    yield still
    still.go.set()


def tracer_of(processor: OrchdbSpanProcessor) -> Any:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("test")


async def test_a_record_is_taken_or_dropped_while_the_thread_that_writes_stands_still(
    tmp_path: Path, still_records: Still, caplog: pytest.LogCaptureFixture
) -> None:
    handler = DatabaseHandler(tmp_path / "a.db", capacity=100, interval=0, exit_timeout=60)
    with logger_of(handler) as log:
        log.info("First")
        assert still_records.reached.wait(NO_TIME)

        def work() -> None:
            for number in range(150):
                log.info("%d", number)

        still_records.while_it_stands(work)
        assert handler.dropped == 50
        still_records.go.set()
        handler.close()
    async with DatabaseManager(tmp_path / "a.db") as db:
        assert [row["message"] for row in await db.get_system_logs()] == ["First", *map(str, range(100))]
    assert "DatabaseHandler: 50 items were dropped, 50 in all" in caplog.text


async def test_a_span_begins_and_ends_while_the_thread_that_writes_stands_still(
    tmp_path: Path, still_spans: Still, caplog: pytest.LogCaptureFixture
) -> None:
    processor = OrchdbSpanProcessor(tmp_path / "a.db", capacity=50, interval=0, exit_timeout=60)
    tracer = tracer_of(processor)

    def work() -> None:
        for _ in range(100):
            with tracer.start_as_current_span("invoke_agent scout"):
                pass

    with tracer.start_as_current_span("invoke_agent lead"):
        assert still_spans.reached.wait(NO_TIME)
        still_spans.while_it_stands(work)
    dropped = processor.dropped
    assert dropped > 0
    still_spans.go.set()
    processor.shutdown()
    assert f"OrchdbSpanProcessor: {dropped} items were dropped, {dropped} in all" in caplog.text
    async with DatabaseManager(tmp_path / "a.db") as db:
        rows = await db.list_agents()
        assert len(rows) >= 25
        assert {row["status"] for row in rows} == {"completed"}


def tracked() -> int:
    gc.collect()
    gc.collect()
    return len(gc.get_objects())


def test_what_waits_is_nothing_to_the_collector_of_cycles(
    tmp_path: Path, still_records: Still, still_spans: Still
) -> None:
    handler = DatabaseHandler(tmp_path / "a.db", exit_timeout=60)
    processor = OrchdbSpanProcessor(tmp_path / "a.db", exit_timeout=60)
    tracer = tracer_of(processor)
    with logger_of(handler) as log:

        def work(number: int) -> None:
            for each in range(number):
                log.info("%d", each, extra={"a": each, "b": [{"c": each}]})
                said = {**CHAT, **usage(1, 1), "gen_ai.response.finish_reasons": ("stop",)}
                with tracer.start_as_current_span("chat", attributes=said) as span:
                    span.record_exception(ValueError("no ladder"))

        work(10)
        assert still_records.reached.wait(NO_TIME)
        assert still_spans.reached.wait(NO_TIME)
        before = tracked()
        work(500)
        assert tracked() - before < 500  # of 1,000 that wait: a few things of other threads come and go
        still_records.go.set()
        still_spans.go.set()
        handler.close()
        processor.shutdown()
    assert handler.dropped == processor.dropped == 0


async def test_what_waits_has_a_bound_in_bytes_too(tmp_path: Path, still_records: Still) -> None:
    handler = DatabaseHandler(tmp_path / "a.db", most_bytes=1_000_000, interval=0, exit_timeout=60)
    with logger_of(handler) as log:
        log.info("First")
        assert still_records.reached.wait(NO_TIME)
        log.info("x" * 400_000)
        log.info("Large", extra={"a": "x" * 400_000})
        log.info("x" * 400_000)
        log.info("Large", extra={"a": ["x" * 400_000]})
        log.info("Small")
        assert handler.dropped == 2
        still_records.go.set()
        handler.flush()
        log.info("y" * 900_000)  # there is room again
        handler.close()
    async with DatabaseManager(tmp_path / "a.db") as db:
        rows = await db.get_system_logs()
    assert [row["message"][:5] for row in rows] == ["First", "xxxxx", "Large", "Small", "yyyyy"]
    assert handler.dropped == 2


async def test_of_a_span_whose_texts_have_no_room_the_rest_is_kept(tmp_path: Path, still_spans: Still) -> None:
    processor = OrchdbSpanProcessor(tmp_path / "a.db", most_bytes=1_000_000, interval=0, exit_timeout=60)
    tracer = tracer_of(processor)
    with tracer.start_as_current_span("invoke_agent lead") as lead:
        assert still_spans.reached.wait(NO_TIME)
        for number in range(3):
            said = {**CHAT, **usage(10 + number, 1), "gen_ai.input.messages": messages(("user", "x" * 400_000))}
            with tracer.start_as_current_span("chat") as span:
                span.set_attributes(said)
        lead.set_attribute("gen_ai.output.messages", "x" * 400_000)
    assert processor.dropped == 2
    still_spans.go.set()
    processor.shutdown()
    async with DatabaseManager(tmp_path / "a.db") as db:
        assert [row["status"] for row in await db.list_agents()] == ["completed"]
        rows = await db.list_prompts()
    assert [(row["tokens_input"], len(row["prompt_text"])) for row in rows] == [(10, 400_000), (11, 400_000), (12, 0)]


def test_closing_counts_what_waits_for_a_store_that_stands_still(tmp_path: Path, still_records: Still) -> None:
    handler = DatabaseHandler(tmp_path / "a.db", exit_timeout=0.2, interval=0)
    with logger_of(handler) as log:
        log.info("First")
        assert still_records.reached.wait(NO_TIME)
        log.info("Second")
        still_records.while_it_stands(handler.close)
        assert handler.dropped == 2
        log.info("Third")
        assert handler.dropped == 3


async def test_what_the_thread_of_one_handler_logs_another_one_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LogBatch.store

    async def log_too(batch: LogBatch, db: DatabaseManager) -> int:
        log.info("Stored")
        return await store(batch, db)

    monkeypatch.setattr(LogBatch, "store", log_too)
    one, other = (DatabaseHandler(tmp_path / "a.db", exit_timeout=60) for _ in range(2))
    with logger_of(one) as log:
        log.addHandler(other)
        log.info("Once")
        one.close()
        other.close()
        log.removeHandler(other)
    async with DatabaseManager(tmp_path / "a.db") as db:
        assert [row["message"] for row in await db.get_system_logs()] == ["Once", "Once"]

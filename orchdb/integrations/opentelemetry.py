"""Agents of other frameworks, live: a processor of OpenTelemetry spans that speak the GenAI conventions.

It needs the extra ``otel``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode
from sqlalchemy import URL

from orchdb.errors import InvalidValueError
from orchdb.integrations.background import BackgroundWriter
from orchdb.integrations.genai import Seen
from orchdb.integrations.spans import SpanBatch, SpanRows, id_of_span
from orchdb.manager import DatabaseManager

__all__ = ["OrchdbSpanProcessor", "id_of_span"]

logger = logging.getLogger("orchdb")


class OrchdbSpanProcessor(SpanProcessor):
    """A processor that stores the spans of agents as rows, while they run, and that the program never waits for.

    A span of an agent becomes an agent, ``executing`` until the span ends, below the agent whose span is around it. A
    call of a model becomes a prompt with its usage when it ends, a call of a tool a log line of the type ``tool_call``.
    The session is the conversation of the outermost agent, or the trace. Other spans are passed over.

    Each agent holds a lease while its span is open, so ``reap_agents`` ends those whose program has died. Spans that
    are not sampled are left out.

    Rows are written by a thread of the processor's own, with a connection of its own. While the database is away spans
    are kept, up to ``capacity``, and further ones are dropped, counted in ``dropped`` and told to the logger
    ``orchdb``.

    Args:
        url: Where to: a path or a URL, as for ``DatabaseManager``.
        capacity: How many beginnings and ends of spans may wait in memory.
        interval: Seconds in which they are gathered.
        exit_timeout: Seconds that ``shutdown()`` and the end of the program wait for what is not stored yet.
        lease_seconds: How long an agent counts as alive when nothing is heard from this process: from 1.
        **options: Further parameters of ``DatabaseManager``, such as ``upgrade``.

    Raises:
        InvalidValueError: ``url`` or an option is not usable.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        *,
        capacity: int = 20_000,
        interval: float = 0.05,
        exit_timeout: float = 10.0,
        lease_seconds: float = 60,
        **options: Any,
    ) -> None:
        if capacity < 1 or not 0 <= interval <= 60 or exit_timeout < 0 or lease_seconds < 1:
            raise InvalidValueError(
                "capacity and lease_seconds must be from 1, interval from 0 to 60 and exit_timeout from 0 seconds"
            )
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self._writer = BackgroundWriter(
            url,
            self._batch,
            name="OrchdbSpanProcessor",
            # The end of a span whose beginning was taken has room.
            capacity=2 * capacity,
            batch=500,
            interval=interval,
            exit_timeout=exit_timeout,
            options={"pool_size": 4, **options},
        )
        self._rows: WeakKeyDictionary[DatabaseManager, SpanRows] = WeakKeyDictionary()

    @property
    def dropped(self) -> int:
        """How many beginnings and ends of spans were not stored: no room, no time at the end, or refused."""
        return self._writer.dropped

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Take the beginning of a span.

        Args:
            span: The span.
            parent_context: Not used.
        """
        try:
            if span.context is not None and span.context.trace_flags.sampled:
                self._writer.put((True, _seen(span)), leaving=self._capacity)
        except Exception as error:  # a host does not fail because it is watched
            logger.error("OrchdbSpanProcessor: a span could not be read: %s", type(error).__name__)

    def on_end(self, span: ReadableSpan) -> None:
        """Take the end of a span.

        Args:
            span: The span.
        """
        if span.context is not None and span.context.trace_flags.sampled:
            self._writer.put((False, span))

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what was taken so far is stored.

        Args:
            timeout_millis: At most so many milliseconds.

        Returns:
            Whether it is.
        """
        return self._writer.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Store what was taken so far, for at most ``exit_timeout`` seconds, and end.

        Agents whose spans are still open become ``failed``.
        """
        self._writer.close()

    def _batch(self, items: list[Any]) -> _Batch:
        return _Batch(self._rows, self._lease_seconds, items)


class _Batch:
    """What is handed over, on its way; spans are read here, and not in the program's own threads."""

    def __init__(self, rows: WeakKeyDictionary[DatabaseManager, SpanRows], lease: float, items: list[Any]) -> None:
        self._rows, self._lease = rows, lease
        self._batch: SpanBatch | None = None
        self._items = items

    async def store(self, db: DatabaseManager) -> int:
        if self._batch is None:
            if db not in self._rows:
                self._rows[db] = SpanRows(db, self._lease)
            spans = [(begins, given if isinstance(given, Seen) else _seen(given)) for begins, given in self._items]
            self._batch = SpanBatch(self._rows[db], spans)
        return await self._batch.store()


def _seen(span: ReadableSpan) -> Seen:
    context, parent = span.context, span.parent
    assert context is not None
    attributes: Mapping[str, Any] = span.attributes or {}
    failed = span.status.status_code is StatusCode.ERROR
    return Seen(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=None if parent is None else f"{parent.span_id:016x}",
        name=span.name,
        started=span.start_time or 0,
        ended=span.end_time,
        attributes=dict(attributes),
        failure=(span.status.description or "") if failed else None,
        exceptions=[dict(event.attributes or {}) for event in span.events if event.name == "exception"],
    )

"""Agents of other frameworks, live: a processor of OpenTelemetry spans that speak the GenAI conventions.

It needs the extra ``otel``.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode
from sqlalchemy import URL

from orchdb.integrations.background import LARGE, MOST_BYTES, BackgroundWriter, check_options
from orchdb.integrations.genai import Seen
from orchdb.integrations.spans import SpanBatch, SpanRows, id_of_span
from orchdb.manager import DatabaseManager

__all__ = ["OrchdbSpanProcessor", "id_of_span"]

logger = logging.getLogger("orchdb")

_Taken = tuple[Any, ...]
"""What a span said at its beginning or its end."""
_SHORT = 1_000
_MOST_OPEN = 100_000
"""Spans whose ends are sure of the room that is kept for ends."""


class OrchdbSpanProcessor(SpanProcessor):
    """A processor that stores the spans of agents as rows, while they run, and that the program never waits for.

    A span of an agent becomes an agent, ``executing`` until the span ends, below the agent whose span is around it. A
    call of a model becomes a prompt with its usage when it ends, a call of a tool a log line of the type ``tool_call``.
    The session is the conversation of the outermost agent, or the trace. Other spans are passed over.

    Each agent holds a lease while its span is open, so ``reap_agents`` ends those whose program has died. Spans that
    are not sampled are left out.

    Rows are written by a thread of the processor's own, with a connection of its own. While the database is away spans
    are kept, up to ``capacity`` and ``most_bytes``, and further ones are dropped, counted in ``dropped`` and told to
    the logger ``orchdb``; of one whose texts alone have no room the rest is kept.

    Args:
        url: Where to: a path or a URL, as for ``DatabaseManager``.
        capacity: How many beginnings and ends of spans may wait in memory.
        most_bytes: How long the texts of large ones may be, together.
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
        most_bytes: int = MOST_BYTES,
        interval: float = 0.05,
        exit_timeout: float = 10.0,
        lease_seconds: float = 60,
        **options: Any,
    ) -> None:
        check_options(
            capacity=capacity,
            most_bytes=most_bytes,
            interval=interval,
            exit_timeout=exit_timeout,
            lease_seconds=lease_seconds,
        )
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self._open = set[int]()
        """Spans whose beginnings were taken."""
        self._writer = BackgroundWriter(
            url,
            self._batch,
            name="OrchdbSpanProcessor",
            capacity=2 * capacity,
            most_bytes=most_bytes,
            batch=500,
            interval=interval,
            exit_timeout=exit_timeout,
            options={"pool_size": 4, **options},
        )
        self._rows: WeakKeyDictionary[DatabaseManager, SpanRows] = WeakKeyDictionary()

    @property
    def dropped(self) -> int:
        """How many beginnings and ends of spans were not stored: no room, no time at the end, or refused.

        One whose texts alone had no room counts as well.
        """
        return self._writer.dropped

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Take the beginning of a span.

        Args:
            span: The span.
            parent_context: Not used.
        """
        self._take(span, begins=True)

    def on_end(self, span: ReadableSpan) -> None:
        """Take the end of a span.

        Args:
            span: The span.
        """
        self._take(span, begins=False)

    def _take(self, span: ReadableSpan, *, begins: bool) -> None:
        try:
            if span.context is None or not span.context.trace_flags.sampled:
                return
            span_id = span.context.span_id
            was_taken = span_id in self._open
            self._open.discard(span_id)
            taken, size = _taken(span, begins)
            # The end of a span whose beginning was taken has room that nothing else gets.
            room = 0 if was_taken else self._capacity
            is_taken = self._writer.put(taken, size=size, leaving=room)
            if not is_taken and size > LARGE:
                is_taken = self._writer.put(_without_texts(taken), leaving=room)
            if begins and is_taken and len(self._open) < _MOST_OPEN:
                self._open.add(span_id)
        except Exception as error:  # a host does not fail because it is watched
            logger.error("OrchdbSpanProcessor: a span could not be read: %s", type(error).__name__)

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
    """What is handed over, on its way."""

    def __init__(self, rows: WeakKeyDictionary[DatabaseManager, SpanRows], lease: float, items: list[_Taken]) -> None:
        self._rows, self._lease = rows, lease
        self._batch: SpanBatch | None = None
        self._items = items

    async def store(self, db: DatabaseManager) -> int:
        if self._batch is None:
            if db not in self._rows:
                self._rows[db] = SpanRows(db, self._lease)
            self._batch = SpanBatch(self._rows[db], [(item[1], partial(_event, item)) for item in self._items])
        return await self._batch.store()


def _taken(span: ReadableSpan, begins: bool) -> tuple[_Taken, int]:
    """What a span says now, and the length of its texts.

    It is a tuple of texts and numbers alone: Python's collector of cycles passes over those, so that as many as may
    wait cost the program none of the long pauses in which it walks through all that is alive.
    """
    context, parent = span.context, span.parent
    assert context is not None
    attributes = tuple(chain.from_iterable((span.attributes or {}).items()))
    events = [event.attributes or {} for event in span.events if event.name == "exception"]
    failed = span.status.status_code is StatusCode.ERROR
    taken = (
        begins,
        context.trace_id,
        context.span_id,
        None if parent is None else parent.span_id,
        span.name,
        span.start_time or 0,
        span.end_time,
        (span.status.description or "") if failed else None,
        tuple(tuple(chain.from_iterable(each.items())) for each in events),
        attributes,
    )
    return taken, sum(len(value) for value in attributes if isinstance(value, (str, bytes)))


def _without_texts(taken: _Taken) -> _Taken:
    """The same without long texts: what there is no room for in whole leaves its numbers, and its end."""
    said = taken[-1]
    pairs = (
        pair
        for pair in zip(said[::2], said[1::2], strict=True)
        if not isinstance(pair[1], (str, bytes)) or len(pair[1]) <= _SHORT
    )
    return (*taken[:-2], (), tuple(chain.from_iterable(pairs)))


def _event(taken: _Taken) -> tuple[bool, Seen]:
    begins, trace_id, span_id, parent_id, name, started, ended, failure, exceptions, attributes = taken
    return begins, Seen(
        trace_id=f"{trace_id:032x}",
        span_id=f"{span_id:016x}",
        parent_id=None if parent_id is None else f"{parent_id:016x}",
        name=name,
        started=started,
        ended=ended,
        attributes=dict(zip(attributes[::2], attributes[1::2], strict=True)),
        failure=failure,
        exceptions=[dict(zip(each[::2], each[1::2], strict=True)) for each in exceptions],
    )

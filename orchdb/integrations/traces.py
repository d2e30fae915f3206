"""Spans of files: read from OTLP-JSON, they wait for the rest of their traces on the disk, however many they are."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

from orchdb.errors import InvalidValueError
from orchdb.integrations.genai import CONTENT, NAMES, Seen

_READ = frozenset(chain.from_iterable(NAMES.values()))
_CONTENT = frozenset(chain.from_iterable(NAMES[name] for name in CONTENT))
_BEGINNING = re.compile(rb'\s*\{\s*"resourceSpans"\s*:')
_ERROR = (2, "STATUS_CODE_ERROR")
_LARGEST = 2**28
"""Bytes of a file that is one message in many lines, which is read at once."""


class Place(NamedTuple):
    """Where a span stands in its trace."""

    span_id: str
    parent_id: str | None
    started: int
    ended: int


class Traces:
    """Spans, to be read trace by trace; all that is in memory at once are the places of one trace.

    Args:
        content: Whether to keep what models and tools were given and gave.
    """

    def __init__(self, *, content: bool = True) -> None:
        self._content = content
        self._file = sqlite3.connect("", isolation_level=None)  # a file without a name, which goes with the connection
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute(
            "CREATE TABLE spans (trace TEXT, id TEXT, parent TEXT, started INTEGER, ended INTEGER, said BLOB,"
            " PRIMARY KEY (trace, id)) WITHOUT ROWID"
        )
        self._file.execute("BEGIN")

    def add(self, span: Seen) -> None:
        """Keep a span; of one that comes again the last one counts."""
        kept = {name: value for name, value in span.attributes.items() if name in _READ or ".usage." in name}
        if not self._content:
            kept = {name: value for name, value in kept.items() if name not in _CONTENT}
        said = json.dumps((*astuple(span)[:6], kept, span.failure, [*map(dict, span.exceptions)]))
        place = (span.trace_id, span.span_id, span.parent_id, span.started, span.ended or span.started, said)
        self._file.execute("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?)", place)

    def places(self) -> Iterator[tuple[str, list[Place]]]:
        """Each trace with its spans, in order of their beginnings; the trace that begins first comes first."""
        traces = "SELECT trace FROM spans GROUP BY trace ORDER BY min(started), trace"
        spans = "SELECT id, parent, started, ended FROM spans WHERE trace = ? ORDER BY started, id"
        for (trace_id,) in self._file.execute(traces):
            yield trace_id, [Place(*row) for row in self._file.execute(spans, (trace_id,))]

    def span(self, trace_id: str, place: Place) -> Seen:
        """The span at a place."""
        query = "SELECT said FROM spans WHERE trace = ? AND id = ?"
        (said,) = self._file.execute(query, (trace_id, place.span_id)).fetchone()
        return Seen(*json.loads(said))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def parents_first(places: Iterable[Place]) -> Iterator[Place]:
    """Each span after the one around it, and in order of their beginnings; also those that are around each other."""
    waiting = [*places]
    known = {place.span_id: place for place in waiting}
    given = set[str]()
    for start in waiting:
        line: list[Place] = []
        place: Place | None = start
        while place is not None and place.span_id not in given:
            given.add(place.span_id)
            line.append(place)
            place = known.get(place.parent_id or "")
        yield from reversed(line)


def is_otlp(path: Path) -> bool:
    """Whether a file begins as OTLP-JSON does."""
    try:
        with path.open("rb") as file:
            return _BEGINNING.match(file.read(1_000)) is not None
    except OSError:
        return False


def messages_of(path: Path) -> Iterator[str | bytes | Mapping[str, Any]]:
    """What is in a file: its lines, or the one message that it is in many lines.

    Raises:
        InvalidValueError: It is one message, and too large to be read at once.
    """
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
        try:
            json.loads(first)
        except ValueError:
            if first.strip() in {b"{", b'{"resourceSpans":', b'{"resourceSpans": ['}:
                if path.stat().st_size > _LARGEST:
                    raise InvalidValueError(
                        f"{path} is one message of more than {_LARGEST >> 20} MiB: `jq -c '.resourceSpans[] | "
                        "{resourceSpans: [.]}'` makes it many lines",
                        column="path",
                    ) from None
                file.seek(0)
                yield file.read()
                return
        yield first
        yield from file


def spans_of(line: str | bytes | Mapping[str, Any]) -> Iterator[Seen | None]:
    """The spans of a message; ``None`` for each that is none, and for a line that is no message."""
    if isinstance(line, (str, bytes)):
        if not line.strip():
            return
        try:
            message = json.loads(line)
        except ValueError:
            yield None
            return
    else:
        message = line
    resources = object_of(message).get("resourceSpans")
    if not isinstance(resources, list):
        yield None
        return
    for resource in _mappings(resources):
        scopes = chain(_mappings(resource.get("scopeSpans")), _mappings(resource.get("instrumentationLibrarySpans")))
        for given in chain.from_iterable(_mappings(scope.get("spans")) for scope in scopes):
            yield _span(given)


def object_of(value: Any) -> Mapping[str, Any]:
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
    status = object_of(given.get("status"))
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
    for kind, found in object_of(value).items():
        if kind == "intValue":
            return int(found) if re.fullmatch(r"-?\d{1,19}", str(found)) else None
        if kind == "arrayValue":
            return [_plain(each) for each in _mappings(object_of(found).get("values"))]
        if kind == "kvlistValue":
            return _attributes(object_of(found).get("values"))
        if kind in {"stringValue", "doubleValue", "boolValue", "bytesValue"}:
            return found
    return None

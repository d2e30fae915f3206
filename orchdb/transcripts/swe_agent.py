"""SWE-agent: a trajectory, which is one document, to neutral events.

It has no times, and tokens and cost only for the run as a whole: they stand at its first response, which says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from orchdb.transcripts.claude_rows import count_of, dictionary, figures_of, objects, text_of, words
from orchdb.transcripts.events import OWN_FILE, AgentSeen, Counted, Event, Fact, Line, Response, Restart, Usage
from orchdb.transcripts.lines import document_of

_COMMAND = re.compile(r"[\w.-]{1,100}(?=\s|$)")
"""A name; what else an action begins with may be anything."""


class Run(NamedTuple):
    """Which run it is.

    Attributes:
        key: The key of its agent.
        session: The id of the session.
        project: What it worked on.
        written: When the file was written.
    """

    key: str
    session: str
    project: str
    written: datetime


def run_of(path: Path) -> Run:
    """Find out which run a trajectory is of: by its name, the name of its folder, and its task.

    Args:
        path: The file.
    """
    task = "\n".join((path.parent.name, *_task(document_of(path).value or {})))
    mark = hashlib.sha256(task.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    written = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    return Run(f"swe/{path.stem}/{mark}", f"{path.stem}-{mark}"[:500], path.parent.name, written)


class SweAgentReader:
    """Reads one trajectory.

    Args:
        run: Which it is.
    """

    source = "swe"

    def __init__(self, run: Run) -> None:
        self._run = run
        self._end = 0

    @property
    def key(self) -> str:
        """The key of the agent whose file it is."""
        return self._run.key

    def begin(self) -> Iterator[Event]:
        """Tell whose file it is."""
        run = self._run
        yield AgentSeen(run.key, run.session, run.project, "", None, OWN_FILE, self._time(0), own=True)

    def read(self, row: Mapping[str, Any], offset: int, end: int) -> Iterator[Event]:
        """Tell what the document says.

        Args:
            row: The document.
            offset: Where it begins.
            end: Where it ends.
        """
        self._end = end
        info = dictionary(row.get("info"))
        stats = dictionary(info.get("model_stats"))
        steps = objects(row.get("trajectory"))
        facts = {
            "environment": words(row.get("environment")),
            "exit_status": words(info.get("exit_status")),
            "model_stats": figures_of(stats),
        }
        yield Fact(self.key, self._time(len(steps)), facts, {"submission": info.get("submission")})
        given, model = _task(row), _model(row)
        for number, step in enumerate(steps):
            yield from self._step(number, step, given, model, stats if number == 0 else {})
            given = [words(step.get("observation")) or ""]

    def finish(self) -> Iterator[Event]:
        """Tell nothing more."""
        yield from ()

    def restart(self) -> Restart:
        """Say that a document is read as a whole."""
        return Restart(self._end, {})

    def _time(self, number: int) -> str:
        """Steps have an order and no time: microseconds from when the file was written."""
        return (self._run.written + timedelta(microseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _step(
        self, number: int, step: Mapping[str, Any], given: list[str], model: str | None, stats: Mapping[str, Any]
    ) -> Iterator[Event]:
        at, name = self._time(number), f"{self.key}/{number}"
        usage = cost = None
        facts: dict[str, Any] = {"step": number, "parts": 1}
        if stats:
            usage = Usage(count_of(stats.get("tokens_sent")), count_of(stats.get("tokens_received")))
            cost = _dollars(stats.get("instance_cost"))
            facts |= {"covers": "run", "parts": 1 + count_of(stats.get("api_calls"))}
            yield Counted(model or "", usage, at, cost=cost or 0.0)
        answer = words(step.get("response")) or words(step.get("thought"))
        kind = "command" if number == 0 else "tool_call"
        yield Response(
            self.key,
            name,
            at,
            at,
            model,
            [text for text in given if text],
            [answer] if answer else [],
            usage,
            figures_of(stats) or None,
            kind,
            name,
            facts=facts,
            reported_cost=cost or (0.0 if number else None),
        )
        yield from self._action(name, at, step)

    def _action(self, name: str, at: str, step: Mapping[str, Any]) -> Iterator[Event]:
        seconds = step.get("execution_time")
        action = words(step.get("action"))
        if action:
            tool = (_COMMAND.match(action) or ["action"])[0]
            yield Line(self.key, f"{name}:action", at, "tool_call", tool, action[:200], content={"input": action})
            text = words(step.get("observation")) or ""
            more = {"execution_time": seconds} if isinstance(seconds, (int, float)) else {}
            facts = {"characters": len(text)} | more
            yield Line(
                self.key,
                f"{name}:result",
                at,
                "tool_result",
                "result",
                text[:200],
                facts=facts,
                content={"content": text},
            )


def _task(document: Mapping[str, Any]) -> list[str]:
    """What the model was given before it first answered."""
    given: list[str] = []
    for message in objects(document.get("history")):
        if message.get("role") == "assistant":
            break
        given.append(text_of(message.get("content")))
    return given


def _model(document: Mapping[str, Any]) -> str | None:
    """The model, where the document carries the configuration of its run."""
    config = document.get("replay_config")
    if isinstance(config, str):
        try:
            config = orjson.loads(config)
        except ValueError:
            return None
    agent = dictionary(dictionary(config).get("agent"))
    return words(dictionary(agent.get("model")).get("name"))


def _dollars(value: object) -> float | None:
    """Take an amount; nothing for what is none, or what no run can have cost."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 1e9 else None

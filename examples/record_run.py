"""Store recorded agent runs, read them back and compare: ``python record_run.py FILE.traj ... [--db PATH_OR_URL]``.

A ``.traj`` file is one JSON object as SWE-agent writes it. A run becomes an agent, each response a prompt, each action
and each observation a log line; what else a step holds goes into the metadata of its prompt. All files are stored at
the same time, through one manager. The exit code is 1 if a file could not be stored or came back different; where none
is a recorded run, no database is made either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from orchdb import AgentLogRow, AgentStatus, DatabaseManager, NewAgentLog, OrchdbError

DEFINITION = "recorded-run"
LOGGED = {"action": "tool_call", "observation": "observation"}
"""The parts of a step that become log lines, and their type."""
NOT_PORTABLE = re.compile("[\0\ud800-\udfff]")


@dataclass
class Run:
    """A recorded run, as it is to be stored."""

    file: Path
    context: dict[str, Any]
    config: dict[str, Any] | None
    status: AgentStatus
    error_message: str | None
    cost_usd: float
    tokens_input: int
    tokens_output: int
    steps: list[dict[str, Any]]
    prompts: list[str]


@dataclass
class Report:
    """What became of one file."""

    file: Path
    agent_id: str = ""
    prompts: int = 0
    logs: int = 0
    problems: list[str] = field(default_factory=lambda: list[str]())


# -- reading a file --------------------------------------------------------------------------------------------------


def read_run(file: Path) -> Run:
    """The run that a file holds; what else than its steps is missing in it is empty.

    Raises:
        ValueError: The file is not what SWE-agent writes.
    """
    content = as_object(portable(json.loads(file.read_text(encoding="utf-8"))))
    if not content:
        raise ValueError("is no recorded run: it holds no JSON object")
    if not isinstance(content.get("trajectory"), list):
        raise ValueError('is no recorded run: it has no "trajectory", the array of its steps')
    steps = [as_object(step) for step in as_list(content["trajectory"])]
    info = as_object(content.get("info"))
    stats = as_object(info.get("model_stats"))
    submitted = str(info.get("exit_status")).startswith("submitted")
    return Run(
        file=file,
        context={"file": file.name, "environment": content.get("environment"), "info": info},
        config=as_object(content.get("replay_config")) or None,
        status="completed" if submitted else "failed",
        error_message=None if submitted else f"exit status: {info.get('exit_status')}",
        cost_usd=round(float(amount(stats.get("instance_cost"))), 9),
        tokens_input=int(amount(stats.get("tokens_sent"))),
        tokens_output=int(amount(stats.get("tokens_received"))),
        steps=steps,
        prompts=prompt_texts(as_list(content.get("history")), steps),
    )


def as_object(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return [*cast("Sequence[Any]", value)] if isinstance(value, list) else []


def portable(value: object) -> Any:
    """The value as every database can store it: orchdb would replace the same characters, with a warning."""
    if isinstance(value, str):
        return NOT_PORTABLE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if entries := as_object(value):
        return {portable(key): portable(item) for key, item in entries.items()}
    return [portable(item) for item in as_list(value)] or value


def amount(value: object) -> float:
    """A cost or a count, 0 where the file has none."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else 0


def prompt_texts(history: list[Any], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the model was asked in each step: the messages since its last answer."""
    asked: list[list[str]] = [[]]
    for message in map(as_object, history):
        if message.get("role") == "assistant" and not message.get("is_demo"):
            asked.append([])
        else:
            asked[-1].append(message_text(message.get("content")))
    texts = ["\n\n".join(messages) for messages in asked]
    if len(texts) != len(steps) + 1:
        # The history does not match the steps: the model saw at least the last observation.
        texts = [texts[0], *(as_text(step.get("observation")) for step in steps)]
    return texts[:-1]


def message_text(content: object) -> str:
    """The text of a chat message, which may come in parts."""
    parts = as_list(content)
    return "\n".join(as_text(as_object(part).get("text", part)) for part in parts) if parts else as_text(content)


def as_text(value: object) -> str:
    """Text as it is, nothing as nothing, any other value as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- storing it ------------------------------------------------------------------------------------------------------


async def store_run(db: DatabaseManager, agent: str, run: Run) -> None:
    """Store the steps of a run, one by one, as an orchestrator would while it happens."""
    for number, step in enumerate(run.steps):
        prompt = await db.create_prompt(
            agent,
            "followup" if number else "adw",
            run.prompts[number],
            prompt_name=f"step {number}",
            status="streaming",
            metadata=rest_of_step(step),
        )
        await db.create_agent_logs(log_lines(agent, number, step))
        await db.update_prompt(prompt, status="completed", response_text=response_of(step))
        if number == len(run.steps) - 1:  # the file knows only the sums of the whole run
            await db.add_prompt_usage(
                prompt, tokens_input=run.tokens_input, tokens_output=run.tokens_output, cost_usd=run.cost_usd
            )
    await db.add_agent_cost(agent, run.cost_usd)
    await db.update_agent(agent, status=run.status, error_message=run.error_message)


def response_of(step: Mapping[str, Any]) -> str | None:
    """The response as text, ``None`` where it is missing or null."""
    return None if step.get("response") is None else as_text(step["response"])


def rest_of_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """What of a step is neither response nor log line: thought, state, execution time and whatever else there is."""
    return {name: value for name, value in step.items() if name != "response" and name not in LOGGED}


def log_lines(agent: str, number: int, step: Mapping[str, Any]) -> list[NewAgentLog]:
    """The action and the observation of a step; one that is missing or null has no line."""
    return [
        {
            "agent_id": agent,
            "log_level": "INFO",
            "log_type": log_type,
            "message": as_text(step[name]),
            "details": {"step": number},
        }
        for name, log_type in LOGGED.items()
        if step.get(name) is not None
    ]


# -- comparing -------------------------------------------------------------------------------------------------------


async def compare_run(db: DatabaseManager, run: Run, report: Report) -> None:
    """Read the run back into the report, and note there whatever differs."""
    agent = await db.get_agent(report.agent_id)
    prompts = await db.list_prompts(report.agent_id)
    logs = [line async for line in db.iter_agent_logs(report.agent_id)]
    report.prompts, report.logs = len(prompts), len(logs)
    found: dict[str, Any] = {} if agent is None else {**agent}
    for name in ("context", "config", "status", "error_message", "cost_usd"):
        if found.get(name) != getattr(run, name):
            report.problems.append(f"agent: {name} differs")
    same(report, "prompt", [row["prompt_text"] for row in prompts], run.prompts)
    same(report, "response", [row["response_text"] for row in prompts], [response_of(step) for step in run.steps])
    same(report, "rest of step", [row["metadata"] for row in prompts], [rest_of_step(step) for step in run.steps])
    expected = [line for number, step in enumerate(run.steps) for line in log_lines(report.agent_id, number, step)]
    same(report, "log line", [new_log_line(row) for row in logs], expected)
    totals = [
        sum(row["tokens_input"] or 0 for row in prompts),
        sum(row["tokens_output"] or 0 for row in prompts),
        round(sum(row["cost_usd"] or 0 for row in prompts), 9),
    ]
    same(report, "total", totals, [run.tokens_input, run.tokens_output, run.cost_usd] if prompts else [0, 0, 0])


def new_log_line(row: AgentLogRow) -> NewAgentLog:
    """The line that was given to make this row."""
    return {
        "agent_id": row["agent_id"],
        "log_level": row["log_level"],
        "log_type": row["log_type"],
        "message": row["message"],
        "details": row["details"],
    }


def same(report: Report, name: str, stored: Sequence[object], expected: Sequence[object]) -> None:
    """Note where two lists differ."""
    if len(stored) != len(expected):
        report.problems.append(f"{name}: {len(stored)} stored, {len(expected)} in the file")
    for number, (one, other) in enumerate(zip(stored, expected, strict=False)):
        if one != other:
            report.problems.append(f"{name} {number} differs")


# -- the program -----------------------------------------------------------------------------------------------------


def read(file: Path) -> tuple[Report, Run | None]:
    """What a file holds; one that cannot be read does not stop the others."""
    report = Report(file)
    try:
        return report, read_run(file)
    except (OSError, ValueError, RecursionError) as error:
        report.problems.append(f"not stored: {error}")
        return report, None


async def record(
    db: DatabaseManager, definition: str, session: str, report: Report, run: Run | None
) -> tuple[Report, Run | None]:
    """Store a run, read it back and compare; one that cannot be stored does not stop the others."""
    if run is None:
        return report, None
    try:
        report.agent_id = await db.create_agent(
            definition, session, status="executing", context=run.context, config=run.config
        )
        await store_run(db, report.agent_id, run)
        await compare_run(db, run, report)
    except (RecursionError, OrchdbError) as error:
        report.problems.append(f"not stored: {error}")
        if report.agent_id:
            await db.update_agent(report.agent_id, status="failed", error_message="not stored to its end")
        return report, None
    return report, run


async def definition_id(db: DatabaseManager) -> str:
    """The id of the definition that all recorded runs share."""
    return await db.get_or_create_orchestrator_agent(DEFINITION, "Runs that were recorded elsewhere.", "builder")


async def main(files: list[Path], place: str | None) -> int:
    """Record all files at the same time; the exit code."""
    session = str(uuid.uuid4())
    results = [read(file) for file in files]
    if any(run is not None for _, run in results):
        async with DatabaseManager(place) as db:
            definition = await definition_id(db)
            results = await asyncio.gather(*(record(db, definition, session, *result) for result in results))
        print(f"Session {session}")
    for report, run in results:
        verdict = "; ".join(report.problems) or "read back, all the same"
        print(f"{report.file.name}: {verdict}")
        if run is not None:
            print(
                f"  agent {report.agent_id} {run.status}: {report.prompts} prompts, {report.logs} log lines,"
                f" {run.tokens_input:,} + {run.tokens_output:,} tokens, ${run.cost_usd:.5f}"
            )
    stored = [report for report, run in results if run is not None]
    print(
        f"{len(stored)} of {len(files)} files stored: {sum(report.prompts for report in stored)} prompts,"
        f" {sum(report.logs for report in stored)} log lines, ${sum(run.cost_usd for _, run in results if run):.5f}"
    )
    return 1 if any(report.problems for report, _ in results) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Store recorded agent runs, read them back and compare.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.traj")
    parser.add_argument("--db", metavar="PATH_OR_URL", help="where to store them; without it, orchdb's usual place")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(arguments.files, arguments.db)))
    except OrchdbError as failure:
        sys.exit(f"Error: {failure}")

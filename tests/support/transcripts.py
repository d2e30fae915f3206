"""Small transcripts, row by row, in the shapes that the tools write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import select

from orchdb import DatabaseManager, tables

SESSION = "11111111-2222-4333-8444-555555555555"
OTHER = "66666666-7777-4888-8999-aaaaaaaaaaaa"
PROJECT = "-home-someone-work"
MODEL = "claude-sonnet-4-5-20250929"


def uuid(name: str) -> str:
    """The same UUID for the same name."""
    return str(uuid5(NAMESPACE_URL, name))


class Claude:
    """A transcript of Claude Code that is being written.

    Args:
        session: The session whose rows they are.
        begin: Of the minute at which the first row is written.
        rows: What is sent with each row.
    """

    def __init__(self, session: str = SESSION, begin: int = 0, **rows: Any) -> None:
        self.session = session
        self.rows: list[dict[str, Any]] = []
        self._second = begin * 60
        self._always = {"sessionId": session, "cwd": "/home/someone/work", "version": "2.1.70", **rows}

    def row(self, name: str, kind: str, **values: Any) -> Claude:
        """Write a row, with a name that its ``uuid`` is made of."""
        self._second += 1
        at = f"2026-05-01T{self._second // 3600:02}:{self._second // 60 % 60:02}:{self._second % 60:02}.000Z"
        self.rows.append({"type": kind, "uuid": uuid(name), "timestamp": at, **self._always, **values})
        return self

    def user(self, name: str, content: Any, **values: Any) -> Claude:
        """Write what a user says, or what a tool gave."""
        return self.row(name, "user", message={"role": "user", "content": content}, **values)

    def result(self, name: str, call: str, content: Any, **values: Any) -> Claude:
        """Write what a tool gave."""
        return self.user(name, [{"type": "tool_result", "tool_use_id": call, "content": content}], **values)

    def says(self, name: str, message: str, block: Any, output: int = 10, **more: Any) -> Claude:
        """Write a part of an answer."""
        blocks = [{"type": "text", "text": block}] if isinstance(block, str) else [block]
        usage = more.pop("usage", usage_of(output))
        model = more.pop("model", MODEL)
        said = {
            "id": message,
            "role": "assistant",
            "model": model,
            "content": blocks,
            "usage": usage,
            "stop_reason": None,
        }
        return self.row(name, "assistant", message=said, requestId=f"req_{message}", **more)

    def calls(self, name: str, message: str, call: str, tool: str = "Bash", output: int = 10, **given: Any) -> Claude:
        """Write a call of a tool as a part of an answer."""
        return self.says(name, message, {"type": "tool_use", "id": call, "name": tool, "input": given}, output)

    def text(self) -> str:
        """The rows as a file has them."""
        return lines(self.rows)

    def save(self, path: Path) -> Path:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text())
        return path


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a file has them."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def usage_of(output: int, fresh: int = 3, read: int = 1000, five: int = 0, hour: int = 200) -> dict[str, Any]:
    """The usage of a row."""
    return {
        "input_tokens": fresh,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
    }


def exchange(claude: Claude, number: int, output: int = 50) -> Claude:
    """Write a question, an answer in three rows with a call, and what the call gave."""
    name = f"{claude.session}/{number}"
    claude.user(f"{name}/u", f"question {number}")
    claude.says(f"{name}/a", f"msg_{name}", {"type": "thinking", "thinking": "hm"}, 5)
    claude.says(f"{name}/b", f"msg_{name}", f"answer {number}", 5)
    claude.calls(f"{name}/c", f"msg_{name}", f"toolu_{name}", output=output, command=f"ls {number}")
    return claude.result(f"{name}/r", f"toolu_{name}", f"files {number}")


def place(tmp_path: Path, session: str = SESSION, project: str = PROJECT) -> Path:
    """Where Claude Code keeps a session."""
    return tmp_path / "claude" / "projects" / project / f"{session}.jsonl"


def sub_place(tmp_path: Path, agent: str, session: str = SESSION, project: str = PROJECT) -> Path:
    """Where Claude Code keeps a sub-agent."""
    return place(tmp_path, session, project).with_suffix("") / "subagents" / f"agent-{agent}.jsonl"


async def content_of(db: DatabaseManager) -> dict[str, list[dict[str, Any]]]:
    """All that an import writes, in an order that is the same for the same, without what depends on when it ran."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in (tables.orchestrator_agents, tables.agents, tables.prompts, tables.agent_logs):
        rows = [dict(row) for row in (await db.conn.execute(select(table))).mappings()]
        for row in rows:
            if table is tables.orchestrator_agents:
                del row["created_at"]
            if table is tables.agents:
                row["metadata"] = {name: value for name, value in row["metadata"].items() if name != "import"}
            for name in ("updated_at", *(["id"] if table is tables.agent_logs else [])):
                row.pop(name, None)
        found[table.name] = sorted(rows, key=lambda row: str(row.get("event_id") or row.get("id")))
    return found


async def totals(db: DatabaseManager) -> tuple[int, int, int, int, int, float]:
    """Prompts, the four sums of tokens, and the cost."""
    rows = await db.list_prompts()
    names = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")
    sums = [sum(int(row.get(name) or 0) for row in rows) for name in names]  # type: ignore[call-overload]
    return len(rows), sums[0], sums[1], sums[2], sums[3], round(sum(row["cost_usd"] or 0.0 for row in rows), 9)

"""Each rule of Codex's rollouts, in a small file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.prices import cost_of
from orchdb.transcripts import import_transcripts
from tests.support.transcripts import content_of, totals

THREAD = "019c8a70-dda7-7f33-98ea-f30553347322"
FORK = "019c8bfe-ec25-79e0-97d7-bda6a9c575ff"
MODEL = "gpt-5"


class Codex:
    """A rollout that is being written.

    Args:
        thread: Its id.
        hour: When it begins.
        meta: What its first row says besides.
    """

    def __init__(self, thread: str = THREAD, hour: int = 1, **meta: Any) -> None:
        self.thread = thread
        self._hour = hour
        self._second = 0
        self.rows: list[dict[str, Any]] = []
        self.row("session_meta", id=thread, cwd="/srv/repo", cli_version="0.104.0", source="cli", **meta)
        self.row("turn_context", model=MODEL, turn_id="t")

    def row(self, kind: str, **payload: Any) -> Codex:
        """Write a row."""
        self._second += 1
        at = f"2026-02-23T{self._hour:02}:{self._second // 60:02}:{self._second % 60:02}.000Z"
        self.rows.append({"timestamp": at, "type": kind, "payload": payload})
        return self

    def item(self, kind: str, **payload: Any) -> Codex:
        """Write an item."""
        return self.row("response_item", type=kind, **payload)

    def message(self, role: str, text: str) -> Codex:
        """Write a message in both its forms, as Codex does."""
        kind = {"user": "user_message", "assistant": "agent_message"}[role]
        self.item("message", role=role, content=[{"type": "output_text", "text": text}])
        return self.row("event_msg", type=kind, message=text)

    def count(self, fresh: int, cached: int, output: int, total: int, times: int = 2) -> Codex:
        """Write a count of tokens, twice, as Codex does."""
        last = {"input_tokens": fresh + cached, "cached_input_tokens": cached, "output_tokens": output}
        for _ in range(times):
            info = {"last_token_usage": last, "total_token_usage": {"total_tokens": total}}
            self.row("event_msg", type="token_count", info=info)
        return self

    def turn(self, number: int, total: int) -> Codex:
        """Write a question, a call and an answer."""
        self.message("user", f"question {number}")
        self.item("function_call", name="shell", arguments=f'{{"command": "ls {number}"}}', call_id=f"call_{number}")
        self.count(100 + number, 50, 10, total)
        self.item("function_call_output", call_id=f"call_{number}", output=f"files {number}")
        return self.message("assistant", f"answer {number}").count(20, 150, 5, total + 175)

    def copy_of(self, other: Codex) -> Codex:
        """Begin with the history of another thread, under new times."""
        for row in other.rows[1:]:
            self.row(row["type"], **row["payload"])
        return self

    def save(self, folder: Path) -> Path:
        """Write the file."""
        path = (
            folder
            / "codex"
            / "sessions"
            / "2026"
            / "02"
            / "23"
            / f"rollout-2026-02-23T0{self._hour}-00-00-{self.thread}.jsonl"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path


async def test_a_count_that_is_written_twice_counts_once_and_the_cache_is_no_input(
    db: DatabaseManager, tmp_path: Path
) -> None:
    codex = Codex().turn(1, 161)
    report = await import_transcripts(db, [codex.save(tmp_path)])
    prompts = await db.list_prompts()
    assert [(row["tokens_input"], row["tokens_cache_read"], row["tokens_output"]) for row in prompts] == [
        (101, 50, 10),
        (20, 150, 5),
    ]
    assert (report.naive.rows, report.repeats.rows) == (4, 2)
    usage = {"tokens_input": 101, "tokens_cache_read": 50, "tokens_output": 10}
    assert prompts[0]["cost_usd"] == cost_of(MODEL, usage, at=prompts[0]["created_at"])


async def test_a_prompt_holds_what_is_new_and_each_text_once(db: DatabaseManager, tmp_path: Path) -> None:
    await import_transcripts(db, [Codex().turn(1, 161).save(tmp_path)])
    assert [(row["prompt_type"], row["prompt_text"], row["response_text"]) for row in await db.list_prompts()] == [
        ("command", "question 1", None),
        ("tool_call", "files 1", "answer 1"),
    ]
    logs = await db.get_agent_logs((await db.list_agents(THREAD))[0]["id"])
    assert [(line["log_type"], line["message"]) for line in logs] == [
        ("user_message", "user: question 1"),
        ("tool_call", 'shell: {"command": "ls 1"}'),
        ("tool_result", "result: files 1"),
    ]


async def test_the_same_words_said_again_are_not_the_other_form_of_the_first(
    db: DatabaseManager, tmp_path: Path
) -> None:
    codex = Codex().message("user", "go on").message("assistant", "ok").count(1, 0, 1, 2)
    codex.message("user", "go on").message("assistant", "ok").count(2, 0, 1, 5)
    await import_transcripts(db, [codex.save(tmp_path)])
    said = [(row["prompt_text"], row["response_text"]) for row in await db.list_prompts()]
    assert said == [("go on", "ok"), ("go on", "ok")]


async def test_a_total_that_was_reset_takes_nothing_away(db: DatabaseManager, tmp_path: Path) -> None:
    codex = Codex().count(100, 0, 10, 110).count(5, 0, 1, 6).count(7, 0, 1, 14)
    await import_transcripts(db, [codex.save(tmp_path)])
    assert (await totals(db))[:3] == (3, 112, 12)


async def test_counts_without_figures_and_inherited_totals_are_no_responses(
    db: DatabaseManager, tmp_path: Path
) -> None:
    codex = Codex().row("event_msg", type="token_count", info=None).count(0, 0, 0, 5000).count(5, 0, 1, 5006)
    await import_transcripts(db, [codex.save(tmp_path)])
    assert (await totals(db))[:3] == (1, 5, 1)


@pytest.mark.parametrize("sub_agent", [True, False])
async def test_a_copied_history_is_skipped_whatever_its_times(
    db: DatabaseManager, tmp_path: Path, sub_agent: bool
) -> None:
    first = Codex().turn(1, 161).turn(2, 500)
    meta: dict[str, Any] = {"forked_from_id": THREAD}
    if sub_agent:
        spawn = {"parent_thread_id": THREAD, "depth": 1, "agent_role": "explorer", "agent_nickname": "Ada"}
        meta = {"source": {"subagent": {"thread_spawn": spawn}}}
    other = Codex(FORK, 2)
    other.rows[0]["payload"] |= meta
    other.copy_of(first).count(0, 0, 0, 675, 1).turn(3, 900)
    # The first goes on after the fork.
    first.turn(4, 1300).save(tmp_path)
    path = other.save(tmp_path)
    report = await import_transcripts(db, [tmp_path])
    rows = await db.list_prompts()
    assert [row["prompt_text"] for row in rows if row["prompt_type"] == "command"] == [
        f"question {number}" for number in (1, 2, 4, 3)
    ]
    assert report.copies.rows == 4
    [agent] = [row for row in await db.list_agents() if FORK in str(row["metadata"])]
    [above] = [row for row in await db.list_agents() if row["id"] != agent["id"]]
    assert (agent["parent_agent_id"], agent["session_id"]) == ((above["id"], THREAD) if sub_agent else (None, FORK))
    if sub_agent:
        definition = await db.get_orchestrator_agent(agent["orchestrator_agent_id"])
        assert definition is not None
        assert definition["agent_type"] == "explorer"
    async with DatabaseManager(":memory:") as alone:
        await import_transcripts(alone, [path])
        assert (await totals(alone))[0] == 2


async def test_sub_agents_of_sub_agents_are_in_the_first_ones_session(db: DatabaseManager, tmp_path: Path) -> None:
    threads = [THREAD, *(f"019c8bfe-0000-7000-8000-00000000000{number}" for number in range(4))]
    for hour, (thread, above) in enumerate(zip(threads, [None, *threads], strict=False), 1):
        codex = Codex(thread, hour).turn(hour, 100 * hour)
        if above:
            codex.rows[0]["payload"]["source"] = {"subagent": {"thread_spawn": {"parent_thread_id": above}}}
        codex.save(tmp_path)
    await import_transcripts(db, [tmp_path])
    agents = {str((row["metadata"] or {})["key"]): row for row in await db.list_agents(THREAD)}
    assert len(agents) == 5
    for thread, above in zip(threads[1:], threads, strict=False):
        assert agents[f"codex/{thread}"]["parent_agent_id"] == agents[f"codex/{above}"]["id"]


async def test_a_turn_that_was_broken_off_is_a_cancelled_response(db: DatabaseManager, tmp_path: Path) -> None:
    codex = (
        Codex()
        .message("user", "go")
        .message("assistant", "I am")
        .row("event_msg", type="turn_aborted", reason="interrupted")
    )
    codex.turn(2, 300)
    await import_transcripts(db, [codex.save(tmp_path)])
    first = (await db.list_prompts())[0]
    assert (first["status"], first["response_text"], first["tokens_input"], first["cost_usd"]) == (
        "cancelled",
        "I am",
        None,
        None,
    )


async def test_encrypted_reasoning_is_no_text_and_a_summary_is(db: DatabaseManager, tmp_path: Path) -> None:
    codex = Codex().message("user", "go")
    summary = [{"type": "summary_text", "text": "thinking of it"}]
    codex.item("reasoning", summary=summary, content=None, encrypted_content="gAAAAsecret")
    codex.message("assistant", "Done.").count(5, 0, 5, 10)
    await import_transcripts(db, [codex.save(tmp_path)])
    assert "gAAAAsecret" not in repr(await content_of(db))
    [line] = await db.list_recent_agent_logs(log_type="thinking")
    assert line["message"] == "thinking: thinking of it"


async def test_a_rollout_that_grows_line_by_line_gives_what_it_gives_as_a_whole(
    db: DatabaseManager, tmp_path: Path
) -> None:
    first = Codex().turn(1, 161)
    first.save(tmp_path)
    other = Codex(FORK, 2, forked_from_id=THREAD).copy_of(first).turn(2, 500)
    other.item("function_call", name="shell", arguments="{}", call_id="c")
    other.item("function_call_output", call_id="c", output="early").count(9, 0, 1, 700).turn(3, 900)
    other.row("from-the-future", a=1)
    path = other.save(tmp_path)
    rows = path.read_text().splitlines(keepends=True)
    for end in range(1, len(rows) + 1):
        path.write_text("".join(rows[:end]))
        await import_transcripts(db, [tmp_path])
    grown = await content_of(db)
    async with DatabaseManager(":memory:") as alone:
        await import_transcripts(alone, [tmp_path])
        assert grown == await content_of(alone)


async def test_the_thread_that_a_fork_comes_from_is_found_on_another_day(db: DatabaseManager, tmp_path: Path) -> None:
    first = Codex().turn(1, 161)
    path = first.save(tmp_path)
    day = path.parents[1] / "20"
    day.mkdir()
    path.rename(day / path.name)
    fork = Codex(FORK, 2, forked_from_id=THREAD).copy_of(first).turn(2, 500)
    await import_transcripts(db, [fork.save(tmp_path)])
    assert [row["prompt_text"] for row in await db.list_prompts()] == ["question 2", "files 2"]

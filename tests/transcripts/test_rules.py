"""Rules of the formats that lie between the others: what counts, what is a copy, what is found where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager
from orchdb.prices import cost_of
from orchdb.transcripts import find_transcripts, import_transcripts
from orchdb.transcripts.places import project_key
from tests.support.transcripts import (
    MODEL,
    OTHER,
    SESSION,
    Claude,
    exchange,
    lines,
    place,
    sub_place,
    totals,
    usage_of,
    uuid,
)
from tests.transcripts.test_claude_code import agents_by_name, kind_of, sub_agent
from tests.transcripts.test_codex import FORK, Codex


def test_the_folder_of_a_long_path_is_cut_and_marked() -> None:
    assert project_key("/a_b/c.d é") == "-a-b-c-d--"
    assert project_key("/" + "long/" * 60 + "x") == "-" + ("long-" * 40)[:199] + "-2v8295"


async def test_no_row_but_an_answer_costs_anything(db: DatabaseManager, tmp_path: Path) -> None:
    claude = exchange(Claude(), 1)
    inner = {"type": "assistant", "message": {"id": "msg_inner", "model": MODEL, "usage": usage_of(5000)}}
    claude.row("p", "progress", data={"type": "agent_progress", "agentId": "a1", "message": inner}, usage=usage_of(9))
    claude.row("u", "user", message={"content": "x", "usage": usage_of(5000)}, toolUseResult={"usage": usage_of(77)})
    for kind in ("attachment", "summary", "ai-title", "custom-title", "file-history-snapshot", "queue-operation"):
        claude.row(kind, kind, message={"id": kind, "usage": usage_of(5000)})
    for kind in ("agent-setting", "pr-link"):
        claude.row(kind, kind, usage=usage_of(5000))
    for subtype in ("compact_boundary", "turn_duration", "stop_hook_summary", "local_command"):
        claude.row(subtype, "system", subtype=subtype, content="x", usage=usage_of(5000))
    report = await import_transcripts(db, [claude.save(place(tmp_path))])
    assert report.unknown == {}
    assert (await totals(db))[:3] == (1, 3, 50)
    assert report.naive.rows == 3


async def test_large_results_that_lie_beside_a_session_are_no_transcripts(db: DatabaseManager, tmp_path: Path) -> None:
    path = exchange(Claude(), 1).save(place(tmp_path))
    exchange(Claude(), 2).save(path.with_suffix("") / "tool-results" / f"{OTHER}.jsonl")
    exchange(Claude(), 3).save(path.with_suffix("") / "tool-results" / "deeper" / "agent-x.jsonl")
    assert [each.path for each in find_transcripts([tmp_path])] == [path]
    assert (await import_transcripts(db, [tmp_path])).prompts == 1


EVIDENCE = ("result", "text", "progress", "queue")


@pytest.mark.parametrize("best", range(3))
async def test_the_best_evidence_says_where_a_sub_agent_hangs(db: DatabaseManager, tmp_path: Path, best: int) -> None:
    callers = [f"b{number}" for number in range(len(EVIDENCE))]
    for caller, evidence in reversed([*zip(callers, EVIDENCE, strict=True)][best:]):
        claude = sub_agent(caller, f"msg_{caller}")
        claude.calls(f"{caller}c", f"msg_{caller}2", f"toolu_{caller}", "Task", subagent_type=evidence)
        if evidence == "result":
            claude.result(f"{caller}r", f"toolu_{caller}", "x", toolUseResult={"agentId": "a1"})
        elif evidence == "text":
            claude.result(f"{caller}r", f"toolu_{caller}", "agentId: nobody\nfound\nagentId: a1 (to go on)")
        elif evidence == "progress":
            data = {"type": "agent_progress", "agentId": "a1"}
            claude.row(f"{caller}p", "progress", data=data, parentToolUseID=f"toolu_{caller}")
        else:
            told = f"<task-id>a1</task-id><tool-use-id>toolu_{caller}</tool-use-id>"
            claude.row(f"{caller}q", "queue-operation", operation="enqueue", content=told)
        claude.save(sub_place(tmp_path, caller))
    sub_agent().save(sub_place(tmp_path, "a1"))
    await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    assert agents["a1"]["parent_agent_id"] == agents[callers[best]]["id"]
    assert await kind_of(db, agents["a1"]) == EVIDENCE[best]


async def test_rows_are_the_same_by_their_uuid_and_money_by_the_message(db: DatabaseManager, tmp_path: Path) -> None:
    first = exchange(Claude(), 1)
    first.save(place(tmp_path))
    renamed = Claude(OTHER, begin=5)
    renamed.rows = [row | {"sessionId": OTHER, "uuid": uuid(f"new {row['uuid']}")} for row in first.rows]
    renamed.save(place(tmp_path, OTHER))
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.lines, report.copies.rows) == (1, 8, 1)
    background = Claude("bg", sessionKind="bg")
    background.rows = [*first.rows]
    exchange(background, 2).save(tmp_path / "claude" / "projects" / "-b" / "bbbbbbbb-7777-4888-8999-aaaaaaaaaaaa.jsonl")
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.lines, report.copies.rows) == (1, 4, 1)
    spent = [row["prompts"] for row in await db.usage(("session",))]
    assert spent == [1, 1]


async def test_a_copied_sub_agent_adds_no_money(db: DatabaseManager, tmp_path: Path) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    sub_agent().save(sub_place(tmp_path, "a1"))
    exchange(Claude(OTHER, begin=7), 2).save(place(tmp_path, OTHER))
    sub_agent().save(sub_place(tmp_path, "a1", OTHER))
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.copies.rows, report.subagents.tokens_output) == (3, 1, 77)
    assert sum(row["tokens_output"] or 0 for row in await db.list_prompts(session_id=SESSION)) == 127


async def test_a_request_has_no_name_behind_some_gateways(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().says("a", "msg_1", "One.").says("b", "msg_1", "Two.", 20).says("c", "msg_2", "Three.")
    for row in claude.rows:
        del row["requestId"]
    await import_transcripts(db, [claude.save(place(tmp_path))])
    assert [row["response_text"] for row in await db.list_prompts()] == ["One.\nTwo.", "Three."]


async def test_each_request_has_its_own_price_and_a_sum_of_them_none(db: DatabaseManager, tmp_path: Path) -> None:
    large = usage_of(10, 150_000, 0, 0, 0)
    claude = Claude().says("a", "msg_1", "One.", usage=large).says("b", "msg_2", "Two.", usage=large)
    await import_transcripts(db, [claude.save(place(tmp_path))])
    at = "2026-05-01T00:00:01Z"
    one = cost_of(MODEL, {"tokens_input": 150_000, "tokens_output": 10}, at=at)
    [total] = await db.usage(())
    assert total["cost_usd"] == pytest.approx(2 * one, abs=1e-9)
    assert total["cost_usd"] < cost_of(MODEL, {"tokens_input": 300_000, "tokens_output": 20}, at=at)


async def test_searches_that_the_provider_made_are_kept(db: DatabaseManager, tmp_path: Path) -> None:
    usage = usage_of(10) | {"server_tool_use": {"web_search_requests": 3}, "service_tier": "standard"}
    claude = Claude().says("a", "msg_1", "One.", usage=usage)
    await import_transcripts(db, [claude.save(place(tmp_path))])
    [prompt] = await db.list_prompts()
    metadata: Any = prompt["metadata"]
    assert (metadata["web_searches"], metadata["usage"]) == (3, usage)


@pytest.mark.parametrize("form", ["flat", "archived"])
async def test_rollouts_are_found_wherever_codex_keeps_them_and_count_once_when_moved(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = Codex().turn(1, 161).save(tmp_path)
    home = tmp_path / "codex"
    monkeypatch.setenv("CODEX_HOME", str(home))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "none"))
    assert (await import_transcripts(db)).prompts == 2
    other = home / ("archived_sessions" if form == "archived" else "sessions") / path.name
    other.parent.mkdir(exist_ok=True)
    path.rename(other)
    report = await import_transcripts(db)
    assert (report.files, report.prompts, report.lines, report.agents) == (1, 0, 0, 0)
    fork = Codex(FORK, 2, forked_from_id=Codex().thread).copy_of(Codex().turn(1, 161)).turn(2, 400)
    fork.save(tmp_path)
    assert (await import_transcripts(db)).prompts == 2


async def test_reasoning_is_part_of_what_codex_wrote(db: DatabaseManager, tmp_path: Path) -> None:
    codex = Codex().message("user", "go").message("assistant", "ok")
    last = {"input_tokens": 30, "cached_input_tokens": 20, "output_tokens": 9, "reasoning_output_tokens": 6}
    codex.row("event_msg", type="token_count", info={"last_token_usage": last, "total_token_usage": last})
    await import_transcripts(db, [codex.save(tmp_path)])
    assert (await totals(db))[:5] == (1, 10, 9, 20, 0)


@pytest.mark.parametrize("source", ["cli", "vscode", "exec", {"subagent": "review"}])
async def test_calls_of_every_kind_and_compactions_are_lines(db: DatabaseManager, tmp_path: Path, source: Any) -> None:
    codex = Codex().message("user", "go")
    codex.rows[0]["payload"]["source"] = source
    codex.item("custom_tool_call", name="apply_patch", input="*** Begin", call_id="c1")
    codex.item("custom_tool_call_output", call_id="c1", output="Done")
    codex.item("web_search_call", action={"type": "search", "query": "x"})
    codex.row("event_msg", type="collab_agent_spawn_end", call_id="c2", new_thread_id=FORK, prompt="words")
    codex.row("compacted", message="what was").message("assistant", "ok").count(5, 0, 1, 6)
    report = await import_transcripts(db, [codex.save(tmp_path)])
    assert (report.unknown, report.damaged) == ({}, 0)
    found = [(row["log_type"], row["message"].split(":")[0]) for row in await db.list_recent_agent_logs(None)]
    assert sorted(found) == [
        ("compacted", "compacted"),
        ("tool_call", "apply_patch"),
        ("tool_call", "collab_agent_spawn_end"),
        ("tool_call", "web_search"),
        ("tool_result", "result"),
        ("user_message", "user"),
    ]


async def test_what_is_asked_of_usage_is_answered_by_project_by_kind_and_by_session(
    db: DatabaseManager, tmp_path: Path
) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    path = sub_agent().save(sub_place(tmp_path, "a1"))
    path.with_name("agent-a1.meta.json").write_text(json.dumps({"agentType": "Explore"}))
    exchange(Claude(OTHER, begin=2), 2).save(place(tmp_path, OTHER, "-home-someone-other"))
    await import_transcripts(db, [tmp_path])
    by_kind = {row["definition_name"]: row["tokens_output"] for row in await db.usage(("definition",))}
    assert by_kind == {
        "claude:-home-someone-work": 50,
        "claude:-home-someone-work:Explore": 77,
        "claude:-home-someone-other": 50,
    }
    by_session = {row["session"]: row["tokens_output"] for row in await db.usage(("session",))}
    assert by_session == {SESSION: 127, OTHER: 50}
    [tree] = await db.agent_tree(session_id=SESSION)
    assert [child["definition_name"] for child in tree["children"]] == ["claude:-home-someone-work:Explore"]
    assert tree["subtree_usage"]["tokens_output"] == 127


async def test_without_a_path_it_is_the_home_folder_that_is_searched(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    exchange(Claude(), 1).save(tmp_path / ".claude" / "projects" / "-p" / f"{SESSION}.jsonl")
    Codex().turn(1, 161).save(tmp_path)
    (tmp_path / "codex").rename(tmp_path / ".codex")
    (tmp_path / ".claude" / "history.jsonl").write_text(lines([{"display": "not a transcript"}]))
    report = await import_transcripts(db)
    assert (report.files, report.prompts, len(report.sessions)) == (2, 3, 2)

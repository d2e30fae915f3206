"""Each rule of Claude Code's files, in a small file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchdb import AgentRow, DatabaseManager
from orchdb.prices import cost_of
from orchdb.transcripts import import_transcripts
from tests.support.transcripts import (
    MODEL,
    OTHER,
    PROJECT,
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


async def agents_by_name(db: DatabaseManager, session: str = SESSION) -> dict[str, AgentRow]:
    """The agents of a session by their own names, ``""`` for the session's own."""
    rows = await db.list_agents(session)
    return {str((row["metadata"] or {})["key"]).rsplit("/", 1)[1]: row for row in rows}


async def kind_of(db: DatabaseManager, agent: AgentRow) -> str:
    """What sort of agent it is."""
    definition = await db.get_orchestrator_agent(agent["orchestrator_agent_id"])
    assert definition is not None
    return definition["agent_type"]


async def test_a_response_of_several_rows_is_one_prompt_with_the_usage_of_the_largest_output(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = Claude().user("u", "hello")
    claude.says("a", "msg_1", {"type": "thinking", "thinking": "well"}, 5)
    claude.says("b", "msg_1", "Hi.", 90).calls("c", "msg_1", "toolu_1", output=40, command="ls")
    report = await import_transcripts(db, [claude.save(place(tmp_path))])
    [prompt] = await db.list_prompts(session_id=SESSION)
    assert (prompt["tokens_input"], prompt["tokens_output"]) == (3, 90)
    assert (prompt["tokens_cache_read"], prompt["tokens_cache_write"]) == (1000, 200)
    assert (prompt["prompt_text"], prompt["response_text"]) == ("hello", "Hi.")
    assert prompt["created_at"] == "2026-05-01T00:00:02.000000"
    assert prompt["completed_at"] == "2026-05-01T00:00:04.000000"
    assert prompt["model_used"] == MODEL
    assert (report.naive.rows, report.naive.tokens_output) == (3, 135)
    assert (report.repeats.rows, report.repeats.tokens_output) == (2, 45)


async def test_a_cache_write_for_an_hour_has_its_own_price(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().user("u", "hello").says("a", "msg_1", "Hi.", usage=usage_of(10, 0, 0, 0, 1_000_000))
    report = await import_transcripts(db, [claude.save(place(tmp_path))])
    [prompt] = await db.list_prompts()
    tokens = {"tokens_output": 10, "tokens_cache_write": 1_000_000}
    at = "2026-05-01T00:00:02Z"
    assert prompt["cost_usd"] == cost_of(MODEL, tokens | {"tokens_cache_write_1h": 1_000_000}, at=at)
    flat = cost_of(MODEL, tokens, at=at)
    assert report.one_hour_usd == pytest.approx(prompt["cost_usd"] - flat)
    metadata: Any = prompt["metadata"]
    assert metadata["usage"]["cache_creation"] == {
        "ephemeral_5m_input_tokens": 0,
        "ephemeral_1h_input_tokens": 1_000_000,
    }
    assert str(metadata["price_list"]).startswith("genai-prices ")


async def test_a_prompt_holds_what_is_new_since_the_last_answer(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().user("u", "list them").calls("a", "msg_1", "toolu_1", command="ls")
    claude.result("r", "toolu_1", [{"type": "text", "text": "one two"}]).says("b", "msg_2", "Two files.")
    await import_transcripts(db, [claude.save(place(tmp_path))])
    prompts = await db.list_prompts()
    assert [(row["prompt_type"], row["prompt_text"], row["response_text"]) for row in prompts] == [
        ("command", "list them", None),
        ("tool_call", "one two", "Two files."),
    ]
    logs = await db.get_agent_logs(prompts[0]["agent_id"])
    assert [(line["log_type"], line["message"]) for line in logs] == [
        ("user_message", "user: list them"),
        ("tool_call", "Bash: ls"),
        ("tool_result", "result: one two"),
    ]
    assert logs[2]["event_id"] == f"claude:{uuid('r')}"


async def test_results_between_the_rows_of_a_response_belong_to_the_next_one(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = Claude().user("u", "both").calls("a", "msg_1", "toolu_1").result("r", "toolu_1", "first")
    claude.calls("b", "msg_1", "toolu_2").result("s", "toolu_2", "second").says("c", "msg_2", "Done.")
    await import_transcripts(db, [claude.save(place(tmp_path))])
    assert [row["prompt_text"] for row in await db.list_prompts()] == ["both", "first\n\nsecond"]


async def test_a_synthetic_answer_is_no_call(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().user("u", "hello").says("a", "msg_1", "API error", model="<synthetic>", isApiErrorMessage=True)
    await import_transcripts(db, [claude.save(place(tmp_path))])
    assert await db.list_prompts() == []
    [line] = await db.list_recent_agent_logs(log_type="error")
    assert line["log_level"] == "ERROR"


async def test_a_count_from_the_middle_of_the_stream_is_marked(db: DatabaseManager, tmp_path: Path) -> None:
    for session, version in ((SESSION, "2.1.38"), (OTHER, "2.1.70")):
        claude = Claude(session, version=version).user(f"{session}u", "hello").says(f"{session}a", session, "Hi.")
        claude.save(place(tmp_path, session))
    await import_transcripts(db, [tmp_path])
    final = {session: (await db.list_prompts(session_id=session))[0]["metadata"] for session in (SESSION, OTHER)}
    assert [(final[session] or {})["usage_final"] for session in (SESSION, OTHER)] == [False, True]


async def test_a_model_that_the_list_does_not_have_is_not_guessed(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().user("u", "hello").says("a", "msg_1", "Hi.", model="nobody-knows-it")
    report = await import_transcripts(db, [claude.save(place(tmp_path))])
    [prompt] = await db.list_prompts()
    assert prompt["cost_usd"] is None
    assert (report.unpriced, report.unknown_models) == (1, {"nobody-knows-it"})


@pytest.mark.parametrize("forked", [True, False])
async def test_a_copied_history_adds_no_money_and_stays_with_the_earliest_session(
    db: DatabaseManager, tmp_path: Path, forked: bool
) -> None:
    first = exchange(exchange(Claude(), 1), 2)
    fork = Claude(OTHER, begin=5)
    more = {"forkedFrom": {"sessionId": SESSION}} if forked else {}
    fork.rows = [row | {"sessionId": OTHER} | more for row in first.rows]
    exchange(fork, 3)
    # The name of the fork sorts before that of the first.
    fork.save(place(tmp_path, OTHER, "-a"))
    first.save(place(tmp_path))
    report = await import_transcripts(db, [tmp_path])
    assert len(await db.list_prompts(session_id=SESSION)) == 2
    assert len(await db.list_prompts(session_id=OTHER)) == 1
    assert len(await db.list_recent_agent_logs(None, session_id=OTHER)) == 4
    assert (report.copies.rows, report.copies.tokens_output) == (2, 100)
    again = await import_transcripts(db, [first.save(tmp_path / "elsewhere" / "copy.jsonl")])
    assert (again.prompts, again.lines, again.copies.rows) == (0, 0, 0 if again.agents == 0 else 2)


async def test_a_copy_that_comes_in_a_later_import_adds_nothing(db: DatabaseManager, tmp_path: Path) -> None:
    first = exchange(Claude(), 1)
    await import_transcripts(db, [first.save(place(tmp_path))])
    before = await totals(db)
    fork = Claude(OTHER)
    fork.rows = first.rows
    report = await import_transcripts(db, [fork.save(place(tmp_path, OTHER))])
    assert await totals(db) == before
    assert (report.prompts, report.lines, report.copies.rows) == (0, 0, 1)


def trunk_with_call(**result: Any) -> Claude:
    """A session that starts a sub-agent."""
    claude = Claude().user("u", "look around")
    claude.calls("a", "msg_1", "toolu_task", "Task", subagent_type="Explore", prompt="look", description="Look")
    return claude.result("r", "toolu_task", "found\nagentId: a1 (for resuming)", **result).says("b", "msg_2", "Done.")


def sub_agent(name: str = "a1", message: str = "msg_sub", **rows: Any) -> Claude:
    """What a sub-agent did."""
    claude = Claude(isSidechain=True, agentId=name, **rows)
    return claude.user(f"{name}u", "look").says(f"{name}a", message, "Found.", 77)


@pytest.mark.parametrize("evidence", ["meta", "result", "text", "progress", "notification"])
async def test_a_sub_agent_hangs_below_the_call_that_started_it(
    db: DatabaseManager, tmp_path: Path, evidence: str
) -> None:
    trunk = Claude().user("u", "look around")
    trunk.calls("a", "msg_1", "toolu_task", "Task", subagent_type="Explore", prompt="look")
    if evidence == "progress":
        data = {"type": "agent_progress", "agentId": "a1"}
        trunk.row("p", "progress", data=data, parentToolUseID="toolu_task")
    elif evidence == "notification":
        told = "<task-notification><task-id>a1</task-id><tool-use-id>toolu_task</tool-use-id></task-notification>"
        trunk.row("q", "queue-operation", operation="enqueue", content=told)
    elif evidence == "result":
        trunk.result("r", "toolu_task", "found", toolUseResult={"agentId": "a1", "status": "completed"})
    elif evidence == "text":
        trunk.result("r", "toolu_task", "found\nagentId: a1 (for resuming)")
    trunk.save(place(tmp_path))
    path = sub_agent().save(sub_place(tmp_path, "a1"))
    if evidence == "meta":
        meta = {"agentType": "Explore", "toolUseId": "toolu_task"}
        path.with_name("agent-a1.meta.json").write_text(json.dumps(meta))
    report = await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    assert set(agents) == {"", "a1"}
    assert agents["a1"]["parent_agent_id"] == agents[""]["id"]
    assert (agents["a1"]["metadata"] or {})["tool_use_id"] == "toolu_task"
    assert await kind_of(db, agents["a1"]) == "Explore"
    assert [row["tokens_output"] for row in await db.list_prompts(agents["a1"]["id"])] == [77]
    assert report.subagents.tokens_output == 77
    assert agents["a1"]["cost_usd"] == (await db.list_prompts(agents["a1"]["id"]))[0]["cost_usd"]


async def test_nested_sub_agents_hang_below_each_other_at_any_depth(db: DatabaseManager, tmp_path: Path) -> None:
    trunk_with_call(toolUseResult={"agentId": "a1"}).save(place(tmp_path))
    for number in range(1, 8):
        name, below = f"a{number}", f"a{number + 1}"
        claude = sub_agent(name, f"msg_{name}")
        claude.calls(f"{name}c", f"msg_{name}2", f"toolu_{below}", "Agent", subagent_type="Plan")
        claude.result(f"{name}r", f"toolu_{below}", "done", toolUseResult={"agentId": below})
        claude.save(sub_place(tmp_path, name))
    await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    above = ["", *(f"a{number}" for number in range(1, 8))]
    for parent, name in zip(above, [f"a{number}" for number in range(1, 9)], strict=True):
        assert agents[name]["parent_agent_id"] == agents[parent]["id"], name


async def test_what_the_file_beside_a_sub_agent_says_of_its_parent_is_the_best_evidence(
    db: DatabaseManager, tmp_path: Path
) -> None:
    trunk = trunk_with_call(toolUseResult={"agentId": "a1"})
    trunk.result("r2", "toolu_task", "x", toolUseResult={"agentId": "a2"}).save(place(tmp_path))
    sub_agent("a1", "m1").save(sub_place(tmp_path, "a1"))
    path = sub_agent("a2", "m2").save(sub_place(tmp_path, "a2"))
    path.with_name("agent-a2.meta.json").write_text(json.dumps({"agentType": "Plan", "parentAgentId": "a1"}))
    await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    assert agents["a2"]["parent_agent_id"] == agents["a1"]["id"]
    assert await kind_of(db, agents["a2"]) == "Plan"


async def test_an_orphan_hangs_below_its_session(db: DatabaseManager, tmp_path: Path) -> None:
    sub_agent().save(sub_place(tmp_path, "a1"))
    await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    assert agents["a1"]["parent_agent_id"] == agents[""]["id"]
    assert await db.list_prompts(agents[""]["id"]) == []


async def test_a_compaction_agent_counts(db: DatabaseManager, tmp_path: Path) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    sub_agent("acompact-9").save(sub_place(tmp_path, "acompact-9"))
    await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    assert await kind_of(db, agents["acompact-9"]) == "compact"
    assert sum(row["tokens_output"] or 0 for row in await db.list_prompts()) == 127


async def test_older_places_of_sub_agents_are_read_too(db: DatabaseManager, tmp_path: Path) -> None:
    trunk_with_call(toolUseResult={"agentId": "a1"}).save(place(tmp_path))
    sub_agent().save(place(tmp_path).with_name("agent-a1.jsonl"))
    flow = place(tmp_path).with_suffix("") / "subagents" / "workflows" / "run-1" / "agent-w1.jsonl"
    sub_agent("w1", "msg_w").save(flow)
    journal = Claude(begin=9).row("j", "workflow_step", step="plan")
    journal.save(flow.with_name("journal.jsonl"))
    await import_transcripts(db, [tmp_path])
    agents = await agents_by_name(db)
    assert set(agents) == {"", "a1", "w1"}
    assert (agents["w1"]["metadata"] or {})["workflow"] == "run-1"
    assert agents[""]["created_at"] == "2026-05-01T00:00:01.000000"
    [line] = await db.list_recent_agent_logs(log_type="workflow_step")
    assert line["agent_id"] == agents[""]["id"]
    assert agents["w1"]["parent_agent_id"] == agents["a1"]["parent_agent_id"] == agents[""]["id"]


async def test_side_chains_in_the_file_of_the_session_are_agents_of_their_own(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = Claude().user("u", "look around")
    claude.calls("a", "msg_1", "toolu_1", "Task", subagent_type="Explore", prompt="look here")
    for number, text in ((1, "look here"), (2, "nobody asked")):
        claude.user(f"s{number}u", text, isSidechain=True, parentUuid=None)
        claude.says(
            f"s{number}a", f"msg_s{number}", "Found.", 20 + number, isSidechain=True, parentUuid=uuid(f"s{number}u")
        )
    claude.result("r", "toolu_1", "done").says("b", "msg_2", "Done.")
    await import_transcripts(db, [claude.save(place(tmp_path))])
    agents = await agents_by_name(db)
    assert len(agents) == 3
    found = agents[uuid("s1u")]
    assert await kind_of(db, found) == "Explore"
    assert (found["metadata"] or {})["tool_use_id"] == "toolu_1"
    assert [row["tokens_output"] for row in await db.list_prompts(found["id"])] == [21]
    assert [row["prompt_text"] for row in await db.list_prompts(agents[""]["id"])] == ["look around", "done"]


async def test_rows_of_unknown_types_and_damaged_ones_are_kept_counted_and_named(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = exchange(Claude(), 1).row("x", "from-the-future", payload={"a": 1})
    path = claude.save(place(tmp_path))
    with path.open("ab") as file:
        file.write(b"{broken\n\n[1, 2]\n\xff\xfe\n" + lines(exchange(Claude(begin=9), 2).rows).encode())
    report = await import_transcripts(db, [path])
    assert report.unknown == {"from-the-future": 1}
    assert report.damaged == 3
    assert all(str(path) in finding and "byte" in finding for finding in report.findings)
    assert len(await db.list_prompts()) == 2
    [line] = await db.list_recent_agent_logs(log_type="from-the-future")
    assert line["details"]["row"]["payload"] == {"a": 1}  # type: ignore[index,call-overload]
    damaged = await db.list_recent_agent_logs(log_type="damaged")
    details: list[Any] = [row["details"] for row in damaged]
    kept = [each["row"] for each in details]
    assert sorted(kept) == ["[1, 2]\n", "{broken\n", "\ufffd\ufffd\n"]


async def test_rows_of_strange_shapes_do_no_harm(db: DatabaseManager, tmp_path: Path) -> None:
    claude = exchange(Claude(), 1)
    strange: list[Any] = [
        {"type": "assistant"},
        {
            "type": "assistant",
            "message": {"id": 5, "content": 7, "usage": {"input_tokens": "many", "output_tokens": -1}},
        },
        {"type": "user", "message": {"content": [None, 3, {"type": "tool_result", "content": {"a": 1}}]}},
        {"type": "user", "message": "text", "timestamp": "yesterday", "uuid": ["x"]},
        {"type": ["x"]},
        {"type": "progress", "data": []},
        {"type": "system", "subtype": {"a": 1}, "level": []},
        {
            "type": "assistant",
            "timestamp": "0001-01-01T00:00:00+14:00",
            "message": {"id": "m", "content": "\u0000 \ud800"},
        },
        {
            "type": "nul \0 and half \ud800" * 50,
            "uuid": "\0",
            "number": 2**80,
            "deep": json.loads("[" * 300 + "]" * 300),
        },
        {
            "type": "assistant",
            "message": {"id": "\0", "model": "m\0" * 600, "content": [], "usage": {"output_tokens": 10**30}},
        },
        {"type": "custom-title", "customTitle": "\0\ud800"},
        {},
    ]
    path = claude.save(place(tmp_path))
    with path.open("a") as file:
        file.write(lines(strange) + lines(exchange(Claude(begin=3), 2).rows))
    report = await import_transcripts(db, [path])
    assert report.findings == []
    assert {"msg_" + f"{SESSION}/{number}" for number in (1, 2)} <= {
        str((row["metadata"] or {})["response"]) for row in await db.list_prompts()
    }


async def test_titles_go_to_the_session_and_the_last_one_counts(db: DatabaseManager, tmp_path: Path) -> None:
    claude = (
        exchange(Claude(), 1).row("t1", "custom-title", customTitle="One").row("t2", "custom-title", customTitle="Two")
    )
    await import_transcripts(db, [claude.save(place(tmp_path))])
    agents = await agents_by_name(db)
    metadata = agents[""]["metadata"] or {}
    assert (metadata["title_custom-title"], metadata["cwd"], metadata["project"]) == (
        "Two",
        "/home/someone/work",
        PROJECT,
    )


async def test_a_message_without_an_id_is_known_by_its_request(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().user("u", "hello").says("a", "", "One.").says("b", "", "Two.")
    for row in claude.rows[1:]:
        row["requestId"] = "req_1"
        del row["message"]["id"]
    await import_transcripts(db, [claude.save(place(tmp_path))])
    [prompt] = await db.list_prompts()
    assert prompt["response_text"] == "One.\nTwo."


async def test_a_summary_that_points_into_another_file_is_no_title_of_this_one(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = exchange(Claude(), 1)
    path = claude.save(place(tmp_path))
    with path.open("a") as file:
        file.write(lines([{"type": "summary", "summary": "Elsewhere", "leafUuid": uuid("other")}]))
    await import_transcripts(db, [path])
    agents = await agents_by_name(db)
    assert "Elsewhere" not in str(agents[""]["metadata"])
    [line] = await db.list_recent_agent_logs(log_type="title")
    assert line["message"] == "summary: Elsewhere"


async def test_usage_answers_by_project_kind_of_agent_and_session(db: DatabaseManager, tmp_path: Path) -> None:
    trunk_with_call(toolUseResult={"agentId": "a1"}).save(place(tmp_path))
    sub_agent().save(sub_place(tmp_path, "a1"))
    other = Claude(OTHER, cwd="/home/someone/other")
    exchange(other, 1).save(place(tmp_path, OTHER, "-home-someone-other"))
    await import_transcripts(db, [tmp_path])
    definitions = {row["id"]: row for row in await db.list_orchestrator_agents()}
    spent: dict[tuple[Any, Any], int] = {}
    for agent in await db.list_agents():
        about = definitions[agent["orchestrator_agent_id"]]["metadata"] or {}
        key = (about["project"], about["kind"])
        spent[key] = spent.get(key, 0) + sum(row["tokens_output"] or 0 for row in await db.list_prompts(agent["id"]))
    assert spent == {
        (PROJECT, "session"): 20,
        (PROJECT, "Explore"): 77,
        ("-home-someone-other", "session"): 50,
    }

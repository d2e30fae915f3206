"""Files that were damaged, or that nobody expects: what can be read of them counts, and the others come in."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError
from orchdb.transcripts import import_transcripts, importing, watch_transcripts
from orchdb.transcripts.lines import document_of, rows_of
from orchdb.transcripts.long_rows import shortened
from orchdb.transcripts.storing import Batch, Overtaken, Store
from tests.support.transcripts import OTHER, Claude, exchange, lines, place, totals, usage_of
from tests.transcripts.test_codex import Codex
from tests.transcripts.test_swe_agent import saved, trajectory

BEFORE, AFTER = exchange(Claude(), 1).text().encode(), exchange(Claude(begin=5), 2).text().encode()


def written(tmp_path: Path, content: bytes) -> Path:
    """A session's file with this content."""
    path = place(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + BEFORE + AFTER,
        (BEFORE + AFTER).replace(b"\n", b"\r\n"),
        BEFORE + b"\0" * 5000 + AFTER,
        BEFORE + AFTER + b"\0" * 5000,
        BEFORE.replace(b"answer 1", b"an\xff\xfe \xe4\xb8er") + AFTER,
        BEFORE.replace(b"answer 1", b"a\0 \x01\x1b[31m b") + AFTER,
        BEFORE + b" \t \r\n\n" + AFTER,
        BEFORE + AFTER + '{"type": "user", "message": "ü'.encode()[:-1],
        BEFORE + AFTER.replace(b'"type": "assistant"', b'"type": "user", "type": "assistant"'),
    ],
)
async def test_a_row_is_read_whatever_stands_around_it_or_in_its_texts(
    db: DatabaseManager, tmp_path: Path, content: bytes
) -> None:
    report = await import_transcripts(db, [written(tmp_path, content)])
    assert (report.prompts, report.lines, report.damaged, report.findings) == (2, 8, 0, [])
    assert (await totals(db))[2] == 100


async def test_tokens_that_no_response_can_have_are_none_and_whole_ones_may_be_written_with_a_point(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = Claude()
    for number, output in enumerate([7.0, -5, 2**40, 2**70, True, "9", None, [1]]):
        claude.says(f"{number}", f"msg_{number}", "x", usage={"output_tokens": output, "input_tokens": 1})
    text = claude.text()
    for name in ("NaN", "Infinity", "1e400"):
        row = Claude().says(name, f"msg_{name}", "x", usage=usage_of(4321, 1)).text()
        text += row.replace("4321", name)
    await import_transcripts(db, [written(tmp_path, text.encode())])
    assert (await totals(db))[:3] == (11, 11, 7)
    [sum_of_all] = await db.usage(())
    assert sum_of_all["tokens_output"] == 7


async def test_a_cost_that_no_run_can_have_is_none(db: DatabaseManager, tmp_path: Path) -> None:
    for number, cost in enumerate(["NaN", "Infinity", "1e308", "-3", "1" * 400, "true", '"5"']):
        path = saved(tmp_path / "run" / f"task-{number}.traj", trajectory(2, 0.125))
        path.write_text(path.read_text().replace("0.125", cost))
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.unpriced, report.added.cost_usd) == (14, 7, 0.0)


async def test_a_row_of_any_length_counts_with_its_long_texts_cut(db: DatabaseManager, tmp_path: Path) -> None:
    text = "".join(f'line {number}\n\t"\\ ü😀' for number in range(200_000))
    claude = exchange(Claude(), 1).says("a", "msg_long", "short").result("r", "toolu_1", text, toolUseResult=text)
    claude.says("b", "msg_2", text, 70)
    path = exchange(claude, 3).save(place(tmp_path))
    report = await import_transcripts(db, [path])
    assert (report.prompts, report.damaged) == (4, 0)
    assert [finding.rsplit(": ", 2)[1:] for finding in report.findings] == [
        [f"{size} MB long", "its texts are cut to 131.1 kB each"] for size in ("15.0", "7.5")
    ]
    [prompt] = [row for row in await db.list_prompts() if row["tokens_output"] == 70]
    assert prompt["cost_usd"]
    for kept in (prompt["prompt_text"], prompt["response_text"]):
        assert 50_000 < len(str(kept)) < 2**17
        assert text.startswith(str(kept))


async def test_a_long_row_whose_end_is_not_there_yet_is_left_for_later(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude().says("b", "msg_2", "x" * 3_000_000, 70)
    whole = claude.text().encode()
    path = written(tmp_path, BEFORE + whole[:-2])
    first = await import_transcripts(db, [path])
    assert (first.prompts, first.damaged, first.findings) == (1, 0, [])
    path.write_bytes(BEFORE + whole[:-1])
    assert (await import_transcripts(db, [path])).prompts == 1
    path.write_bytes(BEFORE + whole + AFTER)
    assert (await import_transcripts(db, [path])).prompts == 1
    assert (await totals(db))[2] == 170


async def test_a_row_that_is_long_without_long_texts_is_named_and_the_rest_comes_in(
    db: DatabaseManager, tmp_path: Path
) -> None:
    long = json.dumps({"type": "user", "numbers": [1] * 1_000_000}).encode() + b"\n"
    report = await import_transcripts(db, [written(tmp_path, BEFORE + long + AFTER)])
    assert (report.prompts, report.damaged) == (2, 1)
    assert report.findings[0].endswith("too long: 3.0 MB long")


@pytest.mark.parametrize("seed", range(20))
def test_cutting_cuts_texts_and_nothing_else(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    picker = random.Random(seed)
    monkeypatch.setattr("orchdb.transcripts.long_rows._PIECE", picker.randrange(1, 40))
    monkeypatch.setattr("orchdb.transcripts.long_rows._CUTS", (picker.randrange(30, 60),))

    def text() -> str:
        return "".join(picker.choices('ab"\\\n\t/ü漢😀\u2028\0', k=picker.randrange(90)))

    row = {f"name {number}": [text(), number, None, {"t": text()}] for number in range(20)}
    raw = json.dumps(row, ensure_ascii=picker.random() < 0.5).encode()
    short = shortened(io.BytesIO(b"{}\n" + raw + b"\n{}\n"), 3, rows=True, longest=100_000)
    assert (short.end, short.whole) == (len(raw) + 4, True)

    def compare(whole: Any, cut: Any) -> None:
        if isinstance(whole, str):
            assert whole.startswith(re.sub("[\ufffd\ud83d]+$", "", cut))
            assert cut == whole or len(json.dumps(whole)) > 30
        elif isinstance(whole, dict):
            compare([*whole.items()], [*cut.items()])
        elif isinstance(whole, list | tuple):
            for one, other in zip(whole, cut, strict=True):
                compare(one, other)
        else:
            assert whole == cut

    compare(row, json.loads(short.raw.decode("utf-8", "replace")))


def test_a_long_row_and_a_long_document_are_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    row = b'{"a": "' + b"x" * 40_000_000 + b'", "b": 1}'
    path.write_bytes(b"{}\n" + row + b"\n{}\n")
    (tmp_path / "long.traj").write_bytes(row)
    del row
    tracemalloc.start()
    try:
        assert [each.value is not None for each in rows_of(path, 0)] == [True, True, True]
        assert (document_of(tmp_path / "long.traj").value or {})["b"] == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000


async def test_names_of_files_that_are_no_text_are_read_and_told_apart(db: DatabaseManager, tmp_path: Path) -> None:
    place(tmp_path).parent.mkdir(parents=True)
    folder = os.fsencode(place(tmp_path).parent)
    for number, name in enumerate([b"\xff\xfe", b"\xff\xff", b"new\nline\x1b[31m"]):
        try:
            with open(folder + b"/" + name + b".jsonl", "wb") as file:  # noqa: PTH123  # such names Path has not
                file.write(exchange(Claude(), number).text().encode() + b"{broken\n{}\n")
        except OSError:
            pytest.skip("the file system takes only text")
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.unreadable, report.damaged) == (3, 0, 3)
    named = "\n".join(report.findings)
    assert all(name in named for name in ("\\xff\\xfe.jsonl", "\\xff\\xff.jsonl", "new\\nline\\x1b[31m.jsonl"))
    assert (await import_transcripts(db, [tmp_path])).files_unchanged == 3


async def test_links_to_folders_are_followed_and_circles_end(db: DatabaseManager, tmp_path: Path) -> None:
    exchange(Claude(), 1).save(place(tmp_path / "elsewhere"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "moved").symlink_to(tmp_path / "elsewhere")
    (home / "moved" / "back").symlink_to(home)
    (home / "self.jsonl").symlink_to(home / "self.jsonl")
    report = await import_transcripts(db, [home])
    assert (report.files, report.prompts) == (1, 1)


async def test_what_is_unknown_is_named_but_not_without_end(db: DatabaseManager, tmp_path: Path) -> None:
    claude = Claude()
    for number in range(300):
        claude.row(f"{number}", f"type-{number}")
    report = await import_transcripts(db, [claude.save(place(tmp_path))])
    assert len(report.unknown) == 101
    assert sum(report.unknown.values()) == 300
    assert report.lines == 300


async def test_an_import_that_is_overtaken_at_every_step_goes_on_to_the_end(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claude = Claude()
    for number in range(70):
        claude.says(f"{number}", f"msg_{number}", "x")
    path = claude.save(place(tmp_path))
    apply = Store.apply

    async def second(self: Store, batch: Batch) -> None:
        await apply(self, batch)  # as somebody else has just done
        if (batch.base or {}).get("end") != batch.reached["end"] and batch.reached["size"] < 0:
            raise Overtaken(batch.reached)

    monkeypatch.setattr(importing, "_ROWS", 1)
    monkeypatch.setattr(Store, "apply", second)
    await import_transcripts(db, [path])
    assert len(await db.list_prompts()) == 70


async def test_a_value_that_a_column_refuses_is_told_of_its_file_without_the_value(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exchange(Claude(), 1).save(place(tmp_path))
    exchange(Claude(OTHER), 2).save(place(tmp_path, OTHER))
    reached = importing._reached

    def strange(job: Any, *rest: Any) -> dict[str, Any]:
        found = reached(job, *rest)
        return found | {"state": {"secret": b"secret"}} if job.path == path else found

    monkeypatch.setattr(importing, "_reached", strange)
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.unreadable) == (1, 1)
    assert "agents.metadata" in report.findings[0]
    assert "secret'" not in report.findings[0]


async def test_half_a_line_with_half_a_character_is_completed_later(db: DatabaseManager, tmp_path: Path) -> None:
    claude = exchange(Claude(), 1).says("a", "msg_a", "üü")
    whole = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in claude.rows).encode()
    path = written(tmp_path, whole[: whole.rindex("ü".encode()) + 1])
    first = await import_transcripts(db, [path])
    path.write_bytes(whole + lines(exchange(Claude(begin=4), 2).rows).encode())
    second = await import_transcripts(db, [path])
    assert (first.prompts, first.damaged, second.prompts, second.damaged) == (1, 0, 2, 0)
    assert "üü" in [row["response_text"] for row in await db.list_prompts()]


async def test_files_of_other_kinds_are_no_transcripts(db: DatabaseManager, tmp_path: Path) -> None:
    exchange(Claude(), 1).save(tmp_path / "mine.jsonl")
    (tmp_path / "training.jsonl").write_text(lines([{"prompt": "a", "completion": "b", "type": "user"}] * 3))
    (tmp_path / "events.jsonl").write_text('{"type": "x", "payload": 5}\nno JSON\n')
    (tmp_path / "empty.jsonl").touch()
    report = await import_transcripts(db, [tmp_path])
    assert (report.files, report.agents, report.prompts, report.unknown) == (1, 1, 1, {})
    for name in ("training", "events", "empty"):
        with pytest.raises(InvalidValueError, match=f"{name}.jsonl is no transcript of Claude Code, Codex or SWE"):
            await import_transcripts(db, [tmp_path / f"{name}.jsonl"])


def with_canaries() -> tuple[Claude, Codex, dict[str, Any]]:
    """Transcripts in which every text that is no name holds the word canary."""
    text = "canary"
    claude = Claude().user("u", text, toolUseResult={"stdout": text})
    claude.says("a", "msg_1", {"type": "thinking", "thinking": text, "signature": text}).says("b", "msg_1", text)
    claude.calls("c", "msg_1", "toolu_1", "Task", subagent_type="Explore", prompt=text, description=text)
    claude.result("r", "toolu_1", text, toolUseResult={"agentId": "a1", "prompt": text, "content": [{"text": text}]})
    claude.user("e", [{"type": "tool_result", "tool_use_id": {"a": text}, "content": text, "is_error": True}])
    claude.user("m", text, isMeta=True).user("s", text, isCompactSummary=True)
    claude.says("d", "msg_2", text, model="<synthetic>", isApiErrorMessage=True, error=text)
    metadata = {"trigger": text, "preTokens": 5, "userContext": text}
    claude.row("w", "system", subtype="compact_boundary", content=text, compactMetadata=metadata, durationMs=text)
    claude.row("p", "progress", data={"type": "hook_progress", "command": text})
    claude.row("q", "queue-operation", operation="enqueue", content=f"<task-id>a1</task-id>{text}")
    claude.row("f", "file-history-snapshot", snapshot={"a": text}).row("x", "from-the-future", words=text)
    claude.row("g", "attachment", attachment={"content": text}).row("h", "pr-link", prUrl=text)
    claude.row("t", "summary", summary=text).row("i", "ai-title", aiTitle=text).row(
        "k", "custom-title", customTitle=text
    )
    codex = Codex(instructions=text).message("user", text).message("assistant", text)
    codex.item("reasoning", summary=[{"type": "summary_text", "text": text}], encrypted_content=text)
    codex.item("function_call", name="shell", arguments=text, call_id={"a": text})
    codex.item("custom_tool_call", name="patch", input=text, call_id="c")
    codex.item("function_call_output", call_id=[text], output=text).item("web_search_call", action={"query": text})
    for kind in ("turn_aborted", "collab_agent_spawn_end", "error", "task_complete", "agent_reasoning", "new"):
        codex.row("event_msg", type=kind, reason=text, prompt=text, message=text, text=text, status=text)
    codex.row("compacted", message=text, replacement_history=[text]).row("new", words=text).count(5, 0, 1, 6)
    document = trajectory(2)
    for step in document["trajectory"]:
        step.update(
            dict.fromkeys(("response", "thought", "observation", "state"), text), action=f"K='{text}' run {text}"
        )
    document["history"] = [{"role": "user", "content": text}]
    document["info"] |= {"submission": text, "exit_status": {"a": text}}
    document["info"]["model_stats"]["note"] = text
    document["environment"] = {"a": text}
    return claude, codex, document


@pytest.mark.parametrize("content", [True, False])
async def test_without_content_no_text_is_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bool
) -> None:
    claude, codex, document = with_canaries()
    path = claude.save(place(tmp_path))
    with path.open("a") as file:
        file.write("{canary\n")
    codex.save(tmp_path)
    saved(tmp_path / "run" / "task-1.traj", document)
    caplog.set_level("DEBUG", logger="orchdb")
    async with DatabaseManager(tmp_path / "runs.db") as db:
        report = await import_transcripts(db, [tmp_path], content=content)
        again = await import_transcripts(db, [tmp_path], content=content)
    assert (report.prompts, report.damaged, again.files_read) == (5, 1, 0)
    assert "canary" not in repr(report.to_dict())
    assert "canary" not in caplog.text
    stored = b"".join(each.read_bytes() for each in tmp_path.glob("runs.db*"))
    assert (b"canary" in stored) is content


async def test_what_is_watched_may_go_away_come_again_and_begin_anew(db: DatabaseManager, tmp_path: Path) -> None:
    path = exchange(exchange(Claude(), 1), 2).save(place(tmp_path / "watched"))
    reports = watch_transcripts(db, [tmp_path / "watched"], interval=0.01)
    assert (await anext(reports)).prompts == 2
    (tmp_path / "watched").rename(tmp_path / "away")
    coming = asyncio.ensure_future(anext(reports))
    await asyncio.sleep(0.1)
    assert not coming.done()
    (tmp_path / "away").rename(tmp_path / "watched")
    exchange(Claude(begin=3), 3).save(path)  # shorter than it was
    assert (await coming).prompts == 1
    exchange(Claude(OTHER, begin=5), 4).save(path.with_name("other.jsonl")).replace(path)
    assert (await anext(reports)).prompts == 1
    exchange(Claude("new", begin=6), 5).save(place(tmp_path / "watched", OTHER, "-new"))
    assert (await anext(reports)).prompts == 1
    await reports.aclose()  # type: ignore[attr-defined]
    assert len(await db.list_prompts()) == 5

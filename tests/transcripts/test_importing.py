"""Imports that are repeated, interrupted, raced and resumed give what one import gives."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, InvalidValueError
from orchdb.transcripts import Progress, find_transcripts, import_transcripts, importing, watch_transcripts
from orchdb.transcripts.storing import Store
from tests.conftest import Target
from tests.support.transcripts import (
    OTHER,
    SESSION,
    Claude,
    content_of,
    exchange,
    lines,
    place,
    sub_place,
    totals,
    uuid,
)


def several(tmp_path: Path, exchanges: int = 12) -> Path:
    """Two sessions, one of them a fork of the other, with sub-agents; the folder."""
    first = Claude().user("u", "look").calls("a", "msg_task", "toolu_task", "Task", subagent_type="Explore")
    first.result("r", "toolu_task", "ok", toolUseResult={"agentId": "a1"})
    for number in range(exchanges):
        exchange(first, number)
    first.save(place(tmp_path))
    fork = Claude(OTHER, begin=30)
    fork.rows = [*first.rows]
    for number in range(exchanges):
        exchange(fork, number)
    fork.save(place(tmp_path, OTHER))
    for name in ("a1", "acompact-2"):
        sub = Claude(isSidechain=True, agentId=name)
        sub.session = f"{SESSION}/{name}"
        for number in range(exchanges):
            exchange(sub, number)
        sub.save(sub_place(tmp_path, name))
    return tmp_path / "claude"


async def test_a_second_import_adds_nothing_and_reads_nothing(db: DatabaseManager, tmp_path: Path) -> None:
    folder = several(tmp_path)
    first = await import_transcripts(db, [folder])
    before = await content_of(db)
    second = await import_transcripts(db, [folder])
    assert await content_of(db) == before
    assert (first.files_read, second.files_read, second.files_unchanged) == (4, 0, 4)
    assert (second.prompts, second.lines, second.agents, second.naive.rows) == (0, 0, 0, 0)
    assert len(before["prompts"]) == 1 + 4 * 12


async def test_reading_everything_again_adds_nothing(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = several(tmp_path)
    await import_transcripts(db, [folder])
    before = await content_of(db)
    monkeypatch.setattr(importing, "_start", lambda job, base: (0, 0, None))
    monkeypatch.setattr(importing._Import, "_is_done", lambda *_: False)
    again = await import_transcripts(db, [folder])
    assert again.files_read == 4
    assert (again.prompts, again.prompts_corrected, again.lines) == (0, 0, 0)
    assert await content_of(db) == before


async def test_small_batches_give_what_one_gives(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = several(tmp_path)
    monkeypatch.setattr(importing, "_ROWS", 3)
    report = await import_transcripts(db, [folder])
    small = await content_of(db)
    assert (report.prompts, report.prompts_corrected) == (49, 0)
    async with DatabaseManager(":memory:") as other:
        monkeypatch.undo()
        await import_transcripts(other, [folder])
        large = await content_of(other)
    assert small == large


@pytest.mark.parametrize("seed", range(3))
async def test_a_file_that_grows_by_any_piece_gives_what_it_gives_as_a_whole(
    db: DatabaseManager, tmp_path: Path, seed: int
) -> None:
    claude = Claude().user("u", "both").calls("a", "msg_1", "toolu_1").result("r", "toolu_1", "first")
    claude.calls("b", "msg_1", "toolu_2", output=60).result("s", "toolu_2", "second").says("c", "msg_2", "Done.")
    for number in range(4):
        exchange(claude, number)
    claude.user("su", "side", isSidechain=True, parentUuid=None)
    claude.says("sa", "msg_s", "aside", 7, isSidechain=True, parentUuid=uuid("su"))
    exchange(claude, 9)
    whole = claude.text().encode()
    path = place(tmp_path)
    path.parent.mkdir(parents=True)
    picker = random.Random(seed)
    cuts = sorted(picker.sample(range(len(whole)), 12))
    for end in (*cuts, len(whole)):
        path.write_bytes(whole[:end])
        await import_transcripts(db, [path])
    grown, sums = await content_of(db), await totals(db)
    async with DatabaseManager(":memory:") as other:
        await import_transcripts(other, [path])
        assert grown == await content_of(other)
        assert sums == await totals(other)


async def test_half_a_line_is_left_for_later_and_is_not_damaged(db: DatabaseManager, tmp_path: Path) -> None:
    text = exchange(exchange(Claude(), 1), 2).text()
    path = place(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text[:-40])
    first = await import_transcripts(db, [path])
    assert first.damaged == 0
    path.write_text(text)
    second = await import_transcripts(db, [path])
    assert (second.damaged, second.lines, second.prompts) == (0, 1, 0)


async def test_a_last_row_without_its_end_of_line_is_read_and_not_read_twice(
    db: DatabaseManager, tmp_path: Path
) -> None:
    text = exchange(Claude(), 1).text()
    path = place(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text[:-1])
    await import_transcripts(db, [path])
    assert len(await db.list_recent_agent_logs(None)) == 4
    path.write_text(text + exchange(Claude(begin=2), 2).text())
    await import_transcripts(db, [path])
    assert len(await db.list_recent_agent_logs(None)) == 8
    assert len(await db.list_prompts()) == 2


async def test_a_file_that_another_one_took_the_place_of_is_read_from_its_beginning(
    db: DatabaseManager, tmp_path: Path
) -> None:
    path = exchange(exchange(Claude(), 1), 2).save(place(tmp_path))
    await import_transcripts(db, [path])
    exchange(exchange(exchange(Claude(begin=7), 4), 5), 6).save(path)
    await import_transcripts(db, [path])
    assert len(await db.list_prompts()) == 5


async def test_imports_at_the_same_time_give_what_one_gives(target: Target, tmp_path: Path) -> None:
    folder = several(tmp_path)
    async with DatabaseManager(target.url, upgrade=True) as db, DatabaseManager(target.url) as second:
        await asyncio.gather(*(import_transcripts(each, [folder]) for each in (db, second, db)))
        raced = await content_of(db)
    async with DatabaseManager(":memory:") as other:
        await import_transcripts(other, [folder])
        assert raced == await content_of(other)


@pytest.mark.slow
async def test_imports_that_are_killed_and_made_again_give_what_one_gives(target: Target, tmp_path: Path) -> None:
    folder = several(tmp_path, 20)
    async with DatabaseManager(target.url, upgrade=True):
        pass
    command = [sys.executable, "-m", "tests.support.children.importing", target.url, str(folder), "20"]
    done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    async with DatabaseManager(target.url) as db:
        killed = await content_of(db)
    async with DatabaseManager(":memory:") as other:
        report = await import_transcripts(other, [folder])
        assert killed == await content_of(other)
    last = int(done.stdout.split()[-2])
    assert 0 <= last < report.prompts, "all of it was left to the last one"


async def test_without_content_there_are_counts_models_times_and_names_only(
    db: DatabaseManager, tmp_path: Path
) -> None:
    claude = Claude().user("u", "secret question").calls("a", "msg_1", "toolu_1", command="secret command")
    claude.result("r", "toolu_1", "secret result").says("b", "msg_2", "secret answer")
    claude.row("t", "custom-title", customTitle="secret title").row("x", "from-the-future", words="secret words")
    path = claude.save(place(tmp_path))
    with path.open("a") as file:
        file.write("{secret damage\n" + lines(exchange(Claude(begin=3), 3).rows))
    await import_transcripts(db, [path], content=False)
    content = await content_of(db)
    assert "secret" not in repr(content)
    assert len(content["prompts"]) == 3
    assert (await totals(db))[2] == 70
    assert {line["message"] for line in await db.list_recent_agent_logs(log_type="tool_call")} == {"Bash"}


async def test_a_dry_run_writes_nothing_and_reports_what_an_import_reports(db: DatabaseManager, tmp_path: Path) -> None:
    folder = several(tmp_path)
    dry = await import_transcripts(db, [folder], dry_run=True)
    assert await db.list_agents() == []
    nowhere = await import_transcripts(None, [folder], dry_run=True)
    real = await import_transcripts(db, [folder])
    reports = [report.to_dict() | {"seconds": 0, "dry_run": False} for report in (dry, nowhere, real)]
    assert reports[0] == reports[2]
    assert reports[1] == reports[2]
    after = await import_transcripts(db, [folder], dry_run=True)
    assert (after.prompts, after.lines, after.agents) == (0, 0, 0)


async def test_an_agent_that_was_deleted_softly_stays_so(db: DatabaseManager, tmp_path: Path) -> None:
    path = exchange(Claude(), 1).save(place(tmp_path))
    await import_transcripts(db, [path])
    [agent] = await db.list_agents()
    await db.delete_agent(agent["id"], soft=True)
    exchange(exchange(Claude(), 1), 2).save(path)
    report = await import_transcripts(db, [path])
    assert (report.files_read, report.prompts) == (0, 0)
    assert "deleted" in report.findings[0]


async def test_what_was_deleted_for_good_comes_again(db: DatabaseManager, tmp_path: Path) -> None:
    path = exchange(Claude(), 1).save(place(tmp_path))
    await import_transcripts(db, [path])
    before = await content_of(db)
    [agent] = await db.list_agents()
    await db.delete_agent(agent["id"])
    await import_transcripts(db, [path])
    assert await content_of(db) == before


async def test_a_watched_file_is_followed(db: DatabaseManager, tmp_path: Path) -> None:
    path = exchange(Claude(), 1).save(place(tmp_path))
    reports = watch_transcripts(db, [tmp_path], interval=0.01)
    assert (await anext(reports)).prompts == 1
    exchange(exchange(Claude(), 1), 2).save(path)
    assert (await anext(reports)).prompts == 1
    exchange(Claude(OTHER, begin=5), 1).save(place(tmp_path, OTHER))
    assert (await anext(reports)).prompts == 1
    await reports.aclose()  # type: ignore[attr-defined]
    assert len(await db.list_agents()) == 2


async def test_the_cost_of_an_agent_is_the_sum_of_its_prompts(db: DatabaseManager, tmp_path: Path) -> None:
    folder = several(tmp_path)
    await import_transcripts(db, [folder])
    for agent in await db.list_agents():
        prompts = await db.list_prompts(agent["id"])
        assert agent["cost_usd"] == round(sum(row["cost_usd"] or 0 for row in prompts), 9)


async def test_progress_is_told(db: DatabaseManager, tmp_path: Path) -> None:
    told: list[Progress] = []
    folder = several(tmp_path)
    await import_transcripts(db, [folder], progress=told.append)
    assert told[-1].done == told[-1].total == sum(each.size for each in find_transcripts([folder]))
    assert (told[-1].files_done, told[-1].files) == (4, 4)


async def test_without_a_path_the_folders_of_the_tools_are_found(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "codex"))
    assert (await import_transcripts(db)).prompts == 1
    assert (await import_transcripts(db, sources=["codex"])).files == 0


async def test_a_path_that_is_not_there_and_an_unknown_format_are_refused(db: DatabaseManager, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="there is no"):
        await import_transcripts(db, [tmp_path / "nothing"])
    with pytest.raises(InvalidValueError, match="claude, codex, swe"):
        await import_transcripts(db, [tmp_path], sources=["cursor"])


async def test_what_cannot_be_read_is_named_and_stops_nothing(db: DatabaseManager, tmp_path: Path) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    (tmp_path / "nowhere.jsonl").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "empty.jsonl").touch()
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.files, report.damaged) == (1, 1, 0)


async def test_a_file_that_goes_away_meanwhile_is_named(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    gone = exchange(Claude(OTHER), 2).save(place(tmp_path, OTHER))

    def in_order(jobs: list[Any]) -> list[Any]:
        gone.unlink()
        return jobs

    monkeypatch.setattr(importing, "_in_order", in_order)
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.unreadable) == (1, 1)
    assert str(gone) in report.findings[0]


async def test_a_file_that_the_database_refuses_is_named_and_the_others_come_in(
    db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange(Claude(), 1).save(place(tmp_path))
    refused = exchange(Claude(OTHER, version="9" * 600), 2).save(place(tmp_path, OTHER))
    apply = Store.apply

    async def refusing(self: Any, batch: Any) -> None:
        if OTHER in batch.owner:
            raise InvalidValueError("prompts.model_used: too long")
        await apply(self, batch)

    monkeypatch.setattr(Store, "apply", refusing)
    report = await import_transcripts(db, [tmp_path])
    assert (report.prompts, report.unreadable) == (1, 1)
    assert report.findings == [f"{refused}: prompts.model_used: too long"]


async def test_what_fits_no_column_is_cut(db: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchdb.transcripts.claude_threads.MOST_GIVEN", 10)
    claude = Claude().user("u", "1234567").user("v", "89abcdef").says("a", "msg_1", "Hi.").user("w", "next")
    await import_transcripts(db, [claude.says("b", "msg_2", "Ho.").save(place(tmp_path))])
    assert [row["prompt_text"] for row in await db.list_prompts()] == ["1234567\n\n89a", "next"]

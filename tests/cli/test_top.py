"""The live board: what it marks, what the keys do, and how it leaves the terminal."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

from rich.console import Console
from sqlalchemy import update

from orchdb import DatabaseManager
from orchdb.cli.board import Board
from orchdb.cli.view import View
from orchdb.inspection.board import BoardRow
from orchdb.schema.tables import leases
from tests.cli.conftest import Recorded
from tests.support.command_line import done, in_terminal


async def _at_work(url: str) -> dict[str, str]:
    """Three agents at work: one lives, one has not been seen for an hour, the process of one has died."""
    ids: dict[str, str] = {}
    async with DatabaseManager(url) as db:
        definition = await db.get_or_create_orchestrator_agent("scout")
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        ids["stuck"] = await db.create_agent(definition, "now", status="planning", created_at=long_ago)
        await db.update_agent(ids["stuck"], updated_at=long_ago)
        async with db.agent_run("runner", "now") as run:
            ids["stale"] = run.id
            async with db.transaction() as tx:
                await tx.conn.execute(update(leases).values(clock_id="another boot", clock=0.0))
            rows = [
                json.loads(line) for line in (await asyncio.to_thread(done, "top", "--json", "--db", url)).splitlines()
            ]
    assert rows[0].keys() == BoardRow.__annotations__.keys()
    assert [(row["sign"], row["id"]) for row in rows[:2]] == [("stale", ids["stale"]), ("stuck", ids["stuck"])]
    assert [row["sign"] for row in rows[2:]] == ["working"]
    assert 3590 < rows[1]["idle_seconds"] < 4000
    return ids


def test_what_asks_for_attention_is_marked_and_comes_first(recorded: Recorded) -> None:
    asyncio.run(_at_work(recorded.url))
    patient = ("top", "--stuck-after", "2h", "--json", "--db", recorded.url)
    assert {json.loads(line)["sign"] for line in done(*patient).splitlines()} == {"working"}


def test_keys_choose_an_agent_open_its_log_go_back_and_end(recorded_file: Recorded) -> None:
    shown = in_terminal(
        "top",
        "--every",
        "0.2",
        "--db",
        recorded_file.url,
        rows=12,
        keys=[("choose", b"\x1b[B"), ("choose", b"\x1b[A"), ("choose", b"\r"), ("esc back", b"\x1b"), ("choose", b"q")],
    )
    assert shown.code == 0
    assert "1 working, 0 stuck, 0 stale" in shown.text
    assert recorded_file.lead in shown.text, "its log has the whole id"
    assert shown.text.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?25h\x1b[?1049l")), "the terminal is as it was"


def test_ctrl_c_ends_the_board_without_a_word(recorded_file: Recorded) -> None:
    shown = in_terminal("top", "--db", recorded_file.url, keys=[("choose", b"\x03")])
    assert shown.code in (0, 130)
    assert "Traceback" not in shown.text
    assert "\x1b[?1049l" in shown.text


async def test_the_choice_stays_with_its_agent_while_others_come_and_end(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        definition = await db.get_or_create_orchestrator_agent("scout")
        first, second = [await db.create_agent(definition, "now", status="executing") for _ in range(2)]
        board = Board(View.of(str(path), False, False, True, True))
        board.press(b"\r")
        await board.look(db, None, 300)
        assert (board.open, board.chosen) == (False, board.rows[0]["id"])
        chosen = board.rows[1]["id"]
        board.press(b"j")
        board.press(b"\x1b[B")
        assert board.chosen == chosen, "below the last there is nothing"
        third = await db.create_agent(definition, "now", status="executing")
        await board.look(db, None, 300)
        assert (board.chosen, {row["id"] for row in board.rows}) == (chosen, {first, second, third})
        assert _drawn(board).count("scout") == 3
        await db.create_agent_log(chosen, "INFO", "milestone", "a line of \x1b[31mits log")
        board.press(b"\n")
        await board.look(db, None, 300)
        assert chosen in _drawn(board)
        assert "its log" in _drawn(board)
        assert "\x1b[31mits" not in _drawn(board)
        board.press(b"\x7f")
        await db.update_agent(chosen, status="completed")
        await board.look(db, None, 300)
        assert board.chosen == board.rows[0]["id"], "who has ended cannot be chosen"
        for agent in (first, second, third):
            await db.update_agent(agent, status="completed")
        await board.look(db, None, 300)
    assert "Nobody is at work." in _drawn(board)
    board.press(b"x")
    assert not board.ended
    board.press(b"q")
    assert board.ended


def _drawn(board: Board) -> str:
    console = Console(width=120, height=20, file=StringIO())
    console.print(board.draw())
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()

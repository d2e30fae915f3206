"""The live board: what it marks, what the keys do, and how it leaves the terminal."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from orchdb import DatabaseManager
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

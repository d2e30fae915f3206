"""Usage: ``python -m docs.screenshots [FOLDER]``. Draws ``docs/images/*.svg``: what commands show of the demo's rows.

The same pictures each time: the clock stands still, and ids, times and amounts come from the same seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import time_machine
from rich._export_format import CONSOLE_SVG_FORMAT
from sqlalchemy import insert, update

from orchdb import DatabaseManager
from orchdb.cli import view as view_module
from orchdb.cli.application import application
from orchdb.cli.board import Board
from orchdb.cli.demo_session import BUILDERS, MODEL, PLANNER, REVIEWER, Part
from orchdb.cli.output import Output
from orchdb.cli.view import View
from orchdb.rows import AgentStatus, LogLevel
from orchdb.schema.tables import agents, leases

IMAGES = Path(__file__).parent / "images"
NOW = datetime(2026, 11, 26, 9, 41, 7, tzinfo=UTC)
COLUMNS, ROWS = 80, 18
# The font is that of whoever looks: nothing is fetched from elsewhere.
FORMAT = re.sub(r"@font-face {{.*?}}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")


class Session(NamedTuple):
    """A session as the demo plays it, with larger amounts.

    Attributes:
        minutes: How long ago it began.
        ends: How each agent of ``PARTS`` has ended, or what it does now; those behind the last one have not begun.
    """

    minutes: float
    ends: Sequence[AgentStatus]


PARTS = (PLANNER, *BUILDERS, REVIEWER)
SESSIONS = (
    Session(1502, ("completed",) * 5),
    Session(1391, ("completed", "completed", "failed", "completed")),
    Session(221, ("completed",) * 5),
    Session(64, ("completed", "completed", "executing", "cancelled")),
    Session(22, ("completed", "completed", "executing", "executing")),
    Session(4.4, ("completed", "executing", "executing", "executing")),
)


class Demo:
    """Writes the sessions."""

    def __init__(self, db: DatabaseManager) -> None:
        self._db = db
        self._chance = random.Random(16)  # noqa: S311  # nothing secret

    async def write(self) -> list[str]:
        """Write all, and return their ids."""
        return [await self._session(session) for session in SESSIONS]

    def _id(self, moment: datetime) -> str:
        """An id as orchdb makes them, of this time."""
        digits = f"{round(moment.timestamp() * 1000):012x}7{self._chance.getrandbits(76) | 1 << 75:019x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-8{digits[17:20]}-{digits[20:]}"

    async def _session(self, session: Session) -> str:
        begun = NOW - timedelta(minutes=session.minutes)
        name = self._id(begun)
        works = "executing" in session.ends
        lead = await self._agent(
            "orchestrator", "orchestrator", name, None, begun, "executing" if works else "completed"
        )
        moment = begun + timedelta(seconds=2)
        for place, (part, end) in enumerate(zip(PARTS, session.ends, strict=False)):
            if part in (PLANNER, REVIEWER):
                moment += timedelta(seconds=30)
            starts = moment + timedelta(seconds=2.7 * place)
            agent = await self._agent(part.name, part.agent_type, name, lead, starts, end)
            seen = await self._work(agent, part, starts + timedelta(milliseconds=7), end)
            await self._db.update_agent(agent, updated_at=seen)
        await self._db.update_agent(lead, updated_at=NOW - timedelta(seconds=9) if session.minutes < 10 else seen)
        return name

    async def _agent(
        self, name: str, kind: str, session: str, parent: str | None, moment: datetime, status: AgentStatus
    ) -> str:
        definition = await self._db.get_or_create_orchestrator_agent(f"demo-{name}", "Made by orchdb demo.", kind)
        return await self._db.create_agent(
            definition, session, parent, status=status, id=self._id(moment), created_at=moment, started_at=moment
        )

    async def _work(self, agent: str, part: Part, moment: datetime, end: AgentStatus) -> datetime:
        """What it asked and logged; the time of its last sign of life."""
        exchanges = part.exchanges if end != "failed" else part.exchanges[:1]
        lines: list[tuple[LogLevel, str, str]] = [("INFO", "state_change", f"{part.name} is {part.status}")]
        for exchange in exchanges:
            size = self._chance.randrange(8, 30)
            prompt = await self._db.create_prompt(
                *(agent, exchange.prompt_type, exchange.prompt),
                model_used=MODEL,
                id=self._id(moment),
                created_at=moment,
            )
            fails = exchange.response is None or end == "failed"
            await self._db.complete_prompt(
                *(prompt, None if fails else exchange.response),
                status="failed" if fails else "completed",
                tokens_input=exchange.tokens_input * size,
                tokens_output=exchange.tokens_output * size,
                tokens_cache_read=exchange.tokens_cache_read * size,
                cost_usd=round(exchange.cost_usd * size, 2),
                latency_ms=round(exchange.seconds * size * 1000),
            )
            lines.append(
                ("ERROR", "error", "the answer was cut off")
                if fails
                else ("INFO", "milestone", exchange.response or "")
            )
            moment += timedelta(seconds=self._chance.uniform(9, 40))
        if end == "executing" and NOW - moment < timedelta(minutes=6):
            moment = NOW - timedelta(seconds=self._chance.uniform(1, 60))
        for place, (level, kind, message) in enumerate(lines):
            told = moment - timedelta(seconds=3 * (len(lines) - 1 - place))
            await self._db.create_agent_log(agent, level, kind, message, created_at=told)
        return moment


async def _leave(db: DatabaseManager, session: str) -> None:
    """Let the process of the builders of a session have died."""
    lease = {"id": "01a215e6-0000-7000-8000-000000000001", "owner": "01a215e6-0000-7000-8000-000000000002"}
    values = {**lease, "seconds": 60, "renewed_at": NOW, "clock": 0.0, "clock_id": "a machine that was"}
    dead = (agents.c.session_id == session, agents.c.status == "executing", agents.c.parent_agent_id.is_not(None))
    async with db.transaction() as tx:
        await tx.conn.execute(insert(leases).values(values))
        await tx.conn.execute(update(agents).where(*dead).values(lease_id=lease["id"], updated_at=agents.c.updated_at))


async def _written(path: str) -> str:
    """Make the database; the id of the newest session."""
    async with DatabaseManager(path) as db:
        *_, left, _, newest = await Demo(db).write()
        await _leave(db, left)
        return newest


def _console() -> Output:
    return Output(
        record=True,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        width=COLUMNS,
        height=ROWS,
    )


def _save(console: Output, images: Path, name: str) -> None:
    svg = console.export_svg(title=f"orchdb {name}", code_format=FORMAT, unique_id=f"orchdb-{name}")
    text = "\n".join(line.rstrip() for line in svg.splitlines())
    (images / f"{name}.svg").write_text(f"{text}\n", encoding="utf-8")


def _draw(images: Path, path: str, name: str, *arguments: str) -> None:
    console = _console()
    console.print(f"[green]$[/] orchdb {' '.join((name, *arguments))}", highlight=False)
    with patch.object(view_module, "Output", lambda: console):
        application([name, *arguments, "--db", path], standalone_mode=False)
    _save(console, images, name)


async def _draw_board(images: Path, path: str) -> None:
    console = _console()
    view = View.of(path, as_json=False, plain=False)
    board = Board(View(view.location, console=console))
    async with DatabaseManager(path, read_only=True) as db:
        for _ in range(2):
            await board.look(db, None, 300)
            board.press(b"j")
    console.print(board.draw())
    _save(console, images, "top")


def main(images: Path) -> None:
    """Draw all of them."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    images.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, time_machine.travel(NOW, tick=False):
        path = f"{folder}/orchestrator.db"
        session = asyncio.run(_written(path))
        _draw(images, path, "sessions")
        _draw(images, path, "tree", session[:8])
        _draw(images, path, "usage", "--by", "definition")
        asyncio.run(_draw_board(images, path))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)

"""The live board: what is drawn, and what the keys do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from orchdb.cli import cells
from orchdb.cli.columns import BOARD, LINES
from orchdb.cli.running import reading
from orchdb.cli.view import Column, View
from orchdb.inspection.board import BoardRow, get_board

if TYPE_CHECKING:
    from orchdb.manager import DatabaseManager

_KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "back",
    b"\x7f": "back",
    b"q": "quit",
    b"Q": "quit",
    b"\x03": "quit",
}
_FRAME = 5
"""Lines that are no rows: the title, the head of the table with its rule, and the keys."""


@dataclass
class Board:
    """What is on the screen.

    Attributes:
        view: How values are shown.
        rows: The agents.
        chosen: The id of the one that the arrows are at; empty before the first look.
        open: Whether its log is shown instead of the agents.
        lines: That log, the newest line first.
        ended: Whether the user has had enough.
        short: What is shown instead of an id.
    """

    view: View
    rows: Sequence[BoardRow] = ()
    chosen: str = ""
    open: bool = False
    lines: Sequence[Any] = ()
    ended: bool = False
    short: dict[str, str] = field(default_factory=lambda: dict[str, str]())

    def press(self, key: bytes) -> None:
        """Do what a key says; any other one does nothing."""
        action = _KEYS.get(key)
        if action == "quit":
            self.ended = True
        elif action == "enter":
            self.open = bool(self.rows)
        elif action == "back":
            self.open = False
        elif action in ("up", "down") and self.rows and not self.open:
            step = -1 if action == "up" else 1
            self.chosen = self.rows[min(max(self._place() + step, 0), len(self.rows) - 1)]["id"]

    async def look(self, db: DatabaseManager, sessions: Sequence[str] | None, stuck: float) -> None:
        """Look at the database again."""
        self.rows = await get_board(db, session_id=sessions, stuck_seconds=stuck)
        self.short = await self.view.short(db, self.rows, "id")
        if not self.open and self.rows:
            self.chosen = self.rows[self._place()]["id"]
        if self.open:
            self.lines = await db.list_recent_agent_logs(
                max(self.view.console.height - _FRAME, 1), agent_id=self.chosen
            )

    def draw(self) -> RenderableType:
        """What to show now."""
        now = datetime.now(self.view.zone).astimezone(self.view.zone)
        told = {sign: sum(row["sign"] == sign for row in self.rows) for sign in ("working", "stuck", "stale")}
        counts = ", ".join(f"{number} {sign}" for sign, number in told.items())
        title = Text(f"orchdb top  {now:%H:%M:%S} {cells.zone_of(now)}  {counts}", style="bold")
        if self.open:
            keys = Text("esc back  q quit", style="dim")
            return Group(title, self._log(), keys)
        return Group(title, self._agents(), Text("↑↓ choose  enter its log  q quit", style="dim"))

    def _agents(self) -> RenderableType:
        if not self.rows:
            return Text("Nobody is at work.")
        room = max(self.view.console.height - _FRAME, 1)
        place = self._place()
        first = max(0, min(place - room + 1, len(self.rows) - room)) if len(self.rows) > room else 0
        shown = self.rows[first : first + room]
        table = self.view.table(shown, BOARD, self.short)
        table.rows[place - first].style = "reverse"
        return table

    def _log(self) -> RenderableType:
        head = Text(cells.visible(self.chosen), style="cyan")
        columns: list[Column] = [column for column in LINES if column.key != "agent_id"]
        return Group(head, self.view.table(self.lines, columns, {}) if self.lines else Text("No log lines."))

    def _place(self) -> int:
        """Where the chosen one is now; the first one if it has gone."""
        return next((place for place, row in enumerate(self.rows) if row["id"] == self.chosen), 0)


def watch(view: View, session: list[str] | None, stuck: float, every: float) -> None:
    """Show the board until ``q`` or Ctrl-C."""
    asyncio.run(_watch(view, session, stuck, every))


async def _watch(view: View, session: list[str] | None, stuck: float, every: float) -> None:
    from orchdb.cli.filters import sessions as sessions_meant

    board, pressed = Board(view), asyncio.Event()
    async with reading(view.location) as db:
        sessions = await sessions_meant(db, session)
        await board.look(db, sessions, stuck)
        with _keys(board, pressed), Live(board.draw(), console=view.console, screen=True, auto_refresh=False) as live:
            live.refresh()
            while not board.ended:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(pressed.wait(), every)
                pressed.clear()
                if not board.ended:
                    await board.look(db, sessions, stuck)
                    live.update(board.draw(), refresh=True)


@contextlib.contextmanager
def _keys(board: Board, pressed: asyncio.Event) -> Generator[None]:
    """Give the board each key at once, and the terminal back as it was."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        yield  # there Ctrl-C ends it
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for key in _split(os.read(terminal, 64)):
            board.press(key)
        pressed.set()

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _split(typed: bytes) -> list[bytes]:
    """The keys of what was typed: an arrow is three bytes, and an end of the input is that of the board."""
    if not typed:
        return [b"q"]
    keys: list[bytes] = []
    while typed:
        length = 3 if typed[:2] in (b"\x1b[", b"\x1bO") else 1
        keys.append(typed[:length])
        typed = typed[length:]
    return keys

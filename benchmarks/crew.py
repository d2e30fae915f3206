"""The parent's side: one process for each contestant, each on a database of its own, asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.contestants import Contestant, contestants, missing
from benchmarks.contestants.base import Places

ROOT = Path(__file__).parent.parent


class Member:
    """A contestant that takes part, and its process."""

    def __init__(self, engine: str, key: str, place: str, *, log: Path, pinned: bool = False) -> None:
        self.kind: type[Contestant] = contestants(engine)[key]
        self.key = key
        folders = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
        environment = {**os.environ, "PYTHONPATH": folders}
        command = [sys.executable, "-P", "-m", "benchmarks.worker", engine, key, place, *(["--pin"] if pinned else [])]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )

    def ask(self, name: str, share: float = 1.0) -> dict[str, Any]:
        """What the round gave; ``broken`` says why it gave nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps([name, share]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"broken": "the process has ended"}
        return answer

    def end(self) -> None:
        """Close the database and wait for the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Crew:
    """Those who take part, and those who cannot because something is not installed."""

    def __init__(self, engine: str, keys: list[str], places: Places, folder: Path, *, pinned: bool = False) -> None:
        self.members: list[Member] = []
        self.absent: dict[str, str] = {}
        for key in keys:
            kind = contestants(engine)[key]
            lacking = missing(kind)
            if lacking:
                self.absent[kind.title] = f"not installed: {', '.join(lacking)}"
                continue
            member = Member(engine, key, places(key, kind), log=folder / f"{key}.log", pinned=pinned)
            answer = member.ask("prepare")
            if "broken" in answer:
                self.absent[kind.title] = answer["broken"]
                member.end()
            else:
                self.members.append(member)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for member in self.members:
            member.end()

"""Random programs of several tasks in one block, and what of them has to be in the database afterwards.

The oracle is the contract's first sentence: after a clean end of the block, every call that returned is in the
database, and none that raised; a block that is undone leaves nothing. So each task notes what it was told, and nothing
else is modelled: neither how the tasks interleave nor how an engine undoes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import insert, text

from orchdb import DatabaseManager, OrchdbError, Transaction
from orchdb.schema.tables import system_logs
from tests.support.databases import NO_ROW

ENDS = ("COMMIT", "ROLLBACK", "BEGIN", "/* by hand */ end", "RELEASE orchdb_1", "ROLLBACK TO orchdb_2", "COMMIT; BEGIN")
ROWS = 30  # of a bulk: more than go to Postgres without COPY


class FailedError(Exception):
    """What a task of a program raises."""


@dataclass(frozen=True)
class Step:
    """Something that a task does.

    Attributes:
        kind: Which: see ``Program._do``.
        number: How long, how often, or whom it concerns.
        tasks: The steps of the tasks or the part that it begins.
        flag: What the kind makes of it.
    """

    kind: str
    number: int = 0
    tasks: tuple[tuple[Step, ...], ...] = ()
    flag: bool = False


_simple = st.one_of(
    st.builds(Step, st.just("log"), flag=st.booleans()),
    st.builds(Step, st.just("bulk"), flag=st.booleans()),
    st.builds(Step, st.just("own"), flag=st.booleans()),
    st.builds(Step, st.sampled_from(["refused", "refused bulk", "fail", "read"])),
    st.builds(Step, st.just("end"), st.integers(0, len(ENDS) - 1), flag=st.booleans()),
    st.builds(Step, st.just("pause"), st.integers(0, 5)),
    st.builds(Step, st.just("cancel"), st.integers(0, 9)),
    st.builds(Step, st.just("impatient"), st.integers(0, 3), flag=st.booleans()),
)


def _nested(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    some = st.lists(steps, max_size=4).map(tuple)
    several = st.lists(some, min_size=1, max_size=4).map(tuple)
    return st.one_of(
        st.builds(Step, st.just("part"), tasks=some.map(lambda part: (part,)), flag=st.booleans()),
        st.builds(Step, st.just("gather"), tasks=several, flag=st.booleans()),
        st.builds(Step, st.just("leave behind"), tasks=several),
    )


steps = st.recursive(_simple, _nested, max_leaves=14)
programs = st.lists(steps, min_size=1, max_size=6).map(tuple)


@dataclass
class Part:
    """The block or a part of it, as a task sees it.

    Attributes:
        told: The rows of which a call said that they are there.
        kept: Whether it ended without an error; ``None`` while it is open.
    """

    tx: Transaction
    parent: Part | None = None
    told: list[str] = field(default_factory=lambda: list[str]())
    kept: bool | None = None
    parts: list[Part] = field(default_factory=lambda: list["Part"]())

    def expected(self) -> set[str]:
        """What has to be there if all around it was kept."""
        found = set(self.told)
        for part in self.parts:
            if part.kept:
                found |= part.expected()
        return found


class Program:
    """One run of a program in a block of its own."""

    def __init__(self, db: DatabaseManager, name: str) -> None:
        self._db = db
        self._name = name
        self._rows = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.block: Part | None = None
        self._committing = False

    async def run(self, program: Sequence[Step]) -> list[set[str]]:
        """Run it in a block, and wait for the tasks that it leaves behind; the rows that have to be there.

        There are two answers where the block was cancelled as it committed.
        """
        block = asyncio.ensure_future(self._block(program))
        self._tasks.append(block)
        await asyncio.wait((block,))
        while left := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(left)
        for task in self._tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, (FailedError, OrchdbError)), repr(error)
        if self.block is None or not self._committing:
            return [set()]
        if self.block.kept:
            return [self.block.expected()]
        return [set(), self.block.expected()] if block.cancelled() else [set()]

    async def _block(self, program: Sequence[Step]) -> None:
        async with self._db.transaction() as tx:
            self.block = Part(tx)
            await self._steps(self.block, program)
            self._committing = True
        self.block.kept = True

    async def _steps(self, part: Part, steps: Sequence[Step]) -> None:
        for step in steps:
            await self._do(part, step)

    async def _do(self, part: Part, step: Step) -> None:
        match step.kind:
            case "impatient":
                await self._impatient(part, step)
            case "pause":
                await _pause(step.number)
            case "fail":
                raise FailedError
            case "cancel":
                self._tasks[step.number % len(self._tasks)].cancel()
            case "part":
                await self._part(part, step)
            case "gather":
                tasks = [self._begin(part, steps) for steps in step.tasks]
                await asyncio.gather(*tasks, return_exceptions=step.flag)
            case "leave behind":
                for steps in step.tasks:
                    self._begin(part, steps)
            case _:
                await self._call(part, step)

    def _begin(self, part: Part, steps: Sequence[Step]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._steps(part, steps))
        self._tasks.append(task)
        return task

    async def _part(self, part: Part, step: Step) -> None:
        inner: Part | None = None
        try:
            async with part.tx.transaction() as tx:
                inner = Part(tx, part)
                part.parts.append(inner)
                await self._steps(inner, step.tasks[0])
            inner.kept = True
        except (FailedError, OrchdbError):
            if step.flag:
                raise

    async def _call(self, part: Part, step: Step) -> None:
        """One call; with the flag its error is the task's end."""
        try:
            await self._noted(part, step.kind, step.number)
        except OrchdbError:
            if step.flag:
                raise

    async def _noted(self, part: Part, kind: str, number: int = 0) -> None:
        rows, call = self._statement(part.tx, kind, number)
        await call
        part.told.extend(rows)

    async def _impatient(self, part: Part, step: Step) -> None:
        """A call that is given up after a few turns of the loop."""
        task = asyncio.ensure_future(self._noted(part, "bulk" if step.flag else "log"))
        self._tasks.append(task)
        for _ in range(step.number):
            await asyncio.sleep(0.0002)
        task.cancel()
        await asyncio.wait((task,))

    def _statement(self, tx: Transaction, kind: str, number: int) -> tuple[list[str], Awaitable[Any]]:
        """The rows of a call, and the call."""
        rows = [self._row() for _ in range(ROWS if "bulk" in kind else 1)]
        lines: list[Any] = [{"log_level": "INFO", "component": self._name, "message": row} for row in rows]
        match kind:
            case "bulk":
                return rows, tx.create_system_logs(lines)
            case "refused bulk":
                lines = [{"log_level": "INFO", "log_type": "milestone", "message": row} for row in rows]
                return [], tx.create_agent_logs([line | {"agent_id": NO_ROW} for line in lines])
            case "own":
                return rows, tx.conn.execute(insert(system_logs).values(lines))
            case "end":  # one that is not refused would be told, and its row would be missing
                return rows, tx.conn.execute(text(ENDS[number]))
            case "refused":
                return [], tx.create_agent(NO_ROW, rows[0])
            case "read":
                return [], tx.list_recent_system_logs(limit=3)
            case _:
                return rows, tx.create_system_log("INFO", self._name, rows[0])

    def _row(self) -> str:
        self._rows += 1
        return f"row {self._rows}"


async def _pause(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0.0005 if turns > 3 else 0)

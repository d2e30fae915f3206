"""Random sequences of operations: SQLite, Postgres and a plain model in memory agree on everything that can be seen.

Each operation runs on SQLite, on Postgres and on a model that keeps rows in dictionaries. Results, errors (class and
table), the order of lists, and cursors must be the same, whatever the values are. The clock and the new ids are given,
so that rows compare as they are; only the numbers of log lines are an engine's own, and compare by their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import make_url, text

from orchdb import DatabaseManager, OrchdbError, Transaction, cursor_of
from tests.support import differential_steps as steps
from tests.support.differential_model import Fails, Model
from tests.support.postgres_databases import Databases

START = datetime(2001, 2, 4, 10, 30, tzinfo=UTC)
MODULES = [module for name, module in sys.modules.items() if name.startswith("orchdb.operations")]


class UndoneError(Exception):
    """Raised by a transaction's block, to undo it."""


class Given:
    """The clock and the ids that every participant sees."""

    def __init__(self) -> None:
        self.step = 0
        self.ids = 0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.step)

    def new_id(self) -> str:
        self.ids += 1
        return f"01890000-{self.step:04x}-7000-8000-{self.ids:012x}"


class Engine:
    """One database: runs steps and says what they gave in a form that both engines share."""

    def __init__(self, manager: DatabaseManager, given: Given) -> None:
        self.manager = manager
        self._given = given
        self.numbers: dict[str, list[int]] = {"agent_logs": [], "system_logs": []}

    async def empty(self) -> None:
        async with self.manager.transaction() as tx:
            await tx.conn.execute(text("DELETE FROM orchestrator_agents"))
            await tx.conn.execute(text("DELETE FROM system_logs"))
        self.numbers = {"agent_logs": [], "system_logs": []}

    async def run(self, place: DatabaseManager | Transaction, step: steps.Step, at: int) -> Any:
        self._given.step, self._given.ids = at, 0
        try:
            if step.operation == "pages":
                return await self._pages(place, step)
            result = await getattr(place, step.operation)(*step.arguments, **step.options)
        except OrchdbError as error:
            return type(error).__name__, error.table
        except TypeError:
            return "TypeError"
        return self._seen(step, result)

    async def _pages(self, place: DatabaseManager | Transaction, step: steps.Step) -> list[Any]:
        operation, size, *arguments = step.arguments
        found: list[Any] = []
        after = None
        for _ in range(100):
            page = await getattr(place, operation)(*arguments, **step.options, limit=size, after=after)
            found.extend(page)
            if len(page) < size:
                break
            after = cursor_of(page[-1])
        return list(map(self._row, found))

    def _seen(self, step: steps.Step, result: Any) -> Any:
        table = next((table for table in self.numbers if step.operation.startswith(f"create_{table[:-1]}")), None)
        if table is not None:
            created, known = result if isinstance(result, list) else [result], self.numbers[table]
            new = [number for number in dict.fromkeys(created) if number not in known]
            assert new == sorted(new)
            known.extend(new)
            return [known.index(number) for number in created]
        if isinstance(result, list) and result and isinstance(result[0], dict):
            return list(map(self._row, result))
        return self._row(result) if isinstance(result, dict) else result

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        table = "agent_logs" if "log_type" in row else "system_logs" if "component" in row else None
        if table is not None:
            return {**row, "id": self.numbers[table].index(row["id"])}
        moved = row.get("updated_at")
        if moved is not None and abs(datetime.now() - datetime.fromisoformat(moved)) < timedelta(days=2):
            return {**row, "updated_at": None}  # the trigger's own time
        return dict(row)


class Trial:
    """The participants, and what they are compared by."""

    def __init__(self, engines: Sequence[Engine], given: Given) -> None:
        self._engines = engines
        self._given = given
        self._model = Model(given.now, given.new_id)
        self._at = 0

    async def run(self, plan: Sequence[steps.Step | steps.Block]) -> None:
        for engine in self._engines:
            await engine.empty()
        await self._run(plan, [engine.manager for engine in self._engines])
        for table in steps.LISTS:
            await self._compare(steps.Step(*table), [engine.manager for engine in self._engines])

    async def _run(
        self, plan: Sequence[steps.Step | steps.Block], places: Sequence[DatabaseManager | Transaction]
    ) -> None:
        for part in plan:
            if isinstance(part, steps.Block):
                await self._block(part, places)
            else:
                await self._compare(part, places)

    async def _block(self, block: steps.Block, places: Sequence[DatabaseManager | Transaction]) -> None:
        before = self._model.copy()
        numbers = [{table: list(used) for table, used in engine.numbers.items()} for engine in self._engines]
        with contextlib.suppress(UndoneError):
            async with contextlib.AsyncExitStack() as stack:
                inside = [await stack.enter_async_context(place.transaction()) for place in places]
                await self._run(block.parts, inside)
                if block.fails:
                    self._model.restore(before)
                    for engine, used in zip(self._engines, numbers, strict=True):
                        engine.numbers = used  # SQLite gives the numbers of undone lines again
                    raise UndoneError

    async def _compare(self, step: steps.Step, places: Sequence[DatabaseManager | Transaction]) -> None:
        self._at += 1
        step = step.resolved(self._model.ids)
        results = [await engine.run(place, step, self._at) for engine, place in zip(self._engines, places, strict=True)]
        self._given.step, self._given.ids = self._at, 0
        expected = self._model.run(step)
        on_sqlite, on_postgres = map(_comparable, results)
        assert on_sqlite == on_postgres, step
        if isinstance(expected, Fails):
            assert results[0] in expected.ways, step
        else:
            assert on_sqlite == _comparable(expected), step


def _comparable(value: Any) -> Any:
    """The value with the types spelt out: 1, 1.0 and True are three different values."""
    if isinstance(value, Mapping):
        return {key: _comparable(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    return type(value).__name__, repr(value)


@pytest.fixture(scope="module", params=["asyncpg", "psycopg"])
def trial(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[Any]:
    """Runs a plan on an SQLite file and a Postgres database that stay open for all of them."""
    path = tmp_path_factory.mktemp("differential") / "orchestrator.db"
    given = Given()
    with (
        databases.lent(tables=True) as url,
        asyncio.Runner() as runner,
        pytest.MonkeyPatch.context() as patch,
    ):
        server = make_url(url).set(drivername=f"postgresql+{request.param}")
        for module in MODULES:
            for name in ("now", "new_id"):
                if hasattr(module, name):
                    patch.setattr(module, name, getattr(given, name))
        engines = [Engine(DatabaseManager(url), given) for url in (Path(path), server)]
        for engine in engines:
            runner.run(engine.manager.connect())
        yield lambda plan: runner.run(Trial(engines, given).run(plan))
        for engine in engines:
            runner.run(engine.empty())
            runner.run(engine.manager.close())


@given(plan=steps.plans())
@settings(
    max_examples=40,
    phases=[Phase.generate],
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@pytest.mark.filterwarnings("ignore::orchdb.NaiveDatetimeWarning")
def test_both_engines_and_the_model_agree(trial: Any, plan: list[steps.Step | steps.Block]) -> None:
    trial(plan)

"""Prompts and passwords are private: markers are planted in every parameter, and all that is emitted is searched."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from orchdb import DatabaseManager, InvalidValueError, OrchdbError, cursor_of
from tests.conftest import Target
from tests.support.databases import OPERATIONS, call
from tests.support.faults import foreign_lock, log, opened

MARK = "M4RK3R"
NO_ROW = "01890000-0000-7000-8000-000000000000"


class Emitted:
    """All log text, down to DEBUG, and all exceptions."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.errors: list[BaseException] = []

    def text(self) -> str:
        return "\n".join([self.stream.getvalue(), *(self.shown(error) for error in self.errors)])

    def shown(self, error: BaseException) -> str:
        """Everything that an exception shows or drags along."""
        parts = [str(error), repr(error), repr(error.args), repr(vars(error))]
        parts += traceback.format_exception(error)
        assert error.__cause__ is None
        assert error.__context__ is None
        return "\n".join(parts)

    async def call(self, db: Any, operation: str, *arguments: Any, **options: Any) -> None:
        try:
            await call(db, operation, *arguments, **options)
        except (OrchdbError, TypeError) as error:
            self.errors.append(error)


@pytest.fixture
def emitted() -> Iterator[Emitted]:
    """What comes out during the test."""
    found = Emitted()
    handler = logging.StreamHandler(found.stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s %(exc_info)s"))
    names = ("orchdb", "sqlalchemy", "asyncio", "alembic")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG if name == "orchdb" else logging.INFO)
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def bad(value: str) -> list[Any]:
    """Values with the marker that cannot be stored, or only changed."""
    return [value, f"{value}\0", f"{value}\ud800", {value: object()}, [value, object()], f"{{'{value}'", {value, 1}]


async def plant(db: Any, emitted: Emitted, agent: str) -> None:
    """Call every operation with the marker in each place in turn."""
    for operation, arguments in OPERATIONS.items():
        for place in range(len(arguments)):
            for value in bad(MARK):
                planted = [*arguments[:place], value, *arguments[place + 1 :]]
                await emitted.call(db, operation, *planted)
    for name in ("context", "config", "metadata", "session_id", "status", "error_message", "cost_usd", "started_at"):
        for value in bad(MARK):
            await emitted.call(db, "update_agent", agent, **{name: value})
    for value in bad(MARK):
        await emitted.call(db, "create_agent", NO_ROW, "session", context={MARK: value}, config=value)
        await emitted.call(db, "create_agent_log", agent, "INFO", "error", MARK, details=value)
        await emitted.call(db, "create_agent_logs", [{"agent_id": agent, "message": value, "log_type": "x"}])
        await emitted.call(db, "create_prompts", [{"agent_id": agent, "prompt_type": "x", "prompt_text": value}] * 2)
        await emitted.call(db, "list_agents", value, status=value, after=value, limit=value, since=value)


async def test_no_parameter_is_in_any_log_error_or_traceback(target: Target, emitted: Emitted) -> None:
    async with DatabaseManager(target.url) as db:
        definition = await db.create_orchestrator_agent(MARK, description=MARK)
        agent = await db.create_agent(definition, MARK, context={MARK: MARK}, metadata={MARK: [MARK]})
        await plant(db, emitted, agent)
        await emitted.call(db, "create_orchestrator_agent", MARK)
        await emitted.call(db, "update_agent", agent, parent_agent_id=NO_ROW, error_message=MARK)
        async with db.transaction() as tx:
            await tx.create_prompt(agent, MARK, MARK)
            await emitted.call(tx, "create_orchestrator_agent", MARK)
            await emitted.call(tx, "create_prompt", NO_ROW, MARK, MARK)
        await db.log_agent_event(NO_ROW, MARK, MARK, {MARK: MARK})
        await asyncio.gather(*(emitted.call(db, "create_orchestrator_agent", MARK) for _ in range(5)))
        assert len(emitted.errors) > 100
        assert emitted.stream.getvalue().count("orchdb") > 100
        assert MARK not in repr(db)
    assert MARK not in emitted.text()


async def test_sqlite_no_parameter_is_in_the_errors_of_a_fault(path: Path, emitted: Emitted) -> None:
    async with DatabaseManager(path, lock_timeout=0.1) as db:
        with foreign_lock(path):
            await emitted.call(db, "create_system_log", "INFO", MARK, MARK, {MARK: MARK})
            await emitted.call(
                db, "create_system_logs", [{"log_level": "INFO", "component": MARK, "message": MARK}] * 9
            )
        with opened(path) as other:
            other.execute(
                "INSERT INTO system_logs (component, message) VALUES ('x', CAST(? AS TEXT))", (b"M4RK3R\xff",)
            )
            other.execute("ALTER TABLE system_logs RENAME TO gone")
        await emitted.call(db, "create_system_log", "INFO", MARK, MARK)
        await emitted.call(db, "get_system_logs", component=MARK)
        with opened(path) as other:
            other.execute("ALTER TABLE gone RENAME TO system_logs")
        await log(db, "works")
        await db.get_system_logs()
        path.unlink()
        await asyncio.sleep(0.2)
        await emitted.call(db, "create_system_log", "INFO", MARK, MARK)
    await emitted.call(db, "create_system_log", "INFO", MARK, MARK)
    assert len(emitted.errors) == 6
    assert MARK not in emitted.text()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+asyncpg://user:p4ss@127.0.0.1:1/db",
        "postgresql+psycopg://user:p4ss@127.0.0.1:1/db",
        "postgresql://user:p4ss@no.such.host.invalid/db",
        "postgresql://user:p4ss%2Fw%40rd@127.0.0.1:1/db?sslmode=disable",
        "postgresql://user@127.0.0.1:1/db?password=p4ss",
        "postgresql://user:p4ss@127.0.0.1:port/db",
        "mysql://user:p4ss@127.0.0.1/db",
        "postgresql://user:p4ss@127.0.0.1:1/db?nonsense=1",
        "sqlite://user:p4ss@host/path.db",
        "postgresql://us er:p4ss@[::1:1/db",
    ],
)
async def test_no_password_is_in_any_log_error_or_traceback(text: str, emitted: Emitted) -> None:
    for address in (text, *_as_url(text)):
        db = None
        try:
            db = DatabaseManager(address, connect_timeout=2)
            assert "p4ss" not in repr(db) + str(db) + repr(vars(db)) + repr(vars(db._executor))
            await db.connect()
        except OrchdbError as error:
            emitted.errors.append(error)
        finally:
            if db is not None:
                await db.close()
    assert emitted.errors
    assert "p4ss" not in emitted.text()


def _as_url(text: str) -> list[Any]:
    with suppress(Exception):
        return [make_url(text)]
    return []


async def test_a_forged_cursor_reads_nothing_that_its_list_would_not_show(target: Target) -> None:
    import base64
    import json

    def forged(*parts: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()

    async with DatabaseManager(target.url) as db:
        definition = await db.create_orchestrator_agent("scout")
        mine = [await db.create_agent(definition, "mine") for _ in range(3)]
        await db.create_agent(definition, "other")
        for cursor in (
            forged("agents", "9999-12-31T00:00:00.000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            forged("agents", "9999-12-31T00:00:00.000000", "' OR 1=1 --"),
            forged("agents", "9999-12-31", "x' UNION SELECT * FROM prompts --"),
        ):
            with suppress(InvalidValueError):
                assert {row["id"] for row in await db.list_agents("mine", after=cursor)} <= set(mine)
        good = cursor_of((await db.list_agents("mine"))[0])
        refused: list[Any] = [forged("prompts", "2026-01-01", NO_ROW), forged("agents; DROP", "2026-01-01", NO_ROW)]
        refused += [
            forged("agents", "' OR 1=1", NO_ROW),
            forged("agents", 5, NO_ROW),
            forged("agents", "2026-01-01", 5),
        ]
        refused += [forged(), forged("agents"), forged(*[[[]]] * 3), good[:-3], good + "A", "", "\ud800", "é", 5, b"x"]
        refused += [base64.b64encode(b"[" * 100_000).decode(), {"after": good}, good.encode()]
        for cursor in refused:
            with pytest.raises(InvalidValueError):
                await call(db, "list_agents", "mine", after=cursor)
        with pytest.raises(InvalidValueError):
            await db.get_system_logs(after=good)

"""What goes wrong: one tree of errors that name the place and tell nothing of the values."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import pickle
import pkgutil
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchdb
from orchdb import (
    ConnectionLostError,
    ConstraintError,
    DatabaseManager,
    DuplicateError,
    InvalidValueError,
    MissingParentError,
    NaiveDatetimeWarning,
    NotConnectedError,
    OperationError,
    OrchdbError,
    SchemaError,
    SchemaOutOfDateError,
)
from tests.support.databases import NO_ROW, call, dump, locked_by_another

SECRET = "geheimer-prompt-7731"

TREE: dict[type[OrchdbError], type[Exception]] = {
    NotConnectedError: OrchdbError,
    SchemaError: OrchdbError,
    SchemaOutOfDateError: SchemaError,
    OperationError: OrchdbError,
    ConnectionLostError: OperationError,
    ConstraintError: OrchdbError,
    DuplicateError: ConstraintError,
    MissingParentError: ConstraintError,
    InvalidValueError: ConstraintError,
}

# (operation, arguments, options, error, column); AGENT and PROMPT stand for ids of rows that exist.
AGENT, PROMPT, DEFINITION = "<agent>", "<prompt>", "<definition>"
WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str | None]] = [
    ("create_orchestrator_agent", (None,), {}, InvalidValueError, "name"),
    ("create_orchestrator_agent", ("x", 5), {}, InvalidValueError, "description"),
    ("create_orchestrator_agent", ("x",), {"agent_type": ""}, InvalidValueError, "agent_type"),
    ("create_orchestrator_agent", ("x",), {"metadata": [SECRET]}, InvalidValueError, "metadata"),
    ("create_orchestrator_agent", ("x",), {"capabilities": ["a"]}, InvalidValueError, "capabilities"),
    ("create_agent", ("no-uuid\0" + SECRET, "s"), {}, InvalidValueError, "orchestrator_agent_id"),
    ("create_agent", (None, "s"), {}, InvalidValueError, "orchestrator_agent_id"),
    ("create_agent", (DEFINITION, None), {}, InvalidValueError, "session_id"),
    ("create_agent", (DEFINITION, SECRET), {"status": SECRET}, InvalidValueError, "status"),
    ("create_agent", (DEFINITION, SECRET), {"context": SECRET}, InvalidValueError, "context"),
    ("create_agent", (DEFINITION, SECRET), {"config": {"a": {SECRET}}}, InvalidValueError, "config"),
    ("create_prompt", (AGENT, "", SECRET), {}, InvalidValueError, "prompt_type"),
    ("create_prompt", (AGENT, "adw", None), {}, InvalidValueError, "prompt_text"),
    ("create_prompt", (AGENT, "adw", SECRET), {"status": SECRET}, InvalidValueError, "status"),
    ("create_prompt", (AGENT, "adw", SECRET), {"metadata": {SECRET: {1}}}, InvalidValueError, "metadata"),
    ("create_agent_log", (AGENT, SECRET, "x", SECRET), {}, InvalidValueError, "log_level"),
    ("create_agent_log", (AGENT, "INFO", "x", 5), {}, InvalidValueError, "message"),
    ("create_agent_log", (AGENT, "INFO", "x", SECRET, {SECRET: object()}), {}, InvalidValueError, "details"),
    ("create_system_log", (SECRET, "x", SECRET), {}, InvalidValueError, "log_level"),
    ("create_system_log", ("INFO", SECRET + "\0", SECRET), {}, InvalidValueError, "component"),
    ("update_orchestrator_agent", (DEFINITION,), {"name": 5, "description": SECRET}, InvalidValueError, "name"),
    ("update_agent", (AGENT,), {"status": SECRET}, InvalidValueError, "status"),
    ("update_agent", (AGENT,), {"cost_usd": SECRET}, InvalidValueError, "cost_usd"),
    ("update_agent", (AGENT,), {"started_at": SECRET}, InvalidValueError, "started_at"),
    ("update_agent", (AGENT,), {"error_message": SECRET, "updated_at": SECRET}, InvalidValueError, "updated_at"),
    ("update_agent", (AGENT,), {"status": SECRET, "updated_at": "2026-01-01"}, InvalidValueError, "status"),
    ("update_agent", (AGENT,), {"if_status": SECRET, "status": "failed"}, InvalidValueError, "if_status"),
    ("update_agent", (AGENT,), {"id": SECRET}, TypeError, None),
    ("update_agent", (AGENT,), {"created_at": "2026-01-01"}, TypeError, None),
    ("update_agent", (AGENT,), {"deleted_at": "2026-01-01"}, TypeError, None),
    ("update_agent", (AGENT,), {"orchestrator_agent_id": NO_ROW}, TypeError, None),
    ("update_agent", (AGENT,), {"error_message": "x", "status = 'failed' --": 1}, TypeError, None),
    ("update_prompt", (PROMPT,), {"agent_id": NO_ROW}, TypeError, None),
    ("update_prompt", (PROMPT,), {"id": NO_ROW}, TypeError, None),
    ("update_prompt", (PROMPT,), {"updated_at": "2026-01-01"}, TypeError, None),
    ("update_prompt", (PROMPT,), {"tokens_input": SECRET}, InvalidValueError, "tokens_input"),
    ("update_prompt", (PROMPT,), {"tokens_input": -1, "response_text": SECRET}, InvalidValueError, "tokens_input"),
    ("update_prompt", (PROMPT,), {"latency_ms": 2**63}, InvalidValueError, "latency_ms"),
    ("update_orchestrator_agent", (DEFINITION,), {"id": NO_ROW}, TypeError, None),
    ("update_orchestrator_agent", (DEFINITION,), {"rowid": 1}, TypeError, None),
    ("update_orchestrator_agent", (DEFINITION,), {"self": 1}, TypeError, None),
    ("add_agent_cost", (AGENT, SECRET), {}, InvalidValueError, "usd"),
    ("add_prompt_usage", (PROMPT,), {"cost_usd": SECRET}, InvalidValueError, "cost_usd"),
    ("add_prompt_usage", (PROMPT,), {"tokens_input": SECRET}, InvalidValueError, "tokens_input"),
    ("create_prompts", ([{"agent_id": NO_ROW}],), {}, TypeError, None),
    ("create_agent_logs", ([SECRET],), {}, TypeError, None),
    ("cleanup_old_logs", (-1,), {}, InvalidValueError, "days"),
    ("cleanup_old_logs", (SECRET,), {}, InvalidValueError, "days"),
    ("prune", (SECRET,), {}, InvalidValueError, "before"),
    ("prune", (None,), {}, InvalidValueError, "before"),
    ("prune", ("2999-01-01",), {"log_level": SECRET}, InvalidValueError, "log_level"),
    ("list_agents", (), {"limit": -1}, InvalidValueError, "limit"),
    ("list_agents", (), {"offset": SECRET}, InvalidValueError, "offset"),
    ("list_agents", (), {"after": SECRET}, InvalidValueError, "after"),
    ("list_agents", (), {"status": SECRET}, InvalidValueError, "status"),
    ("list_agents", (), {"since": SECRET}, InvalidValueError, "since"),
    ("get_system_logs", (), {"until": SECRET}, InvalidValueError, "until"),
    ("get_system_logs", (SECRET,), {}, InvalidValueError, "log_level"),
]


class Filled:
    """A database with a row in each table."""

    def __init__(self, db: DatabaseManager, ids: dict[str, str]) -> None:
        self.db = db
        self.ids = ids

    async def call(self, operation: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        found = [self.ids.get(value, value) if isinstance(value, str) else value for value in arguments]
        return await call(self.db, operation, *found, **options)


@pytest.fixture
async def filled(db: DatabaseManager, agent_id: str) -> Filled:
    """A database with a row in each table."""
    definition = (await db.list_orchestrator_agents())[0]["id"]
    prompt = await db.create_prompt(agent_id, "adw", "Plan it")
    await db.create_agent_log(agent_id, "INFO", "milestone", "x")
    await db.create_system_log("INFO", "test", "x")
    return Filled(db, {AGENT: agent_id, PROMPT: prompt, DEFINITION: definition})


def test_the_tree_is_this() -> None:
    for kind, parent in TREE.items():
        assert kind.__bases__[0] is parent
    assert OrchdbError.__bases__ == (Exception,)
    assert issubclass(InvalidValueError, ValueError)
    exported = {value for value in vars(orchdb).values() if inspect.isclass(value) and issubclass(value, Exception)}
    assert exported == {OrchdbError, *TREE, NaiveDatetimeWarning}


def test_there_is_no_error_beside_the_exported_ones() -> None:
    for module in pkgutil.walk_packages(orchdb.__path__, "orchdb."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    below: list[type[OrchdbError]] = [OrchdbError]
    for kind in below:
        below += kind.__subclasses__()
    assert {kind for kind in below if kind.__module__.startswith("orchdb")} == {OrchdbError, *TREE}


def test_what_is_exported_is_exactly_what_is_public() -> None:
    used = {"TYPE_CHECKING", "import_module"}  # what loads them
    shown = {name for name in dir(orchdb) if not name.startswith("_") and not inspect.ismodule(getattr(orchdb, name))}
    assert shown - used == set(orchdb.__all__)
    assert len(orchdb.__all__) == len(set(orchdb.__all__))


@pytest.mark.parametrize("kind", [OrchdbError, *TREE])
def test_an_error_tells_the_operation_the_table_and_the_code(kind: type[OrchdbError]) -> None:
    error = kind("does not fit", table="agents", operation="create_agent", code="SQLITE_BUSY", column="status")
    assert str(error) == "create_agent on agents: does not fit [SQLITE_BUSY]"
    assert (error.table, error.operation, error.code) == ("agents", "create_agent", "SQLITE_BUSY")
    assert (error.column, error.constraint) == ("status", None)
    assert str(kind("does not fit")) == "does not fit"


@pytest.mark.parametrize("kind", [OrchdbError, *TREE])
def test_an_error_can_go_to_another_process(kind: type[OrchdbError]) -> None:
    error = kind("does not fit", table="agents", operation="create_agent", code="23505", constraint="uq")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), vars(copy)) == (str(error), vars(error))


async def test_every_wrong_input_raises_its_error_and_changes_nothing(filled: Filled) -> None:
    before = await dump(filled.db)
    for operation, arguments, options, kind, column in WRONG:
        with pytest.raises(kind) as caught:
            await filled.call(operation, arguments, options)
        if isinstance(caught.value, OrchdbError):
            assert (caught.value.operation, caught.value.column) == (operation, column), (operation, options)
            assert operation in str(caught.value)
    assert await dump(filled.db) == before


async def test_wrong_input_reaches_no_database(tmp_path: Path) -> None:
    statements: list[str] = []
    async with DatabaseManager(tmp_path / "orchestrator.db") as db:
        stop = await _recorded(db, statements)
        await db.get_agent(NO_ROW)
        assert statements, "the recording works"
        statements.clear()
        for operation, arguments, options, kind, _ in WRONG:
            found = [NO_ROW if isinstance(value, str) and value.startswith("<") else value for value in arguments]
            with pytest.raises(kind):
                await call(db, operation, *found, **options)
        assert statements == []
        stop()


async def _recorded(db: DatabaseManager, statements: list[str]) -> Callable[[], None]:
    """Record each statement that SQLite runs on any connection, by its trace callback."""
    backend: Any = db._executor.backend
    await asyncio.gather(*(db.list_agents() for _ in range(8)))
    drivers = [backend._write_queue.conn._driver, *(conn._driver for conn in backend._read_pool.conns)]
    for driver in drivers:
        await driver.set_trace_callback(statements.append)

    def stop() -> None:
        for driver in drivers:
            driver._conn.set_trace_callback(None)

    return stop


async def test_an_error_carries_nothing_of_the_values(filled: Filled, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="orchdb")
    await filled.db.create_orchestrator_agent(SECRET)
    calls = [(operation, arguments, options) for operation, arguments, options, _, _ in WRONG]
    calls += [
        ("create_orchestrator_agent", (SECRET,), {"description": SECRET}),
        ("create_agent", (NO_ROW, SECRET), {"context": {SECRET: SECRET}}),
        ("create_agent", (SECRET, SECRET), {}),
        ("create_prompt", (NO_ROW, SECRET, SECRET), {"metadata": {SECRET: SECRET}}),
        ("create_agent_log", (NO_ROW, "INFO", SECRET, SECRET, [SECRET]), {}),
        (
            "create_agent_logs",
            ([{"agent_id": NO_ROW, "log_level": "INFO", "log_type": SECRET, "message": SECRET}],),
            {},
        ),
        ("update_agent", (AGENT,), {"parent_agent_id": NO_ROW, "error_message": SECRET}),
        ("update_orchestrator_agent", (DEFINITION,), {"name": SECRET, "description": SECRET}),
    ]
    for operation, arguments, options in calls:
        if any(SECRET in name for name in options):
            continue
        with pytest.raises((OrchdbError, TypeError)) as caught:
            await filled.call(operation, arguments, options)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        shown = [
            str(error),
            repr(error),
            "".join(traceback.format_exception(error)),
            repr(vars(error)),
            repr(error.args),
        ]
        assert SECRET not in "".join(shown), operation
    assert SECRET not in caplog.text
    assert all(SECRET not in repr(vars(record)) for record in caplog.records)


async def test_good_calls_log_nothing_of_the_values(
    db: DatabaseManager, agent_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="orchdb")
    prompt = await db.create_prompt(agent_id, SECRET, f"{SECRET}\0", metadata={SECRET: float("nan")})
    await db.update_prompt(prompt, response_text=SECRET)
    await db.list_prompts(agent_id, prompt_type=SECRET)
    await db.create_system_logs([{"log_level": "INFO", "component": SECRET, "message": SECRET}])
    assert len(caplog.records) > 4
    assert all(SECRET not in repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("operation", "arguments", "kind"),
    [
        ("create_orchestrator_agent", ("scout",), DuplicateError),
        ("create_agent", (NO_ROW, "s"), MissingParentError),
        ("create_prompt", (NO_ROW, "adw", "x"), MissingParentError),
    ],
)
async def test_the_databases_own_refusals_carry_its_code(
    filled: Filled, operation: str, arguments: tuple[Any, ...], kind: type[OrchdbError]
) -> None:
    with pytest.raises(kind) as caught:
        await filled.call(operation, arguments, {})
    assert re.fullmatch(r"SQLITE_CONSTRAINT_[A-Z]+|23\d{3}", caught.value.code or "")
    assert caught.value.operation == operation
    assert (caught.value.table or "no table") in str(caught.value)
    assert caught.value.constraint or caught.value.column or kind is MissingParentError


async def test_a_locked_database_is_an_operation_error(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path, lock_timeout=0.2) as db:
        with locked_by_another(path), pytest.raises(OperationError, match="locked") as caught:
            await db.create_orchestrator_agent(SECRET)
    error = caught.value
    assert (error.code, error.table, error.operation) == (
        "SQLITE_BUSY",
        "orchestrator_agents",
        "create_orchestrator_agent",
    )
    assert error.__cause__ is error.__context__ is None
    assert SECRET not in str(error)


async def test_an_error_in_a_transaction_carries_nothing_either(db: DatabaseManager) -> None:
    await db.create_orchestrator_agent(SECRET)
    with pytest.raises(DuplicateError) as caught:
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent(SECRET)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_missing_and_unknown_parameters_are_type_errors(db: DatabaseManager) -> None:
    wrong: list[tuple[str, tuple[str, ...], dict[str, int]]] = [
        ("create_agent", ("x",), {}),
        ("create_agent", ("x", "s"), {"nonsense": 1}),
        ("list_agents", (), {"nonsense": 1}),
        ("create_prompt", ("x", "adw"), {}),
    ]
    for operation, arguments, options in wrong:
        with pytest.raises(TypeError):
            await call(db, operation, *arguments, **options)


async def test_an_unknown_name_lists_those_there_are_with_what_was_meant_first(filled: Filled) -> None:
    for operation, arguments, options, expected in (
        (
            "update_agent",
            (AGENT,),
            {"statsu": 1},
            r"unknown or protected: statsu \(did you mean status\?\); there are comp",
        ),
        (
            "update_agent",
            (AGENT,),
            {"statsu": 1, "cost": 1},
            r"cost, statsu \(did you mean cost_usd, status\?\); there",
        ),
        (
            "update_agent",
            (AGENT,),
            {"id": 1},
            r"unknown or protected: id; there are completed_at, config, context, cost",
        ),
        ("update_prompt", (PROMPT,), {"zzz": 1}, r"zzz; there are completed_at, cost_usd, error_message, latency_ms"),
        (
            "create_system_logs",
            ([{"mesage": "x"}],),
            {},
            r"item 0: .*mesage \(did you mean message\?\); there are comp",
        ),
    ):
        with pytest.raises(TypeError, match=expected):
            await filled.call(operation, arguments, options)


async def test_the_engines_log_hides_parameters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sqlalchemy.engine")
    async with DatabaseManager(tmp_path / "orchestrator.db") as db, db.transaction() as tx:
        await tx.create_orchestrator_agent(SECRET)
        assert tx.conn.sync_connection is not None
        assert tx.conn.sync_connection.engine.hide_parameters
    assert SECRET not in caplog.text

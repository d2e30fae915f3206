"""Any value in any place: stored as it is, visibly replaced, or refused by one of orchdb's errors; never run as SQL."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import enum
import inspect
import json
import math
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchdb import DatabaseManager, InvalidValueError, OrchdbError
from orchdb.operations import Operations
from tests.conftest import Target
from tests.support.databases import TABLES, call, dump
from tests.support.faults import log

INJECTIONS = [
    "'; DROP TABLE agents; --",
    '"; DROP TABLE agents; --',
    "' OR '1'='1",
    "') UNION SELECT sql, 1, 1, 1, 1, 1, 1, 1, 1, 1 FROM sqlite_master --",
    "%",
    "_",
    "a%' OR 1=1 --",
    "$.a' || (SELECT name FROM sqlite_master) || '",
    ":name $1 ? %s %(x)s {0} ${x}",
    "\\'; DELETE FROM prompts; --",
    "/* */ -- \n;",
]
WEIRD: list[Any] = [None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 1e308, math.nan]
WEIRD += [math.inf, -math.inf, decimal.Decimal("NaN"), decimal.Decimal(1), 1j, b"", b"\xff", bytearray(b"x"), "", " "]
WEIRD += ["\0", "a\0b", "\ud800", "\udfff\ud800", "\ufffe", "🦊" * 100, "x" * 100_000, "null", "{}", "[1]", '{"a": 1}']
WEIRD += [*INJECTIONS, "2026-01-01", "2026-01-01T00:00:00+99:99", "0000-00-00", "9999-12-31T23:59:59.999999-23:59"]
WEIRD += ["NaN", "1e999", "INFO", "completed", "0" * 36, str(uuid.uuid4()), uuid.uuid4(), [], [[]], {}, {"a": 1}]
WEIRD += [{"": ""}, {1: 2}, {None: None}, {"a": {"b": {"c": [1, 2.5, None, True, "\0"]}}}, {(1,): 1}, {b"x": 1}]
WEIRD += [{"a": math.nan}, {"a": object()}, {"a": {1}}, (), (1,), {1}, frozenset({1}), object(), object, len]
WEIRD += [..., range(5), memoryview(b"x"), lambda: 1, dt.date(1, 1, 1), dt.time(), dt.timedelta(1)]
WEIRD += [dt.datetime.min, dt.datetime.max, dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-23)))]
WEIRD += [dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=23))), enum.Enum("Colour", "RED").RED]  # type: ignore[attr-defined]
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
WEIRD += [CYCLE, {"a": CYCLE}, iter([]), (number for number in [1])]


def public() -> list[str]:
    """Every operation, the ones that page included."""
    return [name for name, _ in inspect.getmembers(Operations, callable) if not name.startswith("_")]


async def use(db: DatabaseManager, operation: str, arguments: list[Any], options: dict[str, Any]) -> None:
    """Call it with anything; whatever it raises besides the allowed errors comes out."""
    try:
        result = getattr(db, operation)(*arguments, **options)
        if inspect.isasyncgen(result):
            async for row in result:
                json.dumps(row)
                break
            await result.aclose()
        elif inspect.isawaitable(result):
            json.dumps(await result)
        else:
            async with result:
                pass
    except (OrchdbError, TypeError):
        pass


@pytest.mark.filterwarnings("ignore::orchdb.NaiveDatetimeWarning")
@pytest.mark.parametrize("seed", range(3))
async def test_a_fuzzer_gets_nothing_but_orchdb_errors_and_type_errors(target: Target, seed: int) -> None:
    randomness = random.Random(seed)
    operations = public()
    assert len(operations) > 35
    async with DatabaseManager(target.url) as db:
        before = await _schema(db)
        agent = await db.create_agent(await db.create_orchestrator_agent("scout"), "session")
        for number in range(3000):
            operation = operations[number % len(operations)]
            parameters = [
                parameter
                for parameter in inspect.signature(getattr(db, operation)).parameters.values()
                if parameter.kind is not parameter.VAR_KEYWORD
            ]
            options = {
                parameter.name: agent if randomness.random() < 0.2 else randomness.choice(WEIRD)
                for parameter in parameters
                if parameter.default is parameter.empty or randomness.random() < 0.5
            }
            if operation.startswith("update"):
                names = ["status", "context", "cost_usd", "metadata", "updated_at", "id", "created_at", "x; DROP", ""]
                options |= {name: randomness.choice(WEIRD) for name in randomness.sample(names, 3)}
            await use(db, operation, [], options)
        assert await _schema(db) == before
        await log(db, "it still works")


async def _schema(db: DatabaseManager) -> list[Any]:
    assert db.conn is not None
    catalogue = {"sqlite": "SELECT sql FROM sqlite_master ORDER BY name"}
    other = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    result = await db.conn.exec_driver_sql(catalogue.get(db.conn.dialect.name, f"{other} ORDER BY 1, 2"))
    return [tuple(row) for row in result]


@pytest.mark.parametrize("text", INJECTIONS)
async def test_text_is_never_run_as_sql_and_comes_back_as_it_is(db: DatabaseManager, text: str) -> None:
    definition = await db.create_orchestrator_agent(text, text, text, text, text, {text: text})
    agent = await db.create_agent(definition, text, context={text: text}, config={text: [text]})
    prompt = await db.create_prompt(agent, text, text, text, model_used=text, metadata={text: text})
    await db.create_agent_log(agent, "INFO", text, text, {text: text})
    await db.create_system_log("INFO", text, text, text)
    await db.create_agent(definition, "another")
    before = await dump(db)
    for operation in ("get_agent", "get_prompt", "delete_agent", "delete_prompt", "restore_agent", "update_agent"):
        assert not await call(db, operation, text)
    assert await db.get_agent_logs(text) == []
    assert len(await db.list_agents(text)) == 1
    assert len(await db.get_agent_logs_by_type(agent, text)) == 1
    assert len(await db.get_system_logs(component=text)) == 1
    for name in (text, "id", "created_at", "agent_id", "deleted_at", "status = 'x', id"):
        with pytest.raises((TypeError, InvalidValueError)):
            await call(db, "update_agent", agent, **{name: text})
    assert await dump(db) == before
    found = await db.get_prompt(prompt)
    assert found is not None
    assert (found["prompt_text"], found["prompt_type"], found["metadata"]) == (text, text, {text: text})


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBER = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def _examples(target: Target, strategy: Any, check: Callable[[DatabaseManager, Any], Any], examples: int) -> None:
    """Check the examples one after the other on one open manager."""
    with asyncio.Runner() as runner:
        db = DatabaseManager(target.url)
        runner.run(db.connect())

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(value: Any) -> None:
            runner.run(check(db, value))

        try:
            run()
        finally:
            runner.run(db.close())


def test_any_json_comes_back_as_it_was(target: Target) -> None:
    async def check(db: DatabaseManager, value: Any) -> None:
        number = await db.create_system_log("INFO", "property", "json", value)
        (row,) = await db.list_recent_system_logs(1)
        assert row["id"] == number
        assert row["details"] == value
        assert type(row["details"]) is type(value)

    _examples(target, JSON, check, 150)


def test_any_text_comes_back_as_it_was_or_visibly_replaced(target: Target) -> None:
    async def check(db: DatabaseManager, value: str) -> None:
        await db.create_system_log("INFO", "property", value, {"text": value})
        (row,) = await db.list_recent_system_logs(1)
        expected = "".join("\ufffd" if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter for letter in value)
        assert row["message"] == expected
        assert row["details"] == {"text": expected}

    _examples(target, st.text(max_size=50), check, 200)


@pytest.mark.filterwarnings("ignore::orchdb.NaiveDatetimeWarning")
def test_any_moment_comes_back_as_the_same_instant(target: Target) -> None:
    zones: Any = st.timezones() | st.just(dt.UTC) | st.none()
    moments = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31), timezones=zones, allow_imaginary=False)

    async def check(db: DatabaseManager, value: dt.datetime) -> None:
        agents = await db.list_agents(limit=1)
        agent = agents[0]["id"] if agents else await db.create_agent(await db.create_orchestrator_agent("x"), "s")
        assert await db.update_agent(agent, started_at=value)
        row = await db.get_agent(agent)
        assert row is not None
        assert row["started_at"] is not None
        aware = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value
        assert dt.datetime.fromisoformat(row["started_at"]).replace(tzinfo=dt.UTC) == aware.astimezone(dt.UTC)
        assert len(row["started_at"]) == 26

    _examples(target, moments, check, 150)


@pytest.mark.slow
async def test_ten_megabytes_of_text_come_back(db: DatabaseManager, agent_id: str) -> None:
    text = "päivää🦊" * 1_200_000
    assert len(text.encode()) > 10_000_000
    prompt = await db.create_prompt(agent_id, "command", text, metadata={"text": text})
    row = await db.get_prompt(prompt)
    assert row is not None
    assert row["prompt_text"] == text
    assert row["metadata"] == {"text": text}


@pytest.mark.parametrize("depth", [200, 1000, 100_000])
async def test_deep_json_is_stored_or_refused_and_reading_never_breaks(
    db: DatabaseManager, agent_id: str, depth: int
) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    refusal = ""
    try:
        await db.create_agent_log(agent_id, "INFO", "milestone", "deep", value)
    except InvalidValueError as error:
        refusal = str(error)
    assert refusal == "" or (depth >= 200 and "nested" in refusal)
    text = '{"a":' * depth + "1" + "}" * depth
    try:
        assert await db.update_agent(agent_id, context=text)
    except InvalidValueError:
        assert depth >= 200
    assert len(await db.get_agent_logs(agent_id)) <= 1
    assert await db.get_agent(agent_id) is not None


@pytest.mark.slow
async def test_a_batch_of_100_000_is_stored_while_the_loop_goes_on(db: DatabaseManager, target: Target) -> None:
    worst = 0.0

    async def pulse() -> None:
        nonlocal worst
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - started - 0.005)

    beating = asyncio.create_task(pulse())
    numbers = await db.create_system_logs(
        {"log_level": "INFO", "component": "batch", "message": str(number), "details": {"number": number}}
        for number in range(100_000)
    )
    beating.cancel()
    assert len(set(numbers)) == 100_000
    count = 0
    async for row in db.iter_system_logs(page_size=5000):
        assert row["message"] == str(count)
        count += 1
    assert count == 100_000
    print(f"{target.engine}: the event loop stood still for at most {worst:.3f} s")
    assert worst < 2


async def test_one_bad_item_in_a_batch_refuses_all_of_it(db: DatabaseManager) -> None:
    items: list[Any] = [{"log_level": "INFO", "component": "batch", "message": str(number)} for number in range(2000)]
    worse: list[Any] = [
        {**items[0], "log_level": "LOUD"},
        {**items[0], "message": None},
        {"message": "x"},
        "text",
        None,
    ]
    for bad in worse:
        with pytest.raises((InvalidValueError, TypeError)):
            await db.create_system_logs([*items, bad])
    assert {table: len(rows) for table, rows in (await dump(db)).items()} == dict.fromkeys(TABLES, 0)

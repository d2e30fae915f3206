"""What goes in and what comes out, the same on every engine: text, JSON, times, costs and ids."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, RootModel, model_serializer

from orchdb import DatabaseManager, InvalidValueError
from tests.support.databases import NO_ROW, call, count

REPLACED = "\ufffd"
ZONED = "10:30:00+00:00"
EAST = timezone(timedelta(hours=5, minutes=30))
NAN, INFINITY = float("nan"), float("inf")


class Moment(datetime):
    """A time as date libraries give it."""


class Colour(StrEnum):
    RED = "red"


class Number(Enum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    __slots__ = ()


@dataclass
class Broken:
    x: Any
    y: Any


@dataclass(frozen=True)
class Holder:
    held: Any


class Secret(BaseModel):
    inner: Any
    when: datetime | None = None


class Refusing(BaseModel):
    @model_serializer
    def refuse(self) -> dict[str, Any]:
        raise RuntimeError("the fields are private")


class Root(RootModel[str]):
    pass


class Place(Enum):
    HERE = Broken(1, (2,))


async def stored(db: DatabaseManager, details: Any) -> Any:
    """What comes back for the details of a line."""
    await db.create_system_log("INFO", "test", "x", details)
    return (await db.list_recent_system_logs(1))[0]["details"]


# -- text ------------------------------------------------------------------------------------------------------------

TEXTS = [
    "",
    " ",
    'O\'Brien "quoted" `ticked` ; DROP TABLE agents; --',
    "100% _ \\ %s :name ? $1 {} ${x}",
    "größer 数据 😀 \U0001f469\u200d\U0001f4bb e\u0301",
    "\u202eright to left",
    "tab\tnew\nline\r\n\x01\x7f\x85\u2028",
    "\ufeff\ufffe\uffff\ufffd",
    "null",
    "x" * 1_000_000,
]


async def test_text_comes_back_as_it_went_in(db: DatabaseManager, agent_id: str) -> None:
    for text in TEXTS:
        prompt_id = await db.create_prompt(agent_id, "adw", text)
        await db.update_prompt(prompt_id, response_text=text, error_message=text)
        row = await db.get_prompt(prompt_id)
        assert row is not None
        assert [row["prompt_text"], row["response_text"], row["error_message"]] == [text] * 3
        assert await stored(db, {"text": text, text: 1, "list": [text]}) == {"text": text, text: 1, "list": [text]}


async def test_names_come_back_as_they_went_in(db: DatabaseManager) -> None:
    for name in TEXTS[2:7]:
        agent_id = await db.create_orchestrator_agent(name, agent_type=name)
        assert [row["id"] for row in await db.list_orchestrator_agents(name=name, agent_type=name)] == [agent_id]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\0b", f"a{REPLACED}b"), ("\ud83d", REPLACED), ("\udc00\ud800\0", REPLACED * 3), ("😀\0", f"😀{REPLACED}")],
)
async def test_free_text_is_made_portable_with_a_warning_that_names_the_column(
    db: DatabaseManager, caplog: pytest.LogCaptureFixture, text: str, expected: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="orchdb"):
        await db.create_system_log("INFO", "test", text)
    assert [row["message"] for row in await db.get_system_logs()] == [expected]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "system_logs.message" in caplog.text


@pytest.mark.parametrize("bad", ["a\0b", "lone\ud800", "\udfff"])
async def test_names_are_refused_instead(db: DatabaseManager, agent_id: str, bad: str) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
        ("create_orchestrator_agent", (bad,), {}, "name"),
        ("create_orchestrator_agent", ("x",), {"default_model": bad}, "default_model"),
        ("create_agent", (NO_ROW, bad), {}, "session_id"),
        ("create_agent", (bad, "session"), {}, "orchestrator_agent_id"),
        ("update_agent", (agent_id,), {"parent_agent_id": bad}, "parent_agent_id"),
        ("create_prompt", (agent_id, bad, "x"), {}, "prompt_type"),
        ("create_prompt", (agent_id, "adw", "x", bad), {}, "prompt_name"),
        ("create_prompt", (agent_id, "adw", "x"), {"model_used": bad}, "model_used"),
        ("create_agent_log", (agent_id, bad, "x", "x"), {}, "log_level"),
        ("create_agent_log", (agent_id, "INFO", bad, "x"), {}, "log_type"),
        ("create_system_log", ("INFO", bad, "x"), {}, "component"),
    ]
    for operation, arguments, options, column in calls:
        with pytest.raises(InvalidValueError) as caught:
            await call(db, operation, *arguments, **options)
        assert (caught.value.operation, caught.value.column) == (operation, column)


# -- JSON ------------------------------------------------------------------------------------------------------------


def nested_objects(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "",
        0,
        -1,
        False,
        "null",
        '{"a": 1}',
        "[]",
        {"": {"": [{}, [], "", None]}},
        [1, 2.5, -0.125, 1e-7, 1e15, 1.7e308, 5e-324, 0.1],
        [2**63 - 1, -(2**63), 2**64 - 1],
        {"größe": "数据 😀", "O'Brien": '"'},
        {"nested": {"list": [{"deep": [None, True, False]}]}},
    ],
    ids=repr,
)
async def test_json_metadata_serialization(db: DatabaseManager, value: Any) -> None:
    found = await stored(db, value)
    assert found == value
    assert type(found) is type(value)
    assert json.dumps(found, sort_keys=True) == json.dumps(value, sort_keys=True)


async def test_a_whole_float_stays_a_float(db: DatabaseManager) -> None:
    value = [1.0, 1e16, 1e22, -1e300, 123456789012345680000.0]
    found = await stored(db, value)
    assert found == value
    assert [type(number) for number in found] == [float] * len(value)


async def test_large_json_comes_back_whole(db: DatabaseManager, agent_id: str) -> None:
    value: Any = {f"key-{n}": {"text": "größer " * 20, "numbers": list(range(10))} for n in range(5_000)}
    assert await stored(db, value) == value
    await db.update_agent(agent_id, metadata=value)
    row = await db.get_agent(agent_id)
    assert row is not None
    assert row["metadata"] == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        ({1: "a", 2.5: "b", None: "c"}, {"1": "a", "2.5": "b", "null": "c"}),
        ({False: 1, 7: 2}, {"false": 1, "7": 2}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ([Colour.RED, Number.ONE, Text("text")], ["red", 1, "text"]),
        ({Colour.RED: 1, Number.ONE: 2}, {"red": 1, "1": 2}),
        (uuid.UUID(NO_ROW), NO_ROW),
        (datetime(2026, 2, 4, 10, 30, 0, 7), "2026-02-04T10:30:00.000007"),
        (datetime(2026, 2, 4, 10, 30, tzinfo=EAST), "2026-02-04T10:30:00+05:30"),
        (Moment(2026, 2, 4, tzinfo=UTC), "2026-02-04T00:00:00+00:00"),
        ({"at": [date(2026, 2, 4), time(10, 30), time(10, 30, tzinfo=UTC)]}, {"at": ["2026-02-04", "10:30:00", ZONED]}),
        ({date(2026, 2, 4): 1, Decimal(2): 3}, {"2026-02-04": 1, "2": 3}),
        ([Decimal("1.50"), Decimal("NaN"), Decimal("1E+30")], ["1.50", "NaN", "1E+30"]),
        (Broken(1, Decimal(2)), {"x": 1, "y": "2"}),
        ([Holder(Secret(inner=[Point(1, 2)]))], [{"held": {"inner": [[1, 2]], "when": None}}]),
        (Secret(inner=1, when=datetime(2026, 2, 4, tzinfo=UTC)), {"inner": 1, "when": "2026-02-04T00:00:00+00:00"}),
        (Root("text"), "text"),
        (Place.HERE, {"x": 1, "y": [2]}),
        ({uuid.UUID(NO_ROW): [uuid.UUID(NO_ROW)]}, {NO_ROW: [NO_ROW]}),
    ],
    ids=repr,
)
async def test_python_values_become_json(db: DatabaseManager, value: Any, expected: Any) -> None:
    assert await stored(db, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, NAN], [1, None]),
        ({"a": INFINITY, "b": [-INFINITY]}, {"a": None, "b": [None]}),
        ({"a": "nul\0"}, {"a": f"nul{REPLACED}"}),
        ({"nul\0": 1}, {f"nul{REPLACED}": 1}),
        (["lone\ud83d"], [f"lone{REPLACED}"]),
        ({"\udc00": "\udc00"}, {REPLACED: REPLACED}),
        ("\0", REPLACED),
        ({"a": "null", "b": NAN}, {"a": "null", "b": None}),
        (Broken(NAN, "nul\0"), {"x": None, "y": f"nul{REPLACED}"}),
        (Secret(inner=[INFINITY]), {"inner": [None], "when": None}),
    ],
    ids=ascii,
)
async def test_json_is_made_portable_with_a_warning_that_names_the_column(
    db: DatabaseManager, caplog: pytest.LogCaptureFixture, value: Any, expected: Any
) -> None:
    with caplog.at_level(logging.WARNING, logger="orchdb"):
        assert await stored(db, value) == expected
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "system_logs.details" in caplog.text


async def test_json_that_is_portable_brings_no_warning(db: DatabaseManager, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="orchdb"):
        await stored(db, {"null": None, "escape": "\\u0000", "text": "NaN null 1e+5", "number": 1e20})
    assert caplog.records == []


@pytest.mark.spread
@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        object(),
        1 + 2j,
        timedelta(1),
        bytearray(b"bytes"),
        frozenset({1}),
        range(3),
        deque([1]),
        ValueError("x"),
        Broken(1, {2}),
        Secret(inner=b"bytes"),
        Refusing(),
        Path("path"),
        print,
        {"deep": [{"er": {1}}]},
        {(1, 2): "tuple"},
        {b"key": 1},
        2**64,
        -(2**63) - 1,
        [10**400],
        {1: "a", "1": "b"},
        {"a\0": 1, f"a{REPLACED}": 2},
    ],
    ids=lambda value: repr(value).partition(" at ")[0][:30],
)
async def test_what_is_not_json_is_refused(db: DatabaseManager, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await stored(db, value)
    assert caught.value.column == "details"
    assert await count(db, "system_logs") == 0


@pytest.mark.spread
@pytest.mark.parametrize(
    ("value", "where"),
    [
        (b"x", r"\$ is of the type bytes"),
        ({"a": [1, 2, 3, b"x"]}, r"\$\.a\[3\] is of the type bytes"),
        ({"first": {"a": 1}, "second": [{"a": {1}}]}, r"\$\.second\[0\]\.a is of the type set"),
        ([[], [0, 2**64]], r"\$\[1\]\[1\] holds an integer of more than 64 bits"),
        ({"a": {1: 2, "1": 3}}, r"\$\.a holds two keys that are the same"),
        ({"a": {(1, 2): 3}}, r"\$\.a holds a key of the type tuple"),
        ({"a": Broken(1, [Secret(inner={1})])}, r"\$\.a\.y\[0\]\.inner is of the type set"),
        ({"a": 1, "My secret plan, step 1": {"sk_live_51": {"a": {1}}}}, r"\$\.<key 1>\.<key 0>\.a is of the type set"),
    ],
    ids=repr,
)
async def test_a_refusal_names_where(db: DatabaseManager, value: Any, where: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"system_logs\.details: {where}") as caught:
        await stored(db, value)
    assert "secret" not in str(caught.value)
    assert "sk_live" not in str(caught.value)


BIG = 2**70


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": NaN, "b": [-Infinity, 1e999, -1e999]}', {"a": NAN, "b": [-INFINITY, INFINITY, -INFINITY]}),
        ('{"a": "\\ud800", "\\u0000": "x\\u0000"}', {"a": "\ud800", "\0": "x\0"}),
        (f'{{"a": [{BIG}]}}', {"a": [BIG]}),
        (f'{{"a": -{BIG}}}', {"a": -BIG}),
        ('{"a": ' + "9" * 5000 + "}", {"a": 10**5000}),
        ('{"a": 18446744073709551615, "b": -9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
        ('{"a": 1e22, "b": 1.0, "c": -0.0, "d": 1e-7}', {"a": 1e22, "b": 1.0, "c": -0.0, "d": 1e-7}),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', {"b": {1: 1, "1": 1}}),
        ('{"a": 1, "a": 2}', {1: 1, "1": 2}),
        ('{"größe": "数据 😀", "": [[], {}, null, true]}', {"größe": "数据 😀", "": [[], {}, None, True]}),
        ('{"a":' * 300 + "1" + "}" * 300, nested_objects(300)),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, nested_objects(2000)),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_context_given_as_text_is_treated_as_the_same_object(
    db: DatabaseManager, agent_id: str, caplog: pytest.LogCaptureFixture, text: str, value: Any
) -> None:
    outcomes: list[Any] = []
    for given in (value, text):
        caplog.clear()
        try:
            with caplog.at_level(logging.WARNING, logger="orchdb"):
                await db.update_agent(agent_id, context=given, error_message="written")
        except InvalidValueError as error:
            outcomes.append((error.column, str(error).rpartition(" holds ")[2]))
        else:
            row = await db.get_agent(agent_id)
            assert row is not None
            outcomes.append((repr(row["context"]), {record.getMessage() for record in caplog.records}))
    assert outcomes[0] == outcomes[1]


async def test_a_model_or_a_dataclass_can_be_a_context(db: DatabaseManager, agent_id: str) -> None:
    for given in (Secret(inner=1), Holder(1)):
        assert await call(db, "update_agent", agent_id, context=given, metadata=given)
        row = await db.get_agent(agent_id)
        assert row is not None
        assert row["context"] == row["metadata"] == (given.model_dump() if isinstance(given, Secret) else {"held": 1})
    for wrong in (Root("text"), Number.ONE, b"{}", {"a"}, "[1]", "5", "text", ""):
        with pytest.raises(InvalidValueError, match="must be a JSON object"):
            await call(db, "update_agent", agent_id, context=wrong)


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


async def test_json_may_be_nested_up_to_a_limit(db: DatabaseManager) -> None:
    assert await stored(db, nested(250)) == nested(250)
    for depth in (300, 2_000, 100_000):
        with pytest.raises(InvalidValueError):
            await stored(db, nested(depth))
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(InvalidValueError):
        await stored(db, circular)
    assert await count(db, "system_logs") == 1


async def test_the_callers_object_is_not_touched(db: DatabaseManager) -> None:
    value = {"nan": NAN, "list": [(1, 2), "nul\0"], 7: "key"}
    before = repr(value)
    await stored(db, value)
    assert repr(value) == before


# -- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-02-04T10:30:00.000000", "2026-02-04T10:30:00.000000"),
        ("2026-02-04T10:30:00.123456", "2026-02-04T10:30:00.123456"),
        ("2026-02-04T10:30:00", "2026-02-04T10:30:00.000000"),
        ("2026-02-04 10:30:00", "2026-02-04T10:30:00.000000"),
        ("2026-02-04T10:30", "2026-02-04T10:30:00.000000"),
        ("2026-02-04", "2026-02-04T00:00:00.000000"),
        ("20260204T103000", "2026-02-04T10:30:00.000000"),
        ("2026-02-04T10:30:00Z", "2026-02-04T10:30:00.000000"),
        ("2026-02-04T10:30:00.5+05:30", "2026-02-04T05:00:00.500000"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00.000000"),
        (" 2026-02-04T10:30:00\n", "2026-02-04T10:30:00.000000"),
        (datetime(2026, 2, 4, 10, 30), "2026-02-04T10:30:00.000000"),
        (datetime(2026, 2, 4, 10, 30, 0, 7, tzinfo=UTC), "2026-02-04T10:30:00.000007"),
        (datetime(2026, 2, 4, 10, 30, tzinfo=EAST), "2026-02-04T05:00:00.000000"),
        (Moment(2026, 2, 4, 10, 30, 0, 7, tzinfo=EAST), "2026-02-04T05:00:00.000007"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::orchdb.NaiveDatetimeWarning")
async def test_times_come_back_in_the_one_form(db: DatabaseManager, agent_id: str, value: Any, expected: str) -> None:
    await db.update_agent(agent_id, started_at=value)
    row = await db.get_agent(agent_id)
    assert row is not None
    assert row["started_at"] == expected


NO_TIMES: list[Any] = [
    *("", "now", "10:30", "2026-02-30", "2026-02-04T25:00:00"),
    *(1770201000, 1.5, True, b"2026-02-04", date(2026, 2, 4)),
    datetime(1, 1, 1, tzinfo=EAST),
    datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))),
]


@pytest.mark.spread
@pytest.mark.parametrize("value", NO_TIMES, ids=str)
async def test_what_is_no_time_is_refused(db: DatabaseManager, agent_id: str, value: Any) -> None:
    before = await db.get_agent(agent_id)
    for column in ("started_at", "completed_at", "updated_at"):
        with pytest.raises(InvalidValueError) as caught:
            await call(db, "update_agent", agent_id, **{column: value, "error_message": "x"})
        assert (caught.value.operation, caught.value.column) == ("update_agent", column)
    assert await db.get_agent(agent_id) == before


async def test_a_new_row_has_the_time_of_its_creation(db: DatabaseManager) -> None:
    before = datetime.now(UTC).isoformat()
    await db.create_system_log("INFO", "test", "x")
    created = (await db.get_system_logs())[0]["created_at"]
    assert before[:26] <= created <= datetime.now(UTC).isoformat()[:26]


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (3, 3.0),
        (0.0123, 0.0123),
        (0.1 + 0.2, 0.3),
        (1.0000000004, 1.0),
        (0.0000000006, 0.000000001),
        (Decimal("12.345678901"), 12.345678901),
        (-0.5, -0.5),
        (1e300, 1e300),
    ],
    ids=str,
)
async def test_costs_are_rounded_to_a_billionth(
    db: DatabaseManager, agent_id: str, value: Any, expected: float
) -> None:
    await db.update_agent(agent_id, cost_usd=value)
    row = await db.get_agent(agent_id)
    assert row is not None
    assert row["cost_usd"] == expected
    assert type(row["cost_usd"]) is float


@pytest.mark.spread
@pytest.mark.parametrize("value", ["0.5", NAN, INFINITY, True, [], {}, 1j, Decimal("NaN")], ids=str)
async def test_what_is_no_cost_is_refused(db: DatabaseManager, agent_id: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await call(db, "update_agent", agent_id, cost_usd=value)
    assert caught.value.column == "cost_usd"


# -- ids -------------------------------------------------------------------------------------------------------------

MALFORMED = ["", "no-uuid", NO_ROW[:-1], NO_ROW + "0", NO_ROW.replace("-", ""), f"{{{NO_ROW}}}", f" {NO_ROW}"]
MALFORMED_OTHER: list[Any] = [
    None,
    7,
    1.5,
    b"x",
    [],
    {},
    object(),
    "nul\0",
    "\ud800",
    "%",
    "' OR 1=1 --",
    "x" * 100_000,
]


async def test_a_malformed_id_means_that_there_is_no_such_row(db: DatabaseManager, agent_id: str) -> None:
    await db.create_prompt(agent_id, "adw", "x")
    operations = [f"{verb}_{row}" for row in ("orchestrator_agent", "agent", "prompt") for verb in ("get", "update")]
    operations += [name.replace("update", "delete") for name in operations if name.startswith("update")]
    operations += [name.replace("delete", "restore") for name in operations if name.startswith("delete")]
    for bad in MALFORMED + MALFORMED_OTHER:
        for operation in operations:
            result = await call(db, operation, bad)
            assert result is (None if operation.startswith("get") else False)
        assert await call(db, "update_agent", bad, status="failed") is False
        assert await call(db, "delete_prompt", bad, soft=True) is False
        assert await call(db, "add_agent_cost", bad, 1) is False
        assert await call(db, "add_prompt_usage", bad, tokens_input=1) is False
        assert await call(db, "list_agents", orchestrator_agent_id=bad or "") == []
    assert [await count(db, table) for table in ("orchestrator_agents", "agents", "prompts")] == [1, 1, 1]


async def test_an_id_may_be_a_uuid_object(db: DatabaseManager, agent_id: str) -> None:
    as_object = uuid.UUID(agent_id)
    assert await call(db, "get_agent", as_object) == await db.get_agent(agent_id)
    prompt_id = await call(db, "create_prompt", as_object, "adw", "x")
    assert [row["id"] for row in await call(db, "list_prompts", as_object)] == [prompt_id]


async def test_new_ids_of_all_tables_are_distinct_and_canonical(db: DatabaseManager, agent_id: str) -> None:
    ids = {await db.create_prompt(agent_id, "adw", "x") for _ in range(200)} | {agent_id}
    assert len(ids) == 201
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i) for i in ids)

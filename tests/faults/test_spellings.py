"""Whatever another program writes where a time should be, lists show each row once, in pages of any size."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchdb import DatabaseManager, InvalidValueError, cursor_of
from orchdb.models import UnreadableTime
from orchdb.schema.spellings import has_the_one_form
from tests.support.databases import collected, other_program, taken
from tests.support.foreign_rows import (
    AGENT,
    MODELS,
    NOT_UNDERSTOOD,
    PLACES,
    UNDERSTOOD,
    NoUtf8,
    Place,
    drop_triggers,
    empty,
    every_place,
    insert,
    of_tests,
    parents,
    update,
)


async def paged(db: DatabaseManager, call: Any, size: int, place: Place) -> list[str]:
    """The marks of all rows, a page at a time."""
    marks: list[str] = []
    after = None
    while page := await call(db, limit=size, after=after):
        marks += [row[place.mark] for row in of_tests(page, place)]
        after = cursor_of(page[-1])
        assert len(marks) < 1000, "the pages never end"
    return marks


async def check_lists(db: DatabaseManager, place: Place, marks: set[str], sizes: tuple[int, ...] = (1, 2, 3)) -> None:
    """Each list shows each row once, in one order, whole or in pages of any size."""
    order: list[str] = []
    for direction, calls in ((1, place.forward), (-1, place.backward)):
        for call in calls:
            rows = of_tests(await call(db), place)
            found = [row[place.mark] for row in rows]
            assert len(found) == len(marks)
            assert set(found) == marks
            order = order or found[::direction]
            assert found[::direction] == order
            for size in sizes:
                assert await paged(db, call, size, place) == found, size
            for row in rows:
                json.dumps(row, allow_nan=False)
                orjson.dumps(row)


# -- times -----------------------------------------------------------------------------------------------------------


def test_what_a_spelling_means_is_the_same_in_the_file_and_when_it_is_read(path: Path) -> None:
    """The triggers, which are SQL, understand nothing that reading would not, and never another time."""
    days = (
        "2026-11-25",
        "20261125",
        "2026-W48-3",
        "2026-02-31",
        "2024-02-29",
        "0001-01-01",
        "9999-12-31",
        "0000-01-01",
    )
    clocks = ("10:11:12", "101112", "10:11", "1011", "10", "10:11:12.5", "10:11:12,25", "101112.123456789", "24:00:00")
    zones = ("", "Z", "z", "+02", "+0200", "-05:30", " +0200", " UTC", " +0000 UTC", "+2", "+02:00:30", "PST", "+15:00")
    texts = [
        f"{day}{gap}{clock}{zone}"
        for day in days
        for gap in ("T", " ", "t", "", "  ")
        for clock in clocks
        for zone in zones
    ]
    asyncio.run(_open_and_close(path))
    system_logs = PLACES["system_logs"]
    with other_program(path) as connection:
        connection.execute("BEGIN")
        for number, text in enumerate([*texts, *map(str, UNDERSTOOD)]):
            insert(connection, system_logs, str(number), created_at=text)
        spelled = dict(connection.execute("SELECT message, created_at FROM system_logs").fetchall())
        connection.execute("DELETE FROM system_logs")
        drop_triggers(connection)
        for number, text in enumerate([*texts, *map(str, UNDERSTOOD)]):
            insert(connection, system_logs, str(number), created_at=text)
        connection.execute("COMMIT")
    rewritten = 0
    for row in asyncio.run(_system_logs(path)):
        stored = spelled[row["message"]]
        given_text = [*texts, *map(str, UNDERSTOOD)][int(row["message"])]
        assert stored in (given_text, row["created_at"]), given_text
        rewritten += stored != given_text
    assert rewritten > 300


async def _open_and_close(path: Path) -> None:
    async with DatabaseManager(path):
        pass


async def _system_logs(path: Path) -> list[Any]:
    async with DatabaseManager(path) as db:
        return list(await db.get_system_logs())


@every_place
@pytest.mark.parametrize("triggers", [True, False], ids=["triggers", "no triggers"])
@pytest.mark.parametrize("how", ["inserted", "updated"])
async def test_a_time_is_shown_in_the_one_form_or_as_it_is(
    file_db: DatabaseManager, path: Path, place: Place, triggers: bool, how: str
) -> None:
    written = [*UNDERSTOOD, *NOT_UNDERSTOOD]
    with other_program(path) as connection:
        if not triggers:
            drop_triggers(connection)
        for number, value in enumerate(written):
            key = {} if place.numbered else {"id": str(uuid.uuid4())}
            insert(connection, place, str(number), **key, **({"created_at": value} if how == "inserted" else {}))
            if how == "updated":
                update(connection, place, str(number), created_at=value)
    await check_lists(file_db, place, {str(number) for number in range(len(written))}, sizes=(1, 7))
    for row in of_tests(await (place.forward + place.backward)[0](file_db), place):
        value = written[int(row[place.mark])]
        if value in UNDERSTOOD:
            assert row["created_at"] == UNDERSTOOD[value]
        elif isinstance(value, str):
            assert row["created_at"] == value
        model = MODELS[place.table].model_validate(row)
        assert model.model_dump(mode="json") == row
        assert MODELS[place.table].model_validate(model.model_dump()) == model
        assert MODELS[place.table].model_validate(json.loads(json.dumps(row))) == model
        assert MODELS[place.table].model_validate_json(json.dumps(row)) == model
        assert isinstance(model.created_at, UnreadableTime) is (value not in UNDERSTOOD)


STORED = st.one_of(
    st.sampled_from([*UNDERSTOOD, *NOT_UNDERSTOOD]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.binary(max_size=3),
    st.binary(max_size=3).map(NoUtf8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds")),
)
IDS = st.one_of(st.uuids().map(str), st.binary(min_size=1, max_size=16), st.binary(min_size=1, max_size=4).map(NoUtf8))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(
    table=st.sampled_from(list(PLACES)),
    values=st.lists(st.tuples(STORED, IDS, st.integers(-(2**63), 2**63 - 1), st.booleans()), min_size=1, max_size=8),
    triggers=st.booleans(),
)
def test_any_rows_are_listed_once_each_in_pages_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, table: str, values: list[Any], triggers: bool
) -> None:
    place = PLACES[table]
    path = tmp_path_factory.mktemp("rows") / "orchestrator.db"

    async def run() -> None:
        async with DatabaseManager(path) as db:
            with other_program(path) as connection:
                parents(connection)
                if not triggers:
                    drop_triggers(connection)
                marks = set(_write(connection, place, values))
            await check_lists(db, place, marks)
            assert await db.prune(datetime(1, 1, 1, tzinfo=UTC)) == 0
            await db.prune(datetime(2026, 11, 25, 10, 11, 12, tzinfo=UTC))
            await db.cleanup_old_logs(0)

    asyncio.run(run())


def _write(connection: sqlite3.Connection, place: Place, values: list[Any]) -> list[str]:
    marks: list[str] = []
    for number, (value, text_id, row_id, updated) in enumerate(values):
        key = row_id if place.numbered else text_id
        try:
            insert(connection, place, str(number), id=key, **({} if updated else {"created_at": value}))
        except sqlite3.IntegrityError:  # the id is there already
            continue
        if updated:
            update(connection, place, str(number), created_at=value)
        marks.append(str(number))
    return marks


@pytest.mark.parametrize("table", ["agent_logs", "system_logs"])
async def test_iterators_and_tails_give_each_line_once(file_db: DatabaseManager, path: Path, table: str) -> None:
    place = PLACES[table]
    written = [*UNDERSTOOD, *NOT_UNDERSTOOD]
    with other_program(path) as connection:
        drop_triggers(connection)
        for number, value in enumerate(written):
            insert(connection, place, str(number), created_at=value)
    for size in (1, 7, 500):
        rows: Any = (
            file_db.iter_agent_logs(AGENT, page_size=size)
            if table == "agent_logs"
            else file_db.iter_system_logs(page_size=size)
        )
        assert sorted(int(row["message"]) for row in await collected(rows)) == list(range(len(written)))
    tail: Any = file_db.tail_agent_logs(after_id=0) if table == "agent_logs" else file_db.tail_system_logs(after_id=0)
    assert [int(row["message"]) for row in await taken(tail, len(written))] == list(range(len(written)))


# -- cursors ---------------------------------------------------------------------------------------------------------


@every_place
async def test_pages_go_on_when_their_last_row_was_deleted_or_changed(
    file_db: DatabaseManager, path: Path, place: Place
) -> None:
    written = ["1795601472", "20261125T101112", "yesterday", b"a BLOB", "2026-11-25T10:11:12.000000", "11/25/2026"]
    call = (place.forward + place.backward)[0]
    for change in ("deleted", "changed"):
        with other_program(path) as connection:
            empty(connection)
            drop_triggers(connection)
            for number, value in enumerate(written):
                key = {} if place.numbered else {"id": str(uuid.uuid4())}
                insert(connection, place, str(number), created_at=value, **key)
        whole = [row[place.mark] for row in of_tests(await call(file_db), place)]
        after: str | None = None
        found: list[str] = []
        while len(found) < 20 and (page := of_tests(await call(file_db, limit=2, after=after), place)):
            last = page[-1]
            found += [row[place.mark] for row in page]
            after = cursor_of(last)
            with other_program(path) as connection:
                if change == "deleted":
                    connection.execute(f"DELETE FROM {place.table} WHERE {place.mark} = ?", (last[place.mark],))
                else:  # to where the list has been already
                    early = 0 if place.forward else b"\xff"
                    update(connection, place, last[place.mark], created_at=early)
        assert found == whole, change


@every_place
async def test_a_row_that_went_through_json_has_its_place_too(
    file_db: DatabaseManager, path: Path, place: Place
) -> None:
    with other_program(path) as connection:
        drop_triggers(connection)
        for number, value in enumerate((*UNDERSTOOD, *NOT_UNDERSTOOD, b"2026-02-31T00:00:00.000000", b"\xff", b"\0")):
            insert(
                connection, place, str(number), created_at=value, **({} if place.numbered else {"id": f"{number:036}"})
            )
    for call in place.forward + place.backward:
        whole = [row[place.mark] for row in of_tests(await call(file_db), place)]
        after: str | None = None
        found: list[str] = []
        while len(found) <= len(whole) and (page := await call(file_db, limit=1, after=after)):
            found += [row[place.mark] for row in of_tests(page, place)]
            after = cursor_of(json.loads(json.dumps(page[0])))
        assert found == whole


async def test_a_made_up_position_is_one_or_is_refused(file_db: DatabaseManager, path: Path) -> None:
    with other_program(path) as connection:
        insert(connection, PLACES["system_logs"], "x", created_at="yesterday")
    row: Any = {"component": "x", "id": 0, "created_at": "whatever"}
    assert [found["message"] for found in await file_db.get_system_logs(after=cursor_of(row))] == ["x"]
    made_up: list[list[Any]] = [
        ["x"],
        [1, 2],
        [None, None, None],
        [[True], None],
        [[True, "ü"], None],
        [7, None],
        [{}, None],
    ]
    for stored in made_up:
        text = base64.urlsafe_b64encode(orjson.dumps(["system_logs", "x", 1, *stored])).decode()
        with pytest.raises(InvalidValueError, match="cursor"):
            await file_db.get_system_logs(after=text)


def has_the_form(value: object) -> bool:
    """Whether it looks like a time of orchdb's own, which a filter does not look at twice."""
    return isinstance(value, str) and has_the_one_form(value)


async def test_a_filter_by_time_shows_what_is_understood_to_be_in_it(file_db: DatabaseManager, path: Path) -> None:
    place = PLACES["agent_logs"]
    with other_program(path) as connection:
        for number, value in enumerate([*UNDERSTOOD, *(value for value in NOT_UNDERSTOOD if not has_the_form(value))]):
            insert(connection, place, str(number), created_at=value)
    day = datetime(2026, 11, 25, tzinfo=UTC)
    for since, until in ((day, day + timedelta(days=1)), (day, None), (None, day + timedelta(days=1))):
        rows = await file_db.get_agent_logs(AGENT, since=since, until=until)
        assert {row["created_at"][:10] for row in rows} == {"2026-11-25"}
        # Week dates, and what Go and compact forms add, are understood only when they are read.
        assert len(rows) >= len(UNDERSTOOD) - 6
    with other_program(path) as connection:
        drop_triggers(connection)
        insert(connection, place, "seconds", created_at=1795601472)
        insert(connection, place, "words", created_at="2026-12-in-words")
    assert "seconds" in [row["message"] for row in await file_db.get_agent_logs(AGENT, until=day + timedelta(days=1))]
    assert "seconds" not in [row["message"] for row in await file_db.get_agent_logs(AGENT, until=day)]
    assert "words" not in [row["message"] for row in await file_db.get_agent_logs(AGENT, since=day)]

"""Times that another program spells in another way while a list is read: every row comes, and comes once."""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, cursor_of
from orchdb.schema.spellings import has_the_one_form, one_form
from tests.conftest import Target
from tests.support.databases import collected, other_program, run_elsewhere
from tests.support.foreign_rows import (
    AGENT,
    NOT_UNDERSTOOD,
    PLACES,
    UNDERSTOOD,
    NoUtf8,
    Place,
    drop_triggers,
    every_place,
    insert,
    of_tests,
    spellings_of,
    update,
)

ROWS = 24
START = datetime(2026, 11, 25, 10, 11, 12, tzinfo=UTC)
ANY = [*UNDERSTOOD, *NOT_UNDERSTOOD]
every_seed = pytest.mark.parametrize("seed", range(6))


def same_time(number: int) -> list[Any]:
    """All spellings of the time of a row; some rows share one."""
    return [value for value in spellings_of(START + timedelta(seconds=number // 3)) if not isinstance(value, float)]


def write(connection: sqlite3.Connection, place: Place, chance: random.Random) -> None:
    """The rows, each with a time in some spelling."""
    for number in range(ROWS):
        key = {} if place.numbered else {"id": str(uuid.UUID(int=chance.getrandbits(128)))}
        insert(connection, place, str(number), created_at=chance.choice(same_time(number)), **key)


def lines(db: DatabaseManager, place: Place, size: int) -> AsyncIterator[Any]:
    if place.table == "agent_logs":
        return db.iter_agent_logs(AGENT, page_size=size)
    return db.iter_system_logs(page_size=size)


@every_seed
@pytest.mark.parametrize("table", ["agent_logs", "system_logs"])
@pytest.mark.parametrize("triggers", [True, False], ids=["triggers", "no triggers"])
@pytest.mark.parametrize("values", ["the same time", "any"])
async def test_an_iterator_gives_each_line_once_whatever_becomes_of_its_time(
    file_db: DatabaseManager, path: Path, table: str, triggers: bool, values: str, seed: int
) -> None:
    place, chance = PLACES[table], random.Random(seed)
    with other_program(path) as connection:
        if not triggers:
            drop_triggers(connection)
        write(connection, place, chance)
        for size in (1, 3, 10):
            found: list[int] = []
            async for row in lines(file_db, place, size):
                found.append(int(row["message"]))
                for number in chance.sample(range(ROWS), 5):
                    value = chance.choice(same_time(number) if values == "the same time" else ANY)
                    update(connection, place, str(number), created_at=value)
            assert sorted(found) == list(range(ROWS)), size


async def test_an_iterator_gives_no_line_twice_and_none_that_is_gone(target: Target, manager: DatabaseManager) -> None:
    """On every engine: times that are moved to the other side of the page, with lines that go and lines that come."""
    await manager.create_system_logs(
        {"log_level": "INFO" if number % 2 else "ERROR", "component": "x", "message": str(number)}
        for number in range(12)
    )
    found: list[str] = []
    async for row in manager.iter_system_logs("INFO", since="2000-01-01", page_size=2):
        found.append(row["message"])
        if len(found) == 2:
            run_elsewhere(
                target.url,
                "UPDATE system_logs SET created_at = '2099-01-01T00:00:00.000000' WHERE message = '1'",
                "UPDATE system_logs SET created_at = '2001-01-01T00:00:00.000000' WHERE message IN ('8', '9', '11')",
                "DELETE FROM system_logs WHERE message IN ('3', '7')",
            )
            await manager.create_system_log("INFO", "x", "new")
    assert found == ["1", "3", "5", "new", "9", "11"]


async def test_a_list_in_one_page_is_of_one_moment(file_db: DatabaseManager, path: Path) -> None:
    place = PLACES["system_logs"]
    with other_program(path) as connection:
        for number in range(3):
            insert(connection, place, str(number))
        rows = file_db.iter_system_logs(page_size=4)
        first = await anext(rows)
        insert(connection, place, "early", created_at="2000-01-01 00:00:00")
        assert [first["message"], *[row["message"] for row in await collected(rows)]] == ["0", "1", "2"]


@every_place
@every_seed
async def test_pages_give_each_row_that_stays_in_its_place_once_whatever_moves(
    file_db: DatabaseManager, path: Path, place: Place, seed: int
) -> None:
    """In both directions, and whichever row was the last of a page."""
    chance = random.Random(seed)
    with other_program(path) as connection:
        drop_triggers(connection)
        write(connection, place, chance)
        for number in range(ROWS):
            update(connection, place, str(number), created_at=chance.choice([*ANY, *same_time(number)]))
        for call in place.forward + place.backward:
            stay = {str(number) for number in chance.sample(range(ROWS), ROWS // 2)}
            whole = [row[place.mark] for row in of_tests(await call(file_db), place)]
            found: list[str] = []
            after: str | None = None
            for turn in range(10 * ROWS):
                page = await call(file_db, limit=chance.randint(1, 3), after=after)
                if not page:
                    break
                found += [row[place.mark] for row in of_tests(page, place)]
                after = cursor_of(page[-1])
                for mark in chance.sample([mark for mark in whole if mark not in stay], 4) if turn < ROWS else ():
                    update(connection, place, mark, created_at=chance.choice(_elsewhere(page[-1], place, mark)))
            assert [mark for mark in found if mark in stay] == [mark for mark in whole if mark in stay]


def _elsewhere(last: Any, place: Place, mark: str) -> list[Any]:
    """What may be written into a row: not into the last of a page what only another spelling of its one form is."""
    values = [*ANY, *same_time(int(mark) if mark.isdigit() else 0)]
    if last[place.mark] != mark or type(last["created_at"]) is not str:
        return values
    return [value for value in values if _shown(value) != last["created_at"]]


def _shown(value: Any) -> str | None:
    return one_form(value if isinstance(value, (str, bytes)) else str(value))


@pytest.mark.parametrize(
    ("encoding", "spelling"),
    [*product(("UTF-8", "UTF-16le"), ("Grüße", "\U0010ffff", "a\0ä")), ("UTF-8", NoUtf8(b"Gr\xfc\xdfe"))],
)
async def test_a_place_of_any_text_is_kept_when_its_row_changes(tmp_path: Path, encoding: str, spelling: Any) -> None:
    path, place = tmp_path / "a.db", PLACES["system_logs"]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE orchdb_version (version_num VARCHAR(32) NOT NULL)")
    async with DatabaseManager(path) as db:
        with other_program(path) as connection:
            drop_triggers(connection)
            for number, value in enumerate(["2026", spelling, "Äpfel", "ähnlich", "\ue000"]):
                insert(connection, place, str(number), created_at=value)
            whole = [row["message"] for row in await db.get_system_logs()]
            behind = whole[whole.index("1") + 1 :]
            (last,) = await db.get_system_logs(limit=1, offset=whole.index("1"))
            assert [row["message"] for row in await db.get_system_logs(after=cursor_of(last))] == behind
            if encoding != "UTF-8":  # what it is made of there, no statement can say: the place is where the row is
                return
            for changed in ("Zürich", "öde", "\ue001", "2025"):
                update(connection, place, "1", created_at=changed)
                rest = [row["message"] for row in await db.get_system_logs(after=cursor_of(last))]
                assert [mark for mark in rest if mark != "1"] == behind


def test_a_time_in_the_one_form_has_no_other() -> None:
    for number in range(0, ROWS, 3):
        assert sum(isinstance(value, str) and has_the_one_form(value) for value in same_time(number)) == 1
        assert {_shown(value) for value in same_time(number)} == {same_time(number)[0]}

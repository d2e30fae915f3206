"""Log lines that another program wrote with their ids: the ids that the database gives go on behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from orchdb import DatabaseManager, OperationError
from tests.support.postgres_sessions import plain


def copied_in(url: URL, first: int, last: int, table: str = "system_logs") -> None:
    """What ``pg_restore --data-only`` does: rows with their ids."""
    into = f"COPY {table} (id, component, message) FROM STDIN".encode()
    with psycopg.connect(plain(url)) as other, other.cursor().copy(into) as copy:
        for number in range(first, last + 1):
            copy.write_row((number, "copied", f"{number}"))


def last_given(url: URL) -> int:
    with psycopg.connect(plain(url)) as other:
        row = other.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence('system_logs', 'id'))").fetchone()
        assert row is not None
        return int(row[0])


def line(number: int) -> Any:
    return {"log_level": "INFO", "component": "own", "message": f"{number}"}


async def single(db: DatabaseManager) -> list[int]:
    return [await db.create_system_log("INFO", "own", "0")]


async def grouped(db: DatabaseManager) -> list[int]:
    return list(await asyncio.gather(*(db.create_system_log("INFO", "own", f"{n}") for n in range(200))))


async def few_at_once(db: DatabaseManager) -> list[int]:
    return await db.create_system_logs([line(number) for number in range(3)])


async def many_at_once(db: DatabaseManager) -> list[int]:
    return await db.create_system_logs([line(number) for number in range(300)])


async def in_a_block(db: DatabaseManager) -> list[int]:
    async with db.transaction() as tx:
        async with tx.transaction() as part:
            first = await part.create_system_log("INFO", "own", "0")
        return [first, *(await tx.create_system_logs([line(number) for number in range(1, 40)]))]


WAYS: list[Callable[[DatabaseManager], Awaitable[list[int]]]] = [
    single,
    grouped,
    few_at_once,
    many_at_once,
    in_a_block,
]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_appended_goes_on_behind_rows_that_were_copied_in_with_their_ids(url: URL, way: Any) -> None:
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "own", "before")
        copied_in(url, 2, 500)
        numbers = await way(db)
        assert min(numbers) > 500
        assert len(set(numbers)) == len(numbers)
        own = {row["id"]: row["message"] for row in await db.get_system_logs(component="own")}
        assert [own[number] for number in numbers] == [f"{place}" for place in range(len(numbers))]
        assert len(await db.get_system_logs(component="copied")) == 499
        assert last_given(url) <= max(numbers) + 3 * len(numbers) + 10


@pytest.mark.parametrize("way", WAYS)
async def test_ids_far_away_are_reached_at_once(url: URL, way: Any) -> None:
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "own", "before")
        copied_in(url, 2, 2)
        copied_in(url, 10**15, 10**15)
        numbers = await way(db)
        assert len(set(numbers)) == len(numbers)
        assert len(await db.get_system_logs(component="own")) == 1 + len(numbers)
        assert last_given(url) >= 10**15


async def test_many_managers_that_find_it_out_together_lose_nothing(url: URL) -> None:
    async with DatabaseManager(url) as db, DatabaseManager(url) as other:
        await db.create_system_log("INFO", "own", "before")
        for id_range in range(3):
            top = last_given(url)
            copied_in(url, top + 1, top + 300)
            ways = [way(manager) for manager in (db, other) for way in (grouped, many_at_once, single)]
            numbers = [number for found in await asyncio.gather(*ways) for number in found]
            assert len(set(numbers)) == len(numbers) == 2 * (200 + 300 + 1)
            assert len(await db.get_system_logs(component="copied")) == 300 * (id_range + 1)
        assert len(await db.get_system_logs(component="own")) == 1 + 3 * len(numbers)


async def test_the_ids_never_move_back(url: URL) -> None:
    async with DatabaseManager(url) as db:
        await db.create_system_logs([line(number) for number in range(100)])
        copied_in(url, 101, 101)
        with psycopg.connect(plain(url), autocommit=True) as other:
            other.execute("DELETE FROM system_logs WHERE id < 101")
        assert await single(db) == [103]  # 102 was taken on the way
        with psycopg.connect(plain(url), autocommit=True) as other:
            other.execute("DELETE FROM system_logs")
        assert await single(db) == [104]


@pytest.mark.parametrize("way", WAYS)
async def test_a_role_that_may_not_is_told_what_to_grant(url: URL, way: Any) -> None:
    role = f"appender_{url.database}"
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "own", "before")
    copied_in(url, 2, 2)
    copied_in(url, 10**9, 10**9)
    with psycopg.connect(plain(url), autocommit=True) as owner:
        owner.execute(
            f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}; "
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}".encode()
        )
        try:
            async with DatabaseManager(url.set(username=role)) as db:
                with pytest.raises(OperationError, match="UPDATE on the sequence") as caught:
                    await way(db)
                assert (caught.value.code, caught.value.table) == ("42501", "system_logs")
                assert caught.value.__cause__ is None
                assert caught.value.__context__ is None
                assert await db.get_system_logs(component="own", limit=10)
        finally:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


async def test_a_role_with_no_more_than_an_insert_needs_passes_a_short_way(url: URL) -> None:
    role = f"appender_{url.database}"
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "own", "before")
    copied_in(url, 2, 100)
    with psycopg.connect(plain(url), autocommit=True) as owner:
        owner.execute(
            f"CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}; "
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}".encode()
        )
        try:
            async with DatabaseManager(url.set(username=role)) as db:
                assert await many_at_once(db)
        finally:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

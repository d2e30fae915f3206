"""What the server, the database and the role say of a session changes no value, no order and no error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, make_url, text

from orchdb import DatabaseManager, InvalidValueError
from orchdb.models import SystemLog
from tests.support.postgres_sessions import plain

DRIVERS = ("asyncpg", "psycopg")
TIMES = ("0001-01-01T00:00:00.000000", "1969-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999")
SETTINGS: dict[str, str] = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Pacific/Kiritimati",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "escape_string_warning": "off",
    "extra_float_digits": "-10",
    "lc_messages": "C",
    "row_security": "off",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "xmloption": "document",
}
OTHER_SIDE = SETTINGS | {"DateStyle": "German, YMD", "TimeZone": "America/Adak", "extra_float_digits": "3"}


def run(url: URL, *statements: str) -> None:
    """What the administrator does."""
    with psycopg.connect(plain(url), autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


def set_for_the_database(url: URL, settings: dict[str, str]) -> None:
    with psycopg.connect(plain(url), autocommit=True) as admin:
        for name, value in settings.items():
            values = sql.SQL(", ").join(map(sql.Literal, value.split(", ")))
            parts = sql.Identifier(url.database or ""), sql.SQL(name), values
            admin.execute(sql.SQL("ALTER DATABASE {} SET {} TO {}").format(*parts))


async def everything(db: DatabaseManager) -> list[Any]:
    """What is written and read back, without what differs between two databases."""
    definition = await db.create_orchestrator_agent("Grüße · 日本", description="back\\slash 'quote' \"double\"")
    agent = await db.create_agent(
        definition, "session", context={"text": "Grüße\\n", "number": 0.1 + 0.2, "none": None}
    )
    for moment in TIMES:
        await db.update_agent(agent, started_at=moment)
        row = await db.get_agent(agent)
        assert row is not None
        assert row["started_at"] == moment
    for amount in (0.000000001, 0.1, 123.456789012, 1e-9):
        await db.add_agent_cost(agent, amount)
    await db.update_agent(agent, error_message="E'\\001'")
    with pytest.raises(InvalidValueError):
        await db.update_agent(agent, status="sleeping")  # type: ignore[arg-type]
    for _ in range(2):
        await db.create_agent_log(agent, "INFO", "milestone", "line", details={"k": [1.1, "ü"]})
    await db.create_agent_logs(
        [{"agent_id": agent, "log_level": "INFO", "log_type": "many", "message": f"{n}"} for n in range(30)]
    )
    async with db.transaction() as tx:
        await tx.create_system_log("INFO", "component", "inside")
    first = await db.get_agent_logs(agent, limit=20)
    assert [row["id"] for row in first] == sorted(row["id"] for row in first)
    agents = await db.list_agents()
    definitions = await db.list_orchestrator_agents()
    times = {"created_at", "updated_at"}
    kept = [{k: v for k, v in row.items() if "id" not in k and k not in times} for row in [*agents, *definitions]]
    return [kept, [row["message"] for row in await db.get_agent_logs(agent)], await db.prune("1970-01-01")]


@pytest.mark.parametrize("settings", [SETTINGS, OTHER_SIDE], ids=["one side", "other side"])
async def test_the_settings_of_a_database_change_nothing(url: URL, settings: dict[str, str]) -> None:
    set_for_the_database(url, settings)
    async with DatabaseManager(url) as db:
        (agent, definition), messages, pruned = await everything(db)
        assert messages == ["line", "line", *map(str, range(30))]
        assert pruned == 0
        assert agent["cost_usd"] == round(123.556789014, 9)
        assert agent["context"] == {"text": "Grüße\\n", "number": 0.1 + 0.2, "none": None}
        assert agent["error_message"] == "E'\\001'"
        assert definition["name"] == "Grüße · 日本"
        assert db.conn is not None
        found = (await db.conn.execute(text("SELECT created_at, started_at FROM agents"))).one()
        assert found.created_at.utcoffset().total_seconds() == 0
        assert found.started_at.year == 9999
        assert not await db.list_agents(since="2100-01-01")


async def test_the_settings_are_no_less_those_of_the_role_behind_a_pooler(url: URL) -> None:
    """Nothing is said at the start there: what the server answers has to be understood whatever it is set to."""
    not_ours_to_change = {"default_transaction_read_only", "row_security", "default_transaction_isolation"}
    set_for_the_database(url, {k: v for k, v in SETTINGS.items() if k not in not_ours_to_change})
    async with DatabaseManager(url.update_query_dict({"pooler": "transaction"})) as db:
        (agent, definition), *_ = await everything(db)
        assert agent["cost_usd"] == round(123.556789014, 9)
        assert agent["started_at"] == TIMES[-1]
        assert definition["name"] == "Grüße · 日本"


@pytest.mark.parametrize("path", ["", "no_such_schema", '"$user"'])
async def test_a_search_path_without_a_schema_changes_nothing(url: URL, path: str) -> None:
    set_for_the_database(url, {"search_path": path})
    for expected in (1, 2):
        async with DatabaseManager(url) as db:
            await db.create_system_log("INFO", "component", "line")
            assert len(await db.get_system_logs()) == expected
            assert await anext(db.tail_system_logs(after_id=0))
    run(url, "SELECT 1 / count(*) FROM public.system_logs")


async def test_a_schema_that_the_role_names_first_is_where_the_tables_are(url: URL) -> None:
    run(url, "CREATE SCHEMA theirs")
    set_for_the_database(url, {"search_path": "theirs, public"})
    async with DatabaseManager(url) as db:
        await everything(db)
    run(url, "SELECT 1 / count(*) FROM theirs.system_logs")


@pytest.mark.parametrize(
    "decoy", ["", "CREATE TABLE theirs.agents (id int)", "CREATE TABLE theirs.agent_logs (x text)"]
)
@pytest.mark.parametrize("home", ["public", "my Data"])
async def test_tables_that_are_there_are_found_behind_a_schema_that_comes_to_stand_before_them(
    url: URL, decoy: str, home: str
) -> None:
    run(url, f'CREATE SCHEMA IF NOT EXISTS "{home}"')
    set_for_the_database(url, {"search_path": home})
    async with DatabaseManager(url) as db:
        await db.create_system_log("INFO", "component", "before")
    run(url, 'CREATE SCHEMA "theirs"', decoy)
    set_for_the_database(url, {"search_path": f"theirs, {home}"})
    async with DatabaseManager(url, read_url=url) as db:
        assert [row["message"] for row in await db.get_system_logs()] == ["before"]
        await everything(db)


@pytest.fixture(params=["LATIN1", "SQL_ASCII", "EUC_JP"])
async def encoded(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[tuple[str, str]]:
    """An encoding, and the URL of a database that has it."""
    name = f"{make_url(postgres_url).database}_other"
    statement = f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    run(make_url(postgres_url), statement)
    yield request.param, make_url(postgres_url).set(database=name).render_as_string(False)
    run(make_url(postgres_url), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_another_encoding_holds_what_it_can_and_refuses_the_rest(encoded: tuple[str, str], driver: str) -> None:
    encoding, url = encoded
    words = {"LATIN1": "Grüße", "SQL_ASCII": "Grüße 日本 · 🙂", "EUC_JP": "日本"}[encoding]
    others = {"LATIN1": "日本", "SQL_ASCII": None, "EUC_JP": "🙂"}[encoding]
    async with DatabaseManager(make_url(url).set(drivername=f"postgresql+{driver}")) as db:
        definition = await db.create_orchestrator_agent(words)
        agent = await db.create_agent(definition, words, context={words: [words]})
        many: list[Any] = [
            {"agent_id": agent, "log_level": "INFO", "log_type": words, "message": words, "details": words}
        ] * 40
        await db.create_agent_logs(many)
        row = await db.get_agent(agent)
        assert row is not None
        assert (row["session_id"], row["context"]) == (words, {words: [words]})
        logs = await db.get_agent_logs(agent, log_type=words)
        assert {(log["message"], log["details"]) for log in logs} == {(words, words)}
        if others is None:
            return
        refused: list[Any] = [{**many[0], "message": others}] * 40
        for attempt in (
            db.create_orchestrator_agent(others),
            db.create_system_log("INFO", "c", "m", details={"k": others}),
            db.create_agent_logs(refused),
        ):
            with pytest.raises(InvalidValueError, match="encoding") as caught:
                await attempt
            assert others not in str(caught.value)
        assert len(await db.list_orchestrator_agents()) == 1
        assert await db.get_system_logs() == []


FAR = ["-infinity", "4713-01-01 BC", "0044-03-15 12:00 BC", "0001-01-01", "2026-01-01", "9999-12-31 23:59:59.999999"]
FAR += ["10000-01-01", "294276-12-31 23:59:59.999999", "infinity"]


@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Kiritimati"])
async def test_times_that_no_datetime_can_be_are_shown_and_keep_their_place(url: URL, timezone: str) -> None:
    set_for_the_database(url, {"TimeZone": timezone, "DateStyle": "German"})
    async with DatabaseManager(url) as db:
        for moment in FAR:
            line = f"INSERT INTO system_logs (component, message, created_at) VALUES ('c', '{moment}', '{moment} UTC')"
            run(url, "SET DateStyle = ISO", line.replace("infinity UTC", "infinity"))
        rows = await db.get_system_logs()
        assert [row["message"] for row in rows] == FAR
        shown = [row["created_at"] for row in rows]
        assert json.loads(json.dumps(rows)) == rows
        assert [SystemLog.model_validate(row).model_dump(mode="json") for row in rows] == rows
        assert shown[0] == "-infinity"
        assert shown[2] == "0044-03-15T12:00:00.000000Z BC"
        assert shown[3:6] == ["0001-01-01T00:00:00.000000", "2026-01-01T00:00:00.000000", TIMES[-1]]
        assert shown[6:] == ["10000-01-01T00:00:00.000000Z", "294276-12-31T23:59:59.999999Z", "infinity"]
        paged = [row["message"] async for row in db.iter_system_logs(page_size=1)]
        assert paged == FAR
        assert [row["message"] for row in await db.list_recent_system_logs()] == FAR[::-1]
        number = await anext(db.tail_system_logs(after_id=0))
        assert number["message"] == FAR[0]
        async with db.transaction() as tx:
            assert [row["message"] for row in await tx.get_system_logs()] == FAR
        assert [row["message"] for row in await db.get_system_logs(since="2026-01-01")] == FAR[4:]
        assert await db.prune("2000-01-01") == 4
        for refused in ("infinity", "10000-01-01T00:00:00.000000Z"):
            with pytest.raises(InvalidValueError):
                await db.get_system_logs(since=refused)


async def test_many_lines_at_the_end_of_time_are_pruned_or_kept_as_they_are(url: URL) -> None:
    async with DatabaseManager(url) as db:
        for moment in ("-infinity", "infinity"):
            run(
                url,
                "INSERT INTO system_logs (component, message, created_at) "
                f"SELECT 'c', n::text, '{moment}' FROM generate_series(1, 2500) AS n",
            )
        assert await db.prune("2000-01-01") == 2500
        paged = [row async for row in db.iter_system_logs(page_size=1000)]
        assert len({row["id"] for row in paged}) == len(paged) == 2500

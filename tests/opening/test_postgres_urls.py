"""What a Postgres URL and the options of the pool may say, and what is said when the server cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError

from orchdb import DatabaseManager, InvalidValueError, OperationError

DRIVERS = ("asyncpg", "psycopg")
SECRET = "s3cr3t/p@ss:word%"


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, postgres_url: str) -> URL:
    """The URL of a new, empty database, for each driver in turn."""
    return make_url(postgres_url).set(drivername=f"postgresql+{request.param}")


async def setting(db: DatabaseManager, name: str) -> str:
    async with db.transaction() as tx:
        result = await tx.conn.execute(text("SELECT current_setting(:name)"), {"name": name})
        return str(result.scalar_one())


def refused(url: object, **options: Any) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        DatabaseManager(url, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_unknown_parameter_is_refused_by_name(driver: str) -> None:
    assert "'sslmod'" in str(refused(f"postgresql+{driver}://u:{'pw' * 3}@h/db?sslmod=require"))


@pytest.mark.parametrize(
    "query", ["sslmode=yes", "connect_timeout=soon", "connect_timeout=-1", "pooler=maybe", "password=x", "ssl=true"]
)
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_parameter_without_a_usable_value_is_refused(driver: str, query: str) -> None:
    error = refused(f"postgresql+{driver}://user:pwpwpw@host/db?{query}")
    assert query.partition("=")[0] in str(error)
    assert "pwpwpw" not in str(error)


@pytest.mark.parametrize("query", ["sslmode=yes", "connect_timeout=soon", "own=1", "port=x", "host=a,b&port=1,2,3"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_wrong_with_a_url_is_said_of_what_it_was_given_as(
    monkeypatch: pytest.MonkeyPatch, driver: str, query: str
) -> None:
    url = f"postgresql+{driver}://user:pwpwpw@host/db?{query}"
    error = refused("postgresql://host/db", read_url=url)
    assert error.message.startswith("read_url: ")
    assert error.column == "read_url"
    for variable in ("ORCHESTRATOR_DB_PATH", "ORCHESTRATOR_DB_URL"):
        monkeypatch.setenv(variable, url)
        assert refused(None).message.startswith(f"db_path (from {variable}): ")


def test_what_the_driver_of_the_first_url_cannot_do_is_said_of_the_other() -> None:
    error = refused("postgresql+asyncpg://host/db", read_url="postgresql+psycopg://host/db?channel_binding=require")
    assert error.column == "read_url"


def test_a_password_with_an_at_sign_that_is_not_encoded_never_shows() -> None:
    assert "rest-of-it" not in str(refused("postgresql://user:pw@rest-of-it@host/db"))


@pytest.mark.parametrize(
    "options",
    [
        {"pool_size": 0},
        {"pool_size": True},
        {"pool_size": 2.5},
        {"pool_timeout": -1},
        {"connect_timeout": float("inf")},
        {"statement_timeout": "60"},
        {"statement_timeout": float("nan")},
    ],
)
@pytest.mark.parametrize("url", [":memory:", "postgresql://host/db"])
def test_an_option_without_a_usable_value_is_refused(url: str, options: dict[str, Any]) -> None:
    assert refused(url, **options).column in options


def test_a_replica_of_another_kind_is_refused() -> None:
    refused("postgresql://host/db", read_url="sqlite:///x.db")
    refused("x.db", read_url="postgresql://host/db")


async def test_the_session_has_the_settings_that_were_asked_for(url: URL) -> None:
    async with DatabaseManager(url, statement_timeout=12, lock_timeout=3.5, durability="full") as db:
        found = {
            name: await setting(db, name)
            for name in (
                "statement_timeout",
                "lock_timeout",
                "application_name",
                "transaction_isolation",
                "idle_in_transaction_session_timeout",
                "synchronous_commit",
            )
        }
    assert found == {
        "statement_timeout": "12s",
        "lock_timeout": "3500ms",
        "application_name": "orchdb",
        "transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": "1min",
        "synchronous_commit": "on",
    }


async def test_settings_in_the_url_win(url: URL) -> None:
    own = {"application_name": "my program", "options": "-c statement_timeout=7s -c geqo=off", "connect_timeout": "3"}
    async with DatabaseManager(url.update_query_dict(own)) as db:
        assert await setting(db, "application_name") == "my program"
        assert await setting(db, "statement_timeout") == "7s"
        assert await setting(db, "geqo") == "off"
        assert await setting(db, "lock_timeout") == "30s"


async def test_the_reading_connection_cannot_write(url: URL) -> None:
    async with DatabaseManager(url) as db:
        assert db.conn is not None
        with pytest.raises(Exception, match="read-only"):
            await db.conn.execute(text("DELETE FROM agents"))
        assert (await db.conn.execute(text("SELECT 1"))).scalar_one() == 1
        assert not db.conn.in_transaction()


async def test_a_statement_that_takes_too_long_is_ended(url: URL) -> None:
    async with DatabaseManager(url, statement_timeout=0.2) as db:
        async with db.transaction() as tx:
            await tx.create_orchestrator_agent("scout")
            with pytest.raises(DBAPIError, match="statement timeout"):
                await tx.conn.execute(text("SELECT pg_sleep(10)"))
            assert len(await tx.list_orchestrator_agents()) == 1
        assert len(await db.list_orchestrator_agents()) == 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"database": "no_such_database"}, "no_such_database"),
        ({"username": "nobody_of_that_name"}, ""),
        ({"query": {"host": "/no/such/folder"}}, "/no/such/folder"),
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "127.0.0.1:1"),
    ],
)
async def test_a_server_that_cannot_be_used_is_named(
    postgres_server: str, driver: str, change: dict[str, Any], said: str
) -> None:
    url = make_url(postgres_server).set(drivername=f"postgresql+{driver}", password=SECRET).set(**change)
    with pytest.raises(OperationError) as caught:
        await DatabaseManager(url).connect()
    shown = f"{caught.value} {caught.value!r} {DatabaseManager(url)!r}"
    assert "no connection to" in shown
    assert said in shown
    assert SECRET not in shown
    assert "s3cr3t" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None

"""The engines that every behavioural test runs on, and what each test must leave behind: nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url

from orchdb import DatabaseManager
from tests.support.postgres_databases import Databases
from tests.support.postgres_servers import folder, shared_server, stop_shared_server

ENGINES = ("sqlite", "asyncpg", "psycopg")
_SHARED = "ORCHDB_TEST_SHARED_SERVER"


def pytest_configure(config: pytest.Config) -> None:
    """Keep the debug mode of the event loop, if it is asked for, and make a place for a server that all tests share."""
    if sys.flags.dev_mode:  # in which pytest-asyncio would switch off the loop's own
        config.option.asyncio_debug = True
    if not hasattr(config, "workerinput"):
        ending = ExitStack()
        place = ending.enter_context(folder())
        ending.callback(stop_shared_server, place)
        config.add_cleanup(ending.close)
        os.environ[_SHARED] = str(place)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run take a part of the cases of each test."""
    cases = "of each parametrised test, on each engine: all cases, or only the first or last, and nothing slow"
    parser.addoption("--cases", choices=("all", "first", "last"), default="all", help=cases)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The tests wait more than they compute."""
    return min(3 * (os.cpu_count() or 1), 12)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the cases that are asked for. What is slow comes first: nobody waits for it at the end."""
    _take(config, items, _spread(items))
    asked: str = config.option.cases
    if asked != "all":
        quick = [item for item in items if item.get_closest_marker("slow") is None]
        chosen = {_test_of(item): item for item in (quick if asked == "last" else reversed(quick))}
        _take(config, items, {item.nodeid for item in chosen.values()})
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _take(config: pytest.Config, items: list[pytest.Item], taken: set[str]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in taken])
    items[:] = [item for item in items if item.nodeid in taken]


def _spread(items: list[pytest.Item]) -> set[str]:
    """What is left when each case of a test that is the same on each engine has one of them, and the first case all."""
    cases: dict[str, list[str]] = {}
    taken = set[str]()
    for item in items:
        test, *engine = _test_of(item)
        if engine and item.get_closest_marker("spread") is not None:
            numbers = cases.setdefault(test, [])
            case = item.nodeid.replace(engine[0], "")
            if case not in numbers:
                numbers.append(case)
            number = numbers.index(case)
            if number and number % len(ENGINES) != ENGINES.index(engine[0]):
                continue
        taken.add(item.nodeid)
    return taken


def _test_of(item: pytest.Item) -> tuple[str, ...]:
    """The test that this is a case of, and the engine if it has one."""
    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    return (item.nodeid.partition("[")[0], *(engine for engine in ENGINES if engine in parameters))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees none of the variables that choose a database."""
    monkeypatch.delenv("ORCHESTRATOR_DB_URL", raising=False)
    monkeypatch.delenv("ORCHESTRATOR_DB_PATH", raising=False)


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a real server: ``ORCHDB_TEST_POSTGRES_URL``, or one that all processes of the test run share."""
    url = os.environ.get("ORCHDB_TEST_POSTGRES_URL")
    return (
        url or shared_server(Path(os.environ[_SHARED])).url("psycopg").set(drivername="postgresql").render_as_string()
    )


@pytest.fixture(scope="session")
def databases(postgres_server: str) -> Iterator[Databases]:
    """The databases that the tests of this process use one after the other."""
    made = Databases(postgres_server)
    yield made
    made.close()


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """The URL of an empty database, or for a test of ``db`` of one with empty tables.

    Afterwards nothing may still be connected to it.
    """
    with databases.lent(tables="db" in request.fixturenames) as url:
        yield url


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with empty tables, to be copied: that is quicker than to make one."""
    path = tmp_path_factory.mktemp("new") / "orchestrator.db"

    async def make() -> None:
        async with DatabaseManager(path):
            pass

    asyncio.run(make())
    return path


@dataclass(frozen=True)
class Target:
    """A database on one of the engines."""

    engine: str
    url: str

    @property
    def path(self) -> Path:
        """The file, on SQLite."""
        return Path(make_url(self.url).database or "")


@pytest.fixture(params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """An empty database on each engine in turn, or for a test of ``db`` one with empty tables.

    Afterwards no thread and no lock may be left.
    """
    engine: str = request.param
    if engine != "sqlite":
        url = make_url(request.getfixturevalue("postgres_url")).set(drivername=f"postgresql+{engine}")
        yield Target(engine, url.render_as_string(hide_password=False))
        return
    found = Target(engine, f"sqlite+aiosqlite:///{tmp_path / 'orchestrator.db'}")
    if "db" in request.fixturenames:
        shutil.copy(request.getfixturevalue("new_file"), found.path)
    threads = threading.active_count()
    yield found
    deadline = time.monotonic() + 5  # a thread that was told to end needs a moment to do so
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.active_count() <= threads, "a connection's thread is left"
    if found.path.exists():
        free = sqlite3.connect(found.path, timeout=0)
        free.execute("BEGIN EXCLUSIVE")
        free.close()


@pytest.fixture
async def db(target: Target) -> AsyncIterator[DatabaseManager]:
    """A connected manager on each engine in turn."""
    async with DatabaseManager(target.url) as manager:
        yield manager


@pytest.fixture
async def agent_id(db: DatabaseManager) -> str:
    """The id of an agent."""
    definition = await db.create_orchestrator_agent("scout")
    return await db.create_agent(definition, "session-1")

"""Where the database is: paths, URLs and variables, and what appears on disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from orchdb import DatabaseManager, InvalidValueError, OperationError

ODD_NAMES = [
    "with space.db",
    "quote's.db",
    'double"quote.db',
    "question?mode=ro",
    "hash#fragment.db",
    "percent%20.db",
    "100%.db",
    "file:x.db",
    "semi;colon&amp.db",
    "ünïcödé 数据.db",
    "back\\slash.db",
    "-dash",
    "[brackets].db",
    "new\nline.db",
    "a+b=c@d:5.db",
]


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that takes no right away."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


async def opened(db_path: Any = None) -> None:
    async with DatabaseManager(db_path) as db:
        await db.create_orchestrator_agent("scout")


async def test_without_anything_said_the_file_is_in_the_data_folder(here: Path) -> None:
    await opened()
    assert files_below(here) == {"data/orchestrator.db"}


@pytest.mark.parametrize(
    ("argument", "url", "path", "expected"),
    [
        ("argument.db", "sqlite:///url.db", "path.db", "argument.db"),
        (None, "sqlite:///url.db", "path.db", "url.db"),
        (None, None, "path.db", "path.db"),
        (None, "", "path.db", "path.db"),
        (None, "", "", "data/orchestrator.db"),
        (None, "sqlite:///url.db", "", "url.db"),
    ],
)
async def test_the_argument_wins_then_the_url_then_the_path(
    here: Path, monkeypatch: pytest.MonkeyPatch, argument: str | None, url: str | None, path: str | None, expected: str
) -> None:
    for name, value in (("ORCHESTRATOR_DB_URL", url), ("ORCHESTRATOR_DB_PATH", path)):
        if value is not None:
            monkeypatch.setenv(name, value)
    await opened(argument)
    assert files_below(here) == {expected}


async def test_the_path_variable_may_hold_a_url_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DB_PATH", "sqlite:///from_path.db")
    await opened()
    assert files_below(here) == {"from_path.db"}


@pytest.mark.parametrize("form", ["text", "path", "sqlite:///", "sqlite+aiosqlite:///", "url"])
async def test_every_form_of_a_path_leads_to_the_same_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "orchestrator.db"
    forms: dict[str, Any] = {"text": str(path), "path": path, "url": make_url(f"sqlite:///{path}")}
    await opened(forms.get(form, f"{form}{path}"))
    assert files_below(tmp_path) == {"orchestrator.db"}


async def test_three_slashes_are_a_relative_path(here: Path) -> None:
    await opened("sqlite:///relative/x.db")
    assert files_below(here) == {"relative/x.db"}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_postgres_urls_get_the_async_driver(scheme: str) -> None:
    assert "'postgresql+asyncpg://host/db'" in repr(DatabaseManager(f"{scheme}://host/db"))


def test_the_other_postgres_driver_can_be_asked_for() -> None:
    assert "'postgresql+psycopg://host/db'" in repr(DatabaseManager("postgresql+psycopg://host/db"))


async def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    await opened("~/agents.db")
    assert files_below(tmp_path) == {"agents.db"}


def test_the_home_folder_of_nobody_is_an_invalid_value() -> None:
    with pytest.raises(InvalidValueError, match="db_path"):
        DatabaseManager("~no-such-user-here/agents.db")


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_an_odd_name_is_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    await opened(tmp_path / name)
    await opened(str(tmp_path / name).replace(str(tmp_path), str(tmp_path / "."), 1) + "2")
    assert files_below(tmp_path) == {name, f"{name}2"}


@pytest.mark.parametrize("name", ["file:x.db?mode=memory", "has?question", "has#hash"])
async def test_an_odd_relative_name_is_a_file_too(here: Path, name: str) -> None:
    await opened(name)
    assert files_below(here) == {name}


async def test_an_odd_folder_is_the_name_of_the_folder(tmp_path: Path) -> None:
    await opened(tmp_path / "a?b#c%20 d" / "x.db")
    assert files_below(tmp_path) == {"a?b#c%20 d/x.db"}


async def test_a_relative_path_stays_where_it_was_when_the_folder_changes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = DatabaseManager("relative.db")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    async with db:
        await db.create_orchestrator_agent("scout")
        monkeypatch.chdir("/")
        await asyncio.gather(*(db.list_agents() for _ in range(10)))
    assert files_below(here) == {"relative.db"}


@pytest.mark.usefixtures("open_umask")
async def test_the_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    async with DatabaseManager(path) as db:
        await db.create_orchestrator_agent("scout")
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"orchestrator.db": 0o600, "orchestrator.db-wal": 0o600, "orchestrator.db-shm": 0o600}


@pytest.mark.usefixtures("open_umask")
async def test_every_folder_that_is_made_belongs_to_its_owner_only(tmp_path: Path) -> None:
    await opened(tmp_path / "a" / "b" / "c" / "orchestrator.db")
    modes = [(tmp_path / folder).stat().st_mode & 0o777 for folder in ("a", "a/b", "a/b/c")]
    assert modes == [0o700, 0o700, 0o700]


@pytest.mark.usefixtures("open_umask")
async def test_the_rights_of_what_exists_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o770)
    path = folder / "orchestrator.db"
    path.touch(mode=0o660)
    await opened(path)
    assert [file.stat().st_mode & 0o777 for file in (folder, path)] == [0o770, 0o660]


async def test_a_link_leads_to_the_file_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, file = tmp_path / "link.db", tmp_path / "real" / "file.db"
    link.symlink_to(file)
    async with DatabaseManager(link) as by_link, DatabaseManager(file) as by_file:
        await by_link.create_orchestrator_agent("through the link")
        assert len(await by_file.list_orchestrator_agents()) == 1
        assert files_below(tmp_path) == {"link.db", "real/file.db", "real/file.db-wal", "real/file.db-shm"}
    assert link.is_symlink()


async def test_an_empty_file_is_made_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    await opened(path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    "db_path",
    [
        "",
        "nul\0.db",
        b"bytes.db",
        Path("nul\0.db"),
        " ",
        "   ",
        "\t\n",
        "\u00a0",
        "\ufeff",
        '""',
        "' '",
        "sqlite:///  ",
    ],
)
def test_what_is_no_path_is_an_invalid_value(here: Path, db_path: Any) -> None:
    with pytest.raises(InvalidValueError, match="db_path"):
        DatabaseManager(db_path)
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "db_path",
    [":memory", "memory:", "::memory::", ":MEMORY:", ":Memory", ":mem:", ":memroy:", ":in-memory:", " :memory: ",
     "':memory:'", ":memory:\n", ":memory:?cache=shared", "file::memory:", "file::memory:?cache=shared", "sqlite:///:memory"],
)  # fmt: skip
def test_what_is_nearly_the_database_in_memory_becomes_no_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, db_path: str
) -> None:
    with pytest.raises(InvalidValueError, match=r"db_path: .*:memory:"):
        DatabaseManager(db_path)
    monkeypatch.setenv("ORCHESTRATOR_DB_PATH", db_path)
    with pytest.raises(InvalidValueError, match=r"db_path \(from ORCHESTRATOR_DB_PATH\): .*:memory:"):
        DatabaseManager()
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "name", ["memory", "memory.db", "mem", ":memory:.db", "./:memory", "a:memory:", " .db", "in memory"]
)
async def test_a_name_that_has_something_of_it_is_a_file(here: Path, name: str) -> None:
    await opened(name)
    assert files_below(here) == {name.removeprefix("./")}


@pytest.mark.parametrize(
    "url",
    [
        "mysql://scott:geheim@host/db",
        "postgresql://scott:geheim@host:port/db",
        "postgresql+psycopg2://scott:geheim@host/db",
        "postgresql://scott@host/db?password=geheim",
        "sqlite://host/x.db?key=geheim",
        "sqlite:///x.db?mode=geheim",
    ],
)
def test_what_is_no_usable_url_is_an_invalid_value_that_tells_no_password(here: Path, url: str) -> None:
    with pytest.raises(InvalidValueError, match="db_path") as caught:
        DatabaseManager(url)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(OperationError) as caught:
        await opened(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert files_below(tmp_path) == set()


async def test_a_path_below_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(OperationError) as caught:
        await opened(tmp_path / "file" / "orchestrator.db")
    assert str(tmp_path / "file") in str(caught.value)
    assert (tmp_path / "file").read_text() == "text"


async def test_memory_leaves_no_file(here: Path) -> None:
    await opened(":memory:")
    await opened("sqlite://")
    await opened("sqlite:///:memory:")
    assert files_below(here) == set()


async def test_each_memory_database_is_its_own_and_ends_with_its_manager() -> None:
    async with DatabaseManager(":memory:") as one, DatabaseManager(":memory:") as two:
        await one.create_orchestrator_agent("scout")
        assert await two.list_orchestrator_agents() == []
    async with one:
        assert await one.list_orchestrator_agents() == []


async def test_memory_serves_many_tasks_at_once() -> None:
    async with DatabaseManager(":memory:") as db:
        await asyncio.gather(*(db.create_system_log("INFO", "scheduler", f"{number}") for number in range(200)))
        lists = await asyncio.gather(*(db.get_system_logs() for _ in range(20)))
        assert {len(rows) for rows in lists} == {200}

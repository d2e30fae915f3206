"""What a caller is told who hands in the wrong thing: which parameter it was, and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchdb import DatabaseManager, DuplicateError, InvalidValueError, cursor_of
from tests.support.databases import call


@pytest.mark.parametrize("wrong", [5, 1.5, True, b"x.db", ["x.db"], {"path": "x.db"}, object()])
def test_what_is_no_path_and_no_url_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^db_path: must be text, a path or a URL$") as refused:
        DatabaseManager(wrong)
    assert refused.value.column == "db_path"


@pytest.mark.parametrize("url", ["x.db", "postgresql://host/name"])
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("read_only", "yes", "must be True or False"),
        ("read_only", None, "must be True or False"),
        ("upgrade", "no", "must be True or False"),
        ("upgrade", 0, "must be True or False"),
        *(
            (name, wrong, "must be a number of seconds from 0")
            for name in ("lock_timeout", "pool_timeout", "connect_timeout", "statement_timeout")
            for wrong in ("5", None, True, -1, float("nan"), float("inf"))
        ),
        ("pool_size", "5", "must be a whole number from 1"),
        ("pool_size", 0, "must be a whole number from 1"),
        ("durability", "FULL", 'must be "normal" or "full"'),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(url: str, name: str, wrong: Any, said: str) -> None:
    options: dict[str, Any] = {name: wrong}
    with pytest.raises(InvalidValueError, match=f"^{name}: {said}$") as refused:
        DatabaseManager(url, **options)
    assert refused.value.column == name


def test_an_option_that_is_not_given_or_none_is_taken(tmp_path: Path) -> None:
    DatabaseManager(tmp_path / "x.db", upgrade=None, lock_timeout=0, pool_timeout=1.5)
    DatabaseManager(tmp_path / "x.db", upgrade=False, read_only=True)


@pytest.mark.parametrize("port", ["65536", "99999"])
def test_a_port_that_is_none_is_told_what_one_is(port: str) -> None:
    with pytest.raises(InvalidValueError, match="port: must be a number from 0 to 65535"):
        DatabaseManager(f"postgresql+asyncpg://host:{port}/name")


@pytest.mark.parametrize("wrong", [None, 5, "text", [], {}, {"component": "x"}, {"id": 1, "created_at": "x"}])
def test_the_cursor_of_what_is_no_row_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^cursor_of: this is not a row of orchdb$"):
        cursor_of(wrong)


async def test_a_row_that_is_there_already_is_told_by_its_column(db: DatabaseManager) -> None:
    await db.create_orchestrator_agent("scout")
    with pytest.raises(DuplicateError, match=": a row with this name exists already ") as refused:
        await db.create_orchestrator_agent("scout")
    assert refused.value.column == "name"


@pytest.mark.parametrize("operation", ["create_agent_logs", "create_system_logs", "create_prompts"])
async def test_nothing_in_the_place_of_a_list_is_told_by_the_operation(db: DatabaseManager, operation: str) -> None:
    with pytest.raises(TypeError, match=f"^{operation}: must be given a list of mappings, not NoneType$"):
        await call(db, operation, None)

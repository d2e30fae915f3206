"""Names that a driver or SQLAlchemy calls private, or does not document, and that orchdb uses: each with its versions.

A new version may have them no more, or mean something else by them. When this fails because a version is newer than the
ones that were seen: read what became of the names there, run the tests on it, and add it here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from inspect import getattr_static
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import sqlalchemy

import orchdb


@dataclass(frozen=True)
class Names:
    """What one module of orchdb uses.

    Attributes:
        driver: The distribution.
        seen: The versions whose sources were read, the newest last.
        owners: The names of each object that has some.
    """

    driver: str
    seen: tuple[str, ...]
    owners: tuple[tuple[Callable[[], object], frozenset[str]], ...]


def connection_of_sqlalchemy() -> object:
    """A connection, which has been closed again, and so has its pool."""
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        pass
    engine.dispose()  # else the collector finds the driver's connection during another test
    return connection


def found_in(module: str, name: str = "") -> Callable[[], object]:
    """How a module is loaded, or what it has under a name."""
    return lambda: getattr(import_module(module), name) if name else import_module(module)


MISSING = object()
USED = {
    "connections.py": Names("sqlalchemy", ("2.1",), ((connection_of_sqlalchemy, frozenset({"_execution_options"})),)),
    "sqlite/driver.py": Names(
        "aiosqlite",
        ("0.22",),
        (
            (
                lambda: aiosqlite.connect(":memory:"),
                frozenset({"_conn", "_execute", "_running", "_thread", "_tx"}),
            ),
        ),
    ),
    "postgres/asyncpg_driver.py": Names(
        "asyncpg",
        ("0.31", "0.32"),
        (
            (
                found_in("asyncpg", "Connection"),
                frozenset({"_addr", "_cancel", "_execute", "_loop", "_params", "_protocol", "_transport"}),
            ),
            (found_in("asyncpg.cursor", "Cursor"), frozenset({"_close_portal"})),
            (found_in("asyncpg.connect_utils"), frozenset({"_cancel"})),
        ),
    ),
    "postgres/psycopg_driver.py": Names(
        "psycopg",
        ("3.2", "3.3"),
        (
            (found_in("psycopg.generators"), frozenset({"copy_end"})),
            (found_in("psycopg.waiting"), frozenset({"wait_async"})),
            (found_in("psycopg", "AsyncPipeline"), frozenset({"_exit"})),
        ),
    ),
}
"""By the module below ``orchdb``."""


def minor(number: str) -> tuple[int, ...]:
    """Of a version, what says whether it can be a new one for us."""
    return tuple(int(part) for part in number.split(".")[:2])


def private_names(tree: ast.AST) -> set[str]:
    """The private names of other objects that a module takes, and those of a base class that it declares."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            found.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            found |= {
                line.target.id
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is None
            }
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("module", USED)
def test_each_private_name_is_there(module: str) -> None:
    used = USED[module]
    for make, names in used.owners:
        owner: Any = make()
        gone = {name for name in names if getattr_static(owner, name, MISSING) is MISSING}
        assert not gone, f"{used.driver} {version(used.driver)} has no {', '.join(sorted(gone))}"


@pytest.mark.parametrize("module", USED)
def test_no_version_is_newer_than_those_that_were_seen(module: str) -> None:
    used = USED[module]
    installed = version(used.driver)
    assert minor(installed) <= minor(used.seen[-1]), (
        f"{used.driver} {installed} is newer than {used.seen[-1]}: see what became of the names that {module} uses"
    )


@pytest.mark.parametrize("module", USED)
def test_each_private_name_that_a_module_uses_stands_here(module: str) -> None:
    path = Path(orchdb.__file__).parent / module
    written = private_names(ast.parse(path.read_text(encoding="utf-8")))
    assert written <= {name for _, names in USED[module].owners for name in names}

"""Where each module may import from: downwards only, and never from the room beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchdb

PACKAGE = Path(orchdb.__file__).parent
GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
LAYERS = (
    ("__main__",),
    ("cli",),
    ("integrations",),
    ("transcripts",),
    ("inspection", "repricing", "transfer"),
    ("__init__",),
    ("manager",),
    ("engines",),
    ("operations", "sqlite", "postgres"),
    ("database",),
    ("executor",),
    ("blocks",),
    ("turns", "backend", "looking", "streams"),
    ("connections",),
    ("statements", "own_statements", "models", "cursors", "scaffold", "tables", "prices"),
    ("schema",),
    ("concurrency", "driver_errors", "location"),
    ("clocks", "raising", "bound_agent"),
    ("rows", "errors", "money"),
)
"""From the highest to the lowest: a package, or a module beside them."""
RANKS = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}


def modules() -> dict[str, Path]:
    """Each module by its name below ``orchdb``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "templates" not in parts and "migrations" not in parts:
            found[".".join(parts)] = path
    return found


def imported_by(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of orchdb that a module imports, also those that it imports only when they are needed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("orchdb.") for alias in node.names), f"{path}: import names instead"
            yield from ("__init__" for alias in node.names if alias.name == "orchdb")
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "orchdb":
            package = node.module.removeprefix("orchdb").removeprefix(".")
            for alias in node.names:
                name = f"{package}.{alias.name}".removeprefix(".")
                yield next((each for each in (name, package, f"{package}.__init__") if each in known), "__init__")
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"


def test_imports_go_downwards_and_never_sideways() -> None:
    known = modules()
    rooms = {name: name.split(".", maxsplit=1)[0] for name in known}
    assert set(rooms.values()) == RANKS.keys()
    upwards = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imported_by(path, known)
        if rooms[name] != rooms[other] and RANKS[rooms[name]] >= RANKS[rooms[other]]
    ]
    assert upwards == []


def test_there_is_no_circle_of_imports() -> None:
    known = modules()
    ends = {name: set(imported_by(path, known)) - {name} for name, path in known.items()}
    while free := [name for name, others in ends.items() if not others & ends.keys()]:
        for name in free:
            del ends[name]
    assert ends == {}


def test_only_one_module_knows_both_engines() -> None:
    known = modules()
    both = [
        name
        for name, path in known.items()
        if {"sqlite", "postgres"} <= {other.split(".", maxsplit=1)[0] for other in imported_by(path, known)}
    ]
    assert both == ["engines"]


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide for contributors is not in the wheel")
def test_the_guide_for_contributors_draws_the_layers_and_has_each_room_on_its_map() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    drawing = text.partition("```text\n")[2].partition("\n```")[0]
    drawn = [set(re.split(r" \| |, ", layer)) for layer in re.split(r" → |\n", drawing)]
    assert drawn == [set(layer) for layer in LAYERS if layer != ("__main__",)]
    places = set(re.findall(r"`(?:orchdb/)?(\w+)(?:/|\.py)`", text.partition("| place |")[2].partition("\n\n")[0]))
    assert RANKS.keys() - places == {"__init__", "__main__"}


@pytest.mark.skipif(not GUIDE.exists(), reason="they are not listed in the wheel")
def test_the_quick_tests_come_from_each_room() -> None:
    tests = Path(__file__).parents[1]
    named = [Path(line) for line in (tests / "quick.txt").read_text(encoding="utf-8").splitlines() if ".py" in line]
    assert [path for path in named if not (tests.parent / path).exists()] == []
    rooms = {path.parent.name for path in tests.glob("*/test_*.py")}
    assert rooms - {path.parts[1] for path in named} == set()

"""What ``help()`` and the API reference show: the docstrings, held against the signatures."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any, get_type_hints, is_typeddict

import pytest

import orchdb
import orchdb.operations
from orchdb import AgentChanges, AgentRun, DatabaseManager, OrchestratorAgentChanges, PromptChanges, Transaction, rows
from orchdb.cli import main
from orchdb.cli.application import COMMANDS, Entry
from orchdb.operations import usage_rows

INTERNAL = (
    *("agent_trees", "arguments", "in_turn", "leases", "log_numbers", "page", "reaping", "run_ends"),
    *("table_statements", "usage_statements", "usage_totals"),
)
"""Of the operations: what they share, and callers never see."""
MODULES: tuple[ModuleType, ...] = (
    *(importlib.import_module(f"orchdb.{name}") for name in ("cursors", "errors", "manager", "models", "rows")),
    *(importlib.import_module(f"orchdb.{name}") for name in ("prices", "repricing")),
    *(importlib.import_module(f"orchdb.{name}") for name in ("schema.naive_times", "scaffold.configuration")),
    importlib.import_module("orchdb.scaffold.service"),
    *(importlib.import_module(f"orchdb.transcripts.{name}") for name in ("files", "importing", "report")),
    importlib.import_module("orchdb.integrations.claude_agent_sdk"),
    *(importlib.import_module(f"orchdb.integrations.{name}") for name in ("logging", "opentelemetry", "otlp")),
    importlib.import_module("orchdb.bound_agent"),
    importlib.import_module("orchdb.operations"),
    *(
        importlib.import_module(f"orchdb.operations.{module.name}")
        for module in pkgutil.iter_modules(orchdb.operations.__path__)
        if module.name not in INTERNAL
    ),
)
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
NOT_A_VERB = (
    *("The", "A", "An", "This", "That", "It", "All", "Each", "Every", "One", "Any", "No", "New", "Several"),
    *("Whether", "What", "How", "Where", "When", "Which", "Who", "Why", "If", "As", "For", "From", "In", "Of", "To"),
)


def classes() -> dict[str, type]:
    return {
        f"{module.__name__}.{name}": found
        for module in MODULES
        for name, found in inspect.getmembers(module, inspect.isclass)
        if found.__module__ == module.__name__ and not name.startswith("_")
    }


def callables() -> dict[str, Callable[..., Any]]:
    """The public functions of the modules, and the public methods of their classes."""
    found: dict[str, Callable[..., Any]] = {"orchdb.cli.main": main}
    for module in MODULES:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                found[f"{module.__name__}.{name}"] = function
    for place, owner in classes().items():
        for name, method in vars(owner).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                found[f"{place}.{name}"] = method
    return found


def properties() -> dict[str, property]:
    return {
        f"{place}.{name}": found
        for place, owner in classes().items()
        for name, found in vars(owner).items()
        if isinstance(found, property) and not name.startswith("_")
    }


def section(documented: object, title: str) -> dict[str, str]:
    """The entries of a section: names and texts."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    if f"{title}:" not in lines:
        return {}
    entries: dict[str, str] = {}
    for line in lines[lines.index(f"{title}:") + 1 :]:
        if line and not line.startswith(" "):
            break
        started = re.match(r" {4}(\*{0,2}\w+):(?: (.*))?$", line)
        if started:
            name = started[1]
            entries[name] = started[2] or ""
        elif line.strip() and entries:
            entries[name] += f" {line.strip()}"
    return entries


def parameters(function: Callable[..., Any]) -> list[str]:
    found = inspect.signature(function).parameters.values()
    return [
        str(one.replace(annotation=one.empty, default=one.empty)) for one in found if one.name not in ("self", "cls")
    ]


def own_constructor(owner: type) -> Callable[..., Any] | None:
    """What makes the instances, if the class says it itself."""
    for name in ("__init__", "__new__"):
        found = vars(owner).get(name)
        if inspect.isfunction(found) and not is_typeddict(owner):
            return found
    return None


def exported_values() -> Iterator[str]:
    """The public names that are neither a class nor a function: vocabularies and their types."""
    for name in orchdb.__all__:
        found = getattr(orchdb, name)
        if not inspect.isclass(found) and not inspect.isfunction(found):
            yield name


def documented_values(module: ModuleType) -> set[str]:
    """The names with a text below their assignment, where tools that read the source look for it."""
    body = ast.parse(inspect.getsource(module)).body
    found: set[str] = set()
    for assignment, below in pairwise(body):
        text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and bool(below.value.value)
        targets = assignment.targets if isinstance(assignment, ast.Assign) else []
        if isinstance(assignment, ast.AnnAssign):
            targets = [assignment.target]
        found |= {target.id for target in targets if isinstance(target, ast.Name) and text}
    return found


@pytest.mark.parametrize("place", [*callables()])
def test_a_docstring_begins_with_what_the_call_does(place: str) -> None:
    documented = inspect.getdoc(callables()[place]) or ""
    first = documented.partition("\n")[0]
    verb = re.match(r"[A-Z][a-z]+\b", first)
    assert verb, f"no word to begin with: {first!r}"
    assert verb[0] not in NOT_A_VERB, first
    assert not re.search(r"([^s]s|ing|ed)$", verb[0].replace("Bring", "")), f"not in the imperative: {first}"
    assert first.endswith("."), f"no sentence: {first}"


@pytest.mark.parametrize("place", [*callables()])
def test_each_parameter_has_its_line_and_each_line_its_parameter(place: str) -> None:
    function = callables()[place]
    assert [*section(function, "Args")] == parameters(function)
    assert all(section(function, "Args").values())


@pytest.mark.parametrize("place", [*callables()])
def test_what_comes_back_and_what_is_raised_is_said(place: str) -> None:
    function = callables()[place]
    titles = re.findall(r"^(\w+):$", inspect.getdoc(function) or "", re.MULTILINE)
    assert titles == [title for title in SECTIONS if title in titles], "unknown, twice or in another order"
    gives = inspect.signature(function).return_annotation not in ("None", None, "NoReturn")
    assert gives == bool({"Returns", "Yields"} & {*titles})
    for name in section(function, "Raises"):
        kind = getattr(orchdb, name, None) or getattr(builtins, name, None)
        assert inspect.isclass(kind), f"there is no {name}"
        assert issubclass(kind, BaseException)


@pytest.mark.parametrize("place", [*classes()])
def test_each_class_says_what_it_is_and_what_it_is_made_from(place: str) -> None:
    owner = classes()[place]
    assert vars(owner).get("__doc__"), "no docstring of its own"
    constructor = own_constructor(owner)
    if is_typeddict(owner):
        assert [*section(owner, "Attributes")] == [*get_type_hints(owner)]
    elif constructor is not None and owner not in (Transaction, AgentRun):  # which only a block makes
        told = section(owner, "Args") | section(owner, "Attributes")
        lacking = [name for name in parameters(constructor) if name not in told and not name.startswith("_")]
        assert not lacking
        assert not [name for name in section(owner, "Args") if name not in parameters(constructor)]


def test_each_property_says_what_it_is() -> None:
    assert not [place for place, found in properties().items() if not found.__doc__]


def test_each_exported_value_has_a_text() -> None:
    assert {*exported_values()} <= documented_values(rows) | documented_values(usage_rows)


def test_the_manager_and_a_transaction_have_nothing_without_a_text() -> None:
    known = {*callables().values()}
    for owner in (DatabaseManager, Transaction):
        methods = inspect.getmembers(owner, inspect.isfunction)
        assert not [name for name, method in methods if not name.startswith("_") and method not in known]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (DatabaseManager.update_agent, AgentChanges),
        (DatabaseManager.update_prompt, PromptChanges),
        (DatabaseManager.update_orchestrator_agent, OrchestratorAgentChanges),
    ],
    ids=["agent", "prompt", "orchestrator_agent"],
)
def test_the_help_of_an_update_names_what_can_change(method: Callable[..., Any], changes: type) -> None:
    told = re.findall(r"``([a-z_]+)``", section(method, "Args")["**changes"])
    assert told == [*get_type_hints(changes)]


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_each_option_of_a_command_has_its_help(entry: Entry) -> None:
    command = entry.function()
    assert (inspect.getdoc(command) or "").partition("\n")[0] == entry.summary
    for name, hint in get_type_hints(command, include_extras=True).items():
        if name != "return":
            assert [option.help for option in hint.__metadata__ if option.help], name

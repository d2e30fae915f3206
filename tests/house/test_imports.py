"""What importing the package costs, and what it brings along."""

from __future__ import annotations

import importlib.resources
import inspect
import subprocess
import sys
from typing import Any

import pytest

import orchdb
from orchdb import DatabaseManager, Transaction
from tests.support.databases import OPERATIONS

HEAVY = ("aiosqlite", "alembic", "asyncpg", "jinja2", "psycopg", "pydantic", "rich", "typer", "yaml")


def loaded_after(code: str) -> set[str]:
    """The modules that are loaded when a fresh interpreter has run the code."""
    script = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    return set(done.stdout.split())


def test_the_package_loads_nothing_it_does_not_need() -> None:
    loaded = loaded_after("import orchdb")
    assert loaded & set(HEAVY) == set()
    assert "sqlalchemy.dialects.postgresql" not in loaded


def test_an_sqlite_manager_loads_the_driver_of_sqlite_alone() -> None:
    code = (
        "import asyncio, orchdb\n"
        "async def main():\n"
        "    async with orchdb.DatabaseManager(':memory:') as db:\n"
        "        await db.create_orchestrator_agent('scout')\n"
        "asyncio.run(main())"
    )
    assert loaded_after(code) & set(HEAVY) == {"aiosqlite"}


def test_each_public_name_has_the_place_that_it_is_loaded_from() -> None:
    assert sorted(orchdb._MODULES) == sorted(orchdb.__all__)
    assert all(getattr(orchdb, name) is not None for name in orchdb.__all__)
    assert {*orchdb.__all__} <= {*dir(orchdb)}
    with pytest.raises(AttributeError, match="nothing"):
        getattr(orchdb, "nothing")  # noqa: B009  # a type checker knows that it is not there
    assert "sqlalchemy" not in loaded_after("import orchdb")


def test_the_package_is_typed() -> None:
    assert importlib.resources.files(orchdb).joinpath("py.typed").is_file()


def test_the_version_is_told() -> None:
    assert orchdb.__version__.count(".") == 2


SIGNATURES = {
    "create_orchestrator_agent": (
        "name, description=None, agent_type='utility', capabilities=None, default_model=None, metadata=None"
    ),
    "get_or_create_orchestrator_agent": (
        "name, description=None, agent_type='utility', capabilities=None, default_model=None, metadata=None"
    ),
    "get_orchestrator_agent": "agent_id",
    "list_orchestrator_agents": "",
    "update_orchestrator_agent": "agent_id, **changes",
    "delete_orchestrator_agent": "agent_id",
    "create_agent": (
        "orchestrator_agent_id, session_id, parent_agent_id=None, status='initializing', context=None, config=None, "
        "metadata=None"
    ),
    "get_agent": "agent_id",
    "list_agents": "session_id=None",
    "update_agent": "agent_id, **changes",
    "delete_agent": "agent_id",
    "agent_run": "name_or_id, session_id, parent_agent_id=None",
    "reap_agents": "",
    "create_prompt": (
        "agent_id, prompt_type, prompt_text, prompt_name=None, status='pending', model_used=None, metadata=None"
    ),
    "get_prompt": "prompt_id",
    "list_prompts": "agent_id=None",
    "complete_prompt": "prompt_id, response_text=None",
    "append_prompt_response": "prompt_id, text",
    "update_prompt": "prompt_id, **changes",
    "delete_prompt": "prompt_id",
    "create_agent_log": "agent_id, log_level, log_type, message, details=None",
    "get_agent_logs": "agent_id, log_level=None, log_type=None, since=None, until=None",
    "get_agent_logs_by_type": "agent_id, log_type, limit=100",
    "get_logs_by_type": "log_type, limit=100",
    "list_recent_agent_logs": "limit=100",
    "get_recent_logs": "limit=100",
    "log_agent_event": "agent_id, log_type, message, metadata=None, log_level='INFO'",
    "cleanup_old_logs": "days=30",
    "create_system_log": "log_level, component, message, details=None",
    "get_system_logs": "log_level=None, component=None, since=None, until=None",
    "list_recent_system_logs": "limit=100",
}


def positional(function: Any) -> str:
    """The parameters that can be given by position, and what collects the rest."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_KEYWORD)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.name != "self"]
    return ", ".join(str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in parameters)


@pytest.mark.parametrize("operation", SIGNATURES)
def test_an_operation_has_the_parameters_of_the_contract(operation: str) -> None:
    assert positional(getattr(DatabaseManager, operation)) == SIGNATURES[operation]


def test_a_transaction_has_all_operations() -> None:
    for operation in [*OPERATIONS, "log_agent_event", "iter_agent_logs", "iter_system_logs"]:
        ours, theirs = getattr(Transaction, operation), getattr(DatabaseManager, operation)
        assert inspect.signature(ours) == inspect.signature(theirs)


def test_every_public_operation_is_documented() -> None:
    for name in dir(DatabaseManager):
        if not name.startswith("_"):
            assert inspect.getdoc(getattr(DatabaseManager, name)), name

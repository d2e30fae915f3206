"""The Pydantic models: they accept each row of the manager, give it back unchanged, refuse what is malformed."""

from __future__ import annotations

import copy
import json
import pickle
import sqlite3
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from orchdb import DatabaseManager, rows
from orchdb.models import Agent, AgentLog, OrchestratorAgent, Prompt, SystemLog, UnreadableTime

ID = "550e8400-e29b-41d4-a716-446655440000"
TIME = "2026-02-04T10:30:00.000000"
MODELS: dict[type[BaseModel], type] = {
    OrchestratorAgent: rows.OrchestratorAgentRow,
    Agent: rows.AgentRow,
    Prompt: rows.PromptRow,
    AgentLog: rows.AgentLogRow,
    SystemLog: rows.SystemLogRow,
}
ROWS: dict[type[BaseModel], dict[str, Any]] = {
    OrchestratorAgent: {
        "id": ID,
        "name": "scout",
        "description": None,
        "agent_type": "utility",
        "capabilities": None,
        "default_model": None,
        "created_at": TIME,
        "updated_at": TIME,
        "metadata": None,
        "deleted_at": None,
    },
    Agent: {
        "id": ID,
        "orchestrator_agent_id": ID,
        "session_id": "any text",
        "parent_agent_id": None,
        "status": "pending",
        "context": None,
        "config": None,
        "started_at": None,
        "completed_at": None,
        "cost_usd": 0.0,
        "error_message": None,
        "created_at": TIME,
        "updated_at": TIME,
        "metadata": None,
        "deleted_at": None,
    },
    Prompt: {
        "id": ID,
        "agent_id": ID,
        "prompt_type": "command",
        "prompt_name": None,
        "prompt_text": "",
        "response_text": None,
        "status": "pending",
        "model_used": None,
        "tokens_input": 0,
        "tokens_output": 0,
        "cost_usd": 0.0,
        "latency_ms": None,
        "created_at": TIME,
        "completed_at": None,
        "error_message": None,
        "metadata": None,
        "deleted_at": None,
        "tokens_cache_read": 0,
        "tokens_cache_write": None,
    },
    AgentLog: {
        "id": 1,
        "agent_id": ID,
        "log_level": "INFO",
        "log_type": "milestone",
        "message": "m",
        "details": None,
        "created_at": TIME,
        "event_id": None,
    },
    SystemLog: {
        "id": 1,
        "log_level": "INFO",
        "component": "c",
        "message": "m",
        "details": None,
        "created_at": TIME,
        "event_id": None,
    },
}
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def columns(*names: str) -> list[tuple[type[BaseModel], str]]:
    """Each model together with each of these columns that it has."""
    return [(model, name) for model, row in ROWS.items() for name in names if name in row]


async def stored_rows(db: DatabaseManager) -> dict[type[BaseModel], Any]:
    """A row of each table, filled as far as the manager can."""
    definition = await db.create_orchestrator_agent("scout", "größer", "planner", "a,b", "m", {"team": ["ß", 1]})
    parent = await db.create_agent(definition, "session")
    agent = await db.create_agent(definition, "session", parent, "executing", {"a": 1.5}, '{"b": null}', {"c": "é"})
    await db.add_agent_cost(agent, 0.123456789)
    prompt = await db.create_prompt(agent, "adw", "Why?\n", "n", "pending", "m", {"x": {}})
    await db.update_prompt(prompt, status="completed", response_text="🙂", latency_ms=3, error_message="e")
    await db.add_prompt_usage(prompt, tokens_input=2**40, tokens_cache_read=7, cost_usd=1e-9)
    await db.create_agent_log(agent, "INFO", "own type", "message", [1e300, {"deep": [None, True]}])
    await db.create_system_log("ERROR", "component", "message", "only text")
    await db.delete_prompt(prompt, soft=True)
    return {
        OrchestratorAgent: await db.get_orchestrator_agent(definition),
        Agent: await db.get_agent(agent),
        Prompt: await db.get_prompt(prompt, include_deleted=True),
        AgentLog: (await db.get_agent_logs(agent))[0],
        SystemLog: (await db.get_system_logs())[0],
    }


async def test_each_row_of_the_manager_validates_and_comes_back_exactly(db: DatabaseManager) -> None:
    for model, row in (await stored_rows(db)).items():
        validated = model.model_validate(row)
        assert validated.model_dump(mode="json") == row
        assert list(validated.model_dump(mode="json")) == list(row)
        assert json.loads(validated.model_dump_json()) == row
        assert model.model_validate_json(json.dumps(row)) == validated
        assert model.model_validate(validated.model_dump()) == validated


@every_model
def test_a_model_has_the_columns_of_its_row_in_the_same_order(model: type[BaseModel]) -> None:
    assert list(model.model_fields) == list(MODELS[model].__annotations__)


@every_model
def test_an_unknown_key_and_a_missing_key_are_refused(model: type[BaseModel]) -> None:
    row = ROWS[model]
    assert model.model_validate(row).model_dump(mode="json") == row
    with pytest.raises(ValidationError, match="extra"):
        model.model_validate({**row, "extra": 1})
    for name in row:
        with pytest.raises(ValidationError, match=name):
            model.model_validate({key: value for key, value in row.items() if key != name})


@pytest.mark.parametrize(
    ("model", "name"), [pair for pair in columns("id", "agent_id", "orchestrator_agent_id") if pair[1] != "id"] + [
        (OrchestratorAgent, "id"), (Agent, "id"), (Prompt, "id"), (Agent, "parent_agent_id")
    ],
)  # fmt: skip
def test_uuid_validation(model: type[BaseModel], name: str) -> None:
    validated = model.model_validate({**ROWS[model], name: ID})
    assert getattr(validated, name) == uuid.UUID(ID)
    assert isinstance(getattr(validated, name), uuid.UUID)
    for malformed in ("", "not-a-uuid", ID[:-1], ID + "0", ID.replace("-", ""), "{" + ID + "}", ID[:-1] + "g", 7, b"x"):
        with pytest.raises(ValidationError, match=name):
            model.model_validate({**ROWS[model], name: malformed})


def test_an_id_keeps_its_text_because_sqlite_compares_text() -> None:
    row = {**ROWS[Agent], "id": ID.upper()}
    agent = Agent.model_validate(row)
    for same in (agent, copy.deepcopy(agent), agent.model_copy(deep=True), pickle.loads(pickle.dumps(agent))):
        assert same.id == uuid.UUID(ID)
        assert str(same.id) == ID.upper()
        assert same.model_dump(mode="json") == row


async def test_an_id_of_a_model_finds_its_row_again(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "a.db") as db:
        other = sqlite3.connect(tmp_path / "a.db")
        other.execute(
            "INSERT INTO orchestrator_agents (id, name, agent_type) VALUES (?, 'scout', 'utility')", [ID.upper()]
        )
        other.commit()
        other.close()
        row = await db.get_orchestrator_agent(ID.upper())
        found = OrchestratorAgent.model_validate(row)
        assert await db.get_orchestrator_agent(str(found.id)) == row


def test_a_session_is_free_text_and_a_log_number_a_whole_number() -> None:
    assert Agent.model_validate({**ROWS[Agent], "session_id": "täglich"}).session_id == "täglich"
    for malformed in ("1", 1.5, True, None, ID):
        with pytest.raises(ValidationError, match="id"):
            AgentLog.model_validate({**ROWS[AgentLog], "id": malformed})


@pytest.mark.parametrize(
    ("model", "name"), columns("created_at", "updated_at", "deleted_at", "started_at", "completed_at")
)
def test_times_are_aware_and_a_malformed_one_is_refused(model: type[BaseModel], name: str) -> None:
    expected = datetime(2026, 2, 4, 10, 30, tzinfo=UTC)
    east = timezone(timedelta(hours=2))
    for given in (
        TIME,
        "2026-02-04 10:30:00",
        "2026-02-04T12:30+02:00",
        "2026-02-04T10:30Z",
        expected.astimezone(east),
    ):
        validated = model.model_validate({**ROWS[model], name: given})
        assert getattr(validated, name) == expected
        assert getattr(validated, name).utcoffset() == timedelta(0)
        assert validated.model_dump(mode="json")[name] == TIME
    for unreadable in ("", "yesterday", "2026-13-01", "2026-02-04T25:00"):  # what another program may have written
        validated = model.model_validate({**ROWS[model], name: unreadable})
        assert isinstance(getattr(validated, name), UnreadableTime)
        assert validated.model_dump(mode="json")[name] == unreadable
    for malformed in (1770201000, True, b"2026"):
        with pytest.raises(ValidationError, match=name):
            model.model_validate({**ROWS[model], name: malformed})


@pytest.mark.parametrize(("model", "name"), columns("status", "log_level"))
def test_an_unknown_status_or_level_is_refused(model: type[BaseModel], name: str) -> None:
    for malformed in ("unheard-of", "", None, "info", 1):
        with pytest.raises(ValidationError, match=name):
            model.model_validate({**ROWS[model], name: malformed})


@pytest.mark.parametrize(("model", "name"), columns("agent_type", "prompt_type", "log_type"))
def test_a_type_is_any_text(model: type[BaseModel], name: str) -> None:
    assert getattr(model.model_validate({**ROWS[model], name: "step_start"}), name) == "step_start"
    for malformed in (None, 1):
        with pytest.raises(ValidationError, match=name):
            model.model_validate({**ROWS[model], name: malformed})


@pytest.mark.parametrize(
    "name", ["tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write", "latency_ms"]
)
def test_a_count_is_a_whole_number(name: str) -> None:
    for accepted in (None, 0, 2**63 - 1, -1):  # what another program wrote may be below 0
        assert getattr(Prompt.model_validate({**ROWS[Prompt], name: accepted}), name) == accepted
    for malformed in (2**63, 1.0, "1", True):
        with pytest.raises(ValidationError, match=name):
            Prompt.model_validate({**ROWS[Prompt], name: malformed})


@pytest.mark.parametrize(("model", "name"), columns("cost_usd"))
def test_a_cost_is_a_finite_number(model: type[BaseModel], name: str) -> None:
    for malformed in (float("nan"), float("inf"), "0.1", True):
        with pytest.raises(ValidationError, match=name):
            model.model_validate({**ROWS[model], name: malformed})


@pytest.mark.parametrize(("model", "name"), columns("context", "config", "metadata", "details"))
def test_json_is_any_value_as_the_manager_read_it(model: type[BaseModel], name: str) -> None:
    deep: Any = 1
    for _ in range(254):
        deep = [deep]
    values: list[Any] = [None, True, 1, 1e300, "text that was no JSON", [], {"a": [None, {"b": "é"}]}, deep]
    for value in values:
        row = {**ROWS[model], name: value}
        assert model.model_validate(row).model_dump(mode="json") == row
    with pytest.raises(ValidationError, match=name):
        model.model_validate({**ROWS[model], name: object()})


def test_an_error_does_not_repeat_the_value() -> None:
    with pytest.raises(ValidationError) as failure:
        Prompt.model_validate({**ROWS[Prompt], "prompt_text": ["secret"], "id": "secret", "created_at": "secret"})
    assert "secret" not in str(failure.value)


def test_importing_orchdb_does_not_import_the_models() -> None:
    command = "import sys, orchdb; print([name for name in sys.modules if name.split('.')[0] in ('pydantic', 'typer')])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

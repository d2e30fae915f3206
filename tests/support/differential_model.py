"""The plain model of the differential test: five dictionaries of rows, and what the contract says of each operation."""

from __future__ import annotations

import copy
import inspect
import math
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.dialects.sqlite import aiosqlite

from orchdb import DatabaseManager, InvalidValueError, OrchdbError
from orchdb.rows import (
    COLUMNS_OF,
    ENDED_STATUSES,
    LOG_LEVELS,
    RUNNING_STATUSES,
    AgentChanges,
    NewAgentLog,
    NewPrompt,
    NewSystemLog,
    OrchestratorAgentChanges,
    PromptChanges,
)
from orchdb.schema.column_types import CheckedType
from orchdb.schema.tables import metadata
from tests.support.differential_steps import Step

Row = dict[str, Any]
_DIALECT = aiosqlite.dialect()
PLURALS = {
    "orchestrator_agent": "orchestrator_agents",
    "agent": "agents",
    "prompt": "prompts",
    "agent_log": "agent_logs",
    "system_log": "system_logs",
}
PARENTS = {
    "agents": {"orchestrator_agent_id": "orchestrator_agents", "parent_agent_id": "agents"},
    "prompts": {"agent_id": "agents"},
    "agent_logs": {"agent_id": "agents"},
}
CHILDREN = (
    ("agents", "orchestrator_agent_id", "orchestrator_agents"),
    ("prompts", "agent_id", "agents"),
    ("agent_logs", "agent_id", "agents"),
)
CHANGES: Mapping[str, Any] = {
    "orchestrator_agents": OrchestratorAgentChanges,
    "agents": AgentChanges,
    "prompts": PromptChanges,
}
ITEMS: Mapping[str, Any] = {"agent_logs": NewAgentLog, "system_logs": NewSystemLog, "prompts": NewPrompt}


@dataclass(frozen=True)
class Fails:
    """The ways in which an operation may fail: with several mistakes, the contract does not say which one is told."""

    ways: list[Any]


class _MistakesError(Exception):
    def __init__(self, *kinds: str) -> None:
        super().__init__(*kinds)
        self.kinds = kinds


def check(table: str, name: str, value: Any) -> Any:
    """The value as it will come back."""
    column = metadata.tables[table].c[name]
    kind = column.type
    assert isinstance(kind, CheckedType)
    stored = kind.check(_DIALECT)(value, f"{table}.{name}")
    if stored is None and not column.nullable:
        raise InvalidValueError("missing")
    decode = kind.result_processor(_DIALECT, None)
    return stored if decode is None or stored is None else decode(stored)


class Model:
    """What is stored, and what each operation does to it."""

    def __init__(self, now: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self._now = now
        self._new_id = new_id
        self._tables: dict[str, list[Row]] = {table: [] for table in PLURALS.values()}
        self._lines = {"agent_logs": 0, "system_logs": 0}
        self.ids: dict[str, list[str]] = {table: [] for table in ("orchestrator_agents", "agents", "prompts")}

    def copy(self) -> Any:
        """What ``restore`` brings back; known ids stay known."""
        return copy.deepcopy((self._tables, self._lines))

    def restore(self, before: Any) -> None:
        """Undo what was done since the copy was made."""
        self._tables, self._lines = before

    def run(self, step: Step) -> Any:
        """What the operation gives, or how it may fail; a failure changes nothing."""
        before = self.copy()
        table = _table_of(step)
        try:
            return self._run(step, table)
        except _MistakesError as mistakes:
            self.restore(before)
            ways: list[Any] = [(kind, table) for kind in mistakes.kinds]
            # An id that no row can have may end the operation before the mistake is seen.
            return Fails([*ways, None, False, []] if _names_nothing(step) else ways)
        except TypeError:
            self.restore(before)
            return Fails(["TypeError"])

    def _run(self, step: Step, table: str) -> Any:
        operation, options = step.operation, dict(step.options)
        if operation == "pages":
            name, _, *arguments = step.arguments
            return self._list(table, name, _bound(name, tuple(arguments), {**options, "limit": None}))
        given = _bound(operation, step.arguments, options)
        verb = operation.partition("_")[0]
        if operation in ("prune", "cleanup_old_logs"):
            return self._prune(table, given)
        if verb == "create" and operation.endswith("logs"):
            return self._create_many(table, given["logs"])
        if verb == "create":
            created = self._create(table, given)
            return [created] if table in self._lines else created
        if operation.startswith("get_or_create"):
            return self._get_or_create(table, given)
        if verb in ("list", "get") and operation not in ("get_orchestrator_agent", "get_agent", "get_prompt"):
            return self._list(table, operation, given)
        row_id = given.pop(next(iter(given)))
        rows = [row for row in self._tables[table] if row["id"] == row_id]
        return getattr(self, f"_{verb}")(table, rows, given)

    # -- one row -----------------------------------------------------------------------------------------------------

    def _create(self, table: str, given: Row) -> Any:
        exist_ok, key = given.pop("exist_ok", False), "event_id" if table in self._lines else "id"
        moment = given.pop("created_at", None)
        moment = self._now() if moment is None else moment
        row: Row = dict.fromkeys(COLUMNS_OF[table])
        row |= {"created_at": moment}
        if "updated_at" in row:
            row["updated_at"] = moment
        row |= given
        status = given.get("status")
        if "completed_at" in row and row["completed_at"] is None and _in(status, ENDED_STATUSES):
            row["completed_at"] = moment
        if "started_at" in row and row["started_at"] is None and _in(status, RUNNING_STATUSES):
            row["started_at"] = moment
        defaults = {"cost_usd": 0.0} | {name: 0 for name in row if name.startswith("tokens_")}
        row |= {name: value for name, value in defaults.items() if name in row and name not in given}
        if table in self._lines:
            row["id"] = self._lines[table]
        else:
            row["id"] = self._new_id() if row["id"] is None else _canonical(row["id"])
        if row["id"] == row.get("parent_agent_id"):
            raise _MistakesError("InvalidValueError")
        there = [other for other in self._tables[table] if row[key] is not None and other[key] == row[key]]
        if there and (exist_ok or key == "event_id"):
            self._checked(table, row, row, exists=False)
            return there[0]["id"]
        self._checked(table, row, row)
        if there:
            raise _MistakesError("DuplicateError")
        self._tables[table].append(row)
        if table in self._lines:
            self._lines[table] += 1
        else:
            self.ids[table].append(row["id"])
        return row["id"]

    def _create_many(self, table: str, items: list[Row]) -> list[int]:
        kinds: list[str] = []
        numbers: list[int] = []
        for item in items:
            try:
                numbers.append(self._create(table, {"details": None, **item}))
            except _MistakesError as mistakes:
                kinds.extend(mistakes.kinds)
        if kinds:
            raise _MistakesError(*kinds)
        return numbers

    def _get_or_create(self, table: str, given: Row) -> Any:
        name = self._value(table, "name", given["name"])
        for row in self._tables[table]:
            if row["name"] == name and row["deleted_at"] is None:
                return row["id"]
        return self._create(table, given)

    def _complete(self, table: str, rows: list[Row], given: Row) -> bool:
        if not _in(given["status"], ENDED_STATUSES):
            raise _MistakesError("InvalidValueError")
        cost = given["cost_usd"]
        old = next((row["cost_usd"] for row in rows), None) or 0
        changes = {name: value for name, value in given.items() if value is not None or name == "error_message"}
        done = self._update(table, rows, {"changes": changes})
        if done and cost is not None and rows[0]["cost_usd"] != old:
            (agent,) = (row for row in self._tables["agents"] if row["id"] == rows[0]["agent_id"])
            agent |= {"cost_usd": _moved(agent["cost_usd"] or 0, rows[0]["cost_usd"], old)}
            agent["updated_at"] = check("agents", "updated_at", self._now())
        return done

    def _append(self, table: str, rows: list[Row], given: Row) -> bool:
        text = self._value(table, "response_text", given["text"])
        if text is None:
            raise _MistakesError("InvalidValueError")
        rows = [row for row in rows if row["deleted_at"] is None]
        for row in rows:
            row["response_text"] = (row["response_text"] or "") + text
        return bool(rows)

    def _get(self, table: str, rows: list[Row], given: Row) -> Any:
        return next((row for row in rows if given["include_deleted"] or row["deleted_at"] is None), None)

    def _update(self, table: str, rows: list[Row], given: Row) -> bool:
        expected = given.pop("if_status", None)
        changes: Row = given.pop("changes")
        if changes.keys() - CHANGES[table].__annotations__.keys():
            raise TypeError
        kept: Row = {}
        status = changes.get("status")
        if _in(status, ENDED_STATUSES):
            kept["completed_at"] = self._now()
        elif status is not None:
            changes.setdefault("completed_at", None)
            if _in(status, RUNNING_STATUSES) and table == "agents":
                kept["started_at"] = self._now()
        kept = {name: value for name, value in kept.items() if name not in changes}
        if changes and table != "prompts":
            changes.setdefault("updated_at", self._now())
        if expected is not None:
            self._value(table, "status", expected)
        rows = [row for row in rows if row["deleted_at"] is None and expected in (None, row.get("status"))]
        target = {**rows[0]} if rows else None
        new = {**(target or {}), **changes}
        new |= {name: value for name, value in kept.items() if new.get(name) is None}
        self._checked(table, new, changes, exists=bool(rows))
        if target is None:
            return False
        if changes.get("parent_agent_id") is not None and target["id"] in self._line(new["parent_agent_id"]):
            raise _MistakesError("InvalidValueError")
        rows[0].update({**new, **{name: check(table, name, new[name]) for name in kept}})
        return True

    def _line(self, agent_id: str | None) -> Iterator[str]:
        """The agent and its ancestors."""
        parents = {row["id"]: row["parent_agent_id"] for row in self._tables["agents"]}
        while agent_id is not None:
            yield agent_id
            agent_id = parents[agent_id]

    def _add(self, table: str, rows: list[Row], given: Row) -> bool:
        amounts = {"cost_usd": given.pop("usd")} if "usd" in given else given
        stored = {name: self._value(table, name, amount) for name, amount in amounts.items()}
        if None in stored.values():
            raise _MistakesError("InvalidValueError")
        rows = [row for row in rows if row["deleted_at"] is None]
        if not rows:
            return False
        sums = {name: (rows[0][name] or 0) + amount for name, amount in stored.items()}
        rows[0].update({name: self._value(table, name, value) for name, value in sums.items()})
        if "updated_at" in rows[0]:
            rows[0]["updated_at"] = check(table, "updated_at", self._now())
        return True

    def _delete(self, table: str, rows: list[Row], given: Row) -> bool:
        if given["soft"]:
            rows = [row for row in rows if row["deleted_at"] is None]
            for row in rows:
                row |= {name: check(table, name, self._now()) for name in ("deleted_at", "updated_at") if name in row}
        for row in [] if given["soft"] else rows:
            self._remove(table, row)
        return bool(rows)

    def _remove(self, table: str, row: Row) -> None:
        self._tables[table].remove(row)
        for child, column, parent in CHILDREN:
            for other in [other for other in self._tables[child] if parent == table and other[column] == row["id"]]:
                self._remove(child, other)
        for other in self._tables["agents"] if table == "agents" else ():
            if other["parent_agent_id"] == row["id"]:
                other["parent_agent_id"] = None
                self._touch(other)

    def _touch(self, row: Row) -> None:
        """A trigger moves ``updated_at`` when the parent goes; that time is the engine's own, and compares as none."""
        row["updated_at"] = None

    def _restore(self, table: str, rows: list[Row], given: Row) -> bool:
        rows = [row for row in rows if row["deleted_at"] is not None]
        for row in rows:
            row["deleted_at"] = None
            if "updated_at" in row:
                row["updated_at"] = check(table, "updated_at", self._now())
            if table == "orchestrator_agents" and self._taken(row):
                raise _MistakesError("DuplicateError")
        return bool(rows)

    # -- many rows ---------------------------------------------------------------------------------------------------

    def _list(self, table: str, operation: str, given: Row) -> list[Row]:
        limit, offset = given.pop("limit", None), given.pop("offset", 0)
        deleted = given.pop("include_deleted", False)
        window = {name: given.pop(name, None) for name in ("since", "until")}
        given.pop("after", None)
        newest_first = given.pop("newest_first", operation not in ("list_prompts", "get_agent_logs", "get_system_logs"))
        root, lowest = given.pop("root", False), given.pop("min_level", None)
        kinds: list[str] = []
        if any(value is not None and value < 0 for value in (limit, offset)):
            kinds.append("InvalidValueError")
        bounds = {name: self._try(table, "created_at", value, kinds) for name, value in window.items()}
        levels = LOG_LEVELS[LOG_LEVELS.index(lowest) :] if lowest in LOG_LEVELS else LOG_LEVELS
        if lowest not in (None, *LOG_LEVELS):
            kinds.append("InvalidValueError")
        filters: dict[str, list[Any]] = {}
        for name, value in given.items():
            if value is None and _required(operation, name):
                kinds.append("InvalidValueError")
            elif value is not None:
                filters[name] = self._values(table, name, value, kinds)
        if kinds:
            raise _MistakesError(*kinds)
        found = [
            row
            for row in self._tables[table]
            if all(self._compared(row, name) in values for name, values in filters.items())
            and row.get("log_level", levels[0]) in levels
            and (not root or row["parent_agent_id"] is None)
            and (deleted or row.get("deleted_at") is None)
            and (bounds["since"] is None or row["created_at"] >= bounds["since"])
            and (bounds["until"] is None or row["created_at"] < bounds["until"])
        ]
        found.sort(key=lambda row: (row["created_at"], row["id"]), reverse=newest_first)
        found = found[offset:]
        return found if limit is None else found[:limit]

    def _values(self, table: str, name: str, given: Any, kinds: list[str]) -> list[Any]:
        """The values that a filter is asked for; ids that no row has are as good as any."""
        several = list(given) if isinstance(given, (list, tuple)) else [given]
        if None in several:
            kinds.append("InvalidValueError")
        if name.endswith("_id") and name != "session_id":
            return several
        return [self._try("agents" if name == "session_id" else table, name, value, kinds) for value in several]

    def _compared(self, row: Row, name: str) -> Any:
        if name == "session_id" and "agent_id" in row:
            (row,) = [agent for agent in self._tables["agents"] if agent["id"] == row["agent_id"]]
        return row[name]

    def _prune(self, table: str, given: Row) -> int:
        kinds: list[str] = []
        level = given.get("log_level")
        if "days" in given:
            days = given["days"]
            if isinstance(days, (bool, str)) or not days >= 0:
                raise _MistakesError("InvalidValueError")
            try:
                before = self._now() - timedelta(days=days)
            except OverflowError:
                before = datetime.min.replace(tzinfo=UTC)
            bound = check("agent_logs", "created_at", before)
        else:
            bound = self._try("agent_logs", "created_at", given["before"], kinds)
            if given["before"] is None:
                kinds.append("InvalidValueError")
            level = None if level is None else self._try("agent_logs", "log_level", level, kinds)
        if kinds:
            raise _MistakesError(*kinds)
        deleted = 0
        for name in ("agent_logs", "system_logs"):
            kept = [
                row
                for row in self._tables[name]
                if bound is None or row["created_at"] >= bound or level not in (None, row["log_level"])
            ]
            deleted += len(self._tables[name]) - len(kept)
            self._tables[name] = kept
        return deleted

    # -- checks ------------------------------------------------------------------------------------------------------

    def _try(self, table: str, name: str, value: Any, kinds: list[str]) -> Any:
        if value is None:
            return None
        try:
            return check(table, name, value)
        except OrchdbError as error:
            kinds.append(type(error).__name__)
            return None

    def _value(self, table: str, name: str, value: Any) -> Any:
        try:
            return check(table, name, value)
        except OrchdbError as error:
            kind = type(error).__name__
        raise _MistakesError(kind)

    def _checked(self, table: str, row: Row, given: Mapping[str, Any], *, exists: bool = True) -> None:
        """Bring the given values of the row into the form in which they come back."""
        kinds: list[str] = []
        for name in given:
            if table in self._lines and name == "id":
                continue
            try:
                row[name] = check(table, name, row[name])
            except OrchdbError as error:
                kinds.append(type(error).__name__)
        for name, parent in PARENTS.get(table, {}).items():
            known = [other["id"] for other in self._tables[parent]]
            if exists and name in given and row[name] is not None and row[name] not in known:
                kinds.append("MissingParentError")
        if exists and table == "orchestrator_agents" and self._taken(row):
            kinds.append("DuplicateError")
        if kinds:
            raise _MistakesError(*kinds)

    def _taken(self, row: Row) -> bool:
        return any(
            other["name"] == row["name"] and other["id"] != row["id"] and other["deleted_at"] is None
            for other in self._tables["orchestrator_agents"]
        )


def _canonical(row_id: Any) -> str:
    try:
        return str(uuid.UUID(row_id))
    except (AttributeError, ValueError):
        raise _MistakesError("InvalidValueError") from None


def _moved(total: float, new: float, old: float) -> float:
    """The cost plus what another has grown by: exactly, as long as that is possible."""
    if max(abs(total) / 2, abs(new), abs(old)) < 2**21:
        return (round(total * 1e9) + round(new * 1e9) - round(old * 1e9)) / 1e9
    moved = total + (new - old)
    return moved if math.isfinite(moved) else total


def _bound(operation: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Row:
    """The parameters of the operation by name, with their defaults."""
    bound = inspect.signature(getattr(DatabaseManager, operation)).bind(None, *arguments, **options)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[1:])


def _names_nothing(step: Step) -> bool:
    ids = [*step.arguments, *step.options.values()]
    return any(isinstance(value, str) and value in ("nul\0", "\ud800") for value in ids)


def _required(operation: str, name: str) -> bool:
    parameter = inspect.signature(getattr(DatabaseManager, operation)).parameters[name]
    return parameter.default is parameter.empty


def _in(value: Any, words: Collection[str]) -> bool:
    return isinstance(value, str) and value in words


def _table_of(step: Step) -> str:
    operation = step.arguments[0] if step.operation == "pages" else step.operation
    if operation in ("prune", "cleanup_old_logs"):
        return "agent_logs"
    for name in sorted(PLURALS, key=len, reverse=True):
        if f"_{name}" in operation:
            return PLURALS[name]
    return "agent_logs"

"""Usage as Python sums it up from the rows, one by one, with exact fractions: what the engines are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from orchdb import AgentRow, DatabaseManager, PromptRow

NANO = Decimal("1e-9")
Row = dict[str, Any]


def dollars(value: float | None) -> Decimal:
    """The cost, exactly as its nine digits say."""
    return Decimal(0) if value is None else Decimal(value).quantize(NANO)


class Model:
    """All rows of a database, and the sums over them."""

    def __init__(self, agents: Sequence[AgentRow], prompts: Sequence[PromptRow], names: Mapping[str, str]) -> None:
        self.agents = {row["id"]: row for row in agents}
        self.prompts = prompts
        self.names = names

    @classmethod
    async def of(cls, db: DatabaseManager) -> Model:
        """What is in the database now."""
        definitions = await db.list_orchestrator_agents(include_deleted=True)
        return cls(
            await db.list_agents(include_deleted=True),
            await db.list_prompts(include_deleted=True),
            {row["id"]: row["name"] for row in definitions},
        )

    def line(self, agent_id: str | None) -> list[str]:
        """The agent and everyone above it."""
        found: list[str] = []
        while agent_id is not None and agent_id in self.agents and agent_id not in found:
            found.append(agent_id)
            agent_id = self.agents[agent_id]["parent_agent_id"]
        return found

    def usage(self, group_by: Sequence[str], *, percentiles: bool = False, **filters: Any) -> list[Row]:
        """The rows that ``DatabaseManager.usage`` is to give."""
        groups: dict[tuple[Any, ...], list[PromptRow]] = {}
        beyond: dict[tuple[Any, ...], Decimal] = {}
        keep_deleted = filters.get("include_deleted", False)
        zone: Any = UTC if filters.get("tz", "UTC") == "UTC" else ZoneInfo(filters["tz"])
        for agent in self.agents.values():
            if not self._has(agent, filters) or (agent["deleted_at"] and not keep_deleted):
                continue
            own = [row for row in self.prompts if row["agent_id"] == agent["id"]]
            own = [row for row in own if keep_deleted or not row["deleted_at"]]
            for row in own:
                if not _is_among(row["model_used"], filters.get("model_used")) or not _between(row, filters):
                    continue
                groups.setdefault(self._group(group_by, agent, row, zone), []).append(row)
            more = dollars(agent["cost_usd"]) - sum((dollars(row["cost_usd"]) for row in own), Decimal(0))
            if more > 0 and "model_used" not in filters and _between(agent, filters):
                group = self._group(group_by, agent, None, zone)
                beyond[group] = beyond.get(group, Decimal(0)) + more
                groups.setdefault(group, [])
        if not group_by:
            groups.setdefault((), [])
        rows = [self._row(group_by, key, groups[key], beyond.get(key, Decimal(0)), percentiles) for key in groups]
        return sorted(rows, key=_order(group_by))[: filters.get("limit")]

    def _has(self, agent: AgentRow, filters: Mapping[str, Any]) -> bool:
        if not _is_among(agent["session_id"], filters.get("session_id")):
            return False
        if not _is_among(agent["orchestrator_agent_id"], filters.get("orchestrator_agent_id")):
            return False
        chosen = self.line(agent["id"]) if filters.get("subtree") else [agent["id"]]
        return any(_is_among(one, filters.get("agent_id")) for one in chosen)

    def _group(self, group_by: Sequence[str], agent: AgentRow, prompt: PromptRow | None, zone: Any) -> tuple[Any, ...]:
        created = (prompt or agent)["created_at"]
        there = datetime.fromisoformat(created).replace(tzinfo=UTC).astimezone(zone)
        known = {
            "session": agent["session_id"],
            "agent": agent["id"],
            "definition": agent["orchestrator_agent_id"],
            "model": prompt and prompt["model_used"],
            "prompt_type": prompt and prompt["prompt_type"],
            "status": prompt and prompt["status"],
            "day": there.date().isoformat(),
            "hour": there.isoformat()[:13] + ":00",
        }
        return tuple(known[key] for key in group_by)

    def _row(
        self,
        group_by: Sequence[str],
        group: tuple[Any, ...],
        prompts: Sequence[PromptRow],
        beyond: Decimal,
        percentiles: bool,
    ) -> Row:
        row: Row = dict(zip(group_by, group, strict=True))
        if "definition" in row:
            row["definition_name"] = self.names[row["definition"]]
        latencies = sorted(prompt["latency_ms"] for prompt in prompts if prompt["latency_ms"] is not None)
        row["prompts"] = len(prompts)
        row["failed"] = sum(prompt["status"] == "failed" for prompt in prompts)
        row["unpriced"] = sum(prompt["cost_usd"] is None for prompt in prompts)
        row["tokens_input"] = sum(prompt["tokens_input"] or 0 for prompt in prompts)
        row["tokens_output"] = sum(prompt["tokens_output"] or 0 for prompt in prompts)
        row["tokens_cache_read"] = sum(prompt["tokens_cache_read"] or 0 for prompt in prompts)
        row["tokens_cache_write"] = sum(prompt["tokens_cache_write"] or 0 for prompt in prompts)
        row["cost_usd"] = float(sum((dollars(prompt["cost_usd"]) for prompt in prompts), beyond))
        row["unattributed_usd"] = float(beyond)
        row["latency_ms_mean"] = sum(latencies) / len(latencies) if latencies else None
        row["latency_ms_max"] = max(latencies, default=None)
        for share in (50, 90, 95, 99) if percentiles else ():
            place = math.ceil(share * len(latencies) / 100) - 1
            row[f"latency_ms_p{share}"] = latencies[place] if latencies else None
        row["first_at"] = min((prompt["created_at"] for prompt in prompts), default=None)
        row["last_at"] = max((prompt["created_at"] for prompt in prompts), default=None)
        return row


def _is_among(value: str | None, wanted: str | Sequence[str] | None) -> bool:
    if wanted is None:
        return True
    return value == wanted if isinstance(wanted, str) else value in wanted


def _between(row: Any, filters: Mapping[str, Any]) -> bool:
    created: str = row["created_at"]
    return bool(filters.get("since", "") <= created < filters.get("until", "9999"))


def _order(group_by: Sequence[str]) -> Callable[[Row], Any]:
    def order(row: Row) -> Any:
        times = tuple(row[key] for key in group_by if key in ("day", "hour"))
        names = tuple((row[key] is None, row[key] or "") for key in group_by)
        return times, -dollars(row["cost_usd"]), names

    return order

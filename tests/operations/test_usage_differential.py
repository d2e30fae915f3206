"""Usage and trees against a sum in Python, on random histories: both engines and all drivers, to the last digit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from orchdb import AgentNode, DatabaseManager
from tests.support.usage_model import Model

KEYS = ("session", "agent", "definition", "model", "prompt_type", "status", "day", "hour")
# Where the clocks are set at night and at midnight, by half an hour, and where the zone itself is off by quarters.
ZONES = (
    *("UTC", "Europe/Berlin", "Asia/Beirut", "America/Sao_Paulo", "Australia/Lord_Howe"),
    *("America/St_Johns", "Asia/Kathmandu", "Pacific/Chatham", "Africa/Casablanca", "Pacific/Apia"),
)
MODELS = ("claude-sonnet-4-5", "gpt-5", "größer", None)
COSTS = (0.0, None, 0.1, 0.2, 1e-9, 0.000000003, 123.456789012, 1234567.000000001, 3.0)
# The nights in which Europe (and Beirut) leave summer time and come to it, and Lord Howe and Brazil did: of 25, 23, 24½
# and again 23 hours.
STARTS = (
    datetime(2025, 10, 25, 16, tzinfo=UTC),
    datetime(2026, 3, 28, 18, tzinfo=UTC),
    datetime(2026, 4, 4, 8, tzinfo=UTC),
    datetime(2018, 11, 3, 20, tzinfo=UTC),
)


async def history(db: DatabaseManager, chance: random.Random) -> None:
    """Agents in random trees over several sessions, with prompts that come, end, are corrected, go and come back."""
    definitions = [await db.create_orchestrator_agent(name) for name in ("scout", "builder", "Prüfer")]
    agents: list[str] = []
    for _ in range(chance.randrange(5, 14)):
        parent = chance.choice(agents) if agents and chance.random() < 0.7 else None
        session = f"session-{chance.randrange(3)}"
        cost = chance.choice((0.0, 0.0, None, 0.7, 5.000000001))
        agents.append(
            await db.create_agent(chance.choice(definitions), session, parent, cost_usd=cost, created_at=moment(chance))
        )
    prompts = [
        await db.create_prompt(
            chance.choice(agents),
            chance.choice(("adw", "command")),
            "Do it",
            model_used=chance.choice(MODELS),
            created_at=moment(chance),
            cost_usd=chance.choice((0.0, None)),
        )
        for _ in range(chance.randrange(20, 60))
    ]
    for _ in range(150):
        await step(db, chance, agents, prompts, chance.choice(definitions))


def moment(chance: random.Random) -> datetime:
    """A time in one of the nights, every other one where an hour begins, or right before."""
    time = chance.choice(STARTS) + timedelta(microseconds=chance.randrange(16 * 3600 * 10**6))
    if chance.random() < 0.5:
        return time
    quarter = time.replace(minute=15 * (time.minute // 15), second=0, microsecond=0)
    return quarter - timedelta(microseconds=chance.randrange(2))


async def step(
    db: DatabaseManager, chance: random.Random, agents: list[str], prompts: list[str], definition: str
) -> None:
    prompt, agent = chance.choice(prompts), chance.choice(agents)
    kind = chance.random()
    if kind < 0.6:
        await db.complete_prompt(
            prompt,
            "Done",
            status=chance.choice(("completed", "completed", "failed", "cancelled")),
            tokens_input=chance.choice((None, 0, 17, 10**12)),
            tokens_output=chance.choice((None, 3)),
            tokens_cache_read=chance.choice((None, 100)),
            tokens_cache_write=chance.choice((None, 7)),
            cost_usd=chance.choice(COSTS),
            latency_ms=chance.choice((None, 0, 10, 20, 999)),
        )
    elif kind < 0.7:
        await db.add_agent_cost(agent, chance.choice((0.25, 1e-9)))
    elif kind < 0.75:
        await db.update_prompt(prompt, cost_usd=chance.choice(COSTS))
    elif kind < 0.85:
        await db.delete_prompt(prompt, soft=chance.random() < 0.8)
    elif kind < 0.9:
        await db.restore_prompt(prompt)
    elif kind < 0.94:
        await db.delete_agent(agent, soft=True)
    elif kind < 0.95:
        await db.delete_orchestrator_agent(definition, soft=True)
    elif kind < 0.96:
        await db.restore_orchestrator_agent(definition)
    else:
        await db.restore_agent(agent)


def questions(chance: random.Random, model: Model) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """What may be asked: every pair of groups, and random filters."""
    groups: list[tuple[str, ...]] = [(), *((key,) for key in KEYS), *combinations(KEYS, 2)]
    groups += [tuple(chance.sample(KEYS, 3)) for _ in range(5)]
    agents = [*model.agents.values()]
    several = [row["id"] for row in chance.sample(agents, 3)]
    # Bounds that are times of rows: what is from then on, and what is before.
    times = sorted(row["created_at"] for row in (*agents, *model.prompts))
    early, late = sorted(chance.sample(times, 2))
    filters: list[dict[str, Any]] = [
        {},
        {"since": early},
        {"until": late},
        {"since": early, "until": late, "model_used": ("größer", "gpt-5")},
        {"since": early, "until": late, "agent_id": several, "subtree": True},
        {"session_id": ("session-1", "session-2"), "agent_id": several},
        {"session_id": "session-1"},
        {"agent_id": chance.choice(agents)["id"]},
        {"agent_id": chance.choice(agents)["id"], "subtree": True},
        {"agent_id": agents[-1]["id"], "subtree": True, "session_id": "session-0"},
        {"orchestrator_agent_id": chance.choice(agents)["orchestrator_agent_id"]},
        {"model_used": "gpt-5"},
        {"since": "2025-10-26T00:30:00.000000", "until": "2026-03-29T01:00:00.000000"},
        {"since": "2025-10-26T00:30:00.000000", "session_id": "session-2"},
    ]
    for group in groups:
        found = {**chance.choice(filters), "tz": chance.choice(ZONES)}
        found |= {"percentiles": chance.random() < 0.3, "include_deleted": chance.random() < 0.2}
        yield group, found | ({"limit": chance.randrange(4)} if chance.random() < 0.1 else {})


def flat(nodes: list[AgentNode]) -> Iterator[AgentNode]:
    for node in nodes:
        yield node
        yield from flat(node["children"])


@pytest.mark.parametrize("seed", range(4))
async def test_usage_is_what_python_sums_up(db: DatabaseManager, seed: int) -> None:
    chance = random.Random(seed)
    await history(db, chance)
    model = await Model.of(db)
    for group, filters in questions(chance, model):
        found: list[Any] = await db.usage(group, **filters)  # type: ignore[arg-type]
        assert found == model.usage(group, **filters), (group, filters)


@pytest.mark.parametrize("seed", range(4, 7))
async def test_each_agent_of_a_tree_has_its_own_usage_and_that_of_all_below_it(db: DatabaseManager, seed: int) -> None:
    chance = random.Random(seed)
    await history(db, chance)
    model = await Model.of(db)
    for agent in model.agents:
        for deleted in (False, True):
            for node in flat(await db.agent_tree(agent_id=agent, include_deleted=deleted)):
                one: dict[str, Any] = {"agent_id": node["id"], "include_deleted": deleted}
                assert [node["usage"]] == model.usage((), **one)
                assert [node["subtree_usage"]] == model.usage((), subtree=True, **one)


@pytest.mark.parametrize("seed", range(7, 10))
async def test_the_trees_of_a_session_cost_what_the_session_costs(db: DatabaseManager, seed: int) -> None:
    chance = random.Random(seed)
    await history(db, chance)
    for session in ("session-0", "session-1", "session-2", "none"):
        roots = await db.agent_tree(session_id=session)
        (total,) = await db.usage((), session_id=session)
        assert round(sum(root["subtree_usage"]["cost_usd"] for root in roots), 6) == round(total["cost_usd"], 6)
        assert sum(root["subtree_usage"]["prompts"] for root in roots) == total["prompts"]
        shown = [node["id"] for node in flat(roots)]
        assert sorted(shown) == sorted(row["id"] for row in await db.list_agents(session))

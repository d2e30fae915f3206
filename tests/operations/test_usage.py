"""Usage: what is counted where, what is refused, and trees of any shape."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest

from orchdb import AgentNode, DatabaseManager, InvalidValueError
from tests.support.databases import NO_ROW, call, line_of, other_program, run_elsewhere

NOTHING: dict[str, Any] = {
    "prompts": 0,
    "failed": 0,
    "unpriced": 0,
    "tokens_input": 0,
    "tokens_output": 0,
    "tokens_cache_read": 0,
    "tokens_cache_write": 0,
    "cost_usd": 0.0,
    "unattributed_usd": 0.0,
    "latency_ms_mean": None,
    "latency_ms_max": None,
    "first_at": None,
    "last_at": None,
}


async def asked(db: DatabaseManager, agent_id: str, usd: float | None, model: str = "large", **values: Any) -> str:
    """A prompt that has been completed, with its cost counted at its agent."""
    created = {name: values.pop(name) for name in ("created_at", "prompt_type") if name in values}
    kind = created.pop("prompt_type", "command")
    prompt = await db.create_prompt(agent_id, kind, "Do it", model_used=model, cost_usd=None, **created)
    await db.complete_prompt(prompt, "Done", cost_usd=usd, **values)
    return prompt


async def test_the_total_of_nothing_is_one_row_and_its_groups_are_none(db: DatabaseManager) -> None:
    assert await db.usage(()) == [NOTHING]
    assert await db.usage((), agent_id="no id") == [NOTHING]
    assert await db.usage((), agent_id=NO_ROW, subtree=True) == [NOTHING]
    assert await db.usage() == []
    assert await db.usage(("day", "model"), percentiles=True) == []
    assert await db.agent_tree("nobody's") == []
    assert await db.agent_tree(agent_id="no id") == []


async def test_an_agent_without_prompts_and_costs_is_no_group(db: DatabaseManager, agent_id: str) -> None:
    assert await db.usage("agent") == []


async def test_every_figure_is_of_the_prompts_of_the_group(db: DatabaseManager, agent_id: str) -> None:
    await asked(db, agent_id, 0.1, tokens_input=10, tokens_output=2, latency_ms=100, created_at="2026-01-01")
    await asked(db, agent_id, 0.2, tokens_cache_read=30, tokens_cache_write=4, created_at="2026-01-02")
    await asked(db, agent_id, None, status="failed", latency_ms=201, created_at="2026-01-03")
    assert await db.usage() == [
        {
            "session": "session-1",
            "prompts": 3,
            "failed": 1,
            "unpriced": 1,
            "tokens_input": 10,
            "tokens_output": 2,
            "tokens_cache_read": 30,
            "tokens_cache_write": 4,
            "cost_usd": 0.3,
            "unattributed_usd": 0.0,
            "latency_ms_mean": 150.5,
            "latency_ms_max": 201,
            "first_at": "2026-01-01T00:00:00.000000",
            "last_at": "2026-01-03T00:00:00.000000",
        }
    ]


async def test_money_is_exact_where_floats_are_not(db: DatabaseManager, agent_id: str) -> None:
    for _ in range(30):
        await asked(db, agent_id, 0.1)
    await asked(db, agent_id, 1e-9)
    (total,) = await db.usage(())
    assert total["cost_usd"] == 3.000000001
    assert reduce(add, [0.1] * 30) != 3.0


async def test_what_an_agent_carries_beyond_its_prompts_is_unattributed_and_has_no_model(
    db: DatabaseManager, agent_id: str
) -> None:
    await asked(db, agent_id, 0.5)
    await db.add_agent_cost(agent_id, 0.25)
    (session,) = await db.usage()
    assert (session["cost_usd"], session["unattributed_usd"]) == (0.75, 0.25)
    by_model = await db.usage("model")
    assert [(row["model"], row["cost_usd"], row["unattributed_usd"], row["prompts"]) for row in by_model] == [
        ("large", 0.5, 0.0, 1),
        (None, 0.25, 0.25, 0),
    ]
    (only,) = await db.usage((), model_used="large")
    assert (only["cost_usd"], only["unattributed_usd"]) == (0.5, 0.0)


async def test_an_agent_that_carries_less_than_its_prompts_costs_what_they_cost(
    db: DatabaseManager, agent_id: str
) -> None:
    await db.create_prompt(agent_id, "command", "Copied", cost_usd=2.0)
    (total,) = await db.usage(())
    assert (total["cost_usd"], total["unattributed_usd"]) == (2.0, 0.0)


async def test_however_it_is_grouped_it_adds_up_to_the_same(db: DatabaseManager) -> None:
    agents = await line_of(db, 4)
    for number, agent in enumerate(agents):
        await asked(db, agent, 0.1 * number, f"model-{number % 2}", prompt_type=f"kind-{number % 3}")
        await db.add_agent_cost(agent, 0.01)
    (total,) = await db.usage(())
    assert total["cost_usd"] == 0.64
    for key in ("session", "agent", "definition", "model", "prompt_type", "status", "day", "hour"):
        rows: list[Any] = await call(db, "usage", (key, "agent"), tz="Asia/Tokyo")
        assert round(sum(row["cost_usd"] for row in rows), 9) == 0.64
        assert sum(row["prompts"] for row in rows) == 4


async def test_the_dearest_comes_first_and_days_come_in_time(db: DatabaseManager, agent_id: str) -> None:
    for day, usd, model in ((1, 1.0, "b"), (2, 5.0, "a"), (3, 2.0, "b"), (3, 3.0, "a")):
        await asked(db, agent_id, usd, model, created_at=f"2026-01-0{day}T12:00:00")
    await db.update_agent(agent_id, cost_usd=0.0)
    assert [row["model"] for row in await db.usage("model")] == ["a", "b"]
    days: list[Any] = await db.usage(("model", "day"))
    assert [(row["day"], row["model"]) for row in days] == [
        ("2026-01-01", "b"),
        ("2026-01-02", "a"),
        ("2026-01-03", "a"),
        ("2026-01-03", "b"),
    ]
    assert await db.usage(("model", "day"), limit=2) == days[:2]
    assert await db.usage("model", limit=0) == []


async def test_days_and_hours_are_those_of_the_zone_also_of_23_and_25_hours(db: DatabaseManager, agent_id: str) -> None:
    for time in (
        *("2025-10-25T21:59:59.999999", "2025-10-25T22:00:00", "2025-10-26T00:30:00", "2025-10-26T01:30:00"),
        *("2025-10-26T22:59:59.999999", "2025-10-26T23:00:00"),  # a day of 25 hours, and two hours of one name
        *("2026-03-28T22:59:59", "2026-03-28T23:00:00", "2026-03-29T21:59:59", "2026-03-29T22:00:00"),  # 23
    ):
        await asked(db, agent_id, 0.0, created_at=time)
    days: list[Any] = await db.usage("day", tz="Europe/Berlin")
    assert {row["day"]: row["prompts"] for row in days} == {
        "2025-10-25": 1,
        "2025-10-26": 4,
        "2025-10-27": 1,
        "2026-03-28": 1,
        "2026-03-29": 2,
        "2026-03-30": 1,
    }
    hours: list[Any] = await db.usage("hour", tz="Europe/Berlin", until="2025-10-26T12:00:00")
    assert [(row["hour"], row["prompts"]) for row in hours] == [
        ("2025-10-25T23:00", 1),
        ("2025-10-26T00:00", 1),
        ("2025-10-26T02:00", 2),
    ]
    quarters: list[Any] = await db.usage("hour", tz="Asia/Kathmandu", until="2025-10-25T23:00:00")
    assert [row["hour"] for row in quarters] == ["2025-10-26T03:00"]


@pytest.mark.parametrize(
    ("zone", "times"),
    [
        # Clocks that were set a minute after midnight, back into the day before, and on by an hour or by three.
        ("America/St_Johns", {"2010-11-07T02:30:59": "2010-11-07T00:00", "2010-11-07T02:31:00": "2010-11-06T23:00"}),
        ("America/St_Johns", {"2010-03-14T03:30:59": "2010-03-14T00:00", "2010-03-14T03:31:00": "2010-03-14T01:00"}),
        ("Antarctica/Casey", {"2020-10-03T16:00:59": "2020-10-04T00:00", "2020-10-03T16:01:00": "2020-10-04T03:00"}),
        # 44 minutes and 30 seconds behind UTC.
        ("Africa/Monrovia", {"1970-01-02T00:44:29": "1970-01-01T23:00", "1970-01-02T00:44:30": "1970-01-02T00:00"}),
    ],
)
async def test_days_and_hours_of_a_zone_are_its_own_where_they_begin_within_a_quarter_of_an_hour(
    db: DatabaseManager, agent_id: str, zone: str, times: dict[str, str]
) -> None:
    for time in times:
        await asked(db, agent_id, 0.0, created_at=time)
    hours: list[Any] = await db.usage(("hour", "model"), tz=zone, percentiles=True)
    assert [row["hour"] for row in hours] == sorted(times.values())
    days: list[Any] = await db.usage("day", tz=zone)
    assert [row["day"] for row in days] == sorted({time[:10] for time in times.values()})


async def test_percentiles_are_latencies_that_there_are(db: DatabaseManager, agent_id: str) -> None:
    for latency in range(1, 21):
        await asked(db, agent_id, 0.0, latency_ms=latency * 10)
    await asked(db, agent_id, 0.0)
    await asked(db, agent_id, 0.0, "slow")
    rows: list[Any] = await db.usage("model", percentiles=True)
    found = {row["model"]: [row[f"latency_ms_p{share}"] for share in (50, 90, 95, 99)] for row in rows}
    assert found == {"large": [100, 180, 190, 200], "slow": [None] * 4}


async def test_percentiles_change_no_other_figure(db: DatabaseManager, agent_id: str) -> None:
    for latency in (7, 7, 12, None, 0):
        await asked(db, agent_id, 0.1, tokens_input=3, latency_ms=latency)
        await asked(db, agent_id, None, "slow", status="failed")
    await db.update_agent(agent_id, cost_usd=2.0)
    for keys in ((), ("model",), ("session", "status"), ("agent",), ("day", "model")):
        plain: list[Any] = await call(db, "usage", keys)
        told: list[Any] = await call(db, "usage", keys, percentiles=True)
        assert [{name: row[name] for name in plain[0]} for row in told] == plain


async def test_what_was_deleted_softly_is_left_out_unless_it_is_asked_for(db: DatabaseManager, agent_id: str) -> None:
    kept, gone = await asked(db, agent_id, 0.5), await asked(db, agent_id, 0.25)
    await db.delete_prompt(gone, soft=True)
    await db.update_agent(agent_id, cost_usd=0.5)
    assert [(row["prompts"], row["cost_usd"]) for row in await db.usage("model")] == [(1, 0.5)]
    assert [(row["prompts"], row["cost_usd"]) for row in await db.usage("model", include_deleted=True)] == [(2, 0.75)]
    await db.delete_agent(agent_id, soft=True)
    for key in ("session", "model", "agent", "day"):
        assert await call(db, "usage", key) == []
    assert await db.agent_tree("session-1") == []
    (node,) = await db.agent_tree("session-1", include_deleted=True)
    assert node["usage"]["prompts"] == 2
    await db.restore_agent(agent_id)
    await db.restore_prompt(gone)
    assert [row["prompts"] for row in await db.usage("model")] == [2]
    assert kept


async def test_filters_take_one_or_several_and_a_subtree_has_all_below(db: DatabaseManager) -> None:
    agents = await line_of(db, 3)
    for number, agent in enumerate(agents):
        await asked(db, agent, 2.0**number, f"model-{number}")
    await db.update_agent(agents[2], session_id="session-2")
    total = await db.usage((), agent_id=agents[1], subtree=True)
    assert total[0]["cost_usd"] == 6.0
    assert (await db.usage((), agent_id=agents[1], subtree=True, session_id="session-1"))[0]["cost_usd"] == 2.0
    assert (await db.usage((), agent_id=[agents[0], agents[2]]))[0]["cost_usd"] == 5.0
    assert (await db.usage((), agent_id=(agents[1], agents[2]), subtree=True))[0]["cost_usd"] == 6.0
    assert (await db.usage((), model_used=["model-0", "model-1"]))[0]["cost_usd"] == 3.0
    assert (await db.usage((), session_id=["session-1", "session-2"]))[0]["cost_usd"] == 7.0
    assert (await db.usage((), orchestrator_agent_id=NO_ROW))[0]["cost_usd"] == 0.0


async def test_one_transaction_sees_its_own_usage(db: DatabaseManager, agent_id: str) -> None:
    async with db.transaction() as tx:
        await tx.create_prompt(agent_id, "command", "In here", cost_usd=1.0)
        assert (await tx.usage(()))[0]["cost_usd"] == 1.0
        assert (await tx.agent_tree(agent_id=agent_id))[0]["usage"]["cost_usd"] == 1.0


@pytest.mark.spread
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"group_by": "month"}, "group_by: must be any of session, agent, definition, model, prompt_type, status, day"),
        ({"group_by": ("day", 5)}, "group_by: must be any of"),
        ({"group_by": 5}, "group_by: must be any of"),
        ({"group_by": None}, "group_by: must be any of"),
        ({"tz": "Mars/Olympus"}, "tz: must be the IANA name"),
        ({"tz": ""}, "tz: must be the IANA name"),
        ({"tz": "../../etc/passwd"}, "tz: must be the IANA name"),
        ({"tz": "Europe"}, "tz: must be the IANA name"),
        ({"tz": None}, "tz: must be the IANA name"),
        ({"subtree": True}, "subtree: needs an agent_id"),
        ({"subtree": "yes"}, "subtree: must be True or False"),
        ({"percentiles": 1}, "percentiles: must be True or False"),
        ({"limit": -1}, "limit: must be a whole number"),
        ({"since": "yesterday"}, "since: must be a datetime"),
        ({"session_id": ("a", None)}, r"agents.session_id\[1\]: must not be None"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    db: DatabaseManager, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidValueError, match=said) as refused:
        await call(db, "usage", **arguments)
    assert refused.value.operation == "usage"


@pytest.mark.parametrize("arguments", [{}, {"session_id": "s", "agent_id": "a"}])
async def test_a_tree_is_of_a_session_or_of_an_agent(db: DatabaseManager, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="give either session_id or agent_id"):
        await call(db, "agent_tree", **arguments)


def ids(nodes: list[AgentNode]) -> list[Any]:
    """The shape of a tree."""
    return [(node["id"], ids(node["children"])) for node in nodes]


async def test_a_tree_has_the_rows_of_agents_their_names_and_their_children_oldest_first(db: DatabaseManager) -> None:
    scout = await db.create_orchestrator_agent("scout")
    root = await db.create_agent(scout, "session-1", context={"goal": "a"}, created_at="2026-01-01")
    late = await db.create_agent(scout, "session-1", root, created_at="2026-01-03")
    early = await db.create_agent(scout, "session-1", root, created_at="2026-01-02")
    elsewhere = await db.create_agent(scout, "session-2", early, created_at="2026-01-04")
    back = await db.create_agent(scout, "session-1", elsewhere, created_at="2026-01-05")
    for number, agent in enumerate((root, late, early, elsewhere, back)):
        await asked(db, agent, 10.0**number)
    tree = await db.agent_tree("session-1")
    assert ids(tree) == [(root, [(early, []), (late, [])]), (back, [])]
    assert ids(await db.agent_tree(agent_id=early)) == [(early, [(elsewhere, [(back, [])])])]
    top: dict[str, Any] = {**tree[0]}
    assert {name: top[name] for name in ("definition_name", "context")} == {
        "definition_name": "scout",
        "context": {"goal": "a"},
    }
    row = await db.get_agent(root)
    assert {name: value for name, value in top.items() if name in (row or {})} == row
    assert (top["usage"]["cost_usd"], top["subtree_usage"]["cost_usd"]) == (1.0, 111.0)
    json.dumps(tree)


async def test_who_is_below_a_hidden_agent_stands_below_the_next_one_above(db: DatabaseManager) -> None:
    agents = await line_of(db, 4)
    for agent in agents:
        await asked(db, agent, 1.0)
    await db.delete_agent(agents[1], soft=True)
    await db.delete_agent(agents[2], soft=True)
    tree = await db.agent_tree("session-1")
    assert ids(tree) == [(agents[0], [(agents[3], [])])]
    assert tree[0]["subtree_usage"]["cost_usd"] == 2.0
    assert tree[0]["subtree_usage"] == (await db.usage((), agent_id=agents[0], subtree=True))[0]
    await db.delete_agent(agents[0], soft=True)
    assert ids(await db.agent_tree("session-1")) == [(agents[3], [])]
    assert ids(await db.agent_tree(agent_id=agents[0])) == [(agents[3], [])]


async def test_another_programs_circle_is_shown_once_and_ends(db: DatabaseManager, target: Any) -> None:
    agents = await line_of(db, 3)
    run_elsewhere(target.url, f"UPDATE agents SET parent_agent_id = '{agents[2]}' WHERE id = '{agents[0]}'")
    line: Any = [(agents[0], [(agents[1], [(agents[2], [])])])]
    assert ids(await db.agent_tree("session-1")) == line
    assert ids(await db.agent_tree(agent_id=agents[1])) == [(agents[1], [(agents[2], [(agents[0], [])])])]
    for agent in agents:
        await asked(db, agent, 1.0)
    assert (await db.usage((), agent_id=agents[1], subtree=True))[0]["cost_usd"] == 3.0


async def test_a_circle_is_cut_above_its_oldest_agent_wherever_one_comes_into_it(
    db: DatabaseManager, target: Any
) -> None:
    below, oldest, other = await line_of(db, 3)
    for agent, parent in ((below, other), (oldest, other), (other, oldest)):
        run_elsewhere(target.url, f"UPDATE agents SET parent_agent_id = '{parent}' WHERE id = '{agent}'")
    assert ids(await db.agent_tree("session-1")) == [(oldest, [(other, [(below, [])])])]


@pytest.mark.parametrize("shape", ["deep", "wide"])
async def test_a_tree_of_ten_thousand_agents_deep_or_wide(tmp_path: Path, shape: str) -> None:
    async with DatabaseManager(tmp_path / "x.db") as db:
        definition = await db.create_orchestrator_agent("scout")
        names = [f"01900000-0000-7000-8000-{number:012x}" for number in range(10_000)]
        with other_program(tmp_path / "x.db") as other:
            other.execute("BEGIN")
            for number, name in enumerate(names):
                parent = None if number == 0 else names[number - 1 if shape == "deep" else 0]
                other.execute(
                    "INSERT INTO agents (id, orchestrator_agent_id, session_id, parent_agent_id, cost_usd) "
                    "VALUES (?, ?, 's', ?, 0.1)",
                    (name, definition, parent),
                )
            other.execute("COMMIT")
        for tree in (await db.agent_tree("s"), await db.agent_tree(agent_id=names[0])):
            assert [node["id"] for node in tree] == names[:1]
            assert tree[0]["subtree_usage"]["cost_usd"] == 1000.0
            depth, level = 0, tree
            while level:
                depth, level = depth + 1, level[0]["children"]
            assert depth == (10_000 if shape == "deep" else 2)
        total = await db.usage((), agent_id=names[0], subtree=True)
        assert total[0]["cost_usd"] == 1000.0


async def test_what_another_program_wrote_breaks_no_sum(tmp_path: Path) -> None:
    async with DatabaseManager(tmp_path / "x.db") as db:
        definition = await db.create_orchestrator_agent("scout")
        agent = await db.create_agent(definition, "s")
        prompts = [await db.create_prompt(agent, "command", "x", cost_usd=1.0, tokens_input=2) for _ in range(4)]
        with other_program(tmp_path / "x.db") as other:
            other.execute("UPDATE prompts SET cost_usd = 'dear', tokens_input = 'many' WHERE id = ?", prompts[:1])
            other.execute("UPDATE prompts SET cost_usd = 9e999, latency_ms = 1.5 WHERE id = ?", prompts[1:2])
            other.execute("UPDATE prompts SET created_at = '11/12/2026' WHERE id = ?", prompts[2:3])
        for key in ((), "session", "model", "day", ("hour", "agent"), "status"):
            rows: list[Any] = await call(db, "usage", key, percentiles=True, tz="Europe/Berlin")
            assert (sum(row["cost_usd"] for row in rows), sum(row["tokens_input"] for row in rows)) == (2.0, 6)
            json.dumps(rows)
        days: list[Any] = await db.usage("day")
        assert [row["prompts"] for row in days if row["day"] is None] == [1]


async def test_more_groups_than_a_portion_of_a_list_come_in_one_piece(db: DatabaseManager) -> None:
    definition = await db.create_orchestrator_agent("scout")
    agent = await db.create_agent(definition, "session-1")
    times = [f"2026-01-{1 + number // 24:02}T{number % 24:02}:00:00" for number in range(600)]
    await db.create_prompts(
        [
            {"agent_id": agent, "prompt_type": "command", "prompt_text": "x", "created_at": time, "cost_usd": 0.5}
            for time in times
        ]
    )
    rows: list[Any] = await db.usage("hour")
    assert [row["hour"] for row in rows] == [f"{time[:13]}:00" for time in times]
    assert {row["cost_usd"] for row in rows} == {0.5}

"""``orchdb usage``, ``tree`` and ``reprice``: totals that add up, at 80 columns, for ``awk`` and for programs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from decimal import Decimal
from typing import Any

import pytest

from orchdb import DatabaseManager, UsageRow
from orchdb.cli.amounts import bar, compact, digits, dollars
from orchdb.cli.output import Output
from orchdb.cli.tree import _lines
from orchdb.operations.agent_trees import nested
from tests.cli.conftest import Recorded
from tests.support.command_line import done, refused, run


def objects(*arguments: str) -> list[Any]:
    """What a command writes for programs: one object a line."""
    return [json.loads(line) for line in done(*arguments, "--json").splitlines()]


def test_usage_for_programs_has_the_rows_of_the_library(recorded: Recorded) -> None:
    rows = objects("usage", "--db", recorded.url)
    assert [(row["session"], row["cost_usd"], row["unattributed_usd"]) for row in rows] == [
        ("now", 1.5, 0.0),
        ("before", 0.25, 0.25),
    ]
    assert rows[0].keys() - {"session"} == UsageRow.__required_keys__
    (model,) = objects("usage", "--by", "model,day", "--model", "large", "--tz", "Asia/Tokyo", "--db", recorded.url)
    assert (model["model"], model["prompts"], model["tokens_cache_read"]) == ("large", 1, 34)
    assert objects("usage", "--by", "agent", "-a", recorded.lead, "--subtree", "--db", recorded.url)[0]["prompts"] == 1
    assert objects("usage", "--unpriced", "--db", recorded.url) == []
    assert done("usage", "--plain", "--db", recorded.url).splitlines()[1].split("\t")[0] == "before"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--by", "month"), "Error: --by: must be any of session"),
        (("--tz", "Nowhere", "--since", "today"), "Error: --tz: must be the IANA name"),
        (("--tz", ""), "Error: --tz: must be the IANA name"),
        (("--subtree",), "Error: --subtree: needs an --agent"),
        (("--since", "soon"), "Error: --since: must be 30m"),
        (("-s", "nobody's"), "--session nobody's: there is none"),
    ],
)
def test_what_cannot_be_summed_up_is_refused(recorded_file: Recorded, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "usage", *arguments, "--db", recorded_file.url)


def test_days_and_times_without_an_offset_are_those_of_the_zone_that_is_asked_for(recorded_file: Recorded) -> None:
    async def more() -> None:
        async with DatabaseManager(recorded_file.url) as db:
            for hour in ("2026-03-01T14:59:59", "2026-03-01T15:00:00", "2026-03-02T14:59:59", "2026-03-02T15:00:00"):
                await db.create_prompt(recorded_file.helper, "command", "x", created_at=hour)

    asyncio.run(more())
    bounds = ("--since", "2026-03-02", "--until", "2026-03-03T00:00")
    asked = ("usage", "--by", "day", *bounds, "--db", recorded_file.url)
    (tokyo,) = objects(*asked, "--tz", "Asia/Tokyo")
    assert (tokyo["day"], tokyo["prompts"]) == ("2026-03-02", 2)
    assert [row["prompts"] for row in objects(*asked, "--tz", "UTC")] == [2]
    assert objects(*asked, "--tz", "Asia/Tokyo", "--utc") == [tokyo]
    (offset,) = objects(*asked, "--until", "2026-03-03T00:00+09:00", "--tz", "UTC")
    assert offset["prompts"] == 1


def test_who_gets_only_some_of_the_groups_is_told_so(recorded_file: Recorded) -> None:
    for kind in ("--json", "--plain"):
        shown = run("usage", "--limit", "1", kind, "--db", recorded_file.url)
        assert shown.stdout.count("\n") == 1
        assert shown.stderr == "1 more, with $0.25: --all shows them.\n"
    none = run("usage", "--limit", "0", "--db", recorded_file.url)
    assert (none.stdout, none.stderr) == ("", "2 more, with $1.75: --all shows them.\n")
    for fits in (("--limit", "2"), ("--all",)):
        assert run("usage", *fits, "--db", recorded_file.url).stderr == ""
    assert run("usage", "-a", recorded_file.helper, "--db", recorded_file.url).stderr == "Nothing was used.\n"


def test_a_group_that_is_asked_for_twice_is_there_once(recorded_file: Recorded) -> None:
    once, twice = (done("usage", "--by", by, "--db", recorded_file.url) for by in ("day", "day, day,"))
    assert once == twice


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "by", ["session,model", "day,model", "model,hour,status", "agent,model", "definition,session,model"]
)
def test_long_names_stay_within_the_screen_and_days_are_whole(
    recorded_file: Recorded, monkeypatch: pytest.MonkeyPatch, by: str, columns: int
) -> None:
    async def more() -> None:
        async with DatabaseManager(recorded_file.url) as db:
            await db.create_prompt(recorded_file.helper, "command", "x", model_used="a-model-with-a-name " * 9)
            prompt = await db.create_prompt(recorded_file.helper, "command", "x", model_used="a-model")
            await db.complete_prompt(prompt, cost_usd=12345.000000001)

    asyncio.run(more())
    monkeypatch.setattr(Output, "is_terminal", property(lambda self: True))
    asked = ("usage", "--by", by, "--tz", "America/New_York", "--db", recorded_file.url)
    shown = re.sub("\x1b\\[[0-9;]*m", "", done(*asked, COLUMNS=str(columns)))
    assert max(map(len, shown.splitlines())) <= columns
    assert "total" in shown.splitlines()[-1]
    for key in {"day", "hour"} & {*by.split(",")}:
        assert f"{key} (America/New_York)" in shown


def test_a_tree_is_one_agent_a_line_behind_the_one_above_it(recorded: Recorded) -> None:
    rows = objects("tree", "now", "--db", recorded.url)
    assert [(row["depth"], row["id"]) for row in rows] == [(0, recorded.lead), (1, recorded.helper)]
    assert (rows[0]["definition_name"], rows[0]["usage"]["cost_usd"]) == ("scout", 1.5)
    assert "children" not in rows[0]
    assert [row["id"] for row in objects("tree", recorded.helper, "--db", recorded.url)] == [recorded.helper]
    assert done("tree", "now", "--db", recorded.url).splitlines()[1].split("\t")[:2] == ["1", recorded.helper]
    assert "no session and no agent" in refused(1, "tree", "nobody's", "--db", recorded.url)


def test_what_was_deleted_softly_is_shown_when_it_is_asked_for(recorded_file: Recorded) -> None:
    async def delete() -> None:
        async with DatabaseManager(recorded_file.url) as db:
            await db.delete_agent(recorded_file.lead, soft=True)

    asyncio.run(delete())
    for asked, living in ((("usage", "-s", "now"), []), (("tree", "now"), [recorded_file.helper])):
        at = (*asked, "--db", recorded_file.url)
        assert [row.get("id") for row in objects(*at)] == living
        (first, *_) = objects(*at, "--deleted")
        assert (first if asked[0] == "usage" else first["usage"])["cost_usd"] == 1.5


def test_reprice_says_what_would_change_and_changes_it_when_told(recorded: Recorded) -> None:
    async def unpriced() -> str:
        async with DatabaseManager(recorded.url) as db:
            return await db.create_prompt(
                recorded.helper,
                "command",
                "x",
                status="completed",
                model_used="claude-sonnet-4-5",
                tokens_output=1000,
                cost_usd=None,
            )

    prompt = asyncio.run(unpriced())
    (change,) = objects("reprice", "--db", recorded.url)
    assert (change["id"], change["old_usd"], change["new_usd"]) == (prompt, None, 0.015)
    assert objects("usage", "--unpriced", "--by", "model", "--db", recorded.url)[0]["model"] == "claude-sonnet-4-5"
    assert "1 prompts were priced by genai-prices" in run("reprice", "--apply", "--db", recorded.url).stderr
    assert objects("reprice", "--db", recorded.url) == []
    assert objects("usage", "--unpriced", "--db", recorded.url) == []


def test_reprice_without_the_list_of_prices_says_what_brings_it(
    recorded_file: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    for more in ((), ("--apply", "--json")):
        assert "pip install 'orchdb[prices]'" in refused(4, "reprice", *more, "--db", recorded_file.url)


@pytest.mark.parametrize("command", [("usage", "--by", "session,model"), ("tree", "now")])
def test_the_digits_of_a_total_are_the_sum_of_those_above_it(
    recorded_file: Recorded, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    async def more() -> None:
        async with DatabaseManager(recorded_file.url) as db:
            for number, usd in enumerate((0.333, 0.333, 0.3335, 1e-9)):
                prompt = await db.create_prompt(recorded_file.helper, "command", "x", model_used=f"m{number}")
                await db.complete_prompt(prompt, cost_usd=usd)

    asyncio.run(more())
    monkeypatch.setattr(Output, "is_terminal", property(lambda self: True))
    shown = re.sub("\x1b\\[[0-9;]*m", "", done(*command, "--db", recorded_file.url, COLUMNS="80"))
    lines = [line for line in shown.splitlines() if "$" in line]
    assert max(map(len, shown.splitlines())) <= 80
    costs = [Decimal(re.findall(r"\$([\d.,]+)", line)[0]) for line in lines]
    assert "total" in lines[-1]
    assert costs[-1] == sum(costs[:-1])
    assert costs[-1] == Decimal("2.749500001" if command[0] == "usage" else "2.499500001")


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_groups_that_are_not_shown_are_summed_up_in_one_line(
    recorded_file: Recorded, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(Output, "is_terminal", property(lambda self: True))
    asked = ("usage", "--limit", str(limit), "--db", recorded_file.url)
    result = run(*asked, COLUMNS="120")
    assert "$0.25 of it is what agents carry beyond their prompts" in result.stderr
    shown = re.sub("\x1b\\[[0-9;]*m", "", result.stdout)
    costs = {line.split()[0]: re.findall(r"\$[\d.]+", line)[0] for line in shown.splitlines() if "$" in line}
    rest: list[dict[str, str]] = [{"2": "$1.75"}, {"now": "$1.50", "1": "$0.25"}, {"now": "$1.50", "before": "$0.25"}]
    assert costs == {**rest[limit], "total": "$1.75"}


def test_a_tree_shows_what_each_has_used_and_what_all_below_it_have(
    recorded_file: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def more() -> None:
        async with DatabaseManager(recorded_file.url) as db:
            prompt = await db.create_prompt(recorded_file.helper, "command", "x")
            await db.complete_prompt(prompt, tokens_output=10, tokens_cache_write=55, cost_usd=0.25)

    asyncio.run(more())
    monkeypatch.setattr(Output, "is_terminal", property(lambda self: True))
    shown = re.sub("\x1b\\[[0-9;]*m", "", done("tree", "now", "--db", recorded_file.url, COLUMNS="120"))
    lines = [line.split() for line in shown.splitlines() if "$" in line]
    assert [[word for word in line if re.fullmatch(r"[\d.k$]+", word)][-4:] for line in lines] == [
        ["1", "1.23k", "$1.50", "$1.75"],
        ["1", "65", "$0.25"],
        ["2", "1.30k", "$1.75"],
    ]
    usage = re.sub(
        "\x1b\\[[0-9;]*m", "", done("usage", "--by", "agent", "-s", "now", "--db", recorded_file.url, COLUMNS="120")
    )
    assert [line.split()[1:] for line in usage.splitlines() if "$0.25" in line] == [
        ["1", "0", "10", "55", "$0.25", "██"]
    ]


def test_reprice_shows_sums_for_each_model_and_says_what_has_no_price(
    recorded_file: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def more() -> None:
        async with DatabaseManager(recorded_file.url) as db:
            (before,) = await db.list_agents("before")
            costs = [("claude-sonnet-4-5", None), ("claude-sonnet-4-5", None), ("gpt-5", None), ("gpt-5", 0.0)]
            for agent, (model, cost) in ((before["id"], one) for one in (*costs, ("nobody's", None))):
                row: Any = {"agent_id": agent, "prompt_type": "command", "prompt_text": "x", "status": "completed"}
                row |= {"model_used": model, "cost_usd": cost, "tokens_output": 1000}
                await db.create_prompts([row])

    asyncio.run(more())
    monkeypatch.setattr(Output, "is_terminal", property(lambda self: True))
    result = run("reprice", "--db", recorded_file.url)
    assert result.exit_code == 0
    assert re.search(r"nobody's: genai-prices .* does not have it; 1 prompts keep no cost", result.stderr)
    assert "Nothing was changed: --apply does it." in result.stderr
    shown = re.sub("\x1b\\[[0-9;]*m", "", result.stdout)
    lines = [line.split() for line in shown.splitlines() if "$" in line]
    assert lines == [
        ["claude-sonnet-4-5", "2", "$0.00", "$0.03"],
        ["gpt-5", "1", "$0.00", "$0.01"],
        ["total", "3", "$0.00", "$0.04"],
    ]
    assert len(objects("reprice", "--zeros", "--db", recorded_file.url)) == 4
    assert objects("reprice", "--zeros", "-s", "now", "--db", recorded_file.url) == []
    assert objects("reprice", "--zeros", "--until", "2020-01-01", "--db", recorded_file.url) == []


def test_amounts_say_all_their_digits_and_counts_few() -> None:
    assert [compact(number) for number in (0, 999, 1000, 12_914, 999_499, 999_500, 1_866_000, 2**63 - 1)] == [
        *("0", "999", "1.00k", "12.9k", "999k", "1.00M", "1.87M", "9.22E")
    ]
    rows: list[dict[str, Any]] = [{"cost_usd": 0.1}, {"cost_usd": 0.25}]
    assert digits(rows) == 2
    assert digits([*rows, {"cost_usd": 0.105}]) == 4
    assert digits([*rows, {"cost_usd": 1e-9}]) == 9
    assert [dollars(usd, 2) for usd in (0.1, 1234.5, -0.25)] == ["$0.10", "$1,234.50", "-$0.25"]
    assert bar({"cost_usd": 0.5}, 10**9, Output(force_terminal=True)) in ("█" * 6, "#" * 6)
    assert bar({"cost_usd": 0.0}, 0, Output()) == ""


def test_a_deep_tree_stays_within_the_screen() -> None:
    figures = dict.fromkeys(
        [f"sum_{name}" for name in ("prompts", "failed", "priced", "tokens_input", "tokens_output", "nanos")]
        + [f"sum_{name}" for name in ("tokens_cache_read", "tokens_cache_write", "latencies", "latency_sum")]
        + [f"sum_{name}" for name in ("unattributed", "latency_max", "first_at", "last_at")]
    )
    columns = ("orchestrator_agent_id", "session_id", "status", "context", "config", "started_at", "completed_at")
    rest = dict.fromkeys((*columns, "cost_usd", "error_message", "updated_at", "metadata", "deleted_at"))
    rows = [
        {
            "id": f"{number:05}",
            "parent_agent_id": f"{number - 1:05}",
            "created_at": "2026",
            "definition_name": "x",
            **rest,
            **figures,
        }
        for number in range(10_000)
    ]
    lines = [*_lines(nested(rows, None, include_deleted=False))]
    assert [depth for depth, _, _ in lines] == [*range(10_000)]
    assert max(len(guide) for _, guide, _ in lines) < 50

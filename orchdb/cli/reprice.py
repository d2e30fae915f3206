"""``orchdb reprice``: costs by a list of prices, for prompts whose cost nobody has reported."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchdb.cli import options
from orchdb.cli.amounts import digits, dollars
from orchdb.cli.running import REFUSED, fail, reading, tell
from orchdb.cli.view import Column, View
from orchdb.money import NANO, nanos

if TYPE_CHECKING:
    from orchdb.repricing import Repriced, Repricing

_COLUMNS = (
    Column("model", "model", grows=True),
    Column("prompts", "prompts", "count"),
    Column("so far", "old", "number"),
    Column("by the list", "new", "number"),
)
_PLAIN = ("id", "agent_id", "model", "old_usd", "new_usd")


def reprice(
    apply: Annotated[bool, typer.Option("--apply", help="Write the costs; without it nothing is changed.")] = False,
    zeros: Annotated[
        bool,
        typer.Option(
            "--zeros", help="Also prompts with tokens that cost 0, as they do where a program reports no cost."
        ),
    ] = False,
    session: options.Sessions = None,
    since: options.Since = None,
    until: options.Until = None,
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
) -> None:
    """Price prompts whose cost nobody has reported.

    Those are ended prompts with tokens and without a cost, and those that an older list has priced. Says what would
    change; --apply does it. A reported cost stays, and so does what an agent costs in all, if it was told that.

    Examples:

        orchdb reprice --since 30d

        orchdb reprice --zeros --apply
    """
    from orchdb.cli.filters import sessions, when
    from orchdb.manager import DatabaseManager
    from orchdb.repricing import apply_repriced, find_repriced

    view = View.of(db, as_json, plain, utc)
    start, end = when("--since", since, utc=utc), when("--until", until, utc=utc)

    async def run() -> None:
        async with reading(view.location) as manager:
            chosen = await sessions(manager, session)
            found = await find_repriced(manager, session_id=chosen, since=start, until=end, zeros=zeros)
        _show(view, found)
        if not apply:
            if found["prompts"]:
                tell("Nothing was changed: --apply does it.")
            return
        async with DatabaseManager(view.location.url, upgrade=False) as manager:
            tell(f"{await apply_repriced(manager, found):,} prompts were priced by {found['price_list']}.")

    try:
        asyncio.run(run())
    except ImportError as error:
        missing = str(error)
    else:
        return
    fail(missing, REFUSED)


def _show(view: View, found: Repricing) -> None:
    for model, count in sorted(found["unknown_models"].items()):
        tell(f"{model}: {found['price_list']} does not have it; {count:,} prompts keep no cost.")
    nothing = "No cost would change."
    if not view.for_people:
        view.rows(found["prompts"], [Column(name, name) for name in _PLAIN], nothing=nothing)
        return
    groups: dict[str, list[Repriced]] = {}
    for prompt in found["prompts"]:
        groups.setdefault(prompt["model"], []).append(prompt)
    sums = [_sum(model, prompts) for model, prompts in sorted(groups.items())]
    places = max(
        digits([{"cost_usd": amount[key]} for amount in sums for key in ("old_usd", "new_usd")]) if sums else 2, 2
    )
    rows = [_line(row, places) for row in sums]
    if rows:
        rows.append(_line(_sum("total", found["prompts"]), places))
    view.rows(rows, _COLUMNS, nothing=nothing)


def _sum(name: str, prompts: Sequence[Repriced]) -> dict[str, Any]:
    old = sum(nanos(prompt["old_usd"] or 0.0) for prompt in prompts)
    new = sum(nanos(prompt["new_usd"]) for prompt in prompts)
    return {"model": name, "prompts": len(prompts), "old_usd": old / NANO, "new_usd": new / NANO}


def _line(row: Mapping[str, Any], places: int) -> dict[str, Any]:
    return {**row, "old": dollars(row["old_usd"], places), "new": dollars(row["new_usd"], places)}

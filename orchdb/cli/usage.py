"""``orchdb usage``: what was used and what it cost, in groups, with a total that is the sum of what stands above it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchdb.cli import options
from orchdb.cli.amounts import bar, compact, digits, dollars, summed
from orchdb.cli.running import USAGE, fail, reading, run_reading, tell
from orchdb.cli.view import Column, View
from orchdb.money import nanos

if TYPE_CHECKING:
    from orchdb.manager import DatabaseManager

_TITLES = {"prompt_type": "type", "definition_name": "definition"}
_FIGURES = (
    Column("prompts", "prompts", "count"),
    Column("failed", "failed", "count", spare=5),
    Column("unpriced", "unpriced", "count", spare=4),
    Column("in", "in", "number", spare=1),
    Column("out", "out", "number", spare=2),
    Column("cached", "cached", "number", spare=3),
    Column("cost", "cost", "number"),
    Column("", "bar", "bar", spare=6),
)
_PLAIN = (
    *("prompts", "failed", "unpriced", "tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write"),
    *("cost_usd", "unattributed_usd"),
)
_OPTIONS = {"group_by": "--by", "tz": "--tz"}
_LOCAL_ZONE = Path("/etc/localtime")


def usage(
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="GROUPS",
            help="One or several of session, agent, definition, model, prompt_type, status, day, hour.",
        ),
    ] = "session",
    session: options.Sessions = None,
    agent: options.Agents = None,
    subtree: Annotated[bool, typer.Option("--subtree", help="With everyone below --agent.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Only prompts that this model was asked.", show_default=False),
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    tz: Annotated[
        str | None,
        typer.Option(
            "--tz",
            metavar="ZONE",
            help="Days and hours of this zone, such as Europe/Berlin, also in --since; by default of this machine's.",
            show_default=False,
        ),
    ] = None,
    unpriced: Annotated[
        bool, typer.Option("--unpriced", help="Only groups with prompts whose cost is not known.")
    ] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also what was deleted softly.")] = False,
    limit: options.Limit = 20,
    everything: options.All = False,
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """Sum up what prompts have used and cost.

    The dearest group comes first, days and hours come in time. What agents carry beyond their prompts is part of the
    cost, and has no model. The digits are as many as it takes for the total to be the sum of what stands above it.

    Examples:

        orchdb usage --by day,model --since 7d --tz Europe/Berlin

        orchdb usage --by model --unpriced

        orchdb usage --by session --json --all | jq -s 'map(.cost_usd) | add'
    """
    from orchdb.cli.filters import agents, sessions, when, words

    view = View.of(db, as_json, plain, utc, full)
    keys = [*dict.fromkeys(words([by]) or [])]
    zone = ("UTC" if utc else _local_zone()) if tz is None else tz
    there = None if tz is None else _zone(tz)
    start, end = (when(option, text, utc=utc, zone=there) for option, text in (("--since", since), ("--until", until)))
    if subtree and not agent:
        fail("--subtree: needs an --agent to begin at", USAGE)

    async def find() -> None:
        async with reading(view.location) as manager:
            rows = await _asked(
                manager,
                keys,
                session_id=await sessions(manager, session),
                agent_id=await agents(manager, agent),
                subtree=subtree,
                model_used=words(model),
                since=start,
                until=end,
                tz=zone,
                include_deleted=deleted,
            )
            rows = [row for row in rows if row["unpriced"] or not unpriced]
            short = await _short(manager, rows) if view.for_people and not full else {}
        _show(view, rows, keys, short, None if everything else limit, zone)

    run_reading(find())


def _zone(name: str) -> tzinfo | None:
    """The zone of this name, if there is one: what has none is refused by the manager."""
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _local_zone() -> str:
    """The name of this machine's zone; UTC where it has none."""
    import zoneinfo

    named = os.environ.get("TZ", "").removeprefix(":")
    linked = str(_LOCAL_ZONE.resolve()).partition("zoneinfo/")[2]
    for name in (named, linked):
        if name in zoneinfo.available_timezones():
            return name
    return "UTC"


async def _asked(manager: DatabaseManager, keys: Sequence[str], **filters: Any) -> list[Any]:
    """The rows, with an error that names the option."""
    from orchdb.errors import InvalidValueError

    try:
        return cast("list[Any]", await manager.usage(keys, **filters))  # type: ignore[arg-type]  # checked there
    except InvalidValueError as error:
        parameter, _, said = error.message.partition(": ")
        if parameter not in _OPTIONS:
            raise
        refused = f"{_OPTIONS[parameter]}: {said}"
    raise InvalidValueError(refused)


async def _short(manager: DatabaseManager, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    from orchdb.inspection.identifiers import shortened, shortened_sessions

    sessions = await shortened_sessions(manager, [row["session"] for row in rows if "session" in row])
    return {**sessions, **await shortened(manager, [row["agent"] for row in rows if "agent" in row])}


def _show(
    view: View,
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    short: Mapping[str, str],
    limit: int | None,
    zone: str,
) -> None:
    names = ["definition_name" if key == "definition" else key for key in keys]
    kept, rest = rows[:limit], rows[len(rows[:limit]) :]
    if not view.for_people or not rows:
        if kept or not rest:
            view.rows(kept, [Column(name, name) for name in (*names, *_PLAIN)], nothing="Nothing was used.")
        if rest:  # a program that adds up what it gets is to know that this is not all
            left = summed(rest)
            tell(f"{len(rest):,} more, with {dollars(left['cost_usd'], digits([left]))}: --all shows them.")
        return
    lines = [dict(row) for row in kept]
    if rest:
        lines.append({**summed(rest), names[0]: f"{len(rest):,} more"} if names else summed(rest))
    total = summed(rows)
    most, places = max((nanos(row["cost_usd"]) for row in kept), default=0), digits(lines)
    shown = [_line(row, names, places) | {"bar": bar(row, most, view.console)} for row in lines]
    if names:
        shown.append(_line({**total, names[0]: "total"}, names, places) | {"bar": ""})
    columns = [
        Column(f"{name} ({zone})", name)
        if name in ("day", "hour")
        else Column(_TITLES.get(name, name), name, "id", grows=name != "agent")
        for name in names
    ]
    view.rows(shown, (*columns, *_FIGURES), nothing="", short=short)
    if total["unattributed_usd"]:
        told = dollars(total["unattributed_usd"], places)
        tell(f"{told} of it is what agents carry beyond their prompts: it has no model.")


def _line(row: Mapping[str, Any], names: Sequence[str], places: int) -> dict[str, Any]:
    """A row as a table shows it."""
    words = {name: "-" if row.get(name, "") is None else row.get(name, "") for name in names}
    return {
        **words,
        "prompts": row["prompts"],
        "failed": row["failed"] or None,
        "unpriced": row["unpriced"] or None,
        "in": compact(row["tokens_input"]),
        "out": compact(row["tokens_output"]),
        "cached": compact(row["tokens_cache_read"] + row["tokens_cache_write"]),
        "cost": dollars(row["cost_usd"], places),
    }

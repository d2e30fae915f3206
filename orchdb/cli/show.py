"""``orchdb show``: one row of any table, by its id or the beginning of it, with what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchdb.cli import options
from orchdb.cli.running import FINDING, fail, reading, run_reading
from orchdb.cli.view import Column, Kind, View

if TYPE_CHECKING:
    from orchdb.inspection.records import Record

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("id", "orchestrator_agent_id", "agent_id", "parent_agent_id", "session_id"), "id"),
    **dict.fromkeys(
        ("created_at", "updated_at", "started_at", "completed_at", "deleted_at", "first_at", "last_at"), "time"
    ),
    **dict.fromkeys(("status", "log_level"), "word"),
    **dict.fromkeys(("context", "config", "metadata", "details"), "json"),
    **dict.fromkeys(("agents", "running", "failed", "prompts", "latency_ms"), "count"),
    **dict.fromkeys(("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write"), "count"),
    "cost_usd": "money",
}
_TEXTS = ("prompt_text", "response_text")
"""What stands below the other fields, as it is, line by line."""


def show(
    beginning: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="An id, or its beginning, of a definition, an agent, a prompt or a session; the number of a line.",
            autocompletion=options.complete_id,
        ),
    ],
    table: Annotated[
        str | None,
        typer.Option(
            "--table", metavar="TABLE", help="Only in this table, where there are several.", show_default=False
        ),
    ] = None,
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
    full: options.Full = False,
) -> None:
    """Show a definition, an agent, a prompt or a session, by its id.

    An agent is shown with its newest prompts and log lines, a session and a definition with their newest agents, a
    prompt with its whole text and response. Where an id is that of several rows, they are listed.

    Examples:

        orchdb show 01a215e6-7d

        orchdb show 01a215e6-7d --json | jq -r .row.response_text
    """
    from orchdb.inspection.identifiers import find
    from orchdb.inspection.records import get_record

    view = View.of(db, as_json, plain, utc, full)

    async def look() -> None:
        async with reading(view.location) as manager:
            places = [place for place in await find(manager, beginning) if table in (None, place.table)]
            if len(places) > 1:
                told = ", ".join(f"{place.id} ({place.table})" for place in places[:5])
                fail(
                    f"{beginning} is the beginning of {len(places)} or more: {told}{' …' if len(places) > 5 else ''}",
                    FINDING,
                )
            record = await get_record(manager, places[0]) if places else None
            if record is None:
                fail(f"nothing has the id {beginning}, or one that begins so", FINDING)
            short = await _short(manager, view, record)
        _print(view, record, short)

    run_reading(look())


async def _short(manager: Any, view: View, record: Record) -> dict[str, str]:
    found = await view.short(manager, record["agents"], "id")
    return found | await view.short(manager, record["prompts"], "id")


def _print(view: View, record: Record, short: Mapping[str, str]) -> None:
    if view.as_json:
        view.json(record)
        return
    row = record["row"]
    columns = [Column(name, name, _KINDS.get(name, "text")) for name in row]
    if view.plain:
        view.fields(row, columns)
        return
    view.fields(row, [column for column in columns if column.key not in _TEXTS])
    for name in _TEXTS:
        if row.get(name) is not None:
            view.text(f"\n{name}", row[name])
    _belonging(view, record, short)


def _belonging(view: View, record: Record, short: Mapping[str, str]) -> None:
    from rich.text import Text

    from orchdb.cli.columns import AGENTS, LINES, PROMPTS

    agents = [column for column in AGENTS if column.key not in ("definition_name", "session_id", "seconds")]
    prompts = [column for column in PROMPTS if column.key not in ("agent_id", "tokens")]
    lines = [column for column in LINES if column.key != "agent_id"]
    lists = (
        ("agents", record["agents"], agents),
        ("prompts", record["prompts"], prompts),
        ("logs", record["logs"], lines),
    )
    for title, rows, columns in lists:
        if rows:
            view.console.print(Text(f"\n{title}, the newest", style="bold"))
            view.rows(rows, columns, nothing="", short=short)

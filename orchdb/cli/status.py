"""``orchdb status``: where the database is, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchdb.cli import cells, options
from orchdb.cli.running import run_reading
from orchdb.cli.view import Column, View


def status(
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
    utc: options.Utc = False,
) -> None:
    """Show where the database is, and what is in it.

    Also a database of an older revision is looked at; nothing of it is made or changed.

    Examples:

        orchdb status

        orchdb status --db other.db --json | jq .rows.agents
    """
    from orchdb.inspection.status import get_status

    view = View.of(db, as_json, plain, utc)
    source = view.location.source
    decided_by = source.variable or ("--db" if db is not None else "default")
    found: Any = run_reading(get_status(view.location, decided_by))
    if as_json:
        view.json(found)
        return
    view.fields(_shown(found, for_people=view.for_people), _columns(found))


def _columns(found: Mapping[str, Any]) -> list[Column]:
    rows = [Column(name, name, "count") for name in found["rows"]]
    titles = {"decided_by": "said by", "revision": "revision", "size_bytes": "size", "wal_bytes": "WAL"}
    first = [Column(titles.get(name, name), name) for name in ("place", "decided_by", "engine", "revision")]
    sizes = [Column(titles[name], name) for name in ("size_bytes", "wal_bytes")]
    return [*first, *sizes, Column("last activity", "last_at", "time"), *rows]


def _shown(found: Mapping[str, Any], *, for_people: bool) -> dict[str, Any]:
    """One level, and for people what the numbers mean."""
    flat = {**found, **found["rows"]}
    if not for_people:
        return flat
    flat["decided_by"] = {"default": "nothing: it is the default"}.get(found["decided_by"], found["decided_by"])
    newest = found["newest_revision"]
    if found["revision"] != newest:
        flat["revision"] = f"{found['revision'] or 'none'} (this orchdb works with {newest}: orchdb upgrade)"
    for name in ("size_bytes", "wal_bytes"):
        flat[name] = None if found[name] is None else cells.size(found[name])
    return flat

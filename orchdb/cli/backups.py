"""``orchdb backup`` and ``restore``: a whole database as one file, and the way back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from orchdb.cli import options
from orchdb.cli.copying import show_progress
from orchdb.cli.view import Column, View


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; a name that ends in .gz is compressed.")],
    db: options.Db = None,
    as_json: options.Json = False,
    plain: options.Plain = False,
) -> None:
    """Make a consistent copy of a database as a new file.

    Others go on writing meanwhile. The copy of a server's database is an SQLite file, too, and is compared with what it
    was made from. A file that is there is never overwritten.

    Examples:

        orchdb backup monday.db

        orchdb backup monday.db.gz --db postgresql://user@host/database
    """
    from orchdb.engines import look_at
    from orchdb.transfer import back_up_database

    view = View.of(db, as_json, plain)

    async def make() -> None:
        async with look_at(view.location):
            pass  # what is not there is not made
        await back_up_database(view.location.url, file, progress=show_progress())

    asyncio.run(make())
    _tell(view, {"file": str(file.expanduser().absolute()), "size_bytes": file.expanduser().stat().st_size})


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; one that ends in .gz is unpacked.")],
    db: options.Db = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the file that is there, which is kept beside.")
    ] = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
) -> None:
    """Bring a backup back.

    The backup is checked first. Without --replace nothing may be at the place; with it the file that is there gets
    another name, if nobody has it open. A server's database has to be empty.

    Examples:

        orchdb restore monday.db --db data/orchestrator.db --replace

        orchdb restore monday.db.gz --db postgresql://user@host/database
    """
    from orchdb.transfer import restore_database

    view = View.of(db, as_json, plain)
    done = asyncio.run(restore_database(file, view.location.url, replace=replace, progress=show_progress()))
    _tell(view, {"place": done.place, "kept": None if done.kept is None else str(done.kept)})


def _tell(view: View, told: dict[str, object]) -> None:
    view.fields(told, [Column(name, name) for name in told])

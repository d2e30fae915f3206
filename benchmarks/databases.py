"""A database for each contestant: a copy of one that is prepared once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contestants.base import Contestant, Places
from benchmarks.workload import prepare_file


@contextmanager
def places(engine: str, folder: Path) -> Iterator[Places]:
    """How a contestant gets its place: a file or a URL, prepared where it works on orchdb's tables."""
    if engine == "sqlite":
        yield _files(folder)
        return
    from benchmarks.postgres_server import databases  # noqa: PLC0415  # SQLite needs none of its drivers

    with databases() as place:
        yield place


def _files(folder: Path) -> Places:
    template = folder / "template.db"
    prepare_file(template)

    def place(key: str, kind: type[Contestant]) -> str:
        path = folder / f"{key}.db"
        if kind.same_table:
            shutil.copy(template, path)
            os.sync()  # or the first checkpoint would write the whole copy to the disk: nobody's database is all new
        return str(path)

    return place

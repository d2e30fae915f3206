"""Backups: one file that holds a whole database, whichever engine it is of, and the way back."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from orchdb.engines import compress, is_sqlite, look_at, put_in_place, unpacked
from orchdb.errors import OperationError, SchemaError
from orchdb.location import MEMORY, Location, locate, path_of_file
from orchdb.manager import DatabaseManager
from orchdb.schema.revisions import decide, examine
from orchdb.transfer.copying import Database, copy_database
from orchdb.transfer.progress import Tell

_COMPRESSED = ".gz"


class Restored(NamedTuple):
    """What a restore has done.

    Attributes:
        place: Where the database is now.
        kept: The file that has been replaced, under the name that it has now; ``None`` if there was none.
    """

    place: str
    kept: Path | None


async def back_up_database(from_: Database, path: str | os.PathLike[str], *, progress: Tell | None = None) -> None:
    """Make a consistent copy of a database, of any engine, as a new SQLite file, while others go on writing.

    The copy of a server's database is read again and compared with what it was made from. The file is for its owner
    only, and appears when it is complete and on the disk.

    Args:
        from_: The database: a path or a URL, as ``DatabaseManager`` takes them. Its schema is current.
        path: Where the copy is to be; with a name that ends in ``.gz`` it is compressed.
        progress: Is called now and then with how far the copy of a server's database is.

    Raises:
        InvalidValueError: A place is not usable.
        SchemaError: The database has another revision, or is none of orchdb's.
        OperationError: The file exists already or cannot be written, or the database cannot be read.
    """
    place, target = locate(from_, "from_"), path_of_file(path).expanduser().absolute()
    _require_room(target)
    if is_sqlite(place) and target.suffix != _COMPRESSED:
        await _copy_file(place, target)
        return
    with tempfile.TemporaryDirectory(prefix=".orchdb-", dir=target.parent) as folder:
        plain, copied = Path(folder) / "copy.db", Path(folder) / "backup.db"
        if not is_sqlite(place):
            report = await copy_database(place.url, plain, progress=progress)
            if not report.equal:
                raise OperationError(f"the backup {target} cannot be made: it is not equal to the database")
            place = locate(plain)
        if target.suffix != _COMPRESSED:
            await _copy_file(place, target)
        else:
            await _copy_file(place, copied)  # nobody has this one open
            await compress(copied, target)


def _require_room(target: Path) -> None:
    if os.path.lexists(target):
        raise OperationError(f"the backup {target} cannot be made: it exists already")
    if not target.parent.is_dir():
        raise OperationError(f"the backup {target} cannot be made: there is no folder {target.parent}")


def _require_none(place: Location) -> None:
    if os.path.lexists(place.url.database or ""):
        raise OperationError(f"{place.url.database} exists already, and is not to be replaced")


async def _copy_file(place: Location, target: Path) -> None:
    async with DatabaseManager(place.url, read_only=True) as db:
        await db.backup(target)


async def restore_database(
    path: str | os.PathLike[str], to: Database, *, replace: bool = False, progress: Tell | None = None
) -> Restored:
    """Bring a backup back: as a file, or into an empty database of a server.

    It is checked before anything is replaced: that SQLite finds no damage in it, that it is a database of orchdb's,
    and of a revision that this version knows. A server takes the newest one only.

    Args:
        path: The backup; one whose name ends in ``.gz`` is unpacked.
        to: Where to: a path or a URL, as ``DatabaseManager`` takes them.
        replace: Whether a file that is there may be replaced. It is kept beside, under another name. A database of a
            server is never replaced.
        progress: Is called now and then with how far the copy into a server is.

    Returns:
        Where the database is, and what has become of the one that was there.

    Raises:
        InvalidValueError: A place is not usable.
        DuplicateError: The database of the server holds rows.
        SchemaError: The backup is no database of orchdb's, or has a revision that does not fit.
        OperationError: The backup is not there or is damaged; the file is there, and must not be replaced; it is in
            use; the server cannot be reached.
    """
    place, backup = locate(to, "to"), path_of_file(path).expanduser().absolute()
    if place.url.database == MEMORY:
        place.source.refuse("a database in memory is gone with its manager: name a file or a server")
    if is_sqlite(place) and not replace:
        _require_none(place)
    async with unpacked(backup) as plain:
        await _check(backup, plain)
        if is_sqlite(place):
            target = Path(place.url.database or "")
            return Restored(str(target), await put_in_place(plain, target))
        report = await copy_database(plain, place.url, progress=progress)
        if not report.equal or report.left_out:
            raise OperationError(f"what {report.to} holds now is not equal to the backup: see orchdb copy --verify")
        return Restored(report.to, None)


async def _check(backup: Path, plain: Path) -> None:
    """Make sure that the backup is a whole database of orchdb's."""
    async with look_at(locate(plain)) as look:
        grave = [finding for finding in await look.findings(quick=False) if finding.check == "integrity"]
        if any(finding.gravity == "error" for finding in grave):
            raise OperationError(f"{backup} is damaged: {grave[0].message}")
        found = await examine(look.connection)
        if found.empty or not found.ours:
            raise SchemaError(f"{backup} is no database of orchdb's")
        decide(found, upgrade=True, read_only=False)  # or it is of a newer version

"""Looking at an SQLite file: read only, whatever its schema; by ``stat``, and by what SQLite says of it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.driver_errors import sqlite_code
from orchdb.errors import OperationError
from orchdb.looking import READ_ONLY, Answer, Facts, Finding, Look, ok
from orchdb.raising import raised_as
from orchdb.schema.spellings import decode_text
from orchdb.schema.sql_functions import TIME_FUNCTION
from orchdb.schema.tables import metadata
from orchdb.sqlite.files import (
    REMOTE,
    file_system,
    file_uri,
    has_wal_reset_bug,
    named,
    on_read_only_medium,
    require,
)
from orchdb.sqlite.settings import CHECKPOINT_PAGES, configure_reader, engine

_LARGE_WAL = 64 * 1024 * 1024
_FREE_SHARE, _FREE_BYTES = 0.25, 16 * 1024 * 1024
_MOST = 5
# A pragma with a value is a setting, but for these, whose value says what is asked about.
_ASKING = frozenset(
    (
        *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"),
        *("foreign_key_check", "integrity_check", "quick_check"),
        "read_uncommitted",  # SQLAlchemy sets it; between connections with caches of their own it does nothing
    )
)
_ACTING = frozenset(("wal_checkpoint", "optimize", "incremental_vacuum", "shrink_memory"))
_ONE_FORM = "????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]"


@asynccontextmanager
async def look_at_file(url: URL) -> AsyncGenerator[Look]:
    """Open the file to look at it.

    Raises:
        OperationError: It is not there, or cannot be read.
    """
    path = _path_of(url)
    require(path, "`orchdb init` makes it")
    options = {"immutable": "1"} if on_read_only_medium(path) else {}
    readers = engine(file_uri(path, mode="ro", **options), 1, _configure, "BEGIN")
    try:
        with raised_as((sqlite3.Error, DBAPIError), partial(named, path)):
            connection = await AsyncConnection(readers).start()
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            with raised_as((sqlite3.Error, DBAPIError), partial(named, path)):
                await connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")  # until then nothing is read
            yield _FileLook(path, connection)
        finally:
            await connection.close()
    finally:
        await readers.dispose()


class _FileLook(Look):
    def __init__(self, path: Path, connection: AsyncConnection) -> None:
        self._path = path
        self.connection = connection

    async def facts(self) -> Facts:
        return Facts(str(self._path), f"SQLite {sqlite3.sqlite_version}", _size(self._path), _size(_wal_of(self._path)))

    async def triggers(self) -> Collection[tuple[str, str]]:
        found = await self._rows("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'")
        return [(str(table), str(name)) for table, name in found]

    async def query(self, statement: str, limit: int | None = None) -> Answer:
        try:
            result = await self.connection.exec_driver_sql(statement)
        except DBAPIError as error:
            if sqlite_code(error) not in ("SQLITE_READONLY", "SQLITE_AUTH"):
                raise
        else:
            if not result.returns_rows:
                return Answer([], [])
            return Answer([*result.keys()], result.fetchall() if limit is None else result.fetchmany(limit))
        raise OperationError("the statement would write, or change a setting", code=READ_ONLY)

    async def findings(self, *, quick: bool) -> list[Finding]:
        found = [self._place(), self._permissions(), _version()]
        found.append(await self._integrity(quick=quick))
        found.append(await self._foreign_keys())
        found += [await self._wal(), await self._free_pages()]
        present = {str(name) for (name,) in await self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found.append(await self._times(present))
        found.append(await self._sequences(present))
        return found

    async def _rows(self, sql: str) -> list[Any]:
        return [*await self.connection.exec_driver_sql(sql)]

    async def _value(self, sql: str) -> Any:
        return (await self._rows(sql))[0][0]

    def _place(self) -> Finding:
        kind = file_system(self._path)
        if kind in REMOTE or kind.startswith("fuse."):
            return Finding(
                "file system",
                "error",
                f"the file is on {kind}, where SQLite's locks are not safe",
                "move it to a local file system, or use Postgres",
            )
        return ok("file system", kind or "the system does not tell")

    def _permissions(self) -> Finding:
        mode = stat.S_IMODE(self._path.stat().st_mode)
        if mode & 0o077:
            message = f"others than the owner can open the file: its mode is {mode:03o}"
            return Finding("permissions", "warning", message, f"chmod 600 '{self._path}'*")
        if not os.access(self._path, os.W_OK) or not os.access(self._path.parent, os.W_OK):
            return Finding("permissions", "note", "this user cannot write the file or its folder")
        return ok("permissions", f"{mode:03o}")

    async def _integrity(self, *, quick: bool) -> Finding:
        pragma = "quick_check" if quick else "integrity_check"
        found = [str(line) for (line,) in await self._rows(f"PRAGMA {pragma}({_MOST})")]
        if found == ["ok"]:
            return ok("integrity", f"{pragma} found nothing")
        message = f"the file is damaged: {found[0].splitlines()[-1]}"
        return Finding("integrity", "error", message, "go back to a backup, or try sqlite3's .recover into a new file")

    async def _foreign_keys(self) -> Finding:
        found = await self._rows('SELECT "table", count(*) FROM pragma_foreign_key_check GROUP BY 1 ORDER BY 1')
        if not found:
            return ok("foreign keys", "each row has its parent")
        where = ", ".join(f"{number} in {table}" for table, number in found)
        advice = "list them with orchdb sql 'PRAGMA foreign_key_check', and delete them or bring their parents back"
        return Finding("foreign keys", "error", f"rows without their parent: {where}", advice)

    async def _wal(self) -> Finding:
        journal = str(await self._value("PRAGMA journal_mode"))
        if journal != "wal":
            advice = "connect once with orchdb: it switches the file to WAL"
            return Finding(
                "wal", "warning", f"the journal is {journal}: a reader and a writer wait for each other", advice
            )
        size = _size(_wal_of(self._path))
        page = int(await self._value("PRAGMA page_size"))
        if size > _LARGE_WAL:
            message = (
                f"the WAL has {size // page:,} pages ({size:,} bytes): a long reader keeps it from being taken over"
            )
            return Finding("wal", "warning", message, f"end the program that reads for long{_users(self._path)}")
        return ok("wal", f"{size:,} bytes; taken over every {CHECKPOINT_PAGES:,} pages")

    async def _free_pages(self) -> Finding:
        pages, free, page, vacuum = [
            int(await self._value(f"PRAGMA {name}"))
            for name in ("page_count", "freelist_count", "page_size", "auto_vacuum")
        ]
        message = f"{free:,} of {pages:,} pages are free"
        if free * page > _FREE_BYTES and free > pages * _FREE_SHARE:
            advice = "prune() gives them back" if vacuum else "VACUUM the file once while no program uses it"
            return Finding("free pages", "warning", message, advice)
        return ok("free pages", message)

    async def _times(self, present: Collection[str]) -> Finding:
        """Times that mean nothing; each spelling that does is read."""
        found: list[str] = []
        for table in metadata.sorted_tables:
            if table.name in present and "created_at" in table.c and table.name != "leases":
                number = await self._value(
                    f"SELECT count(*) FROM {table.name} WHERE created_at NOT GLOB '{_ONE_FORM}' "  # noqa: S608
                    f"AND {TIME_FUNCTION}(CAST(created_at AS TEXT)) IS NULL"
                )
                found += [f"{number} in {table.name}"] if number else []
        if not found:
            return ok("times", "each created_at is a time")
        advice = "write them as YYYY-MM-DDTHH:MM:SS.ffffff; until then since, until and retention pass them over"
        return Finding("times", "warning", f"created_at that is no time: {', '.join(found)}", advice)

    async def _sequences(self, present: Collection[str]) -> Finding:
        behind: list[str] = []
        for name in ("agent_logs", "system_logs"):
            if name in present and "sqlite_sequence" in present:
                sql = (
                    f"SELECT coalesce((SELECT max(id) FROM {name}), 0) > "  # noqa: S608
                    f"coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = '{name}'), 0)"
                )
                behind += [name] if await self._value(sql) else []
        if not behind:
            return ok("sequences", "the next line has a number of its own")
        advice = "none is needed: SQLite goes on behind the highest id; only lines deleted since may lend theirs"
        return Finding("sequences", "note", f"sqlite_sequence is behind in {', '.join(behind)}", advice)


def _configure(connection: sqlite3.Connection) -> None:
    """Set up a connection that can read this file and nothing else: another one could be made by reading it."""
    configure_reader(connection)
    connection.text_factory = decode_text  # another program's text may be no UTF-8
    connection.set_authorizer(_authorized)


def _authorized(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    name = str(first).lower()
    acts = action == sqlite3.SQLITE_PRAGMA and (name in _ACTING or (second is not None and name not in _ASKING))
    attaches = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if acts or attaches else sqlite3.SQLITE_OK


def _path_of(url: URL) -> Path:
    return Path(os.path.realpath(url.database or ""))


def _wal_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def _size(path: Path) -> int:
    """The bytes of a file; 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


def _version() -> Finding:
    version = sqlite3.sqlite_version
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        message = (
            f"SQLite {version} has the WAL-reset bug: several processes that write can, very rarely, damage the file"
        )
        return Finding("sqlite", "note", message, "use one with SQLite 3.51.3 or newer where several processes write")
    return ok("sqlite", version)


def _users(path: Path) -> str:
    """Which processes have the file open, as far as this user may know."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*") if Path("/proc/self/fd").exists() else ():
        try:
            if any(os.path.realpath(each) == str(path) for each in (process / "fd").iterdir()):
                found.append(process.name)
        except OSError:
            continue
    others = [name for name in found if name != str(os.getpid())]
    return f"; the file is open in {', '.join(others)}" if others else ""

"""A model of power cuts. In a process of its own, because two SQLite libraries in one drop each other's locks.

apsw's VFS notes every write, sync and truncation of the database and its WAL, in the order in which orchdb's own
statements and settings cause them. A cut keeps what was synced, and a random part of what was not.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import apsw

from orchdb.backend import Durability
from orchdb.schema.revisions import schema_file, statements_of
from orchdb.sqlite.settings import writer_settings

JOURNAL: list[tuple[str, str, int, bytes]] = []
"""What was done: the file, the kind, the offset or size, the data."""


class NotedFile(apsw.VFSFile):
    def __init__(self, inherit: str, name: Any, flags: list[int]) -> None:
        self.name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary").name
        super().__init__(inherit, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        JOURNAL.append((self.name, "write", offset, bytes(data)))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        JOURNAL.append((self.name, "sync", 0, b""))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        super().xTruncate(size)
        JOURNAL.append((self.name, "truncate", size, b""))


class NotedVfs(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("noted", "")

    def xOpen(self, name: Any, flags: list[int]) -> NotedFile:  # noqa: N802
        return NotedFile("", name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(name, syncdir)
        JOURNAL.append((Path(name).name, "delete", 0, b""))


class Disk:
    """What is on the disk for certain, and what is on its way."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.pending: dict[str, list[tuple[str, int, bytes]]] = {}

    def do(self, name: str, kind: str, number: int, data: bytes) -> None:
        waiting = self.pending.setdefault(name, [])
        if kind == "sync":
            content = self.files.setdefault(name, bytearray())
            for change in waiting:
                apply(content, *change)
            waiting.clear()
        elif kind == "delete":
            waiting.clear()
            self.files.pop(name, None)
        else:
            waiting.append((kind, number, data))

    def cut(self, chance: float) -> dict[str, bytes]:
        """The files as they are found afterwards."""
        found = {name: bytearray(content) for name, content in self.files.items()}
        for name, waiting in self.pending.items():
            for change in waiting:
                if random.random() < chance:
                    apply(found.setdefault(name, bytearray()), *change)
        return {name: bytes(content) for name, content in found.items()}


def apply(content: bytearray, kind: str, number: int, data: bytes) -> None:
    if kind == "truncate":
        del content[number:]
        return
    content.extend(bytes(max(0, number - len(content))))
    content[number : number + len(data)] = data


def record(path: str, durability: Durability, commits: int) -> list[int]:
    """The length of the journal when each commit was acknowledged."""
    vfs = NotedVfs()
    connection = apsw.Connection(path, vfs="noted")
    connection.execute("PRAGMA journal_mode = wal")
    for name, value in writer_settings(durability).items():
        connection.execute(f"PRAGMA {name} = {value}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements_of(schema_file().read_text(encoding="utf-8")):
        connection.execute(statement)
    connection.execute("COMMIT")
    acknowledged = []
    for number in range(commits):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO system_logs (component, message, details) VALUES ('power', ?, ?)", (str(number), "x" * 700)
        )
        connection.execute("COMMIT")
        acknowledged.append(len(JOURNAL))
    connection.close()
    del vfs
    return acknowledged


def judge(folder: Path, files: dict[str, bytes]) -> tuple[bool, list[int]]:
    """Whether the file is sound, and the rows in it."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    connection = apsw.Connection(str(folder / "power.db"))
    try:
        sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = [int(row[0]) for row in connection.execute("SELECT message FROM system_logs ORDER BY id")]
    except apsw.SQLError:  # the tables had not been made
        return True, []
    except apsw.CorruptError:
        return False, []
    finally:
        connection.close()
    return sound, rows


def main(folder: str, durability: Durability, cuts: int, commits: int) -> None:
    acknowledged = record(f"{folder}/power.db", durability, commits)
    moments = sorted(random.randrange(acknowledged[0], len(JOURNAL)) for _ in range(cuts))
    disk, done = Disk(), 0
    result: dict[str, Any] = {"cuts": 0, "unsound": 0, "gaps": 0, "lost": []}
    for number, moment in enumerate(moments):
        for step in JOURNAL[done:moment]:
            disk.do(*step)
        done = moment
        sound, rows = judge(Path(folder) / f"cut-{number}", disk.cut((0.0, 0.5, 0.9)[number % 3]))
        promised = sum(length <= moment for length in acknowledged)
        result["cuts"] += 1
        result["unsound"] += not sound
        result["gaps"] += rows != list(range(len(rows)))
        result["lost"].append(max(0, promised - len(rows)))
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], "full" if sys.argv[2] == "full" else "normal", int(sys.argv[3]), int(sys.argv[4]))

"""What there is to know of a database file without opening it: its kind, identity, permissions and file system.

``stat`` alone: closing a descriptor of a file that SQLite has open in this process would drop the process's locks.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import sqlite3
import stat
import sys
import tempfile
import weakref
from functools import cache
from pathlib import Path

from orchdb.clocks import steady
from orchdb.errors import OperationError, sqlite_code, translate

logger = logging.getLogger("orchdb")

MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
# WAL needs memory that all processes map alike, which these do not give, and locks that they often only pretend.
_REMOTE = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
    *("nfs4", "ocfs2", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
)
_DAMAGE = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_LOOK_SECONDS = 0.1


def make(path: Path) -> None:
    """Make the file and its folders for their owner only; what exists already is left as it is.

    Raises:
        OperationError: The path is no regular file, or cannot be made.
    """
    reason = None
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OperationError(f"{path} is not a regular file")
            return
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)  # one by one: parents=True gives only the last one the mode
        with contextlib.suppress(FileExistsError):
            _make_file(path)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
    if reason is not None:
        raise OperationError(f"{path} cannot be used: {reason}")


def require(path: Path) -> None:
    """Make sure that the file is there, where none may be made.

    Raises:
        OperationError: There is no regular file at the path.
    """
    if not path.exists():
        raise OperationError(f"{path} does not exist, and read_only makes no file")
    if not path.is_file():
        raise OperationError(f"{path} is not a regular file")


def _make_file(path: Path) -> None:
    if sys.platform == "linux":
        # Without a descriptor: another manager of this process may have opened the file before it would be closed.
        os.mknod(path, stat.S_IFREG | 0o600)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


class PrivateFolder:
    """A folder for a database that lives as long as its manager, in memory-backed storage where there is such."""

    def __init__(self) -> None:
        storage = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        self.path = Path(tempfile.mkdtemp(prefix="orchdb-", dir=storage))
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child that exits must not take the folder along
        shutil.rmtree(folder, ignore_errors=True)


def named(path: Path, error: BaseException) -> OperationError:
    """The error that says why this file could not be opened."""
    known = translate(error, "connect", None)
    message = known.message
    if known.code == "SQLITE_READONLY_DIRECTORY":
        message = "its folder cannot be written, which SQLite needs for a file in WAL mode, even to read it"
    return OperationError(f"{path}: {message}", operation="connect", code=known.code)


class Watch:
    """Notices that SQLite's open file is no longer the one at its path, or is damaged: writes would be lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[int, int]] = {}
        self._damage: str | None = None
        self._looked = 0.0

    def begin(self) -> None:
        """Take the files as they are now for the ones that SQLite has open."""
        for suffix in ("", "-wal", "-shm"):
            name = f"{self._path}{suffix}"
            identity = _identity(name)
            if identity is not None:
                self._known[name] = identity

    def check(self) -> None:
        """Refuse to go on if a file was deleted or replaced, or if damage has been seen.

        Raises:
            OperationError: Nothing may be written.
        """
        if self._damage is not None:
            raise OperationError(f"{self._path} is damaged: nothing more is written to it", code=self._damage)
        now = steady()
        if now - self._looked < _LOOK_SECONDS:  # three stats would be a tenth of what a commit costs
            return
        for name, identity in self._known.items():
            if _identity(name) != identity:
                raise OperationError(f"{name} was deleted or replaced while it was open: close() and connect() again")
        self._looked = now

    def saw(self, error: BaseException) -> None:
        """Remember an error that tells of damage."""
        code = sqlite_code(error)
        if code in _DAMAGE:
            self._damage = code


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116  # a Path would be made for each look
    except OSError:
        return None
    return found.st_dev, found.st_ino


def warn_about(path: Path) -> None:
    """Say in the log what is risky about the file, its place or the SQLite library."""
    kind = file_system(path)
    if kind in _REMOTE or kind.startswith("fuse."):
        logger.warning("%s is on a %s file system: SQLite is safe on local file systems only", path, kind)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        logger.warning("%s can be opened by others than its owner: its mode is %03o", path, mode)
    _note_wal_reset_bug()


def file_system(path: Path) -> str:
    """The type of the file system that holds the path; empty where the system does not tell."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    longest, kind = "", ""
    for line in mounts:
        place, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), place.split()[4])
        if len(point) >= len(longest) and f"{path}/".startswith(f"{point.rstrip('/')}/"):
            longest, kind = point, rest.split()[0]
    return kind


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can damage a file when two processes write and checkpoint at the same moment."""
    return (3, 7, 0) <= version < (3, 51, 3) and not (
        (3, 44, 6) <= version < (3, 45) or (3, 50, 7) <= version < (3, 51)
    )


@cache
def _note_wal_reset_bug() -> None:
    # Most systems ship such a version, and the damage is rare: a note and no warning, once.
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        logger.info(
            "SQLite %s has the WAL-reset bug (fixed in 3.51.3): several processes that write to one file can, very "
            "rarely, damage it",
            sqlite3.sqlite_version,
        )

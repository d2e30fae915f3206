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
from urllib.parse import quote

from orchdb.clocks import steady
from orchdb.driver_errors import sqlite_code, sqlite_errorname, translate
from orchdb.errors import OperationError

logger = logging.getLogger("orchdb")

MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
# WAL needs memory that all processes map alike, which these do not give, and locks that they often only pretend.
REMOTE = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
    *("nfs4", "ocfs2", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
)
_DAMAGE = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_LOOK_SECONDS = 0.1
_MEMORY = "/dev/shm"  # noqa: S108
_ENOUGH = 1 << 30


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


def require(path: Path, why: str = "read_only makes no file") -> None:
    """Make sure that the file is there, where none may be made.

    Raises:
        OperationError: There is no regular file at the path.
    """
    if not path.exists():
        raise OperationError(f"{path} does not exist, and {why}")
    if not path.is_file():
        raise OperationError(f"{path} is not a regular file")


def file_uri(path: Path, **options: str) -> str:
    """The file as a ``file:`` URI, because only that can say that a missing file is not to be made."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"file:{quote(os.fsencode(path))}?{query}"


class PrivateFolder:
    """A folder for a database that lives as long as its manager, in memory-backed storage where that has room.

    A container often has only 64 MB of such storage: then the place with the most room is taken.

    Raises:
        OperationError: There is no folder that can be written.
    """

    def __init__(self) -> None:
        made = None
        with contextlib.suppress(OSError):
            made = tempfile.mkdtemp(prefix="orchdb-", dir=_storage())
        if made is None:
            raise OperationError(
                "a database in memory needs a folder for its file, and neither /dev/shm nor a temporary folder can be "
                "written: set TMPDIR to one that can"
            )
        self.path = Path(made)
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())


def temp_store(room: int = 0) -> int:
    """What ``PRAGMA temp_store`` has to be: 0, files, if SQLite finds a folder for them; else 2, memory.

    A container whose own file system is read-only has no such folder, and whatever needs one would fail.

    Args:
        room: How many bytes the folder has to have free.
    """
    if sys.platform == "win32":
        return 0
    # Where SQLite looks; the first that can be written is the one it takes.
    folders = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108
    found = next((free for folder in folders if folder and (free := _room(folder)) >= 0), -1)
    return 0 if found >= room else 2


def named(path: Path, error: BaseException) -> OperationError:
    """The error that says why this file could not be opened."""
    known = translate(error, "connect", None)
    message = known.message
    if known.code == "SQLITE_READONLY_DIRECTORY":
        message = "its folder cannot be written, which SQLite needs for a file in WAL mode, even to read it"
    elif refuses_to_write(error) and on_read_only_medium(path):
        message = "it is on a read-only medium: with read_only=True it can be read"
    elif sqlite_code(error) == "SQLITE_BUSY":
        message = "it stayed locked by another connection or process for longer than lock_timeout"
    return OperationError(f"{path}: {message}", operation="connect", code=known.code)


def refuses_to_write(error: BaseException) -> bool:
    """Whether SQLite could not open or lock a file because it cannot write there."""
    return sqlite_code(error) in {"SQLITE_CANTOPEN", "SQLITE_READONLY"}


def on_read_only_medium(path: Path) -> bool:
    """Whether the file system that holds the file is mounted to be read only."""
    with contextlib.suppress(OSError, AttributeError):  # not every system can tell
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


class Frozen:
    """A file on a read-only medium, which SQLite reads without locks and without a WAL.

    Nobody can write it there, but somebody may be able to from elsewhere, as with a volume that a container has as a
    read-only one.

    Raises:
        OperationError: Rows are in the WAL, which cannot be read there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._state()
        if self._known[1] is not None and self._known[1][0] > 0:
            raise OperationError(
                f"{path} is on a read-only medium, where the newest rows, which are in its -wal file, cannot be read: "
                "copy both files together to a folder that can be written, or open it once there and close it"
            )

    def check(self) -> None:
        """Refuse what was read if somebody has written meanwhile.

        Raises:
            OperationError: The file is not what it was when it was opened.
        """
        if self._state() != self._known:
            raise OperationError(
                f"{self._path} was changed while it was open on a read-only medium: close() and connect() again"
            )

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_content(self._path), _content(self._path.with_name(f"{self._path.name}-wal"))]


class FileGuard:
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

    def note_error(self, error: BaseException) -> None:
        """Remember an error that tells of damage to the file; an index of another program's may be wrong by itself."""
        code = sqlite_code(error)
        if code in _DAMAGE and sqlite_errorname(error) != "SQLITE_CORRUPT_VTAB":
            self._damage = code


def warn_about(path: Path) -> None:
    """Say in the log what is risky about the file, its place or the SQLite library."""
    kind = file_system(path)
    if kind in REMOTE or kind.startswith("fuse."):
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
        mount, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), mount.split()[4])
        if len(point) >= len(longest) and f"{path}/".startswith(f"{point.rstrip('/')}/"):
            longest, kind = point, rest.split()[0]
    return kind


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can damage a file when two processes write and checkpoint at the same moment."""
    return (3, 7, 0) <= version < (3, 51, 3) and not (
        (3, 44, 6) <= version < (3, 45) or (3, 50, 7) <= version < (3, 51)
    )


def _make_file(path: Path) -> None:
    if sys.platform == "linux":
        # Without a descriptor: another manager of this process may have opened the file before it would be closed.
        os.mknod(path, stat.S_IFREG | 0o600)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _storage() -> str:
    memory = _room(_MEMORY)
    if memory >= _ENOUGH:
        return _MEMORY
    temporary = tempfile.gettempdir()
    return temporary if _room(temporary) > memory else _MEMORY


def _room(folder: str) -> int:
    """The free bytes of a folder that can be written; -1 if it is none."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return -1
    return shutil.disk_usage(folder).free


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child that exits must not take the folder along
        shutil.rmtree(folder, ignore_errors=True)


def _content(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116  # a Path would be made for each look
    except OSError:
        return None
    return found.st_dev, found.st_ino


@cache
def _note_wal_reset_bug() -> None:
    # Most systems ship such a version, and the damage is rare: a note and no warning, once.
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        logger.info(
            "SQLite %s has the WAL-reset bug (fixed in 3.51.3): several processes that write to one file can, very "
            "rarely, damage it",
            sqlite3.sqlite_version,
        )

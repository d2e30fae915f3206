"""Which transcripts there are, of which format, and what their places say."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from orchdb import InvalidValueError
from orchdb.transcripts.lines import head_of, shown
from orchdb.transcripts.mapping import SOURCES
from orchdb.transcripts.places import is_uuid

_TOOLS = "Claude Code, Codex or SWE-agent"
_OF_CLAUDE = {"sessionId", "parentUuid", "leafUuid"}


@dataclass(frozen=True)
class Transcript:
    """A file to read.

    Attributes:
        path: Where it is.
        source: Its format.
        size: Bytes.
        changed: When it was last changed, in nanoseconds.
    """

    path: Path
    source: str
    size: int
    changed: int


def default_places() -> list[tuple[str, Path]]:
    """Give the folders where the tools keep their transcripts.

    Returns:
        For each the format, and the folder, which may be missing.
    """
    claude = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
    codex = Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex")
    return [("claude", claude / "projects"), ("codex", codex / "sessions"), ("codex", codex / "archived_sessions")]


def find_transcripts(
    paths: Iterable[str | os.PathLike[str]] | None = None, *, sources: Sequence[str] | None = None
) -> list[Transcript]:
    """Find the transcripts in files and folders.

    Args:
        paths: Files and folders, which are searched with all that is below them. By default the folders where Claude
            Code and Codex keep theirs: ``CLAUDE_CONFIG_DIR`` and ``CODEX_HOME``, or ``~/.claude`` and ``~/.codex``.
        sources: Only of these formats: ``claude``, ``codex``, ``swe``. By default of all.

    Returns:
        The files, by their paths.

    Raises:
        InvalidValueError: A path is not there, or is a file that is no transcript, or a format is unknown.
    """
    wanted = frozenset(SOURCES if sources is None else sources)
    if wanted - SOURCES.keys():
        raise InvalidValueError(f"sources: must be of {', '.join(SOURCES)}", column="sources")
    if paths is None:
        return found_below([path for source, path in default_places() if source in wanted], wanted)
    given = absolute(paths)
    for path in given:
        if not path.exists():
            raise InvalidValueError(f"paths: there is no {shown(path)}", column="paths")
        if path.is_file() and _source(path) is None:
            raise InvalidValueError(f"paths: {shown(path)} is no transcript of {_TOOLS}", column="paths")
    return found_below(given, wanted)


def absolute(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Give paths that stay what they are wherever the program goes.

    Args:
        paths: Files and folders.

    Returns:
        The same ones, from the root on.
    """
    return [Path(path).expanduser().absolute() for path in paths]


def found_below(places: Iterable[Path], wanted: Collection[str] = tuple(SOURCES)) -> list[Transcript]:
    """Find the transcripts that there are now.

    Args:
        places: Files and folders, which need not be there.
        wanted: The formats.

    Returns:
        The files, by their paths.
    """
    found: dict[Path, Transcript] = {}
    for place in places:
        for path in _files(place):
            try:
                source, status = _source(path), path.stat()
            except OSError:  # gone meanwhile, or a link to nowhere
                continue
            if source in wanted and S_ISREG(status.st_mode):
                found[path] = Transcript(path, str(source), status.st_size, status.st_mtime_ns)
    return [found[path] for path in sorted(found)]


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    met: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        folders.sort()
        if Path(folder).name == "tool-results" or not _is_new(folder, met):
            folders.clear()
            continue
        for name in sorted(names):
            if name.endswith((".jsonl", ".traj")):
                yield Path(folder, name)


def _is_new(folder: str, met: set[tuple[int, int]]) -> bool:
    """Whether a folder was not met before: links may lead in a circle."""
    try:
        status = Path(folder).stat()
    except OSError:  # gone meanwhile
        return False
    known = (status.st_dev, status.st_ino) in met
    met.add((status.st_dev, status.st_ino))
    return not known


def _source(path: Path) -> str | None:
    """The format of a file: as its place says, or else as its first rows say; nothing for what is no transcript."""
    if path.suffix == ".traj":
        return "swe"
    if path.name.startswith("rollout-"):
        return "codex"
    if "projects" in path.parts or "subagents" in path.parts or path.name.startswith("agent-") or is_uuid(path.stem):
        return "claude"
    if not os.access(path, os.R_OK) or not path.is_file():
        return "claude"  # of which it will be told that it could not be read
    for row in head_of(path):
        if isinstance(row.get("payload"), dict):
            return "codex"
        if _OF_CLAUDE & row.keys():
            return "claude"
    return None

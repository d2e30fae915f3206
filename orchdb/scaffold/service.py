"""From templates to files: what would happen to a folder, and then doing it without losing what somebody changed."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchdb.errors import InvalidValueError, OperationError
from orchdb.scaffold.configuration import Configuration, read_configuration

TEMPLATES = (
    "adws/adw_database.py.j2",
    "adws/adw_modules/adw_database.py.j2",
    "data/.gitignore.j2",
)
"""Every template, by its place below ``templates/``; without ``.j2`` it is the file's place in the project."""

CONFIGURATION = "config.yml"
"""The project's own configuration, at its root."""

Action = Literal["create", "keep", "overwrite"]


@dataclass(frozen=True)
class PlannedFile:
    """A file of the project.

    Attributes:
        path: Its place in the project, with ``/`` on every system.
        content: What it will hold.
        action: ``create`` if it is missing, ``keep`` if it is the same, ``overwrite`` if it differs.
    """

    path: str
    content: str
    action: Action


@dataclass(frozen=True)
class Plan:
    """What ``apply`` would do to a folder.

    Attributes:
        folder: The project.
        files: Each file of it that the templates make.
        configuration: The file that was read for it, if one was.
    """

    folder: Path
    files: tuple[PlannedFile, ...]
    configuration: Path | None = None

    def paths(self, action: Action) -> tuple[str, ...]:
        """List the files that one action would happen to.

        Args:
            action: ``create``, ``keep`` or ``overwrite``.

        Returns:
            Their places in the project, in the order of the plan.
        """
        return tuple(file.path for file in self.files if file.action == action)


@dataclass(frozen=True)
class Outcome:
    """What ``apply`` did: the places of files in the project.

    Attributes:
        created: Files that were missing, and were written.
        kept: Files that were the same already.
        overwritten: Files that differed, and were written because of ``force``.
        refused: Files that differ from what was planned, and were left as they were.
    """

    created: tuple[str, ...]
    kept: tuple[str, ...]
    overwritten: tuple[str, ...]
    refused: tuple[str, ...]


class ScaffoldService:
    """Renders the registered templates into a project.

    ``service = ScaffoldService("project"); service.apply(service.build_plan())``

    Args:
        folder: The project that plans are compared with, and applied to unless ``apply`` is given another one.

    Raises:
        OperationError: The extra ``scaffold`` is not installed.
        InvalidValueError: ``folder`` holds a NUL.
    """

    def __init__(self, folder: str | os.PathLike[str] = ".") -> None:
        if any(importlib.util.find_spec(name) is None for name in ("jinja2", "yaml")):
            raise OperationError("scaffolding needs Jinja2 and PyYAML: pip install 'orchdb[scaffold]'")
        self.folder = _checked_folder(folder)

    def build_plan(self, config: Configuration | str | os.PathLike[str] | None = None) -> Plan:
        """Plan what would be created, kept or overwritten; nothing is written.

        Args:
            config: A mapping, or the path of a YAML file; by default ``config.yml`` in the project, if it is there.
                ``database.path`` is a URL or a path; a relative one starts at the root of the project. Without it the
                database is ``data/orchestrator.db``, which the generated ``.gitignore`` covers.

        Returns:
            The plan, for ``apply``.

        Raises:
            InvalidValueError: The configuration is not usable; the message names the key.
            OperationError: A file cannot be read.
        """
        if config is None and (self.folder / CONFIGURATION).is_file():
            config = self.folder / CONFIGURATION
        files: list[PlannedFile] = []
        for path, content in _render(read_configuration(config)).items():
            files.append(PlannedFile(path, content, _action(_inside(self.folder, path), path, content)))
        return Plan(self.folder, tuple(files), Path(config) if isinstance(config, (str, os.PathLike)) else None)

    def apply(self, plan: Plan, folder: str | os.PathLike[str] | None = None, *, force: bool = False) -> Outcome:
        """Write the files of a plan, each as a whole or not at all, and a changed one only with ``force``.

        The folder is looked at again, so a file that was changed after the plan was built is safe too. All files are
        looked at before the first one is written.

        Args:
            plan: What ``build_plan`` gave.
            folder: Another folder than the plan's.
            force: Overwrite what somebody changed.

        Returns:
            What was done, file by file.

        Raises:
            InvalidValueError: A file would lie outside the folder.
            OperationError: A file cannot be read or written.
        """
        root = plan.folder if folder is None else _checked_folder(folder)
        targets = [(file, _inside(root, file.path)) for file in plan.files]
        found: dict[Action, list[str]] = {"create": [], "keep": [], "overwrite": []}
        due: list[tuple[PlannedFile, Path]] = []
        for file, target in targets:
            action = _action(target, file.path, file.content)
            found[action].append(file.path)
            if action == "create" or (action == "overwrite" and force):
                due.append((file, target))
        for file, target in due:
            _write(target, file.path, file.content)
        created, kept, changed = (tuple(found[action]) for action in ("create", "keep", "overwrite"))
        return Outcome(created, kept, overwritten=changed if force else (), refused=() if force else changed)


# -- rendering -------------------------------------------------------------------------------------------------------


def _render(config: Mapping[str, Any]) -> dict[str, str]:
    """The content of each file, by its place in the project."""
    import jinja2  # noqa: PLC0415  # of the extra

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchdb.scaffold"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # Python, not HTML
    )
    environment.filters["python_literal"] = python_literal
    context = {"config": config, "dependency": _dependency(str(config["database"].get("path", "")))}
    return {name.removesuffix(".j2"): environment.get_template(name).render(context) for name in TEMPLATES}


def python_literal(text: str) -> str:
    """Spell a text as Python code; in double quotes where it holds no quotes itself, as formatters want it.

    Args:
        text: Any text.

    Returns:
        The literal.
    """
    literal = repr(text)
    return literal if "'" in text or '"' in text else f'"{literal[1:-1]}"'


def _dependency(path: str) -> str:
    """What the generated module needs, with the driver of the database it is bound to."""
    extra = "psycopg" if "+psycopg:" in path else "postgres" if path.startswith("postgres") and "://" in path else ""
    # No upper bound and no exact version: a newer orchdb must not make every generated file look changed.
    return f"orchdb[{extra}]>=0.1" if extra else "orchdb>=0.1"


# -- files -----------------------------------------------------------------------------------------------------------


def _checked_folder(folder: str | os.PathLike[str]) -> Path:
    if "\0" in os.fspath(folder):
        raise InvalidValueError("folder: must not hold a NUL", column="folder")
    return Path(folder).absolute()


def _inside(root: Path, path: str) -> Path:
    """Where the file really lies, after every symbolic link, if that is inside the folder."""
    if root.exists() and not root.is_dir():
        raise OperationError(f"{root} is not a folder")
    try:
        root = root.resolve()
        target = (root / path).resolve()
    except (OSError, RuntimeError):  # links that lead to each other, before Python 3.13
        target = root
    folders = [place for place in target.parents if place.is_relative_to(root)]
    looping = any(place.is_symlink() for place in (target, *folders))  # and from Python 3.13
    if looping or not path or not target.is_relative_to(root) or target == root:
        raise InvalidValueError(f"{path}: lies outside the folder", column="folder")
    if any(place.exists() and not place.is_dir() for place in folders) or (target.exists() and not target.is_file()):
        raise OperationError(f"{path}: something else is in the way")
    return target


def _action(target: Path, path: str, content: str) -> Action:
    try:
        present = target.read_bytes()
    except FileNotFoundError:
        return "create"
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror}") from None
    # Git may have written the line ends of the system.
    return "keep" if present.replace(b"\r\n", b"\n") == content.encode() else "overwrite"


def _write(target: Path, path: str, content: str) -> None:
    """Replace the file as a whole: whoever reads it meanwhile sees the old or the new one."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror}") from None

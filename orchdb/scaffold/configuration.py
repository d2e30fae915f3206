"""The configuration of a project: a mapping or a YAML file, checked before anything is rendered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from orchdb.errors import InvalidValueError, OperationError
from orchdb.location import resolve
from orchdb.raising import raised_as
from orchdb.schema.values import name

Configuration = Mapping[str, Any]
DATABASE_PATH = "config.database.path"


def read_configuration(config: Configuration | str | os.PathLike[str] | None) -> dict[str, Any]:
    """Read the configuration as the templates see it: what is not set is not there, so that their defaults hold.

    Args:
        config: A mapping, the path of a YAML file, or ``None`` for an empty configuration.

    Returns:
        The configuration, with its section ``database``.

    Raises:
        InvalidValueError: The YAML is malformed, or a value is not usable; the message names the key.
        OperationError: The file cannot be read.
    """
    if not isinstance(config, (str, os.PathLike)):
        return _checked(config)
    file = Path(config)
    given = _read_file(file)
    with raised_as(
        InvalidValueError, lambda error: InvalidValueError(f"{error.message}, in {file}", column=error.column)
    ):
        return _checked(given)


def _checked(given: object) -> dict[str, Any]:
    content = _section(given, "config")
    database = _section(content.get("database"), "config.database")
    path = database.get("path")
    if path is None:
        database.pop("path", None)
    else:
        database["path"] = _database_path(path)
    return {**content, "database": database}


def _read_file(file: Path) -> object:
    import yaml  # noqa: PLC0415  # of the extra

    problem = "is not YAML"
    try:
        return cast("object", yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise OperationError(f"config: {file} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is not None:
            problem += f": {error.problem} in line {error.problem_mark.line + 1}"
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    raise InvalidValueError(f"config: {file} {problem}", column="config")


def _section(value: object, key: str) -> dict[str, Any]:
    """A copy of a mapping; a section that is left empty is one without entries."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"{key}: must be a mapping, not {type(value).__name__}", column=key)
    return dict(cast("Mapping[str, Any]", value))


def _database_path(value: object) -> str:
    """The path or URL of the database, as orchdb can open it."""
    if isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    path = name(value, DATABASE_PATH) or ""
    with raised_as(InvalidValueError, _of_the_path):
        resolve(path)
    return path


def _of_the_path(error: InvalidValueError) -> InvalidValueError:
    return InvalidValueError(f"{DATABASE_PATH}: {error.message.partition(': ')[2]}", column=DATABASE_PATH)

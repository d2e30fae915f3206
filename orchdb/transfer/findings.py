"""The file that tells, row by row, what a target could not hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchdb.errors import OperationError
from orchdb.raising import raised_as
from orchdb.transfer.reading import Part


class Findings:
    """A file of JSON lines, for its owner only, which is made when there is something to tell.

    Args:
        path: Where it is to be; ``None`` for nowhere.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else Path(path).expanduser()
        self._failed = f"the file of findings {self._path} cannot be written"

    def check(self) -> None:
        """Make sure that the file can be written, before anything else is.

        Raises:
            OperationError: It cannot.
        """
        if self._path is not None and (self._path.is_dir() or not os.access(self._path.absolute().parent, os.W_OK)):
            raise OperationError(self._failed)

    def tell(self, table: str, part: Part) -> None:
        """Write a line for each value that became another one, and for each row that was left out.

        Args:
            table: The table.
            part: The rows.

        Raises:
            OperationError: The file cannot be written.
        """
        lines = [
            {"table": table, "id": part.ids[change.row], "column": change.column, "rule": change.rule}
            | {"value": change.value}
            for change in part.changes
        ]
        lines += [{"table": table, "id": id_, "column": None, "rule": "orphan", "value": None} for id_ in part.left_out]
        if lines and self._path is not None:
            with raised_as(OSError, lambda error: OperationError(f"{self._failed}: {error.strerror}")):
                self._append(self._path, lines)

    def _append(self, path: Path, lines: Iterable[dict[str, Any]]) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{json.dumps(line, ensure_ascii=False, default=_text)}\n" for line in lines)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

"""What a wheel needs beside the files of the package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class InstalledPlaces(BuildHookInterface):
    """In a checkout the migrations lie beside the package, in a wheel inside it: ``alembic.ini`` says where."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # the package stays where it is
            return
        text = Path(self.root, "alembic.ini").read_text(encoding="utf-8")
        self._folder = tempfile.TemporaryDirectory()
        ini = Path(self._folder.name, "alembic.ini")
        ini.write_text(text.replace("orchdb:../migrations", "orchdb:migrations"), encoding="utf-8")
        build_data["force_include"][str(ini)] = "orchdb/alembic.ini"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            self._folder.cleanup()

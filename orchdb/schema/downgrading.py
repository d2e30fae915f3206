"""What each revision does, and the way back to an older one."""

from __future__ import annotations

import argparse
import ast
import logging
from typing import NamedTuple

from sqlalchemy import URL

from orchdb.errors import SchemaError
from orchdb.schema.revisions import REVISIONS, shipped

logger = logging.getLogger("orchdb")


class Revision(NamedTuple):
    """A revision of the schema.

    Attributes:
        revision: Its number.
        summary: What it does, in a line.
    """

    revision: str
    summary: str


def known_revisions() -> list[Revision]:
    """All revisions, the oldest first, without loading Alembic."""
    found: list[Revision] = []
    folder = shipped("migrations/versions")
    for number in REVISIONS:
        (file,) = folder.glob(f"{number}_*.py")
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        found.append(Revision(number, text.partition("\n")[0]))
    return found


def downgrade(url: URL, revision: str) -> list[str]:
    """Take a database back to an older revision; it starts an event loop of its own.

    Args:
        url: The database, which has to be there.
        revision: The one to go to.

    Returns:
        What was lost, in sentences.

    Raises:
        SchemaError: There is no such revision, or it cannot be gone back to; nothing was changed.
        OrchdbError: The database cannot be used.
    """
    from alembic import command  # noqa: PLC0415  # as dear as SQLAlchemy itself, and hardly ever needed
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    if revision not in REVISIONS:
        raise SchemaError(f"there is no revision {revision}: {', '.join(REVISIONS)}")
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    place = url.render_as_string(hide_password=False)
    if url.get_backend_name() == "sqlite":
        place = str(url.database)  # whatever is in the name: as a URL it would have to be quoted
    config.cmd_opts = argparse.Namespace(x=[f"url={place}"], cmd=None)
    losses = _Losses(logging.WARNING)
    logger.addHandler(losses)
    failure = ""
    try:
        command.downgrade(config, revision)
    except CommandError as error:
        failure = str(error)
    finally:
        logger.removeHandler(losses)
    if failure:
        raise SchemaError(failure)
    return losses.told


class _Losses(logging.Handler):
    """Hears what the revisions announce."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())

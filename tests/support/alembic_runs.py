"""Running Alembic in tests: through a connection, as ``connect()`` does, and through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url

import orchdb
from orchdb.schema.revisions import shipped

ROOT = Path(orchdb.__file__).parents[1]
"""What has to be on the path for the package to be found."""


def configuration(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def migrating_engine(target: Path | str) -> Engine:
    """An engine as a migration needs it: on SQLite with foreign keys off and a BEGIN that covers DDL."""
    if isinstance(target, str):
        return create_engine(make_url(target).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    engine = create_engine(URL.create("sqlite", database=str(target)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def transaction(target: Path | str) -> Iterator[Connection]:
    engine = migrating_engine(target)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def upgrade(target: Path | str, revision: str = "head") -> None:
    with transaction(target) as connection:
        command.upgrade(configuration(connection), revision)


def downgrade(target: Path | str, revision: str) -> None:
    with transaction(target) as connection:
        command.downgrade(configuration(connection), revision)


def command_line(
    *arguments: str, cwd: Path = ROOT, environment: dict[str, str] | None = None, ini: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the real ``alembic`` in a process of its own, with none of the variables that choose a database."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    variables = inherited | {"PYTHONPATH": str(ROOT)} | (environment or {})
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ini or shipped("alembic.ini")), *arguments],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

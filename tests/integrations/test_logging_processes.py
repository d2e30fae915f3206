"""Records of programs that end at once, and of their child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import orchdb
from orchdb import DatabaseManager
from tests.conftest import Target

HEAD = """\
import logging, multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor
from orchdb.integrations.logging import DatabaseHandler

def configure(url):
    logging.basicConfig(level=logging.INFO, handlers=[DatabaseHandler(url, exit_timeout=30)])

def work(number):
    logging.getLogger("pool").info("%d", number)
"""
ENDS = {
    "returns": "logging.info('At the end')",
    "sys.exit": "logging.info('At the end')\nsys.exit()",
    "an exception": "logging.info('At the end')\nsys.excepthook = lambda *_: None\n1 / 0",
    "a thread": "threading.Timer(0.2, logging.info, ('At the end',)).start()\nlogging.info('First')",
}


def run(code: str, url: str, folder: Path) -> None:
    """Run the program, with ``configure``, ``work`` and the URL."""
    path = folder / "program.py"
    path.write_text(f"{HEAD}\nif __name__ == '__main__':\n    url = {url!r}\n    configure(url)\n" + code)
    environment = {**os.environ, "PYTHONPATH": str(Path(orchdb.__file__).parents[1])}
    command = [sys.executable, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 12, 2), reason="no thread can be started while a program ends")
@pytest.mark.parametrize("end", ENDS)
async def test_what_was_logged_when_the_program_ends_is_stored(
    db: DatabaseManager, target: Target, tmp_path: Path, end: str
) -> None:
    if end != "returns" and target.engine != "sqlite":
        pytest.skip("how a program ends is the same on each engine")
    run("".join(f"    {line}\n" for line in ENDS[end].splitlines()), target.url, tmp_path)
    assert [row["message"] for row in await db.get_system_logs()][-1:] == ["At the end"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_processes_of_a_pool_log_to_the_same_place(
    db: DatabaseManager, target: Target, tmp_path: Path, method: str
) -> None:
    if method == "spawn" and target.engine != "sqlite":
        pytest.skip("a process that begins anew is the same on each engine")
    initializer = ", initializer=configure, initargs=(url,)" if method == "spawn" else ""
    code = f"""\
    import warnings
    warnings.simplefilter("ignore")
    logging.info("Parent")
    context = multiprocessing.get_context("{method}")
    with ProcessPoolExecutor(2, mp_context=context{initializer}) as pool:
        list(pool.map(work, range(60)))
    logging.info("Parent again")
"""
    run(code, target.url, tmp_path)
    rows = await db.get_system_logs()
    assert sorted(int(row["message"]) for row in rows if row["component"] == "pool") == [*range(60)]
    assert [row["message"] for row in rows if row["component"] == "root"] == ["Parent", "Parent again"]

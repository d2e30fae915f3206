"""A client of the server dies in the middle of its work: what was acknowledged is there; the rest as a whole or not."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import URL

from orchdb import DatabaseManager
from tests.support.faults import Child, log
from tests.support.postgres_sessions import Watched, watched

ROUNDS = 30  # in every third one the client is killed while it connects


@pytest.mark.slow
def test_a_client_that_is_killed_in_the_middle_of_load_loses_nothing_and_leaves_no_session(url: URL) -> None:
    acknowledged: set[str] = set()
    killed_at_work = 0
    address = url.render_as_string(hide_password=False)
    with Child("crashing", address, "normal", ROUNDS) as child, watched(url) as server:
        for number in range(ROUNDS):
            said = child.line()
            acknowledged.update(said)
            killed_at_work += bool(said)
            no_session_is_left(server)
            visible = [row[0] for row in server.ask("SELECT message FROM system_logs WHERE component = 'load'")]
            assert len(visible) == len(set(visible))
            assert acknowledged - set(visible) == set()
            # Each transaction of the load wrote one prompt and one line.
            prompts = [row[0] for row in server.ask("SELECT prompt_text FROM prompts")]
            assert sorted(prompts) == sorted(name for name in visible if int(name.split("-")[1]) >= 3)
            asyncio.run(start_again(url, number))
            child.tell("next")
        child.end()
    assert killed_at_work >= 20


def no_session_is_left(server: Watched) -> None:
    """The dead client's sessions, and what they had begun, end soon."""
    deadline = time.monotonic() + 5
    while server.sessions():
        assert time.monotonic() < deadline, server.sessions()
        time.sleep(0.005)


async def start_again(url: URL, number: int) -> None:
    """The next start works at once, and so do writing and reading."""
    started = time.monotonic()
    async with DatabaseManager(url) as db:
        await log(db, str(number))
        assert await db.add_agent_cost(await db.create_agent(await db.create_orchestrator_agent(f"{number}"), "s"), 1)
        (newest,) = await db.list_recent_system_logs(1)
        assert newest["message"] == str(number)
    assert time.monotonic() - started < 5

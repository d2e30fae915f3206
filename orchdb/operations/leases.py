"""The leases of one manager: what shows that the owner of its open runs is alive.

A lease is one row for all runs of a manager with the same length, and one statement renews all leases of a manager, so
that a thousand open runs cost what one costs. It is renewed each third of the shortest length, by a timer and no task:
nothing is left to cancel when the event loop ends, and a loop that was blocked renews as soon as it goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select, update

from orchdb.clocks import Timer, call_later, steady
from orchdb.concurrency import begun
from orchdb.database import Database
from orchdb.errors import NotConnectedError, OperationError, OrchdbError
from orchdb.executor import failures_reported
from orchdb.operations.run_ends import End, bound, fail_all, write_end
from orchdb.schema.sql_functions import database_clock, database_clock_id
from orchdb.schema.tables import agents, leases
from orchdb.schema.values import new_id, now
from orchdb.statements import Statement

logger = logging.getLogger("orchdb")

_OPERATION = "agent_run"
_RENEWALS = 3
"""In the time of a lease."""
_TRIES = 4
"""In the time between two renewals, where one has failed."""
_REAPED = "its lease had run out: it was reaped, and is no run any more"
_CLOSED = "the manager was closed before the run had ended"

_MINE = leases.c.owner == bound("owner", leases.c.owner.type)
_CLOCK: dict[str, Any] = {
    "renewed_at": bound("renewed_at", leases.c.renewed_at.type),
    "clock": database_clock(),
    "clock_id": database_clock_id(),
}
_KEYS = {name: bound(name, leases.c[name].type) for name in ("id", "owner", "seconds")}
_INSERT: Statement[Any] = Statement(leases, insert(leases).values(_KEYS | _CLOCK), changes_one=True)
# In the order in which a reaper locks them.
_LOCKED = select(leases.c.id).where(_MINE).order_by(leases.c.id).with_for_update()
_RENEW: Statement[Any] = Statement(leases, update(leases).where(leases.c.id.in_(_LOCKED)).values(_CLOCK))
_THERE: Statement[Any] = Statement(leases, select(leases.c.id).where(_MINE))
HAS_RUN_OUT = (leases.c.clock_id != database_clock_id()) | (leases.c.clock + leases.c.seconds < database_clock())
ANY_EXPIRED: Statement[Any] = Statement(leases, select(leases.c.id).where(HAS_RUN_OUT))
"""Whether there are any, for who looks in passing."""
EXPIRED: Statement[Any] = Statement(
    leases, select(leases.c.id, leases.c.renewed_at).where(HAS_RUN_OUT).order_by(leases.c.id).with_for_update()
)
"""Those that have run out, locked: a renewal that comes at the same moment is waited for, and counts."""


@dataclass(eq=False)
class Lease:
    """One row: what runs of the same length hold together.

    Attributes:
        id: Its id.
        seconds: How long it lives without being renewed.
        renewed: When it was last renewed, by the clock of this process.
        runs: The ids of the agents that are to be kept alive.
        gone: Why nobody holds it any more; ``None`` while that is not known.
    """

    id: str
    seconds: float
    renewed: float
    runs: set[str] = field(default_factory=lambda: set[str]())
    gone: OrchdbError | None = None

    def check(self) -> None:
        """Refuse what is done for a run that has been taken away.

        Raises:
            OperationError: It was reaped.
            NotConnectedError: The manager has been closed.
        """
        if self.gone is not None:
            with failures_reported(_OPERATION, agents.name):
                raise type(self.gone)(self.gone.message)

    def due(self) -> float:
        """When it has to be renewed."""
        return self.renewed + self.seconds / _RENEWALS


class Leases:
    """The leases of an open database, and the ends that are still to be written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin()
        database.before_closing = self.release

    def _begin(self) -> None:
        self._owner = new_id()
        self._leases: dict[float, Lease] = {}  # by their lengths
        self._owed: dict[str, tuple[Lease, End]] = {}  # ends that could not be written
        self._work = set[asyncio.Future[Any]]()
        self._turn = asyncio.Lock()
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._beating = self._paying = self._closing = False

    async def alive(self, seconds: float, *, for_certain: bool = False) -> Lease:
        """A lease of this length that has been renewed lately.

        Args:
            seconds: The length.
            for_certain: Look in the database, whatever is known here.

        Raises:
            NotConnectedError: The manager is closing.
        """
        lease = self._leases.get(seconds)
        if lease is not None and steady() < lease.due() and not for_certain:
            return lease
        async with self._turn:
            lease = self._leases.get(seconds)
            if lease is not None and (for_certain or steady() >= lease.due()):
                await self._renew()
                lease = self._leases.get(seconds)
            if lease is None:
                lease = Lease(new_id(), seconds, steady())
                values = {"id": lease.id, "owner": self._owner, "seconds": seconds, "renewed_at": now()}
                await self._database.insert(_OPERATION, _INSERT, values)
                self._leases[seconds] = lease
        return lease

    def hold(self, lease: Lease, agent_id: str) -> None:
        """Keep the agent alive from here on.

        Raises:
            NotConnectedError: The manager is closing.
        """
        if self._closing:
            with failures_reported(_OPERATION, agents.name):
                raise NotConnectedError("the manager is closing")
        lease.runs.add(agent_id)
        self._schedule()

    def let_go(self, lease: Lease, agent_id: str) -> None:
        """Keep it alive no longer; it has ended, or has never been."""
        lease.runs.discard(agent_id)

    async def end(self, lease: Lease, end: End) -> None:
        """Write the end of a run; one that cannot be written now is tried again with each renewal.

        Raises:
            OperationError: It was reaped and has the end that it got; or its end cannot be written now.
            NotConnectedError: The manager is closed, or belongs to another process or event loop.
        """
        keeps = False
        try:
            lease.check()
            if not await write_end(self._database, end):
                lease.gone = lease.gone or OperationError(_REAPED)
                lease.check()
        except OperationError:
            keeps = lease.gone is None
            raise
        finally:
            if keeps:
                self.owe(lease, end)
            else:
                self.let_go(lease, end.agent_id)

    def owe(self, lease: Lease, end: End) -> None:
        """Write the end of a run with the next renewal."""
        self._owed[end.agent_id] = lease, end
        self._schedule()

    def in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Begin something that nobody need wait for; ``close()`` does."""
        task = begun(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: what failed has been logged

    # -- renewing --

    def _schedule(self, *, after_failure: bool = False) -> None:
        """Set the timer by the lease that is due first; nothing is renewed for nobody."""
        held = [lease for lease in self._leases.values() if lease.runs]
        if self._beating or self._closing or not held:
            return
        due = min(lease.due() for lease in held)
        if after_failure:
            due = steady() + min(lease.seconds for lease in held) / _RENEWALS / _TRIES
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = call_later(asyncio.get_running_loop(), max(due - steady(), 0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        if any(lease.runs for lease in self._leases.values()):
            self._beating = True
            self.in_background(self._beat())

    async def _beat(self) -> None:
        failed = False
        try:
            async with self._turn:
                await self._renew()
        except NotConnectedError:  # in a fork, or where somebody has closed it: not theirs to keep alive
            self._leases.clear()
        except OrchdbError:
            failed = True
        finally:
            self._beating = False
        self._schedule(after_failure=failed)
        if self._owed and not self._paying and not failed:
            # Beside it: an end may have to wait for a lock for longer than the others' lease.
            self._paying = True
            self.in_background(self._write_owed())

    async def renew(self) -> None:
        """Renew them now, if they keep anybody alive."""
        if any(lease.runs for lease in self._leases.values()):
            async with self._turn:
                await self._renew()

    async def _renew(self) -> None:
        known, started = [*self._leases.values()], steady()
        values = {"owner": self._owner, "renewed_at": now()}
        there = {lease.id for lease in known}
        if await self._database.execute_beside(_OPERATION, _RENEW, values) < len(known):
            there = {row["id"] for row in await self._database.fetch_newest(_OPERATION, _THERE, values)}
        for lease in known:
            if lease.id in there:
                lease.renewed = started
            else:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        del self._leases[lease.seconds]
        lease.gone = OperationError(_REAPED)
        if lease.runs:
            logger.error("agent_run on agents: a lease of %d open runs had run out: they were reaped", len(lease.runs))

    async def _write_owed(self) -> None:
        try:
            for agent_id, (lease, end) in [*self._owed.items()]:
                with suppress(OrchdbError):  # logged, and tried again
                    await write_end(self._database, end)
                    del self._owed[agent_id]
                    self.let_go(lease, agent_id)
        finally:
            self._paying = False

    # -- closing --

    async def release(self, *, able: bool) -> None:
        """End what is still open, for nobody will keep it alive; the next lease is of another owner.

        Args:
            able: Whether this process and event loop may write.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._closing = True
        try:
            if able and (self._leases or self._work):
                await self._end_all()
        finally:
            for lease in self._leases.values():
                lease.gone = lease.gone or NotConnectedError(_CLOSED)
            self._begin()

    async def _end_all(self) -> None:
        while self._work:
            await asyncio.wait([*self._work])
        await self._write_owed()
        for lease in self._leases.values():
            lease.gone = NotConnectedError(_CLOSED)
            with suppress(OrchdbError):  # logged; it runs out
                async with self._database.transaction() as tx:
                    await fail_all(tx, _OPERATION, lease.id, _CLOSED, now())

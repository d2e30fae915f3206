"""Runs: agents that end with a block of the program, and those whose program has died."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any
from uuid import UUID

from orchdb.blocks import in_a_generator
from orchdb.bound_agent import bind, unbind
from orchdb.concurrency import shielded
from orchdb.database import Database
from orchdb.errors import ConnectionLostError, InvalidValueError, MissingParentError, OrchdbError
from orchdb.executor import failures_reported
from orchdb.operations import Operations
from orchdb.operations.creation import new_row_id, time_of_creation
from orchdb.operations.leases import Lease, Leases
from orchdb.operations.reaping import reaped
from orchdb.operations.run_ends import End, end_by
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import JsonObject, JsonValue, LogLevel, PromptStatus, Time
from orchdb.schema.tables import agents
from orchdb.statements import Statement

logger = logging.getLogger("orchdb")

_INSERT: Statement[Any] = TableStatements[Any](agents).insert(
    (
        "id",
        "orchestrator_agent_id",
        "session_id",
        "parent_agent_id",
        "status",
        "context",
        "config",
        "metadata",
        "started_at",
        "created_at",
        "updated_at",
        "lease_id",
    )
)
_LEAST_SECONDS = 1
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


class AgentRun:
    """What ``async with db.agent_run(...)`` gives: an agent that is at work until the block ends.

    ``db.agent_run()`` makes it; nobody else does.
    """

    def __init__(self, operations: Operations, agent_id: str, lease: Lease) -> None:
        self._operations = operations
        self._id = agent_id
        self._lease = lease

    @property
    def id(self) -> str:
        """The id of its agent, for all other operations."""
        return self._id

    async def log(
        self,
        log_type: str,
        message: str,
        details: JsonValue = None,
        log_level: LogLevel = "INFO",
        *,
        event_id: str | None = None,
    ) -> int:
        """Write a line to the log of the agent.

        Args:
            log_type: Any non-empty text of at most 500 characters; ``KNOWN_LOG_TYPES`` holds the usual ones.
            message: Free text.
            details: Any JSON value; text is stored as text.
            log_level: One of ``LOG_LEVELS``.
            event_id: What you call the line: one that is sent again is not written again. By default nothing.

        Returns:
            The id of the line, a whole number that grows.

        Raises:
            InvalidValueError: A value does not fit its column.
            MissingParentError: The agent has been deleted.
            OperationError: The run was reaped, as far as that is known here; besides what writing may raise.
        """
        self._lease.check()
        return await self._operations.create_agent_log(
            self._id, log_level, log_type, message, details, event_id=event_id
        )

    async def prompt(
        self,
        prompt_type: str,
        prompt_text: str,
        prompt_name: str | None = None,
        status: PromptStatus = "pending",
        model_used: str | None = None,
        metadata: JsonObject | None = None,
        *,
        id: str | UUID | None = None,
        exist_ok: bool = False,
    ) -> str:
        """Create a prompt of the agent; what comes back is filled in with ``db.complete_prompt``.

        Args:
            prompt_type: Any non-empty text of at most 500 characters; ``KNOWN_PROMPT_TYPES`` holds the usual ones.
            prompt_text: What is asked.
            prompt_name: A name for people.
            status: One of ``PROMPT_STATUSES``.
            model_used: The model that is asked, if it is known yet.
            metadata: A JSON object, as a mapping.
            id: Its id: any UUID. By default a new one.
            exist_ok: Take a prompt that has the id for this one, and leave it as it is. By default that is an error.

        Returns:
            The id of the prompt, 36 characters of UUID.

        Raises:
            InvalidValueError: A value does not fit its column.
            MissingParentError: The agent has been deleted.
            DuplicateError: A prompt has this id, and ``exist_ok`` is not set.
            OperationError: The run was reaped, as far as that is known here; besides what writing may raise.
        """
        self._lease.check()
        return await self._operations.create_prompt(
            self._id, prompt_type, prompt_text, prompt_name, status, model_used, metadata, id=id, exist_ok=exist_ok
        )

    def __repr__(self) -> str:
        return f"<AgentRun {self._id}>"


class _Block(AbstractAsyncContextManager[AgentRun, None]):
    """The block of a run: what it begins with, and the end that it leaves."""

    def __init__(
        self,
        operations: Operations,
        database: Database,
        leases: Leases,
        definition: str | UUID,
        seconds: float,
        values: dict[str, Any],
    ) -> None:
        self._operations = operations
        self._database = database
        self._leases = leases
        self._definition = definition
        self._seconds = seconds
        self._values = values

    async def __aenter__(self) -> AgentRun:
        with failures_reported("agent_run", agents.name):
            seconds = _checked_seconds(self._seconds)
            row_id = new_row_id("agent_run", agents.name, self._values["id"])
            moment = time_of_creation("agent_run", agents.name, self._values["created_at"])
        values: dict[str, Any] = {
            **self._values,
            "id": row_id,
            "orchestrator_agent_id": None,
            "status": "executing",
            "started_at": moment,
            "created_at": moment,
            "updated_at": moment,
            "lease_id": None,
        }
        self._database.check("agent_run", _INSERT, {**values, "orchestrator_agent_id": values["id"]})
        values["orchestrator_agent_id"] = await self._definition_id()
        creating = self._leases.in_background(self._created(seconds, values))
        try:
            self._lease = await asyncio.shield(creating)
        except (asyncio.CancelledError, GeneratorExit):
            # Whether it is there is known only when that has ended. Nobody waits: it may have to wait for a lock.
            if _in_a_loop():
                self._leases.in_background(self._taken_back(creating, values["id"]))
            raise
        self._run = AgentRun(self._operations, values["id"], self._lease)
        self._bound = bind(self._run.id)
        return self._run

    async def _definition_id(self) -> str:
        if isinstance(self._definition, UUID) or _UUID.fullmatch(str(self._definition)):
            return str(self._definition)
        return await self._operations.get_or_create_orchestrator_agent(self._definition)

    async def _created(self, seconds: float, values: dict[str, Any]) -> Lease:
        """The lease that the new agent holds."""
        lease = await self._leases.alive(seconds)
        try:
            return await self._inserted(lease, values)
        except MissingParentError as error:
            if error.column != "lease_id":
                raise
        # It was taken away although nobody here has slept for so long: a clock was set, say.
        return await self._inserted(await self._leases.alive(seconds, for_certain=True), values)

    async def _inserted(self, lease: Lease, values: dict[str, Any]) -> Lease:
        self._leases.hold(lease, values["id"])
        try:
            await self._database.insert("agent_run", _INSERT, {**values, "lease_id": lease.id})
        except ConnectionLostError:  # it may be there, and nobody would ever end it
            self._leases.owe(lease, End(values["id"], lease.id, "cancelled"))
            raise
        except BaseException:
            self._leases.let_go(lease, values["id"])
            raise
        return lease

    async def _taken_back(self, creating: asyncio.Future[Lease], agent_id: str) -> None:
        lease = await creating
        await self._leases.end(lease, End(agent_id, lease.id, "cancelled"))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        unbind(self._bound)
        if not _in_a_loop():  # it has ended without the block, which Python now clears away
            logger.error("agent_run on agents: no event loop is running any more, in which its end could be written")
            return
        writing = self._leases.in_background(self._leases.end(self._lease, end_by(error, self._run.id, self._lease.id)))
        if isinstance(error, GeneratorExit) and not in_a_generator():
            return  # a coroutine that is closed may not wait for anything
        try:
            await shielded(writing)
        except OrchdbError:  # logged; what the block itself raised is the one to tell
            if error is None:
                raise


class RunOperations(Operations):
    """Runs, which only an open database has and a transaction does not: they outlive any transaction."""

    _leases: Leases

    @property
    @abstractmethod
    def _executor(self) -> Database:
        """The open database."""

    def agent_run(
        self,
        name_or_id: str | UUID,
        session_id: str,
        parent_agent_id: str | None = None,
        *,
        context: JsonObject | str | None = None,
        config: JsonObject | str | None = None,
        metadata: JsonObject | None = None,
        lease_seconds: float = 60,
        id: str | UUID | None = None,
        created_at: Time | None = None,
    ) -> AbstractAsyncContextManager[AgentRun]:
        """Open a block that is the run of an agent: executing while it is open, and ended with it, however it ends.

        ``async with db.agent_run("scout", "session-1") as run`` creates the agent as ``executing``. At the end of the
        block it becomes ``completed``; ``failed``, with the type and the text in ``error_message``, if the block raises
        an exception; or ``cancelled``, if its task or its generator is, or the program is told to end. A status that
        the block has set with ``update_agent`` and that is an end stays.

        While it is open the run holds a lease, which the manager renews each third of it, all of its runs with one
        statement. If the process dies, ``reap_agents`` ends the agent once the lease has run out. So it also does for a
        program that leaves its event loop no time for as long as that: a run that comes back is told so.

        Inside the block the agent is bound, as by ``bind_agent``: where a ``DatabaseHandler`` takes the records of
        ``logging``, those of the block become lines of the agent.

        An end that cannot be written, because the database is locked or away, is tried again until it can be, or until
        the manager is closed. ``close()`` fails the runs that are still open. A run is no transaction: what is done in
        the block is committed as usual, and ``db.transaction()`` may be used in it, but not around it.

        Args:
            name_or_id: The name of the definition, which is created if there is none, or its id: a UUID.
            session_id: The session that it belongs to.
            parent_agent_id: The agent that started it, such as the ``id`` of another run. By default none, also for a
                run inside the block of another.
            context: A JSON object, as a mapping or as text.
            config: A JSON object, as a mapping or as text.
            metadata: A JSON object, as a mapping.
            lease_seconds: How long the agent counts as alive when nothing is heard from its process: from 1.
            id: Its id: any UUID. By default a new one, which sorts in the order of creation.
            created_at: When it was created and began, as text or a ``datetime``. By default now.

        Returns:
            A context manager for ``async with``, which gives an ``AgentRun``.

        Raises:
            MissingParentError: The definition or the parent agent does not exist.
            DuplicateError: An agent has this id.
            InvalidValueError: A value does not fit its column, or ``lease_seconds`` is no number from 1.
            OperationError: At the end of the block: the run was reaped, and has the end that it got; or its end cannot
                be written now. Also at the beginning, inside ``db.transaction()``. If the block itself raised, that is
                raised instead, and this is logged.
            NotConnectedError: The manager is not connected, or was closed before the block ended.
        """
        values = {
            "session_id": session_id,
            "parent_agent_id": parent_agent_id,
            "context": context,
            "config": config,
            "metadata": metadata,
            "id": id,
            "created_at": created_at,
        }
        return _Block(self, self._executor, self._leases, name_or_id, lease_seconds, values)

    async def reap_agents(self, *, idle_for: float | None = None) -> list[str]:
        """End the agents whose owner has died: those of runs whose lease has run out.

        They become ``failed`` with the ``error_message`` ``"owner lost"``; ``completed_at`` is the last sign of life:
        the last renewal of the lease, or a later change of the agent. Whether a lease has run out is judged by the
        clock of the server, or on SQLite by the uptime of the machine, and not by the clock of any process. It may be
        called from anywhere, at any time, and by several at once: each agent is reaped once.

        Args:
            idle_for: Also end agents that no run holds and that have been idle for so many seconds: which have begun
                (``initializing``, ``planning``, ``executing`` or ``reviewing``), and since then were not changed and
                have no new log line or prompt. By this program's clock, as the times of rows are. By default none.

        Returns:
            The ids of the agents that were ended, in the order of their creation; an empty list for none.

        Raises:
            InvalidValueError: ``idle_for`` is no number from 0.
        """
        with failures_reported("reap_agents", agents.name):
            if idle_for is not None and not (_is_number(idle_for) and idle_for >= 0):
                raise InvalidValueError("idle_for: must be a number of seconds from 0", column="idle_for")
        return await reaped(self._executor, self._leases, idle_for)


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _checked_seconds(value: object) -> float:
    if not isinstance(value, (int, float)) or not _is_number(value) or value < _LEAST_SECONDS:
        raise InvalidValueError(
            f"lease_seconds: must be a number of seconds from {_LEAST_SECONDS}", column="lease_seconds"
        )
    return float(value)

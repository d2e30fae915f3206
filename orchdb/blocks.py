"""A block of ``db.transaction()``: one owner of its state, the same for both engines, whoever uses the block.

A block belongs to everyone who holds ``tx``: tasks of a ``gather`` that goes on when one of them has failed,
generators, callbacks. An engine's connection cannot defend itself against them, so everything goes through here:

- One call at a time. Each is a step behind a savepoint; a call that raises, also because its task is cancelled, is
  undone to it. So what returned is in the block, and what raised is not.
- A part is a step too, of the scope it was opened in: it is undone to the same savepoint, and keeping it costs nothing.
  While it is open, what does not belong to it waits.
- The end comes last: no call begins any more, the one under way is waited for, or stopped if the block is to be undone
  anyway, and only then the engine commits or rolls back and gives its connection away.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import CO_ASYNC_GENERATOR
from itertools import count
from types import FrameType
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import BackendTransaction, Outcome
from orchdb.errors import NotConnectedError, OperationError
from orchdb.shielding import to_the_end
from orchdb.statements import Parameters, Prepared

Result = TypeVar("Result")
Task = asyncio.Task[Any] | None
Call = Callable[[Sequence[str]], Awaitable[Result]]
"""One step: given the statements that set its savepoint, which it runs first."""

ENDED = "the transaction has ended"
_BROKEN = "the transaction was rolled back by an earlier failure"
_BLOCKED = "another part of the transaction stayed open for longer than lock_timeout"
_LEAST_WAIT = 0.05  # a wait of no time at all would leave the loop no turn for the others


class Scope:
    """The whole block, or a part of it: what callers work in.

    Attributes:
        task: Who opened it; what that task does in the scopes around it belongs to it too.
        ended: Whether nothing more can be done in it.
        savepoint: Behind the last step that was kept; ``None`` if there is none yet.
        changed: Whether something has changed since the savepoint.
    """

    def __init__(self, block: Block, savepoint: str | None = None) -> None:
        self._block = block
        self._connection: AsyncConnection | None = None
        self.task: Task = asyncio.current_task()
        self.ended = False
        self.savepoint = savepoint
        self.changed = savepoint is None

    @property
    def connection(self) -> AsyncConnection:
        """For the caller's own statements, which take their turn like any other call."""
        if self._connection is None:
            self._connection = self._block.caller_connection(self)
        return self._connection

    def disconnect(self) -> None:
        """Take the connection away: whoever kept it must not reach its next user."""
        if self._connection is not None:
            self._connection.sync_connection = None

    def check(self) -> None:
        """Refuse what comes too late.

        Raises:
            NotConnectedError: The scope has ended.
        """
        if self.ended:
            raise NotConnectedError(ENDED)

    async def run(self, prepared: Prepared, parameters: Parameters) -> Outcome:
        """Run one statement; if it raises, only the statement is undone."""
        call = partial(self._block.transaction.run, prepared, parameters)
        return await self._block.step(self, call, changes=prepared.is_insert or not prepared.returns_rows)

    async def run_many(self, prepared: Prepared, parameters: Sequence[Parameters]) -> list[int]:
        """Insert many rows, all or none; their ids where the database gives them."""
        return await self._block.step(self, partial(self._block.transaction.run_many, prepared, parameters))

    async def begin_part(self) -> Scope:
        """Begin a part that can be undone alone."""
        return await self._block.begin_part(self)

    async def end_part(self, *, keep: bool) -> None:
        """Keep or undo this part, and undo what is still open in it.

        Raises:
            NotConnectedError: It was to be kept, and ended before with what is around it.
        """
        await self._block.end_part(self, keep=keep)


@dataclass(eq=False, slots=True)
class _Waiting:
    scope: Scope
    task: Task
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(eq=False, slots=True)
class _Stopped:
    """The call that the end of the block has stopped.

    Attributes:
        task: Who made it.
        cancelled: Whether that was done by cancelling the task.
    """

    task: Task
    cancelled: bool


class Block:
    """The state of one transaction: its scopes, the call under way, who waits, and its end.

    Args:
        transaction: The engine's side of it, which has begun.
        lock_timeout: Seconds that a call waits for a part that it does not belong to.
    """

    def __init__(self, transaction: BackendTransaction, lock_timeout: float) -> None:
        self.transaction = transaction
        self._lock_timeout = lock_timeout
        self._numbers = count(1)
        self._scopes = [Scope(self, transaction.first_savepoint)]  # the block itself, then the open parts, inwards
        self._busy = False
        self._caller: Task = None
        self._waiting: deque[_Waiting] = deque()
        self._ends: deque[asyncio.Future[None]] = deque()  # of the block or a part: they go before those who wait
        self._stopped: _Stopped | None = None
        self._own_statements = False  # the caller's: savepoints of the caller's may be among them
        self._broken = False
        self._over = asyncio.Event()
        self._generators = _running_generators()

    @property
    def scope(self) -> Scope:
        """The whole block."""
        return self._scopes[0]

    def around_this_call(self) -> bool:
        """Whether what opened the block is still under way around the current call.

        It is not where an async generator opened the block and is paused: what its consumer does is not in the block.
        """
        return self._generators <= _running_generators()

    def caller_connection(self, scope: Scope) -> AsyncConnection:
        """A connection whose statements are calls in the scope."""
        return self.transaction.caller_connection(partial(self._own_step, scope))

    async def _own_step(self, scope: Scope, statement: Callable[[], Awaitable[Result]]) -> Result:
        async def call(before: Sequence[str]) -> Result:
            self._own_statements = True
            await self.transaction.script(before)
            return await statement()

        return await self.step(scope, call)

    async def step(self, scope: Scope, call: Call[Result], *, changes: bool = True) -> Result:
        """Run one call of the current task in the scope, when it is its turn; undo it if it raises.

        Raises:
            NotConnectedError: The scope has ended, or was ended while the call was under way.
            OperationError: A part that the call does not belong to stayed open, or the transaction is lost.
        """
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        try:
            await self._take(scope, task)
            try:
                result = await self._undone_if_it_raises(call, changes=changes)
            finally:
                self._give()
        except BaseException as error:
            if self._stopped is None or self._stopped.task is not task:
                raise
            if isinstance(error, asyncio.CancelledError) and not self._stopped.cancelled:
                raise  # somebody else wanted that, before
        else:
            if self._stopped is None or self._stopped.task is not task:
                return result
        stopped, self._stopped = self._stopped, None
        if stopped.cancelled and task is not None and task.uncancel() > cancellations:
            raise asyncio.CancelledError  # somebody else wants that too
        raise NotConnectedError(ENDED)

    async def _undone_if_it_raises(self, call: Call[Result], *, changes: bool) -> Result:
        if self._broken:
            raise OperationError(_BROKEN)
        scope = self._scopes[-1]  # whoever has the turn belongs to the innermost part
        try:
            result = await call(self._renewed(scope))
        except BaseException:
            if self._stopped is None:  # else the whole block is about to be undone
                await to_the_end(self._undo(scope))
            raise
        scope.changed = scope.changed or changes
        return result

    def _renewed(self, scope: Scope) -> list[str]:
        """What sets a savepoint behind all that has been kept."""
        if not scope.changed and not self._own_statements:
            return []
        last, scope.savepoint, scope.changed = scope.savepoint, f"orchdb_{next(self._numbers)}", False
        new = f"SAVEPOINT {scope.savepoint}"
        # Beside statements of the caller's nothing is released: that would take the caller's own savepoints along. The
        # first one stays to the end, as a proof that it is still the same transaction.
        stays = last in (None, self.transaction.first_savepoint) or self._own_statements
        return [new] if stays else [f"RELEASE SAVEPOINT {last}", new]

    async def _undo(self, scope: Scope) -> None:
        """Undo what has been done in the scope since its savepoint."""
        try:
            await self.transaction.script([f"ROLLBACK TO SAVEPOINT {scope.savepoint}"])
        except Exception:  # the failure that led here is the one to tell; the transaction can only be rolled back now
            self._broken = True
        scope.changed = False

    async def begin_part(self, scope: Scope) -> Scope:
        """Begin a part of the scope, as a step of it."""

        async def begin(before: Sequence[str]) -> Scope:
            await self.transaction.script(before)
            scope.check()  # its end has begun meanwhile, and refused what was in it
            part = Scope(self)
            self._scopes.append(part)
            return part

        return await self.step(scope, begin, changes=False)

    async def end_part(self, part: Scope, *, keep: bool) -> None:
        """Keep or undo a part, and undo the parts that are still open in it."""
        if part.ended:
            if keep:
                raise NotConnectedError(ENDED)
            return
        self._refuse_from(part)
        turn = self._turn_to_end()
        if not keep:
            await to_the_end(self._undo_part(part, turn))
            return
        try:
            await self._wait_to_keep(part, turn)
        except asyncio.CancelledError:
            await to_the_end(self._undo_part(part, turn))
            raise
        self._leave(part).changed = True
        if self._broken:
            raise OperationError(_BROKEN)

    async def _undo_part(self, part: Scope, turn: asyncio.Future[None]) -> None:
        await turn
        await self._undo(self._scopes[self._scopes.index(part) - 1])
        self._leave(part)

    def _leave(self, part: Scope) -> Scope:
        """Go on in the scope that the part was opened in."""
        depth = self._scopes.index(part)
        for scope in self._scopes[depth:]:
            scope.disconnect()
        del self._scopes[depth:]
        self._give()
        return self._scopes[-1]

    async def commit(self) -> None:
        """End the block: what has returned is kept, a part that is still open is undone.

        Raises:
            NotConnectedError: The block has been ended with the manager.
            OperationError: The transaction is lost, or cannot be committed.
        """
        if self.scope.ended:
            raise NotConnectedError(ENDED)
        self._refuse_from(self.scope)
        turn = self._turn_to_end()
        try:
            await self._wait_to_keep(self.scope, turn)
        except asyncio.CancelledError:
            await to_the_end(self._roll_back(turn))
            raise
        self._disconnect()
        try:
            if self._broken:
                await self.transaction.rollback()
                raise OperationError(_BROKEN)
            await self.transaction.commit()
        finally:
            self._over.set()

    async def roll_back(self) -> None:
        """End the block and undo it, also what is under way; if it has been ended, wait until that is done."""
        if self.scope.ended:
            await to_the_end(self._over.wait())
            return
        self._refuse_from(self.scope)
        await to_the_end(self._roll_back(self._turn_to_end()))

    async def _roll_back(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._stop()
        try:
            await turn
            self._disconnect()
            await self.transaction.rollback()
        finally:
            self._over.set()

    def _stop(self) -> None:
        """Break off the call that is under way."""
        task = self._caller
        if task is None or self._stopped is not None:
            return
        self._stopped = _Stopped(task, cancelled=not self.transaction.interrupt())
        if self._stopped.cancelled:
            task.cancel()

    async def _wait_to_keep(self, scope: Scope, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            await asyncio.wait((turn,))
        if self._scopes[-1] is not scope:
            await to_the_end(self._undo(scope))

    def _refuse_from(self, scope: Scope) -> None:
        """Let no call begin any more, in the scope and in what is open in it."""
        for ended in self._scopes[self._scopes.index(scope) :]:
            ended.ended = True
        for waiting in [waiting for waiting in self._waiting if waiting.scope.ended]:
            self._waiting.remove(waiting)
            waiting.turn.set_exception(NotConnectedError(ENDED))

    def _disconnect(self) -> None:
        for scope in self._scopes:
            scope.disconnect()

    # -- turns --

    def _belongs(self, scope: Scope, task: Task) -> bool:
        """Whether the task's call in the scope belongs to all parts that are open in it."""
        return all(part.task is task for part in self._scopes[self._scopes.index(scope) + 1 :])

    async def _take(self, scope: Scope, task: Task) -> None:
        scope.check()
        if self._busy or not self._belongs(scope, task):
            await self._wait(_Waiting(scope, task))
        self._busy, self._caller = True, task

    async def _wait(self, waiting: _Waiting) -> None:
        turn = waiting.turn
        self._waiting.append(waiting)
        try:
            while not turn.done():
                await asyncio.wait((turn,), timeout=max(self._lock_timeout, _LEAST_WAIT))
                if not turn.done() and not self._belongs(waiting.scope, waiting.task):
                    raise OperationError(_BLOCKED)
            turn.result()
            waiting.scope.check()  # it may have ended between the turn and this moment
        except BaseException:
            if not turn.done():
                self._waiting.remove(waiting)
            elif turn.exception() is None:
                self._give()
            raise

    def _turn_to_end(self) -> asyncio.Future[None]:
        """Done when the end may begin: when no call is under way any more."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._busy:
            self._ends.append(turn)
        else:
            self._busy = True
            turn.set_result(None)
        return turn

    def _give(self) -> None:
        """Give the turn to the next: an end, or the first of those who wait that may go on."""
        self._busy, self._caller = False, None
        if self._ends:
            self._busy = True
            self._ends.popleft().set_result(None)
            return
        for waiting in self._waiting:
            if self._belongs(waiting.scope, waiting.task):
                self._waiting.remove(waiting)
                self._busy, self._caller = True, waiting.task
                waiting.turn.set_result(None)
                return


def _running_generators() -> frozenset[int]:
    """The callers' async generators around the current call, by their frames."""
    found: set[int] = set()
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        ours = frame.f_globals.get("__name__", "").startswith("orchdb.")
        if frame.f_code.co_flags & CO_ASYNC_GENERATOR and not ours:
            found.add(id(frame))
        frame = frame.f_back
    return frozenset(found)

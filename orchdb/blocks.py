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
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from inspect import CO_ASYNC_GENERATOR, currentframe
from itertools import count
from types import FrameType
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from orchdb.backend import BROKEN, BackendTransaction, StatementResult
from orchdb.clocks import done_within
from orchdb.concurrency import shielded
from orchdb.connections import let_go
from orchdb.driver_errors import translate
from orchdb.errors import NotConnectedError, OperationError
from orchdb.own_statements import SAVEPOINTS
from orchdb.raising import raised_as
from orchdb.statements import CompiledStatement, Parameters
from orchdb.turns import ENDED, Turn, Turns

Result = TypeVar("Result")
Call = Callable[[Sequence[str]], Awaitable[Result]]
"""One step: given the statements that set its savepoint, which it runs first."""

_INTERRUPT_SECONDS = 0.05


class Scope:
    """The whole block, or a part of it: what callers work in.

    Attributes:
        depth: How many scopes are around it.
        task: Who opened it; what that task does in the scopes around it belongs to it too.
        ended: Whether nothing more can be done in it.
        savepoint: Behind the last step that was kept; ``None`` if there is none yet.
        changed: Whether something has changed since the savepoint.
    """

    def __init__(self, block: Block, depth: int, savepoint: str | None = None) -> None:
        self._block = block
        self._connection: AsyncConnection | None = None
        self.depth = depth
        self.task = asyncio.current_task()
        self.ended = False
        self.savepoint = savepoint
        self.changed = savepoint is None

    @property
    def connection(self) -> AsyncConnection:
        """For the caller's own statements, which take their turn like any other call."""
        self.check()  # the engine's may be someone else's by now
        if self._connection is None:
            self._connection = self._block.caller_connection(self)
        return self._connection

    def disconnect(self) -> None:
        """Take the connection away: whoever kept it must not reach its next user."""
        if self._connection is not None:
            let_go(self._connection)

    def check(self) -> None:
        """Refuse what comes too late.

        Raises:
            NotConnectedError: The scope has ended.
        """
        if self.ended:
            raise NotConnectedError(ENDED)

    async def run(self, compiled: CompiledStatement, parameters: Parameters) -> StatementResult:
        """Run one statement; if it raises, only the statement is undone."""
        call = partial(self._block.transaction.run, compiled, parameters)
        changes = compiled.writes
        return await self._block.step(self, call, changes=changes, compiled=compiled)

    async def run_many(self, compiled: CompiledStatement, parameters: Sequence[Parameters]) -> list[int]:
        """Insert many rows, all or none; their ids where the database gives them."""
        call = partial(self._block.transaction.run_many, compiled, parameters)
        return await self._block.step(self, call, compiled=compiled)

    async def begin_part(self) -> Scope:
        """Begin a part that can be undone alone."""
        return await self._block.begin_part(self)

    async def end_part(self, *, keep: bool) -> None:
        """Keep or undo this part, and undo what is still open in it.

        Raises:
            NotConnectedError: It was to be kept, and ended before with what is around it.
        """
        await self._block.end_part(self, keep=keep)


class Block:
    """The state of one transaction: its scopes, the call under way, who waits, and its end.

    Args:
        transaction: The engine's side of it, which has begun.
        lock_timeout: Seconds that a call waits for a part that it does not belong to.
    """

    def __init__(self, transaction: BackendTransaction, lock_timeout: float) -> None:
        self.transaction = transaction
        self._turns = Turns(self._may_run, lock_timeout)
        self._numbers = count(1)
        self._scopes = [Scope(self, 0, transaction.first_savepoint)]  # the block itself, then the open parts, inwards
        self._own_statements = False  # whether there may be any of the caller's, and savepoints among them
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
        """A connection whose statements are calls in the scope.

        Those of an ORM session on it, or of the driver, are not: whatever stands between two calls is to stay.
        """
        self._own_statements = True
        return self.transaction.caller_connection(partial(self._own_step, scope))

    async def _own_step(self, scope: Scope, statement: Callable[[], Awaitable[Result]]) -> Result:
        async def call(before: Sequence[str]) -> Result:
            await self._set(before)
            result = await statement()
            if self.transaction.ended():
                raise OperationError(BROKEN)
            return result

        return await self.step(scope, call)

    async def _set(self, savepoint: Sequence[str]) -> None:
        """Set a savepoint for a caller who gets the errors as they are: one of orchdb's own must be one of orchdb's."""
        with raised_as(Exception, lambda error: translate(error, "transaction", None)):
            await self.transaction.before_own(savepoint)

    async def step(
        self, scope: Scope, call: Call[Result], *, changes: bool = True, compiled: CompiledStatement | None = None
    ) -> Result:
        """Run one call of the current task in the scope, when it is its turn; undo it if it raises.

        Args:
            scope: Where it is made.
            call: What to run.
            changes: Whether it may change something.
            compiled: Its statement, if it is one of orchdb's.

        Raises:
            NotConnectedError: The scope has ended, or was ended while the call was under way.
            OperationError: A part that the call does not belong to stayed open, or the transaction is lost.
        """
        turn = Turn(scope)
        try:
            await self._turns.take(turn)
            try:
                result = await self._run(turn, call, changes=changes, compiled=compiled)
            finally:
                self._turns.give()
        except BaseException as error:
            if not turn.stopped or (isinstance(error, asyncio.CancelledError) and not turn.cancelled):
                raise
        else:
            if not turn.stopped:
                return result
        raise turn.broken_off()

    async def _run(
        self, turn: Turn, call: Call[Result], *, changes: bool, compiled: CompiledStatement | None
    ) -> Result:
        scope = self._scopes[-1]  # whoever has the turn belongs to the innermost part
        removal: Callable[[], Awaitable[None]] | None = None
        while True:
            if self._broken:
                raise OperationError(BROKEN)
            try:
                result = await call(self._renewed(scope))
            except BaseException as error:
                if not turn.stopped:  # else the whole block is about to be undone
                    await shielded(self._undo(scope))
                if removal is not None or compiled is None or not isinstance(error, Exception):
                    raise
                removal = self.transaction.removal(compiled, error)
                if removal is None:
                    raise
            else:
                scope.changed = scope.changed or changes
                return result
            # Outside the except block: a failure of its own must not carry the driver's, which holds the values.
            await self._remove(scope, removal)

    async def _remove(self, scope: Scope, removal: Callable[[], Awaitable[None]]) -> None:
        try:
            await removal()
        except BaseException:
            await shielded(self._undo(scope))
            raise

    def _renewed(self, scope: Scope) -> list[str]:
        """What sets a savepoint behind all that has been kept."""
        if not scope.changed and not self._own_statements:
            return []
        last, scope.savepoint, scope.changed = scope.savepoint, f"{SAVEPOINTS}{next(self._numbers)}", False
        new = f"SAVEPOINT {scope.savepoint}"
        # Beside statements of the caller's nothing is released: that would take the caller's own savepoints along. The
        # first one stays to the end, as a proof that it is still the same transaction.
        stays = last in (None, self.transaction.first_savepoint) or self._own_statements
        return [new] if stays else [f"RELEASE SAVEPOINT {last}", new]

    async def _undo(self, scope: Scope) -> None:
        """Undo what has been done in the scope since its savepoint."""
        try:
            await self.transaction.undo(scope.savepoint)
        except Exception:  # the failure that led here is the one to tell; the transaction can only be rolled back now
            self._broken = True
        scope.changed = False

    async def begin_part(self, scope: Scope) -> Scope:
        """Begin a part of the scope, as a step of it."""

        async def begin(before: Sequence[str]) -> Scope:
            await self.transaction.script(before)
            self._scopes[-1].check()  # its end may have begun meanwhile, and has refused what was in it
            part = Scope(self, len(self._scopes))
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
        turn = self._turns.for_the_end()
        if not keep:
            await shielded(self._undo_part(part, turn))
            return
        try:
            await self._wait_to_keep(part, turn)
        except asyncio.CancelledError:
            await shielded(self._undo_part(part, turn))
            raise
        self._leave(part).changed = True
        if self._broken:
            raise OperationError(BROKEN)

    async def _undo_part(self, part: Scope, turn: asyncio.Future[None]) -> None:
        await turn
        await self._undo(self._scopes[part.depth - 1])
        self._leave(part)

    def _leave(self, part: Scope) -> Scope:
        """Go on in the scope that the part was opened in."""
        self._disconnect(part)
        del self._scopes[part.depth :]
        self._turns.give()
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
        turn = self._turns.for_the_end()
        try:
            await self._wait_to_keep(self.scope, turn)
        except asyncio.CancelledError:
            await shielded(self._roll_back(turn))
            raise
        self._disconnect(self.scope)
        try:
            if self._broken:
                await self.transaction.rollback()
                raise OperationError(BROKEN)
            await self.transaction.commit()
        finally:
            self._over.set()

    async def roll_back(self) -> None:
        """End the block and undo it, also what is under way; if it has been ended, wait until that is done."""
        if self.scope.ended:
            await shielded(self._over.wait())
            return
        self._refuse_from(self.scope)
        await shielded(self._roll_back(self._turns.for_the_end()))

    async def _roll_back(self, turn: asyncio.Future[None]) -> None:
        try:
            # Again and again: what was handed to the engine a moment ago may begin only behind an interruption.
            while not turn.done():
                self._turns.break_off(self.transaction.interrupt)
                await done_within(turn, _INTERRUPT_SECONDS)
            self._disconnect(self.scope)
            await self.transaction.rollback()
        finally:
            self._over.set()

    async def _wait_to_keep(self, scope: Scope, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            await asyncio.wait((turn,))
        if self._scopes[-1] is not scope:
            await shielded(self._undo(scope))

    def _refuse_from(self, scope: Scope) -> None:
        """Let no call begin any more, in the scope and in what is open in it."""
        for ended in self._scopes[scope.depth :]:
            ended.ended = True
        self._turns.refuse_ended()

    def _may_run(self, turn: Turn) -> bool:
        """Whether the call belongs to all parts that are open in its scope."""
        inner = self._scopes[turn.scope.depth + 1 :]
        return all(part.task is turn.task for part in inner)

    def _disconnect(self, outermost: Scope) -> None:
        for scope in reversed(self._scopes[outermost.depth :]):
            scope.disconnect()


def in_a_generator() -> bool:
    """Whether the current call is made in an async generator of a caller's."""
    return bool(_running_generators())


def _running_generators() -> frozenset[int]:
    """The callers' async generators around the current call, by their frames.

    Not those that are functions of ``asynccontextmanager``: what stands under their ``async with`` is inside them.
    """
    found: set[int] = set()
    frame = currentframe()
    while frame is not None:
        if frame.f_code.co_flags & CO_ASYNC_GENERATOR and _module(frame.f_back) != "contextlib":
            found.add(id(frame))
        frame = frame.f_back
    return frozenset(found)


def _module(frame: FrameType | None) -> str:
    return "" if frame is None else frame.f_globals.get("__name__", "")

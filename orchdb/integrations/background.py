"""A writer that nobody waits for: a thread with an event loop and a manager of its own, and a bounded queue to it.

Who hands something over appends to a queue in memory, and never waits for a lock, the loop or the database. The thread
begins with the first item, and anew in a forked child. While the database is away it tries again and again; meanwhile
the queue fills, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import logging
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from sqlalchemy import URL

from orchdb.clocks import done_within, pause, steady
from orchdb.errors import InvalidValueError, OrchdbError
from orchdb.manager import DatabaseManager

logger = logging.getLogger("orchdb")

Address = str | os.PathLike[str] | URL | None
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two tries while the database is away."""
_TO_END = 0.25
"""Seconds that the thread has for its end."""
LARGE, MOST_BYTES = 4_096, 256 * 2**20
"""From which size items are counted by it, and what those that wait may be together."""
_writers: WeakSet[BackgroundWriter] = WeakSet()
_threads = set[int]()
_abandoned: list[Any] = []
"""What a forked child has from its parent and may not close, which would tell the server or the file's locks."""


_LIMITS = {
    "capacity": (1, math.inf),
    "most_bytes": (0, math.inf),
    "interval": (0, 60),
    "exit_timeout": (0, math.inf),
    "lease_seconds": (1, math.inf),
}


def check_options(**given: Any) -> None:
    """Refuse options that are no numbers, or none that can be.

    Raises:
        InvalidValueError: That names the option.
    """
    for name, value in given.items():
        least, most = _LIMITS[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            limit = "" if most == math.inf else f" to {most}"
            raise InvalidValueError(f"{name} must be a number from {least}{limit}", column=name)


class _Mark:
    """An item that tells who waits for it that all before it has been stored, or the writer is to end."""

    def __init__(self, *, last: bool = False) -> None:
        self.reached = threading.Event()
        self.last = last


class _Large(NamedTuple):
    """An item whose size counts while it waits."""

    item: Any
    size: int


class Batch(Protocol):
    """Some items on their way to the database."""

    async def store(self, db: DatabaseManager) -> int:
        """Store them; called again after an ``OrchdbError``. How many were refused, and are given up."""
        ...


class BackgroundWriter:
    """The queue, and the thread that stores what is in it.

    Args:
        url: Where to: as for ``DatabaseManager``.
        batch_of: Makes a batch of some items, which are in order.
        name: What drops are logged as.
        capacity: How many items may wait.
        most_bytes: How large those of them may be together that are large.
        batch: How many are stored at once, at most.
        interval: Seconds that items are gathered for.
        exit_timeout: Seconds that the end of the program waits for what is not stored yet.
        options: Further parameters of ``DatabaseManager``.

    Attributes:
        dropped: How many items there was no room for, or no time at the end.
    """

    def __init__(
        self,
        url: Address,
        batch_of: Callable[[list[Any]], Batch],
        *,
        name: str,
        capacity: int,
        most_bytes: int,
        batch: int,
        interval: float,
        exit_timeout: float,
        options: dict[str, Any],
    ) -> None:
        self._url, self._options = url, options
        self._manager()  # what is wrong with it is told here
        self._batch_of, self._name = batch_of, name
        self._capacity, self._most_bytes, self._batch, self._interval = capacity, most_bytes, batch, interval
        self._exit_timeout = exit_timeout
        self._begin()
        _writers.add(self)

    def _manager(self) -> DatabaseManager:
        return DatabaseManager(self._url, **self._options)

    def _begin(self) -> None:
        self._queue = deque[Any]()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._db: DatabaseManager | None = None
        self._asleep, self._closed = True, False
        self._give_up_at: float | None = None
        self._told = 0
        self._bytes = self._in_hand = 0
        self._abandoned = False
        self.dropped = 0

    # -- from any thread --

    def put(self, item: Any, *, size: int = 0, leaving: int = 0) -> bool:
        """Hand an item over, or drop it if there is no room, or would be none for so many others; whether it is taken.

        Args:
            item: The item.
            size: About how many bytes of memory it takes.
            leaving: For how many other items there must be room.
        """
        queue = self._queue
        if len(queue) >= self._capacity - leaving or self._closed:
            self.drop(1)
            return False
        if size > LARGE:
            # The lock is never held while anything is waited for; what is small is bounded by its number.
            with self._lock:
                if self._bytes + size > self._most_bytes:
                    self.dropped += 1
                    return False
                self._bytes += size
            item = _Large(item, size)
        queue.append(item)
        if self._asleep:
            self._wake()
        return True

    def drop(self, number: int) -> None:
        """Count items that are not stored."""
        with self._lock:
            self.dropped += number

    def _drop_in_hand(self, number: int) -> None:
        """Count items of those in hand; whoever has closed the writer meanwhile has counted all of them."""
        with self._lock:
            self.dropped += number - (self._in_hand if self._abandoned else 0)
            self._in_hand = 0

    def is_own_thread(self) -> bool:
        """Whether this is the thread that writes."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    @staticmethod
    def in_a_thread_of_ours() -> bool:
        """Whether this is a thread that writes, of this writer or of another one."""
        return threading.get_ident() in _threads

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was handed over before has been stored; at most so many seconds.

        Args:
            timeout: By default ``exit_timeout``.

        Returns:
            Whether it has been.
        """
        if self.is_own_thread() or self._closed or (not self._queue and self._asleep):
            return not self._queue
        return self._until(_Mark(), self._exit_timeout if timeout is None else timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Store what there is, within so many seconds, and end the thread; what comes later is dropped.

        Args:
            timeout: By default ``exit_timeout``.

        Returns:
            Whether all has been stored.
        """
        if self._closed or self.is_own_thread():
            return self._closed
        seconds = self._time_left(self._exit_timeout if timeout is None else timeout)
        self._closed = True
        if self._thread is None and not self._queue:
            return True
        end = steady() + seconds
        self._give_up_at = end - min(seconds / 4, _TO_END)  # the thread needs some of it to come to its end
        before = self.dropped
        mark = _Mark(last=True)
        reached = self._until(mark, seconds)
        thread = self._thread
        if reached and thread is not None:
            thread.join(max(end - steady(), _TO_END))
        elif not reached:
            self._abandon()
        self._tell()
        return reached and self.dropped == before

    def _abandon(self) -> None:
        """Count what the thread has not stored, which may be waiting for the database for longer than anybody waits."""
        waiting = sum(not isinstance(item, _Mark) for item in tuple(self._queue))
        with self._lock:
            self._abandoned = True
            self.dropped += waiting + self._in_hand

    def flush_at_exit(self) -> None:
        """What the end of the program does; twice it takes no longer than once."""
        if self._thread is None or self._closed:
            return
        seconds = self._time_left(self._exit_timeout)
        self._give_up_at = steady() + seconds
        self.flush(seconds)

    def _time_left(self, seconds: float) -> float:
        return seconds if self._give_up_at is None else max(min(self._give_up_at - steady(), seconds), 0.0)

    def _until(self, mark: _Mark, seconds: float) -> bool:
        self._queue.append(mark)
        self._wake(hurry=True)
        return mark.reached.wait(seconds)

    def _wake(self, *, hurry: bool = False) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._asleep = False
                self._thread.start()
                _at_exit_of_a_worker(self)
            elif self._loop is not None and (self._asleep or hurry):
                self._asleep = False
                with suppress(RuntimeError):  # it has ended
                    self._loop.call_soon_threadsafe(self._woken)

    # -- in the thread --

    def _run(self) -> None:
        _threads.add(threading.get_ident())
        try:
            asyncio.run(self._work())
        finally:
            _threads.discard(threading.get_ident())

    def _woken(self) -> None:
        if not self._signal.done():
            self._signal.set_result(None)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        self._signal: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._loop = loop
        last: _Mark | None = None
        while last is None:
            await self._something()
            last = await self._drain()
        if self._db is not None:
            with suppress(Exception):  # at the end of the program no thread can be made any more; all is committed
                await self._db.close()
        last.reached.set()

    async def _something(self) -> None:
        """Wait until there is something, and gather what comes in the next moment, unless somebody waits for it."""
        if not self._queue:
            self._asleep = True
            if not self._queue:  # which may have come before that was seen
                await self._signal
            self._asleep = False
            self._signal = asyncio.get_running_loop().create_future()
        if len(self._queue) < self._batch and not any(isinstance(item, _Mark) for item in tuple(self._queue)):
            await done_within(self._signal, self._interval)
            if self._signal.done():
                self._signal = asyncio.get_running_loop().create_future()

    async def _drain(self) -> _Mark | None:
        """Store what is there, in parts; the mark of the end, if that was reached."""
        for _ in range(len(self._queue) // self._batch + 1):
            items: list[Any] = []
            mark: _Mark | None = None
            size = 0
            while self._queue and len(items) < self._batch and mark is None:
                item = self._queue.popleft()
                if isinstance(item, _Mark):
                    mark = item
                elif isinstance(item, _Large):
                    items.append(item.item)
                    size += item.size
                else:
                    items.append(item)
            if items:
                await self._stored(items)
            if size:
                with self._lock:
                    self._bytes -= size
            if mark is not None and mark.last:
                return mark
            if mark is not None:
                mark.reached.set()
        return None

    async def _stored(self, items: list[Any]) -> None:
        seconds, batch = _FIRST_PAUSE, self._batch_of(items)
        self._in_hand = len(items)
        while True:
            try:
                self._drop_in_hand(await batch.store(await self._connected()))
                break
            except OrchdbError:  # logged
                if self._give_up_at is not None and steady() >= self._give_up_at:
                    self._drop_in_hand(len(items))
                    break
            except Exception as error:  # a mistake of ours must not end the thread; its text may hold what is private
                logger.error("%s: %d items: %s", self._name, len(items), type(error).__name__)
                self._drop_in_hand(len(items))
                break
            left = None if self._give_up_at is None else max(self._give_up_at - steady(), 0.0)
            await pause(seconds if left is None else min(seconds, left))
            seconds = min(seconds * 2, _LONGEST_PAUSE)
        self._tell()

    async def _connected(self) -> DatabaseManager:
        if self._db is None:
            db = self._manager()
            await db.connect()
            self._db = db
        return self._db

    def _tell(self) -> None:
        dropped = self.dropped
        if dropped > self._told:
            logger.warning("%s: %d items were dropped, %d in all", self._name, dropped - self._told, dropped)
            self._told = dropped

    # -- processes --

    def forked(self) -> None:
        """Begin anew in a child: the thread and the queue are the parent's."""
        _abandoned.append((self._db, self._loop, self._queue, self._thread))
        self._begin()


def _flush_all() -> None:
    for writer in [*_writers]:
        writer.flush_at_exit()


def _forked() -> None:
    _threads.clear()
    for writer in [*_writers]:
        writer.forked()


def _at_exit_of_a_worker(writer: BackgroundWriter) -> None:
    """In a process of ``multiprocessing``, which ends without what is registered for the end of a program."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize  # noqa: PLC0415  # is loaded there anyway

        Finalize(writer, writer.flush_at_exit, exitpriority=10)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forked)
# When the main thread ends, and before the pools of threads are shut, which connecting needs: so it is registered after
# theirs. It is how the pools do it themselves; atexit comes too late for a program that ends at once.
assert concurrent.futures.thread
getattr(threading, "_register_atexit")(_flush_all)  # noqa: B009

"""Records of Python's ``logging`` as rows: of the system's log, or of the agent that the code is working for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from sqlalchemy import URL

from orchdb.bound_agent import bind_agent, bound_agent
from orchdb.integrations.background import MOST_BYTES, BackgroundWriter, check_options
from orchdb.integrations.log_batches import Details, LogBatch
from orchdb.schema.json_values import encode_json

__all__ = ["DatabaseHandler", "bind_agent", "stamp_agent"]

_OUR_OWN = frozenset({"orchdb", "sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "alembic"})
"""The roots of loggers that writing a record would itself write to."""
_USUAL = frozenset({*logging.makeLogRecord({}).__dict__, "taskName", "message", "asctime", "orchdb_agent_id"})
_USUAL_COUNT = len(logging.makeLogRecord({}).__dict__)
_SCALARS = frozenset({str, int, float, bool, type(None)})
_STAMP = "orchdb_agent_id"
_LARGEST = 2**24
"""Characters of a record; of a larger one so much of its message is stored, and ``cut``."""
_EXCEPTIONS = logging.Formatter()
_NONE = logging.Formatter("%(message)s")
"""Stands for no formatter, where ``logging.basicConfig`` would set one."""


def stamp_agent(record: logging.LogRecord) -> bool:
    """Note the bound agent on a record that another thread or process will handle: a filter for a ``QueueHandler``.

    ``queue_handler.addFilter(stamp_agent)``: the context of the code that logs is not that of the ``QueueListener``.

    Args:
        record: The record.

    Returns:
        True: every record passes.
    """
    agent_id = bound_agent()
    if agent_id is not None:
        record.__dict__[_STAMP] = agent_id
    return True


class DatabaseHandler(logging.Handler):
    """A handler of ``logging`` that stores records, and that nobody waits for.

    A record becomes a row of ``system_logs``, with the name of its logger as ``component``; inside ``with
    bind_agent(agent_id):`` and in the block of a ``db.agent_run()`` a row of ``agent_logs``, of the type ``log``, with
    the name of its logger in ``details``. What is given as ``extra=`` becomes ``details``, and so does the text of an
    exception, as ``exception``.

    Records are written in batches by a thread of the handler's own, with a connection of its own, which begins with the
    first record; a forked process has a thread of its own. Logging never waits and never raises: while the database is
    away records are kept, up to ``capacity`` and ``most_bytes``, and further ones are dropped, counted in ``dropped``
    and told to the logger ``orchdb``. Records of orchdb itself and of SQLAlchemy and the drivers are never taken.

    Args:
        url: Where to: a path or a URL, as for ``DatabaseManager``.
        level: The least level of records to take.
        capacity: How many records may wait in memory.
        most_bytes: How long the texts of large ones may be, together.
        interval: Seconds in which records are gathered for one transaction.
        exit_timeout: Seconds that ``flush()``, ``close()`` and the end of the program wait for what is not stored yet.
        **options: Further parameters of ``DatabaseManager``, such as ``upgrade``.

    Raises:
        InvalidValueError: ``url`` or an option is not usable.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        level: int | str = logging.NOTSET,
        *,
        capacity: int = 100_000,
        most_bytes: int = MOST_BYTES,
        interval: float = 0.1,
        exit_timeout: float = 5.0,
        **options: Any,
    ) -> None:
        check_options(capacity=capacity, most_bytes=most_bytes, interval=interval, exit_timeout=exit_timeout)
        super().__init__(level)
        self.formatter = _NONE
        self._writer = BackgroundWriter(
            url,
            LogBatch,
            name="DatabaseHandler",
            capacity=capacity,
            most_bytes=most_bytes,
            batch=500,  # larger ones hold the interpreter for longer, and their rows live until a full collection
            interval=interval,
            exit_timeout=exit_timeout,
            options={"pool_size": 2, **options},
        )

    @property
    def dropped(self) -> int:
        """How many records were not stored: no room, no time at the end, refused, or not to be formatted."""
        return self._writer.dropped

    def handle(self, record: logging.LogRecord) -> Any:
        """Take a record, unless a filter of the handler refuses it or it is one of orchdb's own.

        Args:
            record: The record.

        Returns:
            What the filters returned; False for a record that is not taken.
        """
        try:
            # Before any lock: threads that write log too, while somebody may hold the lock and wait for it.
            if str(record.name).partition(".")[0] in _OUR_OWN or self._writer.in_a_thread_of_ours():
                return False
            passed: Any = self.filter(record)
        except Exception:  # a filter that fails is told as what cannot be formatted is
            self._writer.drop(1)
            self.handleError(record)
            return False
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record to the thread that writes; what cannot be formatted is reported as ``logging`` does.

        Args:
            record: The record.
        """
        try:
            given = record.__dict__
            details: Details | None = None
            if self.formatter is not None and self.formatter is not _NONE:
                message = self.formatter.format(record)
            elif type(record.msg) is str and not record.args:
                message = record.msg
            else:
                message, details = _told(record)
            size = len(message)
            if details or len(given) > _USUAL_COUNT or record.exc_info or record.exc_text or record.stack_info:
                details = _details(record, details)
                size += sum(len(each) for each in details or () if isinstance(each, (str, bytes)))
            if size > _LARGEST:
                message, details = message[:_LARGEST], ("cut", True)
            agent_id = bound_agent() or given.get(_STAMP)
            name, number = str(record.name), record.levelno if isinstance(record.levelno, int) else logging.INFO
            line = (number, name, message, record.created, details, None if agent_id is None else str(agent_id))
            self._writer.put(line, size=size)
        except Exception:  # the promise of a handler
            self._writer.drop(1)
            self.handleError(record)

    def flush(self) -> None:
        """Wait until the records so far are stored, at most ``exit_timeout`` seconds."""
        self._writer.flush()

    def close(self) -> None:
        """Store the records so far, at most for ``exit_timeout`` seconds, and end; later records are dropped."""
        self._writer.close()
        super().close()


def _told(record: logging.LogRecord) -> tuple[str, Details | None]:
    """The message; of a dictionary, as structlog hands them over, its event, and the rest of it."""
    given: Any = record.msg
    if isinstance(given, Mapping) and not record.args:
        event = {str(key): value for key, value in _items(given)}
        return str(event.pop("event", "")), _plain(event)
    return record.getMessage(), None


def _items(mapping: Any) -> Iterable[tuple[Any, Any]]:
    items: Iterable[tuple[Any, Any]] = mapping.items()
    return items


def _details(record: logging.LogRecord, details: Details | None) -> Details | None:
    """What a record has beside its message, as it is now: the caller may change it later."""
    found = details or ()
    given = record.__dict__
    if len(given) > _USUAL_COUNT:
        found += _plain({key: given[key] for key in given if key not in _USUAL})
    if record.exc_info and not record.exc_text:
        record.exc_text = _EXCEPTIONS.formatException(record.exc_info)  # kept there for other handlers, as usual
    if record.exc_text:
        found += ("exception", record.exc_text)
    if record.stack_info:
        found += ("stack", record.stack_info)
    return found or None


def _plain(values: dict[str, Any]) -> Details:
    """Names and values; what is no scalar as the bytes of JSON, and what JSON does not hold as text.

    What begins with an underscore is for those who handle records.
    """
    return tuple(chain.from_iterable((key, _value(values[key])) for key in values if not key.startswith("_")))


def _value(value: Any) -> Any:
    if type(value) in _SCALARS and (type(value) is not int or -(2**63) <= value < 2**63):
        return value
    try:
        encoded = encode_json(value, "details")
        return None if encoded is None else encoded.encode()
    except Exception:  # whatever an object of the caller's does
        return _text(value)


def _text(value: object) -> str:
    try:
        return repr(value)[:10_000]
    except Exception:
        return f"<{type(value).__name__}>"

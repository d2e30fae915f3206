"""Records of Python's logging as rows: whose they become, what of them is stored, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import logging.config
import logging.handlers
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from orchdb import AgentLogRow, ConnectionLostError, DatabaseManager, InvalidValueError, SystemLogRow
from orchdb.integrations.logging import DatabaseHandler, bind_agent, stamp_agent
from orchdb.manager import Transaction
from tests.conftest import Target
from tests.support.databases import NO_ROW, locked_by_another


@pytest.fixture
def handler(db: DatabaseManager, target: Target) -> Iterator[DatabaseHandler]:
    """A handler on the same database as ``db``."""
    made = DatabaseHandler(target.url)
    yield made
    made.close()


@pytest.fixture
def log(handler: logging.Handler) -> Iterator[logging.Logger]:
    """A logger whose records the handler takes, and nobody else."""
    yield from attached(handler)


def attached(handler: logging.Handler, name: str = "app.worker") -> Iterator[logging.Logger]:
    """A logger with this handler alone."""
    logger = logging.getLogger(name)
    logger.propagate, before = False, logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(before)


async def system_lines(db: DatabaseManager, handler: DatabaseHandler) -> list[SystemLogRow]:
    handler.flush()
    return await db.get_system_logs()


async def lines_of(db: DatabaseManager, handler: DatabaseHandler, agent_id: str) -> list[AgentLogRow]:
    handler.flush()
    return await db.get_agent_logs(agent_id)


async def test_a_record_becomes_a_line_of_the_systems_log(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    log.info("%d of %s", 3, "ten", extra={"step": 3, "path": Path("a"), "list": [1, {"b": None}]})
    (row,) = await system_lines(db, handler)
    assert (row["log_level"], row["component"], row["message"]) == ("INFO", "app.worker", "3 of ten")
    assert row["details"] == {"step": 3, "path": repr(Path("a")), "list": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "DEBUG"), (10, "DEBUG"), (20, "INFO"), (25, "INFO"), (30, "WARNING"), (45, "ERROR"), (50, "CRITICAL")],
)
async def test_a_level_of_your_own_is_the_gravest_that_is_not_above_it(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, number: int, level: str
) -> None:
    log.setLevel(1)
    log.log(number, "It is")
    assert [row["log_level"] for row in await system_lines(db, handler)] == [level]


async def test_the_time_is_that_of_the_record_and_the_order_that_of_logging(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    record = log.makeRecord(log.name, 20, "a.py", 1, "Old", (), None)
    record.created = 1_700_000_000.25
    log.handle(record)
    for number in range(5):
        log.info("%d", number)
    rows = await system_lines(db, handler)
    assert rows[0]["created_at"] == "2023-11-14T22:13:20.250000"
    assert [row["message"] for row in sorted(rows, key=lambda row: row["id"])] == ["Old", *"01234"]


async def test_the_text_of_an_exception_and_of_the_stack_is_in_the_details(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    try:
        raise FileNotFoundError("no ladder")
    except FileNotFoundError:
        log.exception("Fell", stack_info=True, extra={"height": 2})
    (row,) = await system_lines(db, handler)
    assert isinstance(row["details"], dict)
    assert row["details"]["height"] == 2
    assert str(row["details"]["exception"]).splitlines()[-1] == "FileNotFoundError: no ladder"
    assert str(row["details"]["stack"]).startswith("Stack (most recent call last)")


async def test_what_is_given_is_stored_as_it_was_at_the_call(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    found = [1]
    log.info("%s", found, extra={"found": found})
    found.append(2)
    (row,) = await system_lines(db, handler)
    assert (row["message"], row["details"]) == ("[1]", {"found": [1]})


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


async def test_whatever_stands_in_a_record_it_is_stored_and_nothing_is_raised(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    circle: list[Any] = []
    circle.append(circle)
    odd = {"a": 2**70, "b": float("nan"), "c": b"x", "d": circle, "e": Unprintable(), "f": "\0\ud800", "g": {1, 2}}
    log.info("Odd \0", extra=odd)
    log.info("%d", "no number")
    log.info("%s", Unprintable())
    logging.getLogger("app.worker.\0" + "x" * 600).info("Long")
    log.info("")
    rows = await system_lines(db, handler)
    assert [row["message"] for row in rows] == ["Odd \ufffd", "Long", ""]
    assert isinstance(rows[0]["details"], dict)
    assert rows[0]["details"]["e"] == "<Unprintable>"
    assert rows[0]["details"]["b"] is None
    assert rows[0]["details"].keys() == odd.keys()
    assert handler.dropped == 2  # those that have no text


def oddly(record: logging.LogRecord, **changes: Any) -> logging.LogRecord:
    record.__dict__.update(changes)
    return record


ODD_RECORDS: tuple[dict[str, Any], ...] = (
    {"created": float("nan")},
    {"created": -1e20},
    {"created": "soon"},
    {"created": None},
    {"name": None},
    {"levelno": "INFO"},
    {"orchdb_agent_id": 5},
    {"orchdb_agent_id": "\0"},
    {"args": 7, "msg": "Odd"},
    {"exc_text": 7},
    {"msg": "Odd" + "x" * 2**24},
    {"details": "x" * 2**27},
)


@pytest.mark.parametrize("odd", ODD_RECORDS, ids=lambda odd: "-".join(odd))
async def test_a_record_that_is_none_takes_no_other_along(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, odd: dict[str, Any]
) -> None:
    log.info("Before")
    handler.handle(oddly(log.makeRecord(log.name, 20, "a.py", 1, "Odd", (), None), **odd))
    log.info("After")
    messages = [row["message"][:6] for row in await system_lines(db, handler)]
    assert {"Before", "After"} <= {*messages}
    assert len(messages) + handler.dropped == 3
    assert handler.dropped == ("args" in odd)


async def test_a_filter_that_fails_is_told_and_harms_nobody(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def fail(record: logging.LogRecord) -> bool:
        return bool(1 / record.args[0])  # type: ignore[index,operator]

    handler.addFilter(fail)
    log.info("%d", 0)
    log.info("%d", 1)
    assert [row["message"] for row in await system_lines(db, handler)] == ["1"]
    assert handler.dropped == 1


async def test_inside_the_block_of_an_agent_records_are_lines_of_it(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, agent_id: str
) -> None:
    with bind_agent(agent_id):
        log.warning("Half way", extra={"step": 3})
        await asyncio.create_task(asyncio.to_thread(log.info, "In a thread"))
        with bind_agent(None):
            log.info("Aside")
        log.info("Again")
        context = contextvars.copy_context()
        with ThreadPoolExecutor() as pool:
            await asyncio.wrap_future(pool.submit(context.run, log.info, "In a pool"))
            await asyncio.wrap_future(pool.submit(log.info, "In a pool, aside"))
    context.run(log.info, "In its context")
    log.info("Later")
    rows = await lines_of(db, handler, agent_id)
    assert [row["message"] for row in rows] == ["Half way", "In a thread", "Again", "In a pool", "In its context"]
    assert (rows[0]["log_level"], rows[0]["log_type"]) == ("WARNING", "log")
    assert rows[0]["details"] == {"logger": "app.worker", "step": 3}
    assert [row["message"] for row in await db.get_system_logs()] == ["Aside", "In a pool, aside", "Later"]


async def test_a_run_binds_its_agent_by_itself(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    async def scout(name: str) -> str:
        async with db.agent_run(name, "session-1") as run:
            log.info("Looks")
            await asyncio.sleep(0)
            log.info("Has seen")
        return run.id

    async with db.agent_run("lead", "session-1") as lead:
        scouts = await asyncio.gather(scout("a"), scout("b"))
        inner = await scout("c")
        log.info("Leads")
    with suppress(ValueError):
        async with db.agent_run("d", "session-1") as failed:
            raise ValueError
    log.info("Alone")
    for agent in (*scouts, inner):
        assert [row["message"] for row in await lines_of(db, handler, agent)] == ["Looks", "Has seen"]
    assert [row["message"] for row in await db.get_agent_logs(lead.id)] == ["Leads"]
    assert await db.get_agent_logs(failed.id) == []
    assert [row["message"] for row in await db.get_system_logs()] == ["Alone"]


async def test_a_line_of_an_agent_that_is_not_there_is_the_systems_and_takes_no_other_along(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, agent_id: str
) -> None:
    for number in range(20):
        with bind_agent({5: NO_ROW, 9: "no id", 12: "\0"}.get(number, agent_id)):
            log.info("%d", number, extra={"number": number})
    lines = await lines_of(db, handler, agent_id)
    assert [row["message"] for row in lines] == [str(n) for n in range(20) if n not in (5, 9, 12)]
    rows = await db.get_system_logs()
    assert [row["message"] for row in rows] == ["5", "9", "12"]
    assert rows[0]["details"] == {"agent_id": NO_ROW, "number": 5}


async def test_a_formatter_makes_the_message(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    handler.setFormatter(logging.Formatter("%(levelname)s! %(message)s"))
    log.info("Look", extra={"a": 1})
    (row,) = await system_lines(db, handler)
    assert (row["message"], row["details"]) == ("INFO! Look", {"a": 1})


async def test_levels_and_filters_of_the_handler_hold(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger
) -> None:
    handler.setLevel("WARNING")
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    log.info("Too low")
    log.error("A secret")
    log.error("Taken")
    assert [row["message"] for row in await system_lines(db, handler)] == ["Taken"]


async def test_what_writing_logs_itself_is_never_taken(db: DatabaseManager, handler: DatabaseHandler) -> None:
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("orchdb.of.mine").warning("Not taken")
        logging.getLogger("orchdbx").info("Taken")
        handler.flush()
        logging.getLogger("app").info("Taken")
        rows = await system_lines(db, handler)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert [row["component"] for row in rows if row["component"] != "asyncio"] == ["orchdbx", "app"]


async def test_what_there_is_no_room_for_is_dropped_counted_and_told(
    db: DatabaseManager, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    handler = DatabaseHandler(target.url, capacity=3, interval=60)
    for log in attached(handler):
        for number in range(10):
            log.info("%d", number)
        assert [row["message"] for row in await system_lines(db, handler)] == ["0", "1", "2"]
        assert handler.dropped == 7
        log.info("Room again")
        assert [row["message"] for row in await system_lines(db, handler)][3:] == ["Room again"]
    handler.close()
    assert "DatabaseHandler: 7 items were dropped, 7 in all" in caplog.text


async def test_a_closed_handler_drops(db: DatabaseManager, target: Target) -> None:
    handler = DatabaseHandler(target.url)
    for log in attached(handler):
        log.info("Before")
        handler.close()
        handler.close()
        log.info("After")
    assert handler.dropped == 1
    assert [row["message"] for row in await db.get_system_logs()] == ["Before"]


async def test_a_handler_that_has_logged_nothing_makes_nothing(tmp_path: Path) -> None:
    handler = DatabaseHandler(tmp_path / "none.db")
    handler.flush()
    handler.close()
    assert [*tmp_path.iterdir()] == []


def test_a_place_that_is_none_is_told_at_once() -> None:
    with pytest.raises(InvalidValueError):
        DatabaseHandler("mysql://a/b")


@pytest.mark.parametrize("odd", [0, -1, "many", None, True, float("nan")])
def test_an_option_that_is_no_number_is_told_at_once(odd: Any) -> None:
    with pytest.raises(InvalidValueError, match="capacity must be a number from 1"):
        DatabaseHandler("a.db", capacity=odd)


async def test_threads_lose_nothing(db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger) -> None:
    def work(thread: int) -> None:
        for number in range(2_500):
            log.info("%d %d", thread, number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    messages = [row["message"] for row in await system_lines(db, handler)]
    assert len(messages) == 10_000
    for thread_number in range(4):
        own = [int(message.split()[1]) for message in messages if message.startswith(f"{thread_number} ")]
        assert own == [*range(2_500)]


async def test_a_locked_database_is_waited_for_by_nobody_who_logs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with DatabaseManager(path) as db:
        handler = DatabaseHandler(path, lock_timeout=0.05, exit_timeout=0.3)
        for log in attached(handler):
            with locked_by_another(path):
                log.info("Meanwhile")
                handler.flush()
                assert await db.get_system_logs() == []
            log.info("Afterwards")
            while len(await system_lines(db, handler)) < 2:
                await asyncio.sleep(0.01)
        handler.close()
        assert [row["message"] for row in await db.get_system_logs()] == ["Meanwhile", "Afterwards"]


async def test_closing_while_the_database_is_locked_takes_no_longer_than_it_may_and_counts_the_loss(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    async with DatabaseManager(path) as db:
        handler = DatabaseHandler(path, lock_timeout=0.05, exit_timeout=0.2)
        with locked_by_another(path):
            for log in attached(handler):
                log.info("Lost")
            await asyncio.wait_for(asyncio.to_thread(handler.close), 20)
        # The last attempt may be under way when the lock is gone: then it is stored, and counted as that.
        while handler.dropped + len(await db.get_system_logs()) != 1:
            await asyncio.sleep(0.01)


async def test_a_batch_whose_connection_broke_after_the_commit_is_written_once(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, agent_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction, breaks = DatabaseManager.transaction, 2

    class Breaking:
        def __init__(self, db: DatabaseManager) -> None:
            self._block = transaction(db)

        async def __aenter__(self) -> Transaction:
            nonlocal breaks
            if breaks == 1:  # the second time it breaks before anything
                breaks -= 1
                raise ConnectionLostError("broken")
            return await self._block.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            nonlocal breaks
            await self._block.__aexit__(*error)
            if breaks:
                breaks -= 1
                raise ConnectionLostError("broken")

    monkeypatch.setattr(DatabaseManager, "transaction", lambda self: Breaking(self))
    for round_number in range(2):
        with bind_agent(agent_id):
            log.info("Of an agent")
        for number in range(3):
            log.info("%d", round_number * 3 + number)
        handler.flush()
    assert [row["message"] for row in await db.get_system_logs()] == [*"012345"]
    assert len(await db.get_agent_logs(agent_id)) == 2
    assert breaks == 0


async def test_it_can_be_configured_by_a_dictionary(db: DatabaseManager, target: Target) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "incremental": False,
            "disable_existing_loggers": False,
            "handlers": {"db": {"class": "orchdb.integrations.logging.DatabaseHandler", "url": target.url}},
            "loggers": {"configured": {"handlers": ["db"], "level": "INFO", "propagate": False}},
        }
    )
    logger = logging.getLogger("configured")
    (handler,) = logger.handlers
    assert isinstance(handler, DatabaseHandler)
    logger.info("Ready")
    assert [row["message"] for row in await system_lines(db, handler)] == ["Ready"]
    logger.removeHandler(handler)
    handler.close()


async def test_behind_a_queue_the_agent_is_that_of_the_code_that_logs(
    db: DatabaseManager, handler: DatabaseHandler, agent_id: str
) -> None:
    records: queue.Queue[Any] = queue.Queue()
    front = logging.handlers.QueueHandler(records)
    front.addFilter(stamp_agent)
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    for log in attached(front):
        with bind_agent(agent_id):
            log.info("Here", extra={"a": 1})
        log.info("There")
    listener.stop()
    (row,) = await lines_of(db, handler, agent_id)
    assert (row["message"], row["details"]) == ("Here", {"logger": "app.worker", "a": 1})
    assert [row["message"] for row in await db.get_system_logs()] == ["There"]


@pytest.mark.parametrize("last", ["wrap_for_formatter", "render_to_log_kwargs"])
async def test_the_events_of_structlog_come_with_what_is_bound(
    db: DatabaseManager, handler: DatabaseHandler, log: logging.Logger, last: str
) -> None:
    wrap = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            wrap if last == "wrap_for_formatter" else structlog.stdlib.render_to_log_kwargs,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    try:
        structlog.get_logger(log.name).bind(user="ada").info("Came in", door=2, tags=["a"])
    finally:
        structlog.reset_defaults()
    (row,) = await system_lines(db, handler)
    assert row["message"] == "Came in"
    assert row["details"] == {"user": "ada", "door": 2, "tags": ["a"]}

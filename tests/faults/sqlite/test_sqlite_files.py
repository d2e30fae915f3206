"""What stands at the path instead of a database, and what happens to the file while it is open."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchdb import DatabaseManager, InvalidValueError, OperationError, OrchdbError, SchemaError
from tests.support.faults import Child, assert_sound, log, messages, opened, run_child, seen

HEADER = b"SQLite format 3\0"
GARBAGE = {
    "text": b"This is no database.\n" * 200,
    "header and junk": HEADER + b"\x10\0\x01\x01\0\x40\x20\x20" + b"junk" * 2000,
    "a short header": HEADER[:10],
    "only a header": HEADER + bytes(84),
    "gzip": gzip.compress(b"a database, once" * 1000),
}


async def write_once(path: Path | str, message: str = "written") -> None:
    async with DatabaseManager(path) as db:
        await log(db, message)


@pytest.mark.parametrize("kind", GARBAGE)
async def test_a_file_that_is_no_database_is_refused_with_its_path_and_stays_as_it_is(path: Path, kind: str) -> None:
    path.write_bytes(GARBAGE[kind])
    with pytest.raises((OperationError, SchemaError)) as caught:
        await write_once(path)
    assert isinstance(caught.value, SchemaError) or str(path) in str(caught.value)
    assert path.read_bytes() == GARBAGE[kind]
    assert list(path.parent.iterdir()) == [path]


async def test_another_programs_database_is_refused_and_stays_as_it_is(path: Path) -> None:
    with opened(path) as other:
        other.execute("CREATE TABLE customers (name TEXT)")
        other.execute("INSERT INTO customers VALUES ('Ada')")
    before = path.read_bytes()
    with pytest.raises(SchemaError):
        await write_once(path)
    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused_and_stays_as_it_is(path: Path) -> None:
    await write_once(path)
    with opened(path) as other:
        other.execute("UPDATE orchdb_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="9999"):
        await write_once(path)
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch(0o600)
    await write_once(path)
    assert messages(path) == ["written"]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [Path.mkdir, _fifo, _socket], ids=["directory", "fifo", "socket"])
async def test_what_is_no_regular_file_is_refused_at_once_with_its_path(
    tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], None]
) -> None:
    path = tmp_path_factory.mktemp("x") / "db"  # short, because the path of a socket may not be long
    make(path)
    with pytest.raises(OperationError, match=str(path)):
        await asyncio.wait_for(write_once(path), 2)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("place", ["/dev/null", "/dev/zero"])
async def test_a_device_is_refused(place: str) -> None:
    with pytest.raises(OperationError, match=place):
        await asyncio.wait_for(write_once(place), 2)


async def test_a_path_below_a_file_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationError, match=r"file/orchestrator\.db"):
        await write_once(tmp_path / "file" / "orchestrator.db")
    assert list(tmp_path.rglob("*")) == [tmp_path / "file"]


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_an_empty_path_and_one_with_a_nul_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        DatabaseManager(text)


ODD = ["with space.db", "a?b=c.db", "a#b.db", "a%20b.db", "a%3fb.db", "it's.db", 'a"b.db', "ü✓漢.db", "a&b;c.db"]
ODD += ["-rf.db", "~tilde.db", "file:x.db", "a\\b.db", "a\nb.db", "[x]{y}.db", "$HOME.db", "a:memory:.db", "100%.db"]
ODD += [os.fsdecode(b"latin-\xe9.db")]


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_name_is_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    async with DatabaseManager(tmp_path / name) as db:
        await log(db, "written")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}-shm", f"{name}-wal"])
        await db.backup(tmp_path / f"copy of {name}")
    assert messages(tmp_path / f"copy of {name}") == ["written"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"copy of {name}"])


async def test_a_relative_path_means_the_folder_in_which_the_manager_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    db = DatabaseManager("orchestrator.db")
    monkeypatch.chdir(tmp_path / "second")
    async with db:
        monkeypatch.chdir(tmp_path)
        await log(db, "written")
        await asyncio.gather(*(seen(db) for _ in range(8)))  # which opens more connections
    assert messages(tmp_path / "first" / "orchestrator.db") == ["written"]
    assert not list((tmp_path / "second").iterdir())


@pytest.mark.parametrize("dangling", [False, True])
async def test_behind_a_symbolic_link_the_target_is_the_database(tmp_path: Path, dangling: bool) -> None:
    target, link = tmp_path / "there" / "real.db", tmp_path / "link.db"
    target.parent.mkdir()
    link.symlink_to(target)
    if not dangling:
        await write_once(target)
    async with DatabaseManager(link) as through, DatabaseManager(target) as direct:
        await asyncio.gather(*(log((through, direct)[number % 2], "more") for number in range(20)))
        assert sorted(path.name for path in target.parent.iterdir()) == ["real.db", "real.db-shm", "real.db-wal"]
    assert len(messages(target)) == 20 + (not dangling)
    assert link.is_symlink()
    assert_sound(target)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_file_that_goes_away_while_it_is_open_is_noticed_within_a_second(
    path: Path, suffix: str, how: str
) -> None:
    async with DatabaseManager(path) as db:
        await log(db, "before")
        victim = Path(f"{path}{suffix}")
        if how == "deleted":
            victim.unlink()
        else:
            replacement = path.with_name("other")
            replacement.write_bytes(b"")
            replacement.replace(victim)
        await asyncio.sleep(0.2)
        for _ in range(3):
            with pytest.raises(OperationError, match="deleted or replaced"):
                await log(db, "lost")
        with pytest.raises(OperationError, match=f"{victim} was deleted or replaced"):
            async with db.transaction() as tx:
                await tx.create_system_log("INFO", "fault", "lost")
    if suffix != "":
        return
    path.unlink(missing_ok=True)
    async with DatabaseManager(path) as db:
        await log(db, "new")
        assert await seen(db) == ["new"]


async def test_a_file_that_comes_back_can_be_written_again(path: Path) -> None:
    async with DatabaseManager(path) as db:
        await log(db, "before")
        path.rename(path.with_name("away"))
        await asyncio.sleep(0.2)
        with pytest.raises(OperationError):
            await log(db, "lost")
        path.with_name("away").rename(path)
        await log(db, "after")
    assert messages(path) == ["before", "after"]


async def test_a_database_put_in_the_place_of_an_open_one_keeps_its_wal(path: Path) -> None:
    other = path.with_name("other.db")
    async with DatabaseManager(path) as db:
        await log(db, "old")
        await write_once(other, "new")
        other.replace(path)
        Path(f"{path}-wal").unlink()
        Path(f"{path}-shm").unlink()
        with opened(path) as another:
            another.execute("INSERT INTO system_logs (component, message) VALUES ('other', 'in the WAL')")
            await db.close()
            assert another.execute("SELECT message FROM system_logs").fetchall() == [("new",), ("in the WAL",)]
    assert_sound(path)


def crashed(path: Path) -> list[str]:
    """What was acknowledged to a process that was killed, and left its WAL and shared memory."""
    with Child("crashing", path, "normal", 1) as child:
        acknowledged: list[str] = child.line()
        assert Path(f"{path}-wal").stat().st_size
        child.process.send_signal(signal.SIGKILL)
    return acknowledged


@pytest.mark.parametrize("damage", ["truncated WAL", "a torn end of the WAL", "no WAL", "stale shm", "garbage shm"])
async def test_after_a_crash_damaged_companions_cost_at_most_the_tail_and_the_file_stays_sound(
    path: Path, damage: str
) -> None:
    acknowledged = crashed(path)
    wal, shared = Path(f"{path}-wal"), Path(f"{path}-shm")
    if damage == "truncated WAL":
        os.truncate(wal, wal.stat().st_size // 2 + 11)
    elif damage == "a torn end of the WAL":
        with wal.open("ab") as end:
            end.write(os.urandom(4000))
    elif damage == "no WAL":
        wal.unlink()
        shared.unlink()
    elif damage == "garbage shm":
        shared.write_bytes(os.urandom(32768))
    elif damage == "stale shm":
        os.utime(shared, (0, 0))
    try:
        await write_once(path, "after")
    except SchemaError:
        assert damage in ("no WAL", "truncated WAL")  # the tables themselves were in it
        return
    found = messages(path)
    assert found[-1] == "after"
    assert len(found) == len(set(found))
    if "WAL" not in damage or damage.startswith("a torn"):
        assert set(acknowledged) <= set(found)
    assert_sound(path)


async def test_after_damage_is_seen_nothing_more_is_written(path: Path) -> None:
    async with DatabaseManager(path) as db:
        await db.create_system_logs(
            {"log_level": "INFO", "component": "fault", "message": f"{number} {'x' * 500}"} for number in range(2000)
        )
    with path.open("r+b") as file:
        for page in range(150, 190):  # of nearly 300, all of them full of lines
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    async with DatabaseManager(path) as db:
        with pytest.raises(OperationError) as caught:
            await seen(db)
        assert caught.value.code == "SQLITE_CORRUPT"
        assert "damaged" in str(caught.value)
        before = path.read_bytes()
        for _ in range(3):
            with pytest.raises(OperationError, match=r"nothing more is written"):
                await db.create_orchestrator_agent("never")
        with pytest.raises(OperationError, match=str(path)):
            async with db.transaction():
                pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
async def test_whatever_the_umask_files_and_folders_are_the_owners_alone(tmp_path: Path, mask: int) -> None:
    if mask == 0o777 and os.geteuid() != 0:
        pytest.skip("only root can use what nobody may")
    old = os.umask(mask)
    try:
        path = tmp_path / "a" / "b" / "orchestrator.db"
        async with DatabaseManager(path) as db:
            await log(db, "written")
            await db.backup(path.with_name("backup.db"))
            found = {place: place.stat().st_mode & 0o077 for place in (tmp_path / "a").rglob("*")}
        found[tmp_path / "a"] = (tmp_path / "a").stat().st_mode & 0o077
    finally:
        os.umask(old)
    assert len(found) == 6
    assert set(found.values()) == {0}


async def test_a_file_that_others_can_read_is_warned_of_and_left_as_it_is(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await write_once(path)
    assert not caplog.records
    path.chmod(0o644)
    await write_once(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} can be opened by others than its owner: its mode is 644"
    ]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.slow
async def test_opening_and_closing_beside_others_loses_no_row_of_theirs(path: Path) -> None:
    async with DatabaseManager(path) as db:
        definition = await db.create_orchestrator_agent("self-damage")
        agent = await db.create_agent(definition, "session")
        with ExitStack() as stack:
            url = f"sqlite:///{path}"
            children = [stack.enter_context(Child("contending", url, number, 4, 2.5, agent)) for number in range(3)]
            for child in children:
                child.line()
                child.tell("go")
            own: list[str] = []
            end = time.monotonic() + 2.5
            while time.monotonic() < end or len(own) < 100:
                async with DatabaseManager(path) as second:
                    own.append(f"own {len(own)}")
                    await asyncio.gather(log(db, own[-1]), seen(second))
            rows = [name for child in children for name in child.line()["rows"]]
    assert sorted(messages(path)) == sorted([*rows, *own])
    assert_sound(path)


def test_nothing_but_sqlite_opens_the_files_of_a_database(path: Path) -> None:
    assert run_child("auditing", path) == [[]]


async def test_a_wal_that_a_long_reader_let_grow_is_trimmed_afterwards(path: Path) -> None:
    wal = Path(f"{path}-wal")
    async with DatabaseManager(path) as db:
        with opened(path) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM system_logs").fetchall()
            for _ in range(10):
                await db.create_system_log("INFO", "fault", "x" * 8_000_000)
            assert wal.stat().st_size > 70_000_000
        for _ in range(3):
            await log(db, "small")
        assert wal.stat().st_size <= 64 * 1024 * 1024 + 100_000
        assert shutil.disk_usage(path.parent).free


async def test_text_that_another_program_wrote_in_another_encoding_can_be_read(path: Path) -> None:
    async with DatabaseManager(path) as db:
        with opened(path) as other:
            other.execute("INSERT INTO system_logs (component, message) VALUES ('fault', CAST(x'636166e9' AS TEXT))")
        await log(db, "café")
        assert await seen(db) == ["caf\ufffd", "café"]
        with opened(path) as other:
            other.execute("INSERT INTO system_logs (component, message) VALUES ('fault', 'later')")
        assert (await seen(db))[-1] == "later"


async def test_every_failure_to_open_is_one_of_orchdbs_errors(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place in (loop, tmp_path / ("x" * 300), Path("/proc/orchestrator.db"), Path("/"), tmp_path / "a" / ".."):
        with pytest.raises(OrchdbError):
            await write_once(place)

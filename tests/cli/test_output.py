"""The manners of the command line: terminals, pipes, hostile texts, zones, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from orchdb.cli import cells
from orchdb.cli.application import COMMANDS, help_text
from tests.cli.conftest import HOSTILE, Recorded
from tests.support.command_line import done, in_terminal, process, refused, run
from tests.support.databases import complaints

# What Rich writes to colour a word and to draw a screen; anything else would be a text's own.
ITS_OWN = re.compile(r"\x1b\[[\d;]*m")


def controls(text: str) -> set[str]:
    """What is left of control characters when the lines and colours are taken away."""
    return {character for character in ITS_OWN.sub("", text) if not character.isprintable()} - {"\n", "\r"}


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_a_table_fits_and_hostile_texts_do_nothing(recorded_file: Recorded, columns: int) -> None:
    db = ("--db", recorded_file.url)
    commands = (("agents", *db), ("logs", *db), ("prompts", "--full", *db), ("show", recorded_file.prompt, *db))
    for command in commands if columns == 80 else commands[:1]:
        shown = in_terminal(*command, columns=columns)
        assert shown.code == 0, shown.text
        assert controls(shown.text) == set()
        assert "failed" in shown.text or command[0] != "agents"
        if "--full" not in command and command[0] != "show":
            assert max(cell_len(line) for line in shown.lines) <= columns
        assert command[0] != "logs" or r"\x1b]0;" in shown.text
    table = in_terminal("sessions", *db, columns=columns, TZ="XYZ-5:30", NO_COLOR="1")
    assert "last seen (XYZ)" in table.text
    assert not re.search(r"\x1b\[[\d;]*3\dm", table.text), "there are colours"
    assert max(cell_len(line) for line in table.lines) <= columns


def test_no_output_lets_a_text_act_on_the_terminal(recorded_file: Recorded) -> None:
    db = ("--db", recorded_file.url)
    terminal = {"FORCE_COLOR": "1"}
    for command in (
        ("agents",),
        ("prompts",),
        ("logs",),
        ("show", recorded_file.helper),
        ("show", recorded_file.prompt),
        ("sql", "SELECT error_message FROM agents"),
        ("top",),
    ):
        for options in ((), ("--full",), ("--json",), ("--plain",)):
            if command[0] == "top" and options in ((), ("--full",)):
                options = (*options, "--once")  # noqa: PLW2901
            text = done(*command, *options, *db, **terminal)
            assert controls(text) <= ({"\t"} if "--plain" in options else set()), (command, options)
    (row,) = (json.loads(line) for line in done("prompts", "--json", *db).splitlines())
    assert row["prompt_text"] == f"Look at {HOSTILE}", "programs get what is stored"
    assert "\\x1b" in refused(2, "prompts", "--session", "\x1b[31mx", *db)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc\r", r"a\tb\nc\r"),
        ("\x1b[1m\x00\x7f\x9b", r"\x1b[1m\x00\x7f\x9b"),
        ("\u202egnirts\u2066\u200b\u2028", r"\u202egnirts\u2066\u200b\u2028"),
        ("漢字 é 👍🏽 ‍", "漢字 é 👍🏽 ‍"),
        ("\U000e0041", r"\U000e0041"),
        (r"C:\temp", r"C:\temp"),
    ],
)
def test_what_cannot_be_seen_is_written_as_an_escape(text: str, shown: str) -> None:
    assert cells.visible(text) == shown
    assert json.loads(cells.json_line({"x": text})) == {"x": text}
    assert cells.visible_lines("a\r\nb\tc\x1b") == "a\nb\tc\\x1b"


def test_a_long_text_is_cut_with_a_mark_and_whole_with_full(recorded_file: Recorded) -> None:
    query = f"SELECT '{'long ' * 400}end' AS text"
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "80"}
    cut = done("sql", query, "--db", recorded_file.url, **terminal)
    assert "…" in cut
    assert "end" not in cut
    assert "end" in done("sql", query, "--full", "--db", recorded_file.url, **terminal)
    assert "end" in done("sql", query, "--db", recorded_file.url), "a pipe gets all of it"


def test_a_text_that_is_very_long_is_not_laid_out_and_many_columns_are_shown_row_by_row(
    recorded_file: Recorded,
) -> None:
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "80"}
    db = ("--db", recorded_file.url)
    text = f"{'word ' * 1000}end\\n"
    query = f"SELECT 1 AS number, replace('{text}', '\\n', char(10)) AS text"
    shown = done("sql", query, "--full", *db, **terminal)
    assert f"{'word ' * 1000}end\n" in shown, "the terminal wraps it"
    many = re.sub(r"\x1b\[[\d;]*m", "", done("sql", "SELECT * FROM agents", *db, **terminal))
    assert max(map(cell_len, many.splitlines())) <= 80
    assert re.search(r"^orchestrator_agent_id +[0-9a-f-]{36} *$", many, re.MULTILINE)
    assert many.count("created_at") == 3
    narrow = done("sql", "SELECT * FROM agents", *db, FORCE_COLOR="1", COLUMNS="20")
    assert "created_at" in narrow


def test_times_are_local_with_their_zone_or_utc() -> None:
    moment = "2026-01-02T03:04:05.678901"
    from datetime import UTC, timedelta, timezone

    assert cells.plain_time(moment, UTC) == "2026-01-02T03:04:05.678+00:00"
    assert cells.plain_time(moment, timezone(timedelta(hours=-3))) == "2026-01-02T00:04:05.678-03:00"
    assert cells.exact_time(moment, timezone(timedelta(hours=2))) == "2026-01-02 05:04:05.678 UTC+02:00"
    assert cells.plain_time("last\ttuesday", UTC) == r"last\ttuesday"
    assert cells.exact_time("0001-01-01T00:00:00.000000", timezone(timedelta(hours=-9))) == "0001-01-01T00:00:00.000000"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (9.96, "10.0s"), (59.9, "59s"), (60, "1m00s"), (3_725, "1h02m"), (90_000, "1d01h"), (-1, "0.0s")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert cells.duration(seconds) == shown


def test_money_has_the_digits_that_it_needs() -> None:
    assert [cells.money(amount) for amount in (0, 0.000012, 0.5, 1234.5)] == [
        "$0.00",
        "$0.000012",
        "$0.50",
        "$1,234.50",
    ]


def test_the_help_fits_one_screen_and_names_each_command() -> None:
    lines = help_text().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert {entry.name for entry in COMMANDS} <= {line.split()[0] for line in lines if line.startswith("  ")}
    assert run("--help").stdout == help_text()


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_help_of_a_command_has_examples_and_says_which_database(entry: object) -> None:
    name = str(entry[0])  # type: ignore[index]
    text = done(name, "--help")
    if name not in ("demo", "scaffold"):
        assert "Examples:" in text
        assert f"orchdb {name}" in text
        assert "ORCHESTRATOR_DB_URL" in text


NOTHING_SLOW = """
import contextlib, io, os, sys
from orchdb.cli import main
from orchdb.cli.application import COMMANDS
def called(*arguments, slow, **variables):
    sys.argv = ["orchdb", *arguments]
    os.environ.update(variables)
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        main()
    loaded = slow & {*sys.modules}
    assert not loaded, (arguments, loaded)
    return output.getvalue()
SLOW = {"sqlalchemy", "alembic", "aiosqlite", "orjson", "jinja2", "orchdb.manager"}
DRAWN = {"rich.console", "asyncio"}
assert "sessions" in called(slow=SLOW | DRAWN)
called("--help", slow=SLOW | DRAWN | {"pydantic"})
called("--version", slow=SLOW | DRAWN | {"pydantic"})
shell = {"_ORCHDB_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
for word in ("", "se"):
    assert "sessions" in called(slow=SLOW | DRAWN, COMP_WORDS="orchdb\\n" + word, **shell)
assert "--session" in called(slow=SLOW, COMP_WORDS="orchdb\\nagents\\n--se", **(shell | {"COMP_CWORD": "2"}))
del os.environ["_ORCHDB_COMPLETE"]
for entry in COMMANDS:
    assert "--help" in called(entry.name, "--help", slow=SLOW)
called("nothing", slow=SLOW)
"""


def test_help_version_and_names_of_commands_load_nothing_slow() -> None:
    ended = subprocess.run([sys.executable, "-c", NOTHING_SLOW], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_terminal_that_does_not_know_each_character_gets_escapes(recorded_file: Recorded) -> None:
    db = ("--db", recorded_file.url)
    for options, shown in (("--json", r"\u6f22\u5b57"), ("--plain", r"\u6f22\u5b57")):
        command = ("show", recorded_file.prompt, options, *db)
        with process(
            *command, stdout=subprocess.PIPE, encoding="ascii", variables={"PYTHONIOENCODING": "ascii"}
        ) as ended:
            assert ended.stdout is not None
            text = ended.stdout.read()
        assert ended.returncode == 0
        assert shown in text


def test_a_misspelt_command_says_which_one_was_meant() -> None:
    result = run("sesions")
    assert (result.exit_code, "sessions" in result.stderr) == (2, True), result.stderr


def test_without_a_command_the_help_is_shown() -> None:
    assert done() == help_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--foo",), "no such option: --foo. See orchdb --help"),
        (("agents", "--sesion", "x"), "--session"),
        (("agents", "--limit"), "option '--limit' requires an argument. See orchdb agents --help"),
        (("show",), "missing argument 'ID'. See orchdb show --help"),
        (("show", "a\x1b[1m", "b\x1b[1m"), r"(b\x1b[1m)"),
        (("agents", "--limit", "-3"), "greater than or equal to 0"),
    ],
)
def test_a_wrong_call_is_one_line_that_says_where_the_help_is(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "{url}"),
        ("{url}",),
        ("agents", "--{url}"),
        ("show", "{url}", "--db", "{file}"),
        ("agents", "--session", "{url}", "--db", "{file}"),
        ("sessions", "--limit={url}"),
        ("status", "--db", "{url}?sslmode=maybe"),
        ("status", "--db", "mysql{url}"),
        ("status", "--db", "'{url}"),
        ("downgrade", "{url}", "--db", "{file}"),
    ],
)
@pytest.mark.parametrize(
    "url", ["postgresql://me:tops@cr/et:x@host/x", "postgres://host/x?user=me&password=tops@cr/et:x"]
)
def test_a_password_at_the_wrong_place_is_not_repeated(
    recorded_file: Recorded, arguments: tuple[str, ...], url: str
) -> None:
    result = run(*(argument.format(url=url, file=recorded_file.url) for argument in arguments))
    assert result.exit_code != 0
    assert result.stderr.count("\n") == 1
    for part in ("tops", "cr/et", "et:x"):
        assert part not in result.output


def test_json_and_plain_are_not_both_to_be_had(recorded_file: Recorded) -> None:
    assert "--json and --plain" in refused(2, "agents", "--json", "--plain", "--db", recorded_file.url)
    assert "in memory" in refused(2, "agents", "--db", ":memory:")


def test_a_tail_gives_what_comes_and_ends_at_once_by_ctrl_c(recorded: Recorded) -> None:
    import asyncio

    from orchdb import DatabaseManager

    async def write() -> None:
        async with DatabaseManager(recorded.url) as db:
            await db.create_agent_log(recorded.lead, "WARNING", "milestone", "later")

    command = ("logs", "--follow", "--level", "warning+", "--json", "--db", recorded.url)
    with process(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert json.loads(tail.stdout.readline())["log_level"] == "ERROR"
        asyncio.run(write())
        assert json.loads(tail.stdout.readline())["message"] == "later"
        tail.send_signal(signal.SIGINT)
        assert tail.wait(timeout=30) == 130
        assert complaints(tail.stderr.read().decode()) == ""


def test_a_tail_whose_reader_has_gone_ends_although_nothing_is_written(recorded_file: Recorded) -> None:
    command = ("logs", "--follow", "--db", recorded_file.url)
    with process(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout.readline()
        tail.stdout.close()
        assert complaints(tail.stderr.read().decode()) == ""
        assert tail.wait(timeout=30) > 0


def test_ctrl_c_ends_a_query_that_takes_long_and_a_closed_pipe_ends_a_list(recorded_file: Recorded) -> None:
    forever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with process("sql", forever, "--db", recorded_file.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as query:
        while not Path(f"{recorded_file.url}-shm").exists() and query.poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)  # most of the time it is counting by now; before that it ends as well
        query.send_signal(signal.SIGINT)
        assert query.wait(timeout=30) == 130
        assert query.stderr is not None
        assert complaints(query.stderr.read().decode()) == ""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT i FROM n"
    with process("sql", many, "--db", recorded_file.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as numbers:
        assert numbers.stdout is not None
        assert numbers.stderr is not None
        assert numbers.stdout.readline() == b"1\n"
        numbers.stdout.close()
        assert complaints(numbers.stderr.read().decode()) == ""
    assert numbers.returncode > 0


def test_a_shell_completes_ids_and_never_an_error(recorded_file: Recorded) -> None:
    def completed(words: str) -> str:
        return run(ORCHDB_COMPLETE="complete_zsh", _ORCHDB_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=words).stdout

    assert "now" in completed(f"orchdb agents --db {recorded_file.url} --session n")
    assert recorded_file.lead in completed(f"orchdb logs --db {recorded_file.url} --agent {recorded_file.lead[:5]}")
    assert "before" in completed(f"orchdb tree --db {recorded_file.url} be")
    for word in ("", recorded_file.lead[:9]):
        assert recorded_file.lead in completed(f"orchdb show --db {recorded_file.url} {word}")
    assert completed(f"orchdb show --db {recorded_file.url} zz%") == "_files\n"
    assert "Error" not in completed("orchdb agents --db /nowhere/x.db --session n")
    assert "sessions" in completed("orchdb sess")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
@pytest.mark.parametrize("command", [("--version",), ("sessions",)])
def test_an_output_that_is_full_is_told_in_a_line(recorded_file: Recorded, command: tuple[str, ...]) -> None:
    variables = {"ORCHESTRATOR_DB_PATH": recorded_file.url}
    with (
        Path("/dev/full").open("w") as full,
        process(*command, stdout=full, stderr=subprocess.PIPE, variables=variables) as ended,
    ):
        said = complaints(ended.stderr.read().decode())
    assert said == "Error: the output could not be written: No space left on device\n"
    assert ended.returncode == 3


@pytest.mark.parametrize(
    "gone", [FileNotFoundError(2, "No such file"), ConnectionRefusedError(111, "refused"), TimeoutError()]
)
def test_a_server_that_goes_while_the_board_is_shown_is_told_as_what_it_is(
    recorded_file: Recorded, gone: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def board(*_: object, **__: object) -> None:
        raise gone

    monkeypatch.setattr("orchdb.inspection.board.get_board", board)
    said = refused(3, "top", "--once", "--db", recorded_file.url)
    assert "output" not in said
    assert "reading: " in said

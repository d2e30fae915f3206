"""``orchdb demo``: a small orchestrator session, stored for real, and how to look at it."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchdb.cli.output import Output

if TYPE_CHECKING:
    from rich.table import Table
    from sqlalchemy import URL

    from orchdb.manager import DatabaseManager
    from orchdb.rows import AgentLogRow, AgentRow, PromptRow

DEFAULT_FILE = "orchdb-demo.db"
LOOKS = (
    "sessions",
    "tree {session}",
    "usage --by definition",
    "prompts --status failed",
    "logs --level warning+",
    "top",
)
"""What to try, of the commands that look."""
QUERIES = (
    "SELECT name, status, cost_usd FROM agents JOIN orchestrator_agents"
    " ON orchestrator_agents.id = orchestrator_agent_id WHERE session_id = '{session}';",
    "SELECT prompt_type, status, tokens_input, tokens_output, prompt_text FROM prompts ORDER BY created_at;",
    "SELECT created_at, log_level, message FROM agent_logs ORDER BY id DESC LIMIT 10;",
)


def demo(
    db: Annotated[
        str,
        typer.Option("--db", metavar="PATH_OR_URL", help="Where to store it. Rows that are there already stay."),
    ] = DEFAULT_FILE,
) -> None:
    """Play a small session of several agents, and show what was stored."""
    from orchdb.location import resolve

    asyncio.run(_demo(resolve(db, "--db"), Output()))


async def _demo(url: URL, console: Output) -> None:
    def say(name: str, what: str) -> None:
        console.print(f"[dim]{datetime.now(UTC):%H:%M:%S.%f}[/]  [cyan]{name:<16}[/] {what}", highlight=False)

    from orchdb.cli.demo_session import play
    from orchdb.manager import DatabaseManager

    async with DatabaseManager(url) as db:
        console.print("[bold]A planner, three builders at the same time, a reviewer[/]")
        console.print("No model is called; times are UTC.\n")
        session = await play(db, say)
        console.print(f"\n[bold]What was stored[/] in session {session}\n", highlight=False)
        await _show_rows(db, session, console)
    show_place(url, session, console)


async def _show_rows(db: DatabaseManager, session: str, console: Output) -> None:
    agents = list(reversed(await db.list_agents(session)))
    names: dict[str, str] = {}
    prompts: list[PromptRow] = []
    logs: list[AgentLogRow] = []
    for agent in agents:
        definition = await db.get_orchestrator_agent(agent["orchestrator_agent_id"], include_deleted=True)
        names[agent["id"]] = definition["name"].removeprefix("demo-") if definition else agent["id"]
        prompts += await db.list_prompts(agent["id"])
        logs += await db.get_agent_logs(agent["id"])
    console.print(_agents_table(agents, names))
    # Ids sort in the order of creation, so this is the order in which the agents took turns.
    console.print(_prompts_table(sorted(prompts, key=lambda row: row["id"]), names))
    console.print(_logs_table(sorted(logs, key=lambda row: row["id"]), names))


def _agents_table(agents: list[AgentRow], names: dict[str, str]) -> Table:
    table = _table("agents", "name", "status", "started_at (UTC)", "completed_at (UTC)", "$ cost_usd")
    for agent in agents:
        started, completed = agent["started_at"] or "", agent["completed_at"] or ""
        table.add_row(
            names[agent["id"]], agent["status"], started[11:23], completed[11:23], f"{agent['cost_usd'] or 0:.6f}"
        )
    return table


def _prompts_table(prompts: list[PromptRow], names: dict[str, str]) -> Table:
    table = _table("prompts", "agent", "prompt_type", "status", "$ input", "$ cached", "$ output", "$ cost_usd", "$ ms")
    for prompt in prompts:
        counts = (prompt["tokens_input"], prompt["tokens_cache_read"], prompt["tokens_output"])
        table.add_row(
            names[prompt["agent_id"]],
            prompt["prompt_type"],
            prompt["status"],
            *(f"{count or 0:,}" for count in counts),
            f"{prompt['cost_usd'] or 0:.6f}",
            str(prompt["latency_ms"]),
        )
    table.columns[-2].footer = f"{sum(prompt['cost_usd'] or 0 for prompt in prompts):.6f}"
    table.show_footer = True
    return table


def _logs_table(logs: list[AgentLogRow], names: dict[str, str]) -> Table:
    table = _table("agent_logs", "$ id", "agent", "log_level", "log_type", "message")
    for line in logs:
        table.add_row(str(line["id"]), names[line["agent_id"]], line["log_level"], line["log_type"], line["message"])
    return table


def _table(title: str, *columns: str) -> Table:
    """An empty table; a column whose name starts with ``$`` holds numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    for column in columns:
        table.add_column(column.removeprefix("$ "), justify="right" if column.startswith("$ ") else "left")
    return table


def show_place(url: URL, session: str, console: Output) -> None:
    """Say where the rows are, and print commands that can be copied: unwrapped, and quoted for the shell."""
    from orchdb.location import MEMORY

    if url.database == MEMORY:
        console.print("[bold]Where:[/] in memory, so it is gone now.")
        return
    if url.drivername.startswith("sqlite"):
        path = str(url.database)
        place, command = f"{path} ({Path(path).stat().st_size:,} bytes)", f"sqlite3 -header -column {shlex.quote(path)}"
        commands = [f"sqlite3 {shlex.quote(path)} .schema"]
    else:
        place = url.render_as_string(hide_password=True)
        server = url.set(drivername="postgresql")._replace(password=None)
        command = f"psql {shlex.quote(server.render_as_string())} -c"
        commands = []
    commands += [f'{command} "{query.format(session=session)}"' for query in QUERIES]
    console.print(f"[bold]Where:[/] {place}", highlight=False, soft_wrap=True)
    console.print("[bold]Look at it:[/]")
    looks = [f"orchdb {words.format(session=session)} --db {_quoted(url)}" for words in LOOKS]
    for line in [*looks, *commands]:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _quoted(url: URL) -> str:
    """The place for the shell: the file, or the URL without its password."""
    if url.drivername.startswith("sqlite"):
        return shlex.quote(str(url.database))
    return shlex.quote(url._replace(password=None).render_as_string())

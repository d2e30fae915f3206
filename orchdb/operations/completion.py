"""The end of a prompt: what came back, piece by piece or at once, and its cost, which its agent's cost grows by."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Integer,
    Select,
    Update,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    select,
    update,
)

from orchdb.errors import InvalidValueError
from orchdb.executor import failures_reported
from orchdb.operations.agents import status_times
from orchdb.operations.creation import CreationOperations
from orchdb.operations.table_statements import TableStatements
from orchdb.rows import ENDED_STATUSES, JsonObject, PromptRow, PromptStatus
from orchdb.schema.column_types import later, moved
from orchdb.schema.sql_functions import size_in_bytes, writes_in_parts
from orchdb.schema.tables import UNFINISHED, agents, prompts
from orchdb.schema.values import MAX_BYTES, now
from orchdb.statements import CompiledPair, CompiledStatement, Statement

PROMPTS: TableStatements[PromptRow] = TableStatements(
    prompts,
    ("agent_id", "session_id", "model_used", "prompt_type", "status"),
    partial={"status": ("pending", "streaming", "failed", "cancelled")},
    conditions={"status": UNFINISHED},
)


class _Completion(Statement[PromptRow]):
    """A change of a prompt with its cost, ``new_cost_usd``, and of its agent's by the difference.

    The prompt comes first, as a row that nobody else changes until the end: two completions at once would both count
    from the same cost. One engine takes that in one statement; the other, whose writers wait for each other anyway, in
    two.
    """

    def __init__(self, names: tuple[str, ...], fill_null: tuple[str, ...]) -> None:
        self._columns = names, fill_null
        super().__init__(prompts, PROMPTS.changing(names, fill_null))

    def _compile(self, dialect: Dialect) -> CompiledStatement:
        before = select(prompts.c.id, prompts.c.agent_id, prompts.c.cost_usd).where(*PROMPTS.living()).with_for_update()
        change = PROMPTS.changing(*self._columns)  # anew: SQLAlchemy keeps what it returns from the first look
        if not writes_in_parts(dialect):
            first = CompiledStatement(_paid(before.subquery("before"), _COST), dialect, None)
            return CompiledPair(first, change, dialect)
        # The agent by what has become of the prompt: a trigger of another program may have kept it as it is.
        was = before.cte("before")
        change = change.where(prompts.c.id == was.c.id)
        done = change.returning(was.c.agent_id, was.c.cost_usd, prompts.c.cost_usd.label("new_cost")).cte("done")
        paid = _paid(done, func.coalesce(done.c.new_cost, literal_column("0"))).cte("paid")
        count: Select[Any] = select(literal_column("1", Integer()).label("changed")).select_from(done).add_cte(paid)
        return CompiledStatement(count, dialect, None, writes=True)


_COST = bindparam("new_cost_usd", type_=prompts.c.cost_usd.type)


def _paid(before: Any, cost: ColumnElement[Any]) -> Update:
    """The agent's cost, moved as far as the prompt's is."""
    moment = bindparam("new_updated_at", type_=agents.c.updated_at.type)
    changes = {
        "cost_usd": moved(agents.c.cost_usd, cost, before.c.cost_usd),
        "updated_at": later(agents.c.updated_at, moment),
    }
    differs = cost != func.coalesce(before.c.cost_usd, literal_column("0"))
    return update(agents).where(agents.c.id == before.c.agent_id, differs).values(changes)


_completion = lru_cache(maxsize=128)(_Completion)


class CompletionOperations(CreationOperations):
    """Prompts come to their end."""

    async def complete_prompt(
        self,
        prompt_id: str,
        response_text: str | None = None,
        *,
        status: PromptStatus = "completed",
        tokens_input: int | None = None,
        tokens_output: int | None = None,
        tokens_cache_read: int | None = None,
        tokens_cache_write: int | None = None,
        cost_usd: float | None = None,
        latency_ms: int | None = None,
        model_used: str | None = None,
        error_message: str | None = None,
        metadata: JsonObject | None = None,
    ) -> bool:
        """Finish a prompt, and add what its cost has grown by to the cost of its agent, as a whole or not at all.

        Repeated, it changes nothing; called again with other figures, it corrects the prompt and the agent. What is
        ``None`` stays as it is, but for ``error_message``. ``completed_at`` is set where it is empty.

        Args:
            prompt_id: Its id.
            response_text: What came back.
            status: How it ended: ``completed``, ``failed`` or ``cancelled``.
            tokens_input: Tokens that were read afresh; those from or to the provider's cache count apart.
            tokens_output: Tokens that were written.
            tokens_cache_read: Tokens that were read from the provider's cache.
            tokens_cache_write: Tokens that were written to the provider's cache.
            cost_usd: What it has cost in all, in US dollars.
            latency_ms: Milliseconds.
            model_used: The model that answered: at most 500 characters.
            error_message: What went wrong; ``None`` empties it.
            metadata: A JSON object, which takes the place of the old one.

        Returns:
            True if there is such a prompt; False if not, or if it was deleted softly.

        Raises:
            InvalidValueError: A value does not fit its column, or the status is not that of an ended prompt.
        """
        if status not in ENDED_STATUSES:
            with failures_reported("complete_prompt", prompts.name):
                raise InvalidValueError(
                    f"status: must be one that ends a prompt: {', '.join(ENDED_STATUSES)}", column="status"
                )
        given: dict[str, Any] = {
            "response_text": response_text,
            "tokens_input": tokens_input,
            "tokens_output": tokens_output,
            "tokens_cache_read": tokens_cache_read,
            "tokens_cache_write": tokens_cache_write,
            "cost_usd": cost_usd,
            "latency_ms": latency_ms,
            "model_used": model_used,
            "metadata": metadata,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        changes |= {"status": status, "error_message": error_message}
        changes, fill_null = status_times(changes, has_start=False)
        if cost_usd is None:
            return await self._change("complete_prompt", PROMPTS, prompt_id, changes, fill_null=fill_null)
        values = {f"new_{name}": value for name, value in (*changes.items(), *fill_null.items())}
        values |= {"row_id": prompt_id, "new_updated_at": now()}
        statement = _completion(tuple(sorted(changes)), tuple(sorted(fill_null)))
        return await self._executor.execute("complete_prompt", statement, values) > 0

    async def append_prompt_response(self, prompt_id: str, text: str) -> bool:
        """Append a piece of text to the response of a prompt, in one statement: for streams.

        The status stays as it is. Repeated, the text is there twice: after ``ConnectionLostError`` it is
        ``complete_prompt`` with the whole that puts it right.

        Args:
            prompt_id: Its id.
            text: What has come.

        Returns:
            True if there is such a prompt; False if not, or if it was deleted softly.

        Raises:
            InvalidValueError: It is no text, or the response would be larger than 64 MiB.
        """
        values = {"row_id": prompt_id, "new_response_text": text}
        if await self._executor.execute("append_prompt_response", _APPEND, values):
            return True
        if await self._executor.fetch_value("append_prompt_response", _TOO_LARGE, values):
            with failures_reported("append_prompt_response", prompts.name):
                raise InvalidValueError(
                    f"prompts.response_text: would be larger than {MAX_BYTES // 2**20} MiB", column="response_text"
                )
        return False


_KIND: Any = prompts.c.response_text.type
_PIECE: Any = bindparam("new_response_text", type_=_KIND.when_required())
_SO_FAR: Any = func.coalesce(prompts.c.response_text, literal_column("''"))
_FITS: Any = size_in_bytes(_SO_FAR) <= literal_column(str(MAX_BYTES)) - size_in_bytes(_PIECE)
_APPEND: Statement[PromptRow] = Statement(
    prompts, update(prompts).where(*PROMPTS.living(), _FITS).values(response_text=_SO_FAR.op("||")(_PIECE))
)
_TOO_LARGE: Statement[Any] = Statement(prompts, select(exists().where(*PROMPTS.living(), not_(_FITS))))

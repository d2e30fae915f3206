"""The operations on ``prompts``: what was asked, what came back, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import is_, itemgetter
from typing import Any, Unpack
from uuid import UUID

from orchdb.operations.agents import status_times
from orchdb.operations.arguments import checked_items, checked_names
from orchdb.operations.completion import PROMPTS, CompletionOperations
from orchdb.operations.creation import may_exist, new_row_id, rows_of_items, time_of_creation
from orchdb.operations.page import Page
from orchdb.rows import (
    ENDED_STATUSES,
    JsonObject,
    NewPrompt,
    OneOrSeveral,
    PromptChanges,
    PromptRow,
    PromptStatus,
    Time,
)
from orchdb.schema.tables import prompts

_TABLE = PROMPTS
_NAMES = tuple(prompts.c.keys())
_FEW = (
    "id",
    "agent_id",
    "prompt_type",
    "prompt_name",
    "prompt_text",
    "status",
    "model_used",
    "metadata",
    "created_at",
    "completed_at",
)
"""What a prompt has that is created before anything has come back."""
_CHANGES = frozenset(PromptChanges.__annotations__)


class PromptOperations(CompletionOperations):
    """Prompts and responses, with tokens and costs."""

    async def create_prompt(
        self,
        agent_id: str,
        prompt_type: str,
        prompt_text: str,
        prompt_name: str | None = None,
        status: PromptStatus = "pending",
        model_used: str | None = None,
        metadata: JsonObject | None = None,
        *,
        response_text: str | None = None,
        tokens_input: int | None = 0,
        tokens_output: int | None = 0,
        tokens_cache_read: int | None = 0,
        tokens_cache_write: int | None = 0,
        cost_usd: float | None = 0.0,
        latency_ms: int | None = None,
        completed_at: Time | None = None,
        error_message: str | None = None,
        deleted_at: Time | None = None,
        id: str | UUID | None = None,
        created_at: Time | None = None,
        exist_ok: bool = False,
    ) -> str:
        """Create a prompt; what comes back is filled in with ``complete_prompt``, which also counts its cost.

        The cost of its agent stays as it is: a row that is copied from elsewhere comes with its agent's.

        Args:
            agent_id: The agent that asks.
            prompt_type: Any non-empty text of at most 500 characters, which is what fits an index of Postgres;
                ``KNOWN_PROMPT_TYPES`` holds the usual ones.
            prompt_text: What is asked: at most 64 MiB, like every text and JSON value.
            prompt_name: A name for people.
            status: One of ``PROMPT_STATUSES``.
            model_used: The model that is asked, if it is known yet: at most 500 characters.
            metadata: A JSON object, as a mapping.
            response_text: What came back.
            tokens_input: Tokens that were read afresh; ``None`` for unknown, as for all counts and the cost.
            tokens_output: Tokens that were written.
            tokens_cache_read: Tokens that were read from the provider's cache.
            tokens_cache_write: Tokens that were written to the provider's cache.
            cost_usd: US dollars.
            latency_ms: Milliseconds.
            completed_at: When it ended: ISO 8601 text, or a ``datetime``; without a zone it is UTC. By default the time
                of creation, if the status is an ended one.
            error_message: What went wrong.
            deleted_at: When it was deleted softly, for a copy of such a row.
            id: Its id: any UUID. By default a new one, which sorts in the order of creation.
            created_at: When it was asked, as text or a ``datetime``. By default now.
            exist_ok: Take a prompt that has the id for this one, and leave it as it is: so the call can be repeated. By
                default that is an error.

        Returns:
            The id of the prompt, 36 characters of UUID.

        Raises:
            MissingParentError: The agent does not exist.
            DuplicateError: A prompt has this id, and ``exist_ok`` is not set.
            InvalidValueError: A value does not fit its column.
        """
        row_id = new_row_id("create_prompt", _TABLE.table.name, id)
        moment = time_of_creation("create_prompt", _TABLE.table.name, created_at)
        if completed_at is None and status in ENDED_STATUSES:
            completed_at = moment
        values: dict[str, Any] = {
            "id": row_id,
            "agent_id": agent_id,
            "prompt_type": prompt_type,
            "prompt_name": prompt_name,
            "prompt_text": prompt_text,
            "status": status,
            "model_used": model_used,
            "metadata": metadata,
            "created_at": moment,
            "completed_at": completed_at,
            "response_text": response_text,
            "tokens_input": tokens_input,
            "tokens_output": tokens_output,
            "tokens_cache_read": tokens_cache_read,
            "tokens_cache_write": tokens_cache_write,
            "cost_usd": cost_usd,
            "latency_ms": latency_ms,
            "error_message": error_message,
            "deleted_at": deleted_at,
        }
        names = _names(values)
        if may_exist("create_prompt", _TABLE.table.name, exist_ok):
            await self._insert_unless("create_prompt", _TABLE, names, values, "id")
        else:
            await self._executor.insert("create_prompt", _TABLE.insert(names), values)
        return row_id

    async def create_prompts(self, prompts: Iterable[NewPrompt], *, exist_ok: bool = False) -> list[str]:
        """Create many prompts: all of them or none.

        Args:
            prompts: Mappings with the parameters of ``create_prompt``, as in ``NewPrompt``.
            exist_ok: Take prompts that have the ids for these, and leave them as they are; of several items with one id
                the first counts. By default that is an error.

        Returns:
            The ids of the prompts, in the order given; an empty list for none.

        Raises:
            MissingParentError: An agent does not exist.
            DuplicateError: A prompt has the id of an item, and ``exist_ok`` is not set.
            InvalidValueError: A value does not fit its column; the message says of which item.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewPrompt.__required_keys__, NewPrompt.__annotations__
        items = checked_items("create_prompts", prompts, required, allowed)
        rows = rows_of_items(items, _new_prompt)
        names = _NAMES if any(_names(row) is _NAMES for row in rows) else _FEW
        if may_exist("create_prompts", _TABLE.table.name, exist_ok):
            return await self._insert_many_unless("create_prompts", _TABLE, names, rows, "id")
        await self._executor.insert_many("create_prompts", _TABLE.insert(names), rows)
        return [row["id"] for row in rows]

    async def get_prompt(self, prompt_id: str, *, include_deleted: bool = False) -> PromptRow | None:
        """Get one prompt.

        Args:
            prompt_id: Its id.
            include_deleted: Return the row also where it was deleted softly.

        Returns:
            The row; ``None`` if there is no such prompt.
        """
        return await self._executor.fetch_one("get_prompt", _TABLE.one(include_deleted), {"row_id": prompt_id})

    async def list_prompts(
        self,
        agent_id: OneOrSeveral[str] | None = None,
        *,
        session_id: OneOrSeveral[str] | None = None,
        status: OneOrSeveral[PromptStatus] | None = None,
        prompt_type: OneOrSeveral[str] | None = None,
        model_used: OneOrSeveral[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        newest_first: bool = False,
        include_deleted: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[PromptRow]:
        """List prompts, of an agent or of all, oldest first; of all filters that are given, each must fit.

        A filter takes one value, or several of which one must fit; of none, no prompt has one.

        Args:
            agent_id: Only those that this agent asked, also one that was deleted softly.
            session_id: Only those of the agents that are in this session now, also of those that were deleted softly.
            status: Only those with this status now.
            prompt_type: Only those of this type.
            model_used: Only those that this model was asked.
            since: Only rows created at this time or later: ISO 8601 text, or a ``datetime``; without a zone it is UTC.
                A row whose time another program wrote in a way nobody understands is left out. By default from the
                first one on.
            until: Only rows created before this time, likewise. By default to the last one.
            newest_first: The other way round: newest first.
            include_deleted: Also rows that were deleted softly.
            limit: The most rows to return; 0 for none. By default all of them.
            offset: How many rows to skip first.
            after: The ``cursor_of`` a row of this list: continue behind it. By default at the beginning.

        Returns:
            The rows, by ``created_at`` and then ``id``, descending with ``newest_first``; an empty list if none fits or
            there is no such agent.

        Raises:
            InvalidValueError: A filter does not fit its column, a time is none, ``limit`` or ``offset`` is no whole
                number from 0, or ``after`` is no cursor of this table. Of several values the place, from 0, is told.
        """
        page = Page(limit, offset, after, since, until, include_deleted, newest_first)
        filters = {
            "agent_id": agent_id,
            "session_id": session_id,
            "status": status,
            "prompt_type": prompt_type,
            "model_used": model_used,
        }
        return await self._list("list_prompts", _TABLE, filters, page)

    async def update_prompt(
        self, prompt_id: str, *, if_status: PromptStatus | None = None, **changes: Unpack[PromptChanges]
    ) -> bool:
        """Change a prompt; only the columns that are named.

        A status that ends the prompt sets ``completed_at`` where it is empty, any other one clears it; a time that is
        given wins. Without changes it only looks whether the prompt is there.

        Args:
            prompt_id: Its id.
            if_status: Change the prompt only if it still has this status: compare and set, in one statement. By default
                whatever it is.
            **changes: What to change: ``prompt_type``, ``prompt_name``, ``prompt_text``, ``response_text``, ``status``,
                ``model_used``, ``tokens_input``, ``tokens_output``, ``tokens_cache_read``, ``tokens_cache_write``,
                ``cost_usd`` (US dollars), ``latency_ms`` (milliseconds), ``completed_at``, ``error_message``,
                ``metadata``; as in ``PromptChanges``. ``None`` empties a column.

        Returns:
            True if there is such a prompt, with that status if one is asked for; False if not, or if it was deleted
            softly.

        Raises:
            InvalidValueError: A value does not fit its column.
            TypeError: A name is unknown, or cannot be changed; the message lists those that can.
        """
        checked_names("update_prompt", changes, _CHANGES)
        fields, fill_null = status_times(dict(changes), has_start=False)
        return await self._change("update_prompt", _TABLE, prompt_id, fields, fill_null=fill_null, if_status=if_status)

    async def add_prompt_usage(
        self,
        prompt_id: str,
        *,
        tokens_input: int = 0,
        tokens_output: int = 0,
        tokens_cache_read: int = 0,
        tokens_cache_write: int = 0,
        cost_usd: float = 0.0,
    ) -> bool:
        """Add to the counts of a prompt, in one statement: whoever else adds at the same time, nothing is lost.

        The cost of its agent stays as it is; ``add_agent_cost`` adds to that.

        Args:
            prompt_id: Its id.
            tokens_input: Tokens that were read afresh; those from or to the provider's cache count apart.
            tokens_output: Tokens that were written.
            tokens_cache_read: Tokens that were read from the provider's cache.
            tokens_cache_write: Tokens that were written to the provider's cache.
            cost_usd: US dollars, also below 0; the sum is rounded to 1e-9.

        Returns:
            True if there is such a prompt; False if not, or if it was deleted softly.

        Raises:
            InvalidValueError: A count is no whole number from 0, the cost is no finite number, or a sum would be larger
                than its column holds.
        """
        amounts = {
            "tokens_input": tokens_input,
            "tokens_output": tokens_output,
            "tokens_cache_read": tokens_cache_read,
            "tokens_cache_write": tokens_cache_write,
            "cost_usd": cost_usd,
        }
        return await self._add("add_prompt_usage", _TABLE, prompt_id, amounts)

    async def delete_prompt(self, prompt_id: str, *, soft: bool = False) -> bool:
        """Delete a prompt, for good or softly.

        Args:
            prompt_id: Its id.
            soft: Only hide it: ``restore_prompt`` brings it back. By default it goes for good.

        Returns:
            True if there was such a prompt; False if not. One that is hidden already can only be deleted for good.
        """
        return await self._delete("delete_prompt", _TABLE, prompt_id, soft=soft)

    async def restore_prompt(self, prompt_id: str) -> bool:
        """Restore a prompt that was deleted softly.

        Args:
            prompt_id: Its id.

        Returns:
            True if there was such a softly deleted prompt; False if not.
        """
        return await self._restore("restore_prompt", _TABLE, prompt_id)


_REST: dict[str, Any] = {
    name: value for name, value in (PromptOperations.create_prompt.__kwdefaults__ or {}).items() if name in _NAMES
}
for _name in ("completed_at", "id", "created_at"):
    del _REST[_name]
_rest_of = itemgetter(*_REST)
_DEFAULTS = tuple(_REST.values())


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns to insert: a few, if the rest of the row is what the table has by default."""
    return _FEW if all(map(is_, _rest_of(row), _DEFAULTS)) else _NAMES


def _new_prompt(item: Mapping[str, Any]) -> dict[str, Any]:
    moment = time_of_creation("create_prompts", _TABLE.table.name, item.get("created_at"))
    row = {"prompt_name": None, "status": "pending", "model_used": None, "metadata": None, **_REST, **item}
    row["id"], row["created_at"] = new_row_id("create_prompts", _TABLE.table.name, item.get("id")), moment
    row["completed_at"] = item.get("completed_at")
    if row["completed_at"] is None and row["status"] in ENDED_STATUSES:
        row["completed_at"] = moment
    return row

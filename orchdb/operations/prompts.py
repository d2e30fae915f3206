"""The operations on ``prompts``: what was asked, what came back, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Unpack

from orchdb.operations.agents import status_times
from orchdb.operations.arguments import checked_items, checked_names
from orchdb.operations.page import Page
from orchdb.operations.table_operations import TableOperations
from orchdb.operations.table_statements import TableStatements
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
from orchdb.schema.tables import UNFINISHED, prompts
from orchdb.schema.values import new_id, now

_TABLE: TableStatements[PromptRow] = TableStatements(
    prompts,
    ("agent_id", "session_id", "model_used", "prompt_type", "status"),
    partial={"status": ("pending", "streaming", "failed", "cancelled")},
    conditions={"status": UNFINISHED},
)
_INSERT = _TABLE.insert(
    (
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
)
_CHANGES = frozenset(PromptChanges.__annotations__)


class PromptOperations(TableOperations):
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
    ) -> str:
        """Create a prompt; what comes back is filled in with ``update_prompt`` and ``add_prompt_usage``.

        ``completed_at`` is set if the status is an ended one.

        Args:
            agent_id: The agent that asks.
            prompt_type: Any non-empty text of at most 500 characters, which is what fits an index of Postgres;
                ``KNOWN_PROMPT_TYPES`` holds the usual ones.
            prompt_text: What is asked: at most 64 MiB, like every text and JSON value.
            prompt_name: A name for people.
            status: One of ``PROMPT_STATUSES``.
            model_used: The model that is asked, if it is known yet: at most 500 characters.
            metadata: A JSON object, as a mapping.

        Returns:
            The id of the new prompt: 36 characters of UUID that sort in the order of creation.

        Raises:
            MissingParentError: The agent does not exist.
            InvalidValueError: A value does not fit its column.
        """
        item = {
            "agent_id": agent_id,
            "prompt_type": prompt_type,
            "prompt_text": prompt_text,
            "prompt_name": prompt_name,
            "status": status,
            "model_used": model_used,
            "metadata": metadata,
        }
        values = _new_prompt(item, now())
        await self._executor.insert("create_prompt", _INSERT, values)
        return str(values["id"])

    async def create_prompts(self, prompts: Iterable[NewPrompt]) -> list[str]:
        """Create many prompts: all of them or none.

        Args:
            prompts: Mappings with the parameters of ``create_prompt``, as in ``NewPrompt``.

        Returns:
            The ids of the new prompts, in the order given; an empty list for none.

        Raises:
            MissingParentError: An agent does not exist.
            InvalidValueError: A value does not fit its column; the message says of which item.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewPrompt.__required_keys__, NewPrompt.__annotations__
        moment = now()
        rows = [_new_prompt(item, moment) for item in checked_items("create_prompts", prompts, required, allowed)]
        await self._executor.insert_many("create_prompts", _INSERT, rows)
        return [str(row["id"]) for row in rows]

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


def _new_prompt(item: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    status = item.get("status", "pending")
    return {
        "id": new_id(),
        "agent_id": item["agent_id"],
        "prompt_type": item["prompt_type"],
        "prompt_name": item.get("prompt_name"),
        "prompt_text": item["prompt_text"],
        "status": status,
        "model_used": item.get("model_used"),
        "metadata": item.get("metadata"),
        "created_at": moment,
        "completed_at": moment if status in ENDED_STATUSES else None,
    }

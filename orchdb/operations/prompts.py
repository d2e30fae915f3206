"""The operations on ``prompts``: what was asked, what came back, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Unpack

from orchdb.operations.agents import status_times
from orchdb.operations.table_operations import TableOperations, checked_items, checked_names
from orchdb.rows import ENDED_STATUSES, JsonObject, NewPrompt, PromptChanges, PromptRow, PromptStatus, Time
from orchdb.statements import TableStatements
from orchdb.tables import prompts
from orchdb.values import new_id, now

_TABLE: TableStatements[PromptRow] = TableStatements(prompts)
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
        """The id of a new prompt.

        Args:
            prompt_type: Any non-empty text; ``KNOWN_PROMPT_TYPES`` holds the usual ones.

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
        await self._verbs.insert("create_prompt", _INSERT, values)
        return str(values["id"])

    async def create_prompts(self, prompts: Iterable[NewPrompt]) -> list[str]:
        """The ids of new prompts, in the order given; all are created or none.

        Raises:
            MissingParentError: An agent does not exist.
            InvalidValueError: A value does not fit its column.
            TypeError: An item lacks a name, or has an unknown one.
        """
        required, allowed = NewPrompt.__required_keys__, NewPrompt.__annotations__
        moment = now()
        rows = [_new_prompt(item, moment) for item in checked_items("create_prompts", prompts, required, allowed)]
        await self._verbs.insert_many("create_prompts", _INSERT, rows)
        return [str(row["id"]) for row in rows]

    async def get_prompt(self, prompt_id: str, *, include_deleted: bool = False) -> PromptRow | None:
        """The prompt, or ``None``."""
        return await self._verbs.fetch_one("get_prompt", _TABLE.one(include_deleted), {"row_id": prompt_id})

    async def list_prompts(
        self,
        agent_id: str,
        *,
        status: PromptStatus | None = None,
        prompt_type: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        include_deleted: bool = False,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> list[PromptRow]:
        """The prompts of an agent, oldest first.

        Args:
            since: Created at this time or later, as far as another program's spelling of it is understood.
            until: Created before this time.
            after: Continue after the row whose ``cursor_of`` this is.
        """
        return await self._list(
            "list_prompts",
            _TABLE,
            {"status": status, "prompt_type": prompt_type},
            scope={"agent_id": agent_id},
            newest_first=False,
            since=since,
            until=until,
            include_deleted=include_deleted,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def update_prompt(
        self, prompt_id: str, *, if_status: PromptStatus | None = None, **changes: Unpack[PromptChanges]
    ) -> bool:
        """Whether there is such a prompt, with that status if one is asked for; it then has the changes.

        A status that ends the prompt sets ``completed_at``, any other one clears it; a time that is given wins.

        Args:
            if_status: Change the prompt only if it still has this status: compare and set, in one statement.

        Raises:
            InvalidValueError: A value does not fit its column.
            TypeError: A name is unknown, or cannot be changed.
        """
        checked_names("update_prompt", changes, _CHANGES)
        fields, kept = status_times(dict(changes), has_start=False)
        return await self._change("update_prompt", _TABLE, prompt_id, fields, kept=kept, if_status=if_status)

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
        """Whether there is such a prompt; its counts have grown by that much, whoever else adds at the same time.

        Args:
            tokens_input: Tokens that were read afresh; those from or to the provider's cache count apart.
            cost_usd: US dollars; the sum is rounded to 1e-9.
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
        """Whether there was such a prompt.

        Args:
            soft: Only hide it: ``restore_prompt`` brings it back. Otherwise it goes for good.
        """
        return await self._delete("delete_prompt", _TABLE, prompt_id, soft=soft)

    async def restore_prompt(self, prompt_id: str) -> bool:
        """Whether there was such a softly deleted prompt; it is living again."""
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

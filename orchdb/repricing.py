"""Prompts priced anew: those whose cost is not known, and those that an older list of prices has priced.

A cost that was reported stays. What an agent carries beyond its prompts counts as what these were not priced for, so
that no dollar is counted twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

from sqlalchemy import Table, select

from orchdb import prices, tables
from orchdb.cursors import cursor_of
from orchdb.manager import DatabaseManager, Transaction
from orchdb.money import NANO, nanos
from orchdb.rows import PromptRow, PromptStatus, Time

_AT_A_TIME = 500
_TOKENS = ("tokens_input", "tokens_output", "tokens_cache_read", "tokens_cache_write")
_ENDED: tuple[PromptStatus, ...] = ("completed", "failed", "cancelled")
_PARTS = ("tokens_cache_write_1h", "web_searches")
"""What has a price of its own and no column: it stands in the metadata."""


class Repriced(TypedDict):
    """A prompt whose cost would be another one.

    Attributes:
        id: The prompt.
        agent_id: Its agent.
        model: The model.
        old_usd: US dollars so far; ``None`` for unknown.
        new_usd: US dollars by the list of prices.
    """

    id: str
    agent_id: str
    model: str
    old_usd: float | None
    new_usd: float


class Repricing(TypedDict):
    """What pricing anew comes to.

    Attributes:
        price_list: The name and the version of the list.
        prompts: Those whose cost changes.
        unknown_models: The models that the list does not have, and how many prompts they keep without a cost.
    """

    price_list: str
    prompts: list[Repriced]
    unknown_models: dict[str, int]


async def find_repriced(
    db: DatabaseManager,
    *,
    session_id: Iterable[str] | None = None,
    since: Time | None = None,
    until: Time | None = None,
    zeros: bool = False,
) -> Repricing:
    """Find the ended prompts whose cost would be another one, and change nothing.

    Args:
        db: The database.
        session_id: Only prompts of these sessions.
        since: Only prompts created at this time or later.
        until: Only prompts created before this time.
        zeros: Also prompts with tokens whose cost is 0, as it is where a program tells none.

    Returns:
        The prompts, in the order of their creation.

    Raises:
        ImportError: The extra ``prices`` is not installed.
        InvalidValueError: A filter is none.
    """
    found: Repricing = {"price_list": prices.price_list(), "prompts": [], "unknown_models": {}}
    async for prompt in _prompts(db, session_id, since, until):
        model = prompt["model_used"]
        if not model or not _is_open(prompt, found["price_list"], zeros=zeros):
            continue
        try:
            usd = _price(prompt, model)
        except LookupError:
            if prompt["cost_usd"] is None:
                found["unknown_models"][model] = found["unknown_models"].get(model, 0) + 1
            continue
        except ValueError:  # another program's time, or count
            continue
        if usd != prompt["cost_usd"]:
            found["prompts"].append(
                {
                    "id": prompt["id"],
                    "agent_id": prompt["agent_id"],
                    "model": model,
                    "old_usd": prompt["cost_usd"],
                    "new_usd": usd,
                }
            )
    return found


async def apply_repriced(db: DatabaseManager, repricing: Repricing) -> int:
    """Write the new costs, an agent at a time: its prompts and its own cost together, or neither.

    A prompt that has changed meanwhile stays as it is.

    Args:
        db: The database.
        repricing: What ``find_repriced`` has found.

    Returns:
        How many prompts were changed.
    """
    by_agent: dict[str, list[Repriced]] = {}
    for prompt in repricing["prompts"]:
        by_agent.setdefault(prompt["agent_id"], []).append(prompt)
    changed = 0
    for agent_id, repriced in by_agent.items():
        async with db.transaction() as tx:
            changed += await _apply(tx, agent_id, repriced, repricing["price_list"])
    return changed


async def _apply(tx: Transaction, agent_id: str, repriced: Sequence[Repriced], price_list: str) -> int:
    # Held until the end, the prompts first, as whoever completes one does it: no cost that is reported meanwhile is
    # lost, and nobody waits for the other.
    await _hold(tx, tables.prompts, [one["id"] for one in repriced])
    await _hold(tx, tables.agents, [agent_id])
    (before,) = await tx.usage((), agent_id=agent_id, include_deleted=True)
    own = await tx.get_agent(agent_id, include_deleted=True)
    if own is None:
        return 0
    changed = new = moved = 0
    for one in repriced:
        prompt = await tx.get_prompt(one["id"])
        if prompt is None or not _is_still(prompt, one, price_list):
            continue
        metadata: Any = prompt["metadata"] if isinstance(prompt["metadata"], Mapping) else {}
        await tx.update_prompt(one["id"], cost_usd=one["new_usd"], metadata={**metadata, "price_list": price_list})
        changed += 1
        if one["old_usd"] is None:
            new += nanos(one["new_usd"])
        else:
            moved += nanos(one["new_usd"]) - nanos(one["old_usd"])
    # Only an agent that counts its prompts: one that was copied from elsewhere may have a cost of 0.
    if nanos(own["cost_usd"] or 0.0) >= nanos(before["cost_usd"]):
        beyond = nanos(before["unattributed_usd"])
        await tx.add_agent_cost(agent_id, (moved + new - min(beyond, max(new, 0))) / NANO)
    return changed


async def _hold(tx: Transaction, table: Table, ids: Sequence[str]) -> None:
    """Let nobody else change the rows until the end of the block; where writers wait for each other that is so."""
    assert tx.conn is not None
    for row_id in sorted(ids):
        await tx.conn.execute(select(table.c.id).where(table.c.id == row_id).with_for_update(key_share=True))


def _is_still(prompt: PromptRow, one: Repriced, price_list: str) -> bool:
    """Whether the prompt is what it was when it was priced."""
    if prompt["cost_usd"] != one["old_usd"] or prompt["status"] not in _ENDED:
        return False
    if not _is_open(prompt, price_list, zeros=True):
        return False
    try:
        return prompt["model_used"] == one["model"] and _price(prompt, one["model"]) == one["new_usd"]
    except ValueError:
        return False


def _price(prompt: PromptRow, model: str) -> float:
    return prices.cost_of(model, _usage(prompt), at=prompt["created_at"])


async def _prompts(
    db: DatabaseManager, session_id: Iterable[str] | None, since: Time | None, until: Time | None
) -> AsyncIterator[PromptRow]:
    after: str | None = None
    sessions = None if session_id is None else [*session_id]
    while True:
        page = await db.list_prompts(
            session_id=sessions, status=_ENDED, since=since, until=until, limit=_AT_A_TIME, after=after
        )
        for prompt in page:
            yield prompt
        if len(page) < _AT_A_TIME:
            return
        after = cursor_of(page[-1])


def _is_open(prompt: PromptRow, price_list: str, *, zeros: bool) -> bool:
    """Whether nobody has reported what the prompt cost."""
    tokens = any(prompt[name] for name in _TOKENS)  # type: ignore[literal-required]
    if not tokens:
        return False
    if prompt["cost_usd"] is None:
        return True
    if zeros and prompt["cost_usd"] == 0:
        return True
    metadata: Any = prompt["metadata"]
    priced_by: object = cast("dict[str, object]", metadata).get("price_list") if isinstance(metadata, dict) else None
    return isinstance(priced_by, str) and priced_by.partition(" ")[0] == price_list.partition(" ")[0]


def _usage(prompt: PromptRow) -> dict[str, int]:
    counts = {name: cast(Any, prompt)[name] or 0 for name in _TOKENS}
    metadata: Any = prompt["metadata"]
    if isinstance(metadata, dict):
        known = cast("dict[str, Any]", metadata)
        counts |= {name: known[name] for name in _PARTS if type(known.get(name)) is int and known[name] > 0}
    return counts

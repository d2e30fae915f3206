"""Long lists, a portion at a time, so that the event loop and the other threads go on meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from orchdb.prepared import ROWS_AT_A_TIME, Prepared
from orchdb.spellings import readable

_FROZEN_BY_PYTHON = 1000
"""Objects at most: 3.12 starts with some hundreds. A program that freezes has many times as many."""


def set_aside() -> Callable[[], None]:
    """What to call after each portion of a list: the rows are then out of the way of Python's collector of cycles.

    It stops every thread to look at all objects that may be part of a cycle, again each time that they have grown by a
    quarter: 300,000 rows, which are part of none, cost a tenth of a second at a time and half of the time in all. To
    freeze all objects and thaw them makes them old without a look at them. A program that has frozen objects of its own
    keeps them frozen.
    """
    return _nothing if gc.get_freeze_count() > _FROZEN_BY_PYTHON else _make_old


def _make_old() -> None:
    try:
        gc.freeze()
    finally:
        gc.unfreeze()


def _nothing() -> None:
    pass


def all_rows(prepared: Prepared, fetch: Callable[[int], list[Any]]) -> list[Any]:
    """The rows, of which ``fetch`` gives so many at a time: in a thread, beside which the loop goes on."""
    records = fetch(ROWS_AT_A_TIME)
    rows = readable(prepared.rows(records), records)
    if len(rows) < ROWS_AT_A_TIME:
        return rows
    make_old = set_aside()
    while records := fetch(ROWS_AT_A_TIME):
        rows += readable(prepared.rows(records), records)
        make_old()
    return rows


async def in_portions(prepared: Prepared, records: list[Any]) -> list[Any]:
    """The rows, in the place of the driver's own, which go a few at a time too."""
    make_old = set_aside()
    for start in range(0, len(records), ROWS_AT_A_TIME):
        end = start + ROWS_AT_A_TIME
        records[start:end] = prepared.rows(records[start:end])
        make_old()
        await asyncio.sleep(0)
    return records

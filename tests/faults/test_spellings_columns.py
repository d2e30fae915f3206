"""What other programs put into columns that are no times: rows stay JSON, and the models accept them."""

from __future__ import annotations

import copy
import json
import pickle
import sqlite3
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchdb import DatabaseManager
from orchdb.models import UnreadableTime
from orchdb.schema.spellings import AsStored
from tests.support.databases import other_program
from tests.support.foreign_rows import AGENT, MODELS, PLACES, NoUtf8, Place, every_place, insert, of_tests, update


@every_place
@pytest.mark.parametrize(
    "value",
    [b"", b"plain", b"\xff\x00", "12", "NaN", "many", 1.5, -3, 1e20, float("inf"), float("-inf"), 2**63 - 1,
     NoUtf8(b"Gr\xfc\xdfe"), "[" * 300 + "]" * 300, '["\\ud800"]', "[1e999, NaN]", "[" + "9" * 40 + "]", "a\0b"],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
async def test_any_value_in_any_column_is_read(file_db: DatabaseManager, path: Path, place: Place, value: Any) -> None:
    """Where the table's own rules let it pass."""
    with other_program(path) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        key: dict[str, Any] = {} if place.numbered else {"id": str(uuid.uuid4())}
        insert(connection, place, "row", **key)
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({place.table})")]
        ids = {"id", "agent_id", "orchestrator_agent_id", "parent_agent_id"}
        for name in names:
            if name not in {*ids, place.mark, "deleted_at"}:
                try:
                    update(connection, place, "row", **{name: value})
                except sqlite3.IntegrityError:  # a closed vocabulary, or an empty type
                    continue
    (row,) = of_tests(await (place.forward + place.backward)[0](file_db), place)
    json.dumps(row, allow_nan=False)
    orjson.dumps(row)
    model = MODELS[place.table].model_validate(row)
    assert model.model_dump(mode="json") == row
    assert MODELS[place.table].model_validate(json.loads(json.dumps(row))) == model
    for name in ("cost_usd", "tokens_input", "latency_ms"):
        if name in row:
            assert row[name] is None or isinstance(row[name], float if name == "cost_usd" else int)


async def test_numbers_that_are_none_are_null_and_fractions_of_a_count_are_rounded(
    file_db: DatabaseManager, path: Path
) -> None:
    place = PLACES["prompts"]
    with other_program(path) as connection:
        insert(connection, place, "row", id=str(uuid.uuid4()), latency_ms=12.7, tokens_input="7", tokens_output="many",
               cost_usd=float("inf"), tokens_cache_read=b"8", tokens_cache_write=-1)  # fmt: skip
    (row,) = await file_db.list_prompts(AGENT)
    assert (row["latency_ms"], row["tokens_input"], row["tokens_output"]) == (13, 7, None)
    assert (row["cost_usd"], row["tokens_cache_read"], row["tokens_cache_write"]) == (None, 8, -1)


async def test_text_that_is_a_blob_is_read_as_text(file_db: DatabaseManager, path: Path) -> None:
    with other_program(path) as connection:
        insert(connection, PLACES["system_logs"], "x", component="Wächter".encode(), details=b'{"a": 1}')
        update(connection, PLACES["system_logs"], "x", message=b"caf\xe9")
    (row,) = await file_db.get_system_logs()
    assert (row["component"], row["message"], row["details"]) == ("Wächter", "caf\ufffd", {"a": 1})


def test_what_a_row_shows_can_be_copied_and_pickled() -> None:
    shown = AsStored("shown", b"stored")
    for same in (copy.deepcopy(shown), pickle.loads(pickle.dumps(shown))):
        assert (same, same.stored) == ("shown", b"stored")
    unreadable = UnreadableTime(shown)
    for time_of_model in (copy.deepcopy(unreadable), pickle.loads(pickle.dumps(unreadable))):
        assert time_of_model == unreadable
        assert time_of_model.text == "shown"
    assert unreadable > datetime.fromtimestamp(time.time(), UTC)

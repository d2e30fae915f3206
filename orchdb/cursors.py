"""Keyset cursors: where a page ended, as an opaque text.

There is one kind, the same for every list: the table, the ``created_at`` and the ``id`` of the last row seen, and where
something else is stored than is shown, that too. It is a position and nothing else: the list it is given to applies its
own filters, so that a made-up cursor reads nothing that the list would not have shown anyway.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any, cast

import orjson

from orchdb.errors import InvalidValueError
from orchdb.rows import COLUMNS_OF, AgentLogRow, AgentRow, OrchestratorAgentRow, PromptRow, SystemLogRow
from orchdb.schema.spellings import AsStored, TextBytes, one_form
from orchdb.schema.values import MAX_INTEGER

AnyRow = OrchestratorAgentRow | AgentRow | PromptRow | AgentLogRow | SystemLogRow


def cursor_of(row: AnyRow) -> str:
    """Make the cursor that continues a list after a row: pass it as ``after=`` to the same list.

    It is a place in the list: each row that keeps its own comes once, whatever becomes of the others, and of this one.
    A row that another program moves by spelling its time in another way may come twice or not at all; and so may
    others, if it does that to this very row, and the row was in the one form before or has been through JSON.

    Args:
        row: A row that a list returned, usually the last of a page.

    Returns:
        An opaque text of ASCII letters, digits, ``-``, ``_`` and ``=``.

    Raises:
        InvalidValueError: It is something else.
    """
    return _cursor(row, just_read=False)


def cursor_behind(row: AnyRow) -> str:
    """Make the cursor behind a row as a list has just returned it: what is shown without a mark is what was stored.

    Args:
        row: The row, as it came from the database.

    Returns:
        Text, as that of ``cursor_of``.
    """
    return _cursor(row, just_read=True)


def _cursor(row: AnyRow, *, just_read: bool) -> str:
    table = _table_of(row)
    created_at: str = row["created_at"]
    key: str | int = row["id"]
    position: list[object] = [table, created_at, key]
    if just_read or isinstance(created_at, AsStored) or isinstance(key, AsStored) or one_form(created_at) is None:
        shown_for = created_at if just_read or isinstance(created_at, AsStored) else None
        position += [_portable(_to_be_found(shown_for)), _portable(key.stored if isinstance(key, AsStored) else None)]
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def position(cursor: Any, table: str) -> dict[str, Any]:
    """Read the position that a cursor holds.

    Args:
        cursor: What a caller gave.
        table: The table whose list is to go on.

    Returns:
        The values that a page behind it is asked for with.

    Raises:
        InvalidValueError: The text is no cursor, or one of another table.
    """
    kind = int if table.endswith("_logs") else str
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        content = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        owner, created_at, key, *stored = orjson.loads(content)
        time, other_key = map(_stored, stored or (None, None))
        time_is_text = isinstance(time, TextBytes)
        is_time = isinstance(created_at, str) and (bool(stored) or one_form(created_at) is not None)
        is_id = type(key) is kind and (isinstance(key, str) or -MAX_INTEGER <= key + 1 <= MAX_INTEGER + 1)
        if owner == table and is_time and is_id:
            is_text = isinstance(other_key, TextBytes)
            return {
                "after_time": created_at,
                "after_stored": None if time_is_text else time,
                "after_stored_bytes": time if time_is_text else None,
                "after_id": key if is_text else other_key or key,
                "after_id_bytes": other_key if is_text else None,
            }
    raise InvalidValueError(f"after: is not a cursor of {table}", column="after")


def _to_be_found(shown: str | None) -> str | bytes | None:
    """What is stored for a time that is shown, as a statement can say it."""
    stored = shown.stored if isinstance(shown, AsStored) else shown
    return TextBytes(stored.encode()) if isinstance(stored, str) and not stored.isascii() else stored


def _portable(stored: str | bytes | None) -> object:
    """What is stored as JSON: text, or what kind of bytes they are and the bytes."""
    if not isinstance(stored, bytes):
        return stored
    return [isinstance(stored, TextBytes), base64.b64encode(stored).decode()]


def _stored(portable: Any) -> str | bytes | None:
    if portable is None or isinstance(portable, str):
        return portable
    is_text, encoded = portable
    content = base64.b64decode(encoded, validate=True)
    return TextBytes(content) if is_text else content


def _table_of(row: Any) -> str:
    """The one table whose columns the row has all of, whatever a caller put beside them; or else, the most of."""
    if isinstance(row, Mapping) and "id" in row and "created_at" in row:
        names = cast("Mapping[str, Any]", row).keys()
        found = {table: (columns <= names, len(columns & names)) for table, columns in COLUMNS_OF.items()}
        best = max(found.values())
        tables = [table for table, fit in found.items() if fit == best]
        if len(tables) == 1:
            return tables[0]
    raise InvalidValueError("cursor_of: this is not a row of orchdb")

"""Keyset cursors: where a page ended, as an opaque text.

There is one kind, the same for every list: the table, the ``created_at`` and the ``id`` of the last row seen. It is a
position and nothing else: the list it is given to applies its own filters, so that a made-up cursor reads nothing that
the list would not have shown anyway.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from orchdb.errors import InvalidValueError
from orchdb.rows import AgentLogRow, AgentRow, OrchestratorAgentRow, PromptRow, SystemLogRow

AnyRow = OrchestratorAgentRow | AgentRow | PromptRow | AgentLogRow | SystemLogRow


def cursor_of(row: AnyRow) -> str:
    """The cursor that continues a list after this row: pass it as ``after=`` to the same list.

    Args:
        row: A row that a list returned, usually the last of a page.
    """
    position = [_table_of(row), row["created_at"], row["id"]]
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def position(cursor: Any, table: str) -> tuple[str, str | int]:
    """The ``(created_at, id)`` that a cursor of this table holds.

    Raises:
        InvalidValueError: The text is no cursor, or one of another table.
    """
    kind = int if table.endswith("_logs") else str
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        content = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        owner, created_at, row_id = orjson.loads(content)
        if owner == table and isinstance(created_at, str) and type(row_id) is kind:
            return created_at, row_id
    raise InvalidValueError(f"after: is not a cursor of {table}", column="after")


def _table_of(row: Mapping[str, Any]) -> str:
    if "component" in row:
        return "system_logs"
    if "log_type" in row:
        return "agent_logs"
    if "prompt_type" in row:
        return "prompts"
    if "session_id" in row:
        return "agents"
    if "agent_type" in row:
        return "orchestrator_agents"
    raise InvalidValueError("cursor_of: this is not a row of orchdb")

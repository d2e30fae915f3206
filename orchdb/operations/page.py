"""Which rows of a list are wanted, besides its filters: what the lists hand on as one value."""

from __future__ import annotations

from typing import NamedTuple

from orchdb.rows import Time


class Page(NamedTuple):
    """A page of a list.

    Attributes:
        limit: The most rows; ``None`` for all.
        offset: How many rows to skip first.
        after: The cursor of the row that it continues behind; ``None`` for the beginning.
        since: Only rows created at this time or later.
        until: Only rows created before this time.
        include_deleted: Also rows that were deleted softly.
        newest_first: By ``created_at`` and then ``id``, descending instead of ascending.
    """

    limit: int | None = None
    offset: int = 0
    after: str | None = None
    since: Time | None = None
    until: Time | None = None
    include_deleted: bool = False
    newest_first: bool = False

"""What a copy, or a comparison of two databases, has to tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

HASH_BYTES = 16


class TableSum(NamedTuple):
    """What a table holds, in two figures.

    Attributes:
        rows: How many rows it has.
        total: The sum of the hashes of its rows, which does not depend on their order.
    """

    rows: int = 0
    total: int = 0

    def plus(self, rows: int, total: int) -> TableSum:
        """The sum with more rows in it.

        Args:
            rows: How many more there are.
            total: The sum of their hashes.

        Returns:
            The sum of both.
        """
        return TableSum(self.rows + rows, (self.total + total) % 256**HASH_BYTES)

    @property
    def content(self) -> str:
        """The hash as 32 hexadecimal digits."""
        return f"{self.total:0{2 * HASH_BYTES}x}"


@dataclass(frozen=True)
class TableReport:
    """What there is to tell of one table.

    Attributes:
        rows_from: How many rows the source has for the target.
        rows_to: How many the target has; ``None`` if nobody has looked.
        hash_from: The content of the source's rows, as the target is to have them; ``None`` if nobody has looked.
        hash_to: The content of the target's rows; ``None`` if nobody has looked.
        changed: How many values of the source the target cannot hold, and got otherwise.
        left_out: How many rows of the source the target cannot have.
    """

    rows_from: int
    rows_to: int | None = None
    hash_from: str | None = None
    hash_to: str | None = None
    changed: int = 0
    left_out: int = 0

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same, as far as somebody has looked."""
        return self.rows_to is None or (self.rows_from, self.hash_from) == (self.rows_to, self.hash_to)


@dataclass(frozen=True)
class TransferReport:
    """What was copied, or compared.

    Attributes:
        from_: Where the source is; never a user or a password.
        to: Where the target is.
        tables: What there is to tell of each table, in the order of copying.
        copied: How many rows this call has written.
        resumed: Whether it has gone on with a copy that was broken off.
        seconds: How long it took.
        copying_seconds: How much of that went into copying, with the indexes; the rest into verifying.
        rules: What was done with what the target cannot hold: the rule of each kind that there was.
    """

    from_: str
    to: str
    tables: dict[str, TableReport]
    copied: int = 0
    resumed: bool = False
    seconds: float = 0.0
    copying_seconds: float = 0.0
    rules: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def verified(self) -> bool:
        """Whether both sides were looked at."""
        return all(table.rows_to is not None for table in self.tables.values())

    @property
    def equal(self) -> bool:
        """Whether every table holds the same on both sides, as far as somebody has looked."""
        return all(table.equal for table in self.tables.values())

    @property
    def left_out(self) -> int:
        """How many rows of the source the target cannot have."""
        return sum(table.left_out for table in self.tables.values())

    @property
    def changed(self) -> int:
        """How many values the target got otherwise than the source has them."""
        return sum(table.changed for table in self.tables.values())

    def to_dict(self) -> dict[str, Any]:
        """Give the report as what JSON knows.

        Returns:
            The attributes, with ``from`` for ``from_``, and whether it is ``verified`` and ``equal``.
        """
        told = asdict(self)
        tables = {name: {**told["tables"][name], "equal": table.equal} for name, table in self.tables.items()}
        told = {"from": told.pop("from_"), **told, "tables": tables}
        return {**told, "verified": self.verified, "equal": self.equal}


class TransferProgress(NamedTuple):
    """How far a copy is.

    Attributes:
        doing: ``copying``, ``indexing`` or ``verifying``.
        table: The table at hand; empty while indexes are made.
        done: Of the rows that have to be copied, or verified, those that are done.
        total: How many those are.
        rate: Rows a second, of this call; 0.0 while nothing is known.
        seconds_left: How long the rest takes at this rate; ``None`` while nothing is known.
    """

    doing: str
    table: str
    done: int
    total: int
    rate: float
    seconds_left: float | None

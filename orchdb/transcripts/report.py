"""What an import has done, and why a naive count of the same rows shows another number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from orchdb.transcripts.events import Usage

_MOST_NAMED = 100
_OTHERS = "(others)"


@dataclass
class Tally:
    """Tokens and money.

    Attributes:
        rows: How many rows or responses with usage.
        tokens_input: Read afresh.
        tokens_output: Written.
        tokens_cache_read: Read from the provider's cache.
        tokens_cache_write: Written to it.
        cost_usd: US dollars, with every cache write at its own price.
        flat_usd: US dollars, with every cache write at the price of five minutes.
    """

    rows: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cache_read: int = 0
    tokens_cache_write: int = 0
    cost_usd: float = 0.0
    flat_usd: float = 0.0

    def add(
        self, usage: Usage | None, cost: float | None, flat: float | None, *, times: int = 1, rows: int = 1
    ) -> None:
        """Add the usage and the cost of a row or response.

        Args:
            usage: Its tokens.
            cost: US dollars.
            flat: US dollars, with every cache write at the price of five minutes.
            times: How often; -1 to take them away.
            rows: How many rows it is.
        """
        self.rows += rows
        if usage is not None:
            self.tokens_input += times * usage.tokens_input
            self.tokens_output += times * usage.tokens_output
            self.tokens_cache_read += times * usage.tokens_cache_read
            self.tokens_cache_write += times * usage.tokens_cache_write
        self.cost_usd += times * (cost or 0.0)
        self.flat_usd += times * (flat or 0.0)

    def merge(self, other: Tally) -> None:
        """Add another tally to this one.

        Args:
            other: The other one.
        """
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def to_dict(self) -> dict[str, Any]:
        """Give the tally as plain values.

        Returns:
            All but ``flat_usd``.
        """
        return {
            "rows": self.rows,
            "tokens_input": self.tokens_input,
            "tokens_output": self.tokens_output,
            "tokens_cache_read": self.tokens_cache_read,
            "tokens_cache_write": self.tokens_cache_write,
            "cost_usd": round(self.cost_usd, 9),
        }


@dataclass
class ImportReport:
    """What ``import_transcripts`` has done.

    Attributes:
        dry_run: Whether nothing was written.
        files: How many files there are.
        files_read: How many of them had something new.
        files_unchanged: How many had not.
        sessions: The sessions that something was read of.
        agents: How many agents were new.
        prompts: How many prompts were new.
        prompts_corrected: How many prompts that were there have got more tokens or text.
        lines: How many log lines were new.
        rows: How many rows of the files were read for the first time, by their type.
        damaged: How many rows could not be read.
        unknown: How many rows had a type that is not known, by the type; they are kept as log lines.
        unreadable: How many files could not be read.
        findings: What to look at, as text that names the file and the row; the first hundred.
        unpriced: How many new prompts have no cost.
        unknown_models: The models that the list of prices does not have.
        prices_missing: Whether there was no list of prices: the extra ``prices`` is not installed.
        added: Tokens and cost of what is new.
        naive: What the rows add up to, if each is counted.
        copies: Responses that another session has already.
        subagents: The part of ``added`` that does not stand in the sessions' own files.
        seconds: How long it took.
    """

    dry_run: bool = False
    files: int = 0
    files_read: int = 0
    files_unchanged: int = 0
    sessions: set[str] = field(default_factory=lambda: set[str]())
    agents: int = 0
    prompts: int = 0
    prompts_corrected: int = 0
    lines: int = 0
    rows: Counter[str] = field(default_factory=lambda: Counter[str]())
    damaged: int = 0
    unknown: Counter[str] = field(default_factory=lambda: Counter[str]())
    unreadable: int = 0
    findings: list[str] = field(default_factory=lambda: list[str]())
    unpriced: int = 0
    unknown_models: set[str] = field(default_factory=lambda: set[str]())
    prices_missing: bool = False
    added: Tally = field(default_factory=Tally)
    naive: Tally = field(default_factory=Tally)
    copies: Tally = field(default_factory=Tally)
    subagents: Tally = field(default_factory=Tally)
    seconds: float = 0.0

    @property
    def repeats(self) -> Tally:
        """What the naive count has too much because one response is several rows."""
        return Tally(
            max(self.naive.rows - self.added.rows - self.copies.rows, 0),
            self.naive.tokens_input - self.added.tokens_input - self.copies.tokens_input,
            self.naive.tokens_output - self.added.tokens_output - self.copies.tokens_output,
            self.naive.tokens_cache_read - self.added.tokens_cache_read - self.copies.tokens_cache_read,
            self.naive.tokens_cache_write - self.added.tokens_cache_write - self.copies.tokens_cache_write,
            self.naive.flat_usd - self.added.flat_usd - self.copies.flat_usd,
            self.naive.flat_usd - self.added.flat_usd - self.copies.flat_usd,
        )

    @property
    def one_hour_usd(self) -> float:
        """US dollars that the naive count has too little because a cache write for an hour has a price of its own."""
        return self.added.cost_usd - self.added.flat_usd

    def merge(self, other: ImportReport) -> None:
        """Add another report to this one.

        Args:
            other: That of a part.
        """
        for name in ("agents", "prompts", "prompts_corrected", "lines", "damaged", "unpriced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("sessions", "unknown_models"):
            getattr(self, name).update(getattr(other, name))
        for name in ("rows", "unknown"):
            counter: Counter[str] = getattr(self, name)
            for sort, number in getattr(other, name).items():
                counter[sort if sort in counter or len(counter) < _MOST_NAMED else _OTHERS] += number
        for name in ("added", "naive", "copies", "subagents"):
            getattr(self, name).merge(getattr(other, name))
        for what in other.findings:
            self.find(what)

    def find(self, what: str) -> None:
        """Name something to look at.

        Args:
            what: The file and what is the matter, without contents.
        """
        if len(self.findings) < _MOST_NAMED:
            self.findings.append(what)

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain values, for JSON.

        Returns:
            What ``orchdb import --json`` writes.
        """
        repeats = self.repeats.to_dict()
        return {
            "dry_run": self.dry_run,
            "files": {"found": self.files, "read": self.files_read, "unchanged": self.files_unchanged},
            "sessions": len(self.sessions),
            "agents": self.agents,
            "prompts": self.prompts,
            "prompts_corrected": self.prompts_corrected,
            "lines": self.lines,
            "rows": dict(sorted(self.rows.items())),
            "damaged": self.damaged,
            "unknown": dict(sorted(self.unknown.items())),
            "unreadable": self.unreadable,
            "findings": self.findings,
            "unpriced": self.unpriced,
            "unknown_models": sorted(self.unknown_models),
            "prices_missing": self.prices_missing,
            "added": self.added.to_dict(),
            "naive": self.naive.to_dict() | {"cost_usd": round(self.naive.flat_usd, 9)},
            "why_naive_differs": {
                "repeats": repeats,
                "copies": self.copies.to_dict() | {"cost_usd": round(self.copies.flat_usd, 9)},
                "one_hour_cache_writes_usd": round(self.one_hour_usd, 9),
                "subagents": self.subagents.to_dict(),
            },
            "seconds": round(self.seconds, 3),
        }

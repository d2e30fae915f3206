"""Responses as prompts count them: one for each name, in the tallies of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchdb.transcripts.events import Counted, Response, Usage
from orchdb.transcripts.mapping import RowMapping, prompt_id
from orchdb.transcripts.report import ImportReport, Tally


class Counting:
    """Counts responses and rows for the report.

    Args:
        mapping: Tells costs.
        report: Where to.
        is_top: Whether an agent, by its key, is a session's own.
    """

    def __init__(self, mapping: RowMapping, report: ImportReport, is_top: Callable[[str], bool]) -> None:
        self._mapping = mapping
        self._report = report
        self._is_top = is_top

    def add(self, response: Response, cost: float | None) -> None:
        """Count a response that is new."""
        self._report.prompts += 1
        self._report.unpriced += cost is None
        for tally in self._tallies(response):
            tally.add(response.usage, cost, self._flat(response), rows=int(response.usage is not None))

    def copy(self, response: Response) -> None:
        """Count a response that another session has."""
        self._report.copies.add(response.usage, self._mapping.cost(response), self._flat(response))

    def corrected(self, response: Response, cost: float | None, before: Usage, old_cost: float | None) -> None:
        """Count what a correction has added to a response."""
        old = self._mapping.prices.price(response.model, before._replace(tokens_cache_write_1h=0), response.at)
        for tally in self._tallies(response):
            tally.add(before, old_cost, old, times=-1, rows=0)
            tally.add(response.usage, cost, self._flat(response), rows=0)

    def row(self, row: Counted) -> None:
        """Count a row as somebody who counts rows would."""
        usage = row.usage._replace(tokens_cache_write_1h=0)
        flat = row.cost if row.cost is not None else self._mapping.prices.price(row.model, usage, row.at)
        for tally in (self._report.naive, self._report.copies) if row.copied else (self._report.naive,):
            tally.add(row.usage, flat, flat)

    def _flat(self, response: Response) -> float | None:
        if response.usage is None or response.reported_cost is not None:
            return response.reported_cost
        usage = response.usage._replace(tokens_cache_write_1h=0)
        return self._mapping.prices.price(response.model, usage, response.at)

    def _tallies(self, response: Response) -> tuple[Tally, ...]:
        top = self._is_top(response.agent)
        return (self._report.added,) if top else (self._report.added, self._report.subagents)


def joined(responses: Iterable[Response], source: str) -> dict[str, Response]:
    """One for each prompt: the one that was read from its beginning, with the most tokens."""
    found: dict[str, Response] = {}
    for response in responses:
        name = prompt_id(source, response.key)
        known = found.get(name)
        if known is None or (response.whole and (not known.whole or _parts(response) > _parts(known))):
            found[name] = response
        elif response.usage and (known.usage is None or response.usage.tokens_output > known.usage.tokens_output):
            known.usage, known.raw_usage = response.usage, response.raw_usage
    return found


def _parts(response: Response) -> int:
    return int(response.facts.get("parts", 0))

"""What a request to a model costs, by the list of prices that ``genai-prices`` carries; it needs the extra ``prices``.

The list is read from the installed package, never from the network, and only when a price is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""


def nanos(usd: float) -> int:
    """Take an amount for whole nano-dollars, whose sums are exact.

    Args:
        usd: US dollars.

    Returns:
        Nano-dollars, the nearest whole number.
    """
    return round(usd * NANO)


def price_list() -> str:
    """Tell which list of prices is in use.

    Returns:
        Its name and version, such as ``"genai-prices 0.2.3"``.

    Raises:
        ImportError: The extra ``prices`` is not installed.
    """
    return f"genai-prices {_library().__version__}"


def cost_of(model: str, usage: Mapping[str, int], *, at: datetime | str | None = None) -> float:
    """Calculate what one request costs.

    Price each request by itself: where a list has tiers, the price of a sum is another one.

    Args:
        model: The model, as the provider calls it.
        usage: Counts by the names of the columns: ``tokens_input``, ``tokens_output``, ``tokens_cache_read``,
            ``tokens_cache_write``, none of which is part of another; ``tokens_cache_write_1h``, the part of the cache
            writes that is kept for an hour; ``web_searches``.
        at: When the request was made, for prices have changed. By default now.

    Returns:
        US dollars, rounded to 1e-9.

    Raises:
        LookupError: The list does not have the model.
        ImportError: The extra ``prices`` is not installed.
    """
    counts = tuple(int(usage.get(name) or 0) for name in _COUNTS)
    day = _moment(at)
    return _cost(model, counts, day)


_COUNTS = (
    "tokens_input",
    "tokens_output",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_cache_write_1h",
    "web_searches",
)


def _library() -> Any:
    import genai_prices  # noqa: PLC0415  # a fifth of a second, for those who need it

    return genai_prices


def _moment(at: datetime | str | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    # Prices change with days, or with hours of the day: what is remembered is good for an hour.
    return moment.replace(minute=0, second=0, microsecond=0)


@lru_cache(maxsize=4096)
def _cost(model: str, counts: tuple[int, ...], at: datetime) -> float:
    library = _library()
    fresh, output, cache_read, cache_write, cache_write_1h, searches = counts
    amounts = {
        "input_tokens": fresh + cache_read + cache_write,
        "output_tokens": output,
        "cache_read_tokens": cache_read,
        "cache_write_tokens": cache_write,
        "cache_write_1h_tokens": cache_write_1h,
        "web_searches": searches,
    }
    usage = library.Usage(**{name: amount for name, amount in amounts.items() if amount})
    return round(float(library.calc_price(usage, model, genai_request_timestamp=at).total_price), 9)

"""What a request to a model costs, by the list of prices that ``genai-prices`` carries; it needs the extra ``prices``.

The list is read from the installed package, never from the network, and only when a price is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from orchdb.errors import InvalidValueError
from orchdb.schema import values


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
            writes that is kept for an hour; ``web_searches``. What is not there, or ``None``, is 0.
        at: When the request was made, for prices have changed: a ``datetime`` or ISO 8601 text, in UTC if it says
            none. By default now.

    Returns:
        US dollars, rounded to 1e-9.

    Raises:
        LookupError: The list does not have the model.
        InvalidValueError: The model is no text, a count has another name or is no whole number from 0, more is kept for
            an hour than was written, or the time is none.
        ImportError: The extra ``prices`` is not installed.
    """
    name, counts = _name(model), _counts(usage)
    moment = values.moment(at, "at") or datetime.now(UTC)
    # Prices change with days, or with hours of the day: what is remembered is good for an hour.
    return _cost(name, counts, moment.replace(minute=0, second=0, microsecond=0))


_COUNTS = (
    "tokens_input",
    "tokens_output",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_cache_write_1h",
    "web_searches",
)


def _library() -> Any:
    try:
        import genai_prices  # noqa: PLC0415  # a fifth of a second, for those who need it
    except ModuleNotFoundError as error:
        if error.name != "genai_prices":
            raise
    else:
        return genai_prices
    raise ImportError("the prices need genai-prices: pip install 'orchdb[prices]'", name="genai_prices")


def _name(model: object) -> str:
    if not isinstance(model, str):
        raise InvalidValueError("model: must be text", column="model")
    return model


def _counts(usage: object) -> tuple[int, ...]:
    """The counts in the order of ``_COUNTS``; what has another name is refused, because it would cost nothing."""
    given = cast("Mapping[object, object]", usage) if isinstance(usage, Mapping) else {"what is no mapping": 0}
    unknown = [str(name) for name in given if name not in _COUNTS]
    if unknown:
        raise InvalidValueError(f"usage: {unknown[0]} is not one of {', '.join(_COUNTS)}", column="usage")
    counts = {name: values.count(given.get(name), name) or 0 for name in _COUNTS}
    if counts["tokens_cache_write_1h"] > counts["tokens_cache_write"]:
        raise InvalidValueError(
            "tokens_cache_write_1h: is a part of tokens_cache_write, and larger", column="tokens_cache_write_1h"
        )
    return tuple(counts.values())


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

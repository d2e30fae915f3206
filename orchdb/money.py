"""Amounts of money as whole numbers, whose sums are exact."""

from __future__ import annotations

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

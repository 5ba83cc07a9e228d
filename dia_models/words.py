"""Numbers in words, and as JSON has them."""

from math import isnan


def quantity(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def defined(number: float) -> float | None:
    """A number, or None for NaN, which JSON does not have."""
    return None if isnan(number) else number

"""Medians of functions that are timed in turn."""

from collections.abc import Callable
from statistics import median

from dia_analysis.cost.timing import interleaved_seconds


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each function over `rounds` rounds that run every function once."""
    return {name: median(values) for name, values in interleaved_seconds(functions, rounds).items()}

"""Medians of functions that are timed in turn."""

from collections.abc import Callable
from statistics import median

from dia_analysis.timing import interleaved_seconds


def interleaved(functions: dict[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, float]:
    """The median seconds of each function over `rounds` rounds that run every function once."""
    seconds = interleaved_seconds(functions, rounds, warm_up=warm_up)
    return {name: median(values) for name, values in seconds.items()}

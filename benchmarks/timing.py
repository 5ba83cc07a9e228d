"""Medians of functions that are timed in turn."""

import time
from collections.abc import Callable
from statistics import median

from dia_analysis.cost.timing import interleaved_seconds


def interleaved(
    functions: dict[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median seconds of each function over `rounds` rounds that run every function once.

    With `time.process_time` as `clock`, other programs on the machine do not count.
    """
    seconds = interleaved_seconds(functions, rounds, warm_up=warm_up, clock=clock)
    return {name: median(values) for name, values in seconds.items()}

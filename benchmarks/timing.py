"""Time functions in turn, so that a machine whose speed drifts is fair to all of them."""

import time
from collections.abc import Callable
from statistics import median


def interleaved(
    functions: dict[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median seconds of each function over `rounds` rounds that run every function once.

    With `time.process_time` as `clock`, other programs on the machine do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + warm_up):
        for name, function in functions.items():
            start = clock()
            function()
            if number >= warm_up:
                seconds[name].append(clock() - start)
    return {name: median(values) for name, values in seconds.items()}

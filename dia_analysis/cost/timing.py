"""Time functions in turn, so that a machine whose speed drifts is fair to all of them."""

import time
from collections.abc import Callable, Mapping

import torch


def interleaved_seconds(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 2,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of each function in each of `rounds` rounds; a round runs every function once.

    Rounds start with another function each, so that none always follows the same one. The first `warm_up` rounds do
    not count. `device` is waited for, since accelerators work on while Python goes ahead.
    """
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + warm_up):
        turn = number % max(len(names), 1)
        for name in (*names[turn:], *names[:turn]):
            _wait_for(device)
            start = clock()
            functions[name]()
            _wait_for(device)
            if number >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()

"""Many processes on one job, as torchrun starts them: each takes its share of the images, and they put it together.

Without `torchrun` there is one process, and nothing here does anything.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from dia_analysis.errors import AnalysisInputError

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # how long one process waits for another's share


@contextmanager
def process_group() -> Iterator[None]:
    """Inside, the processes that torchrun started know of each other.

    They talk through the CPU (gloo), whatever device computes: what they exchange is small and lies there.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def refuse_separate_processes() -> None:
    """Refuse several processes that do not know of each other: each would compute and write everything."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and world_size() == 1:
        raise AnalysisInputError(
            "processes",
            "this command runs in one process; start it without torchrun (capture, correlation and fit run in several)",
        )


def share(items: Sequence[T], batch: int) -> list[T]:
    """This process' share of the items: with n processes, every n-th batch.

    Whole batches, cut as one process alone would cut them, so that a network computes the same numbers; nothing is
    repeated to make shares equal, so some may be empty.
    """
    return [item for index, item in enumerate(items) if index // batch % world_size() == rank()]


def all_gather(value: T) -> list[T]:
    """Every process' value, in the order of the processes. All must call it."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # each was filled


def from_first(action: Callable[[], T]) -> T:
    """What the first process gets by an action that it alone does, or the AnalysisInputError that it raises there."""
    found: list[T] = []
    problem: AnalysisInputError | None = None
    if rank() == 0:
        try:
            found = [action()]
        except AnalysisInputError as error:
            problem = error
    found, problem = all_gather((found, problem))[0]
    if problem is not None:
        raise problem
    return found[0]


def barrier() -> None:
    """Go on when all processes have come here."""
    if world_size() > 1:
        dist.barrier()

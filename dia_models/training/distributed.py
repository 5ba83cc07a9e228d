"""Several processes training one network, as torchrun starts them. Without it there is one, and nothing here acts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

PATIENCE = timedelta(days=1)  # the first process may have to download the data, or to test a large network


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Inside, the processes that torchrun started know of each other; gives the device of this one.

    Processes can be joined only once. To train several networks, join them around all of it.
    """
    if "RANK" not in os.environ:
        yield device
        return
    mine = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device.type == "cuda" else device
    if mine.type == "cuda":
        torch.cuda.set_device(mine)
    if dist.is_initialized():
        yield mine
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield mine
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum over the processes, in place. All must call it."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """The first process goes through the body before the others do: it may download what they then find."""
    if rank() > 0:
        dist.barrier()
    yield
    if world_size() > 1 and rank() == 0:
        dist.barrier()


def barrier() -> None:
    """Go on when all processes have come here."""
    if world_size() > 1:
        dist.barrier()

"""Run a network in evaluation or in training mode and leave it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode again after."""
    with _modes_kept(model):
        model.eval()
        yield


@contextmanager
def rehearsing(model: nn.Module, seed: int) -> Iterator[None]:
    """Training mode inside, with random numbers from `seed`.

    After it every submodule's mode, every buffer (the statistics of batch norms) and the random numbers that follow
    are as without it. Parameters are the caller's care.
    """
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    cuda = {t.device.index for t in chain(model.parameters(), model.buffers()) if t.device.type == "cuda"}
    with _modes_kept(model), torch.random.fork_rng(devices=sorted(cuda)):
        torch.manual_seed(seed)
        model.train()
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, content in buffers:
                    module._buffers[name] = buffer
                    if buffer is not None and content is not None:
                        buffer.copy_(content)


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

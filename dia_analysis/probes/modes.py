"""Run a network in evaluation or in training mode and leave it as it was."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch import nn

Mode = Literal["training", "evaluation"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode again after."""
    with _modes_kept(model):
        model.eval()
        yield


@contextmanager
def observing(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode inside, with random numbers from `seed`, for networks that draw some there too.

    After it every submodule's mode, every buffer and the random numbers that follow, torch's, numpy's and Python's, are
    as without it.
    """
    numpy, python = np.random.get_state(), random.getstate()
    try:
        np.random.seed(seed)
        random.seed(seed)
        with _modes_kept(model), _buffers_kept(model), _drawing_from(model, seed):
            model.eval()
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


@contextmanager
def undisturbed(model: nn.Module, seed: int) -> Iterator[None]:
    """As `observing`, in the modes in which the submodules are."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with _modes_kept(model), _buffers_kept(model), _drawing_from(model, seed):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


@contextmanager
def rehearsing(model: nn.Module, seed: int, mode: Mode = "training") -> Iterator[None]:
    """Training or evaluation mode inside, with random numbers from `seed`.

    After it every submodule's mode, every buffer (the statistics of batch norms) and the random numbers that follow
    are as without it. Parameters are the caller's care.
    """
    with _modes_kept(model), _buffers_kept(model), _drawing_from(model, seed):
        model.train(mode == "training")
        yield


@contextmanager
def _drawing_from(model: nn.Module, seed: int) -> Iterator[None]:
    cuda = {t.device.index for t in chain(model.parameters(), model.buffers()) if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(cuda)):
        torch.manual_seed(seed)
        yield


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, content in buffers:
                module._buffers[name] = buffer
                if buffer is not None and content is not None:
                    buffer.copy_(content)


@contextmanager
def autocast_off(model: nn.Module) -> Iterator[None]:
    """Inside, the network computes in the precision of its weights, whatever autocast the caller is in.

    An autocast inside the network's own forward is part of the network and stays.
    """
    kinds = {t.device.type for t in chain(model.parameters(), model.buffers())} | {"cpu"}
    with ExitStack() as off:
        for kind in sorted(kinds):
            if torch.amp.is_autocast_available(kind):
                off.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # frozen scripts
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

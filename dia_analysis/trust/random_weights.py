"""Replace what a network has learned by noise, from its output towards its input (Adebayo et al. 2018)."""

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.modes import autocast_off, evaluating


@dataclass(frozen=True)
class Destroyed:
    """A copy of a network after a step: the last module destroyed so far, and the share of all parameters."""

    model: nn.Module
    module: str
    share: float


def parameter_modules(model: nn.Module, images: Tensor) -> list[str]:
    """The modules with parameters of their own that run, in the order in which they last finish, the last one first."""
    order: dict[nn.Module, None] = {}

    def note(module: nn.Module, *_: object) -> None:
        order.pop(module, None)
        order[module] = None

    with ExitStack() as hooks, evaluating(model), autocast_off(model), torch.no_grad():
        for module in model.modules():
            if any(True for _ in module.parameters(recurse=False)):
                hooks.callback(module.register_forward_hook(note).remove)
        model(images)
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in reversed(order)]


def cascade(model: nn.Module, images: Tensor, steps: int, generator: torch.Generator) -> Iterator[Destroyed]:
    """Destroy a copy of the network in `steps` steps: first its last module, then equal numbers of those before it.

    Every parameter becomes normal noise of its own mean and spread. The same copy is given each time, further
    destroyed; the network itself stays as it is. Raises AnalysisInputError for a network without parameters.
    """
    names = parameter_modules(model, images)
    if not names:
        raise AnalysisInputError("model", "it has no parameters that could be destroyed")
    copy = deepcopy(model).requires_grad_(False)
    total = sum(p.numel() for p in copy.parameters())
    gone: set[Tensor] = set()
    cuts = [0, *np.linspace(1, len(names), steps).round().astype(int).tolist()]
    for group in (names[start:end] for start, end in pairwise(cuts)):
        for name in group:
            parameters = list(copy.get_submodule(name).parameters(recurse=False))
            for parameter in parameters:
                if parameter not in gone:
                    _become_noise(parameter, generator)
            gone.update(parameters)
        if len(group):
            yield Destroyed(copy, group[-1], sum(p.numel() for p in gone) / total)


def _become_noise(parameter: Tensor, generator: torch.Generator) -> None:
    values = parameter.float()
    spread = values.std() if values.numel() > 1 else values.abs().mean()
    noise = torch.randn(values.shape, generator=generator).to(values.device)
    with torch.no_grad():
        parameter.copy_(values.mean() + spread * noise)

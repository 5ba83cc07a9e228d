"""A shared module fitted to what the modules that it replaces do with the features that each of them sees."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.probes.batches import inputs_of, iterate_batches
from dia_analysis.probes.modes import evaluating
from dia_models.attention import Attention
from dia_models.errors import ModelInputError

EPOCHS, RATE = 10, 3e-3

Together = tuple[Sequence[nn.Module], nn.Module]
"""The modules of a stage in forward order, and the one that is to take their place."""


def fit_shared(model: nn.Module, groups: Sequence[Together], batches: Any) -> list[float]:
    """Train shared modules, in place, so that with each layer's features they give what the layer's own module gave.

    Least squares of what the modules put out (gate times features, or the gate), each layer's divided by its mean
    square, by Adam over ten passes of the images; the network itself is left as it was, in evaluation mode.

    Returns:
        For each group the root of the mean over layers of this relative squared error, after the last pass.

    Raises:
        ModelInputError: There are no images.
    """
    images = [inputs_of(batch) for batch in iterate_batches(batches)]
    if not images:
        raise ModelInputError("batches", "there are no images to fit the shared modules to")
    parameters = [parameter for _, shared in groups for parameter in shared.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(images))
    with evaluating(model), _features_of(model, groups) as features:
        for _ in range(EPOCHS):
            totals = [0.0] * len(groups)
            for batch in images:
                errors = _errors(groups, features(batch))
                optimizer.zero_grad()
                torch.autograd.backward(torch.stack(errors).sum())
                optimizer.step()
                rates.step()
                totals = [total + float(error.detach()) for total, error in zip(totals, errors, strict=True)]
    optimizer.zero_grad()
    return [float((total / len(images)) ** 0.5) for total in totals]


def _errors(groups: Sequence[Together], features: dict[nn.Module, Tensor]) -> list[Tensor]:
    errors = []
    for modules, shared in groups:
        shared.eval()
        layers = []
        for layer, module in enumerate(modules):
            with torch.no_grad():
                expected = _put_out(module, features[module], 0)
            given = _put_out(shared, features[module], layer)
            layers.append((given - expected).square().mean() / expected.square().mean().clamp_min(1e-12))
        errors.append(torch.stack(layers).mean())
    return errors


def _put_out(module: nn.Module, features: Tensor, layer: int) -> Tensor:
    """What a module makes of features; one of ours is told which layer it serves."""
    result = module(features, None, layer or None) if isinstance(module, Attention) else module(features)
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output


@contextmanager
def _features_of(model: nn.Module, groups: Sequence[Together]) -> Iterator[Any]:
    """Gives a function from images to what each module takes."""
    taken: dict[nn.Module, Tensor] = {}
    device = next(model.parameters()).device

    def take(module: nn.Module, args: tuple[Any, ...]) -> None:
        taken[module] = args[0].detach().clone()

    def features(images: Tensor) -> dict[nn.Module, Tensor]:
        with torch.no_grad():
            model(images.to(device))
        return dict(taken)

    with ExitStack() as hooks:
        for module in (module for modules, _ in groups for module in modules):
            hooks.callback(module.register_forward_pre_hook(take).remove)
        yield features

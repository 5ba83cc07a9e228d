"""The hidden units of modules that are to become one, matched before their weights are averaged.

Units have no order: a unit is a row of one layer and the column of the next that reads it, and any order of them gives
the same function. So the mean of two modules means something only after each unit stands beside its like.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

PER_UNIT = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class HiddenLayer:
    """Names of the layer that makes hidden units, of the norms on them, and of the layer that reads them."""

    made_by: str
    norms: tuple[str, ...]
    read_by: str


def hidden_layers(module: nn.Module) -> list[HiddenLayer]:
    """The hidden layers of a module: each made by a linear layer, and read by the next that has as many inputs."""
    found = [(n, m) for n, m in module.named_modules() if _is_dense(m) or isinstance(m, _BatchNorm)]
    dense = [place for place, (_, part) in enumerate(found) if _is_dense(part)]
    layers = []
    for first, second in pairwise(dense):
        (made_by, maker), (read_by, reader) = found[first], found[second]
        units = maker.weight.shape[0]
        between = [(name, norm) for name, norm in found[first + 1 : second] if norm.num_features == units]
        if reader.weight.shape[1] == units and len(between) == second - first - 1:
            layers.append(HiddenLayer(made_by, tuple(name for name, _ in between), read_by))
    return layers


def matched(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Copies whose hidden units stand in the order of the first one's, each beside the unit most like it."""
    copies = [copy.deepcopy(module) for module in modules]
    for layer in hidden_layers(copies[0]):
        first = _units(copies[0], layer)
        for other in copies[1:]:
            reorder_units(other, layer, _order(first, _units(other, layer)))
    return copies


def reorder_units(module: nn.Module, layer: HiddenLayer, order: Int64[Tensor, "unit"]) -> None:
    """Put the hidden units of a module into another order, in place; its function stays."""
    with torch.no_grad():
        for part in (module.get_submodule(name) for name in (layer.made_by, *layer.norms)):
            for tensor in _per_unit(part):
                tensor.copy_(tensor[order].clone())
        weight: Any = module.get_submodule(layer.read_by).weight
        weight.copy_(weight[:, order].clone())


def _per_unit(part: Any) -> Iterator[Tensor]:
    tensors = (getattr(part, name, None) for name in PER_UNIT)
    return (tensor for tensor in tensors if isinstance(tensor, Tensor))


def _units(module: nn.Module, layer: HiddenLayer) -> Float[Tensor, "unit number"]:
    """What each unit is made with and how it is read, a row each."""
    made = [
        t.detach().double().flatten(1) if t.ndim > 1 else t.detach().double()[:, None] for t in _made(module, layer)
    ]
    read: Any = module.get_submodule(layer.read_by).weight
    return torch.cat([*made, read.detach().double().transpose(0, 1).flatten(1)], dim=1)


def _made(module: nn.Module, layer: HiddenLayer) -> Iterator[Tensor]:
    for name in (layer.made_by, *layer.norms):
        yield from _per_unit(module.get_submodule(name))


def _order(first: Float[Tensor, "unit number"], other: Float[Tensor, "unit number"]) -> Int64[Tensor, "unit"]:
    """For each unit of the first the one of the other, so that the squared distances are least in sum."""
    from scipy.optimize import linear_sum_assignment  # takes long to import

    _, columns = linear_sum_assignment(torch.cdist(first, other).square().numpy())
    return torch.from_numpy(columns)


def _is_dense(module: nn.Module) -> Any:
    """Whether a module is a linear layer, also as a convolution that sees one position and all channels."""
    if isinstance(module, _ConvNd):
        return set(module.kernel_size) == {1} and module.groups == 1 and not module.transposed
    return isinstance(module, nn.Linear)

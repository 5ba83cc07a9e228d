"""The linear layer beside a product of features and a gate, into which a constant gate can be multiplied.

Between the layer and the product nothing may lie but what a factor passes: functions that keep a positive factor, means
over positions, views that keep channels apart. Nothing else may see what changes.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from dia_analysis.probes.gates import plain
from dia_analysis.probes.graph import Node
from dia_models.surgery.flow import Flow, ModuleCall, channel_dimension, is_view

POSITIVE = ("relu", "leaky_relu", "max_pool2d_with_indices", "max_pool1d_with_indices", "max_pool3d_with_indices")
MEANS = ("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
PADDING = ("reflection_pad2d", "replication_pad2d")
OPERATIONS: dict[type[nn.Module], str] = {
    _ConvNd: "convolution",
    _BatchNorm: "batch_norm",
    nn.LayerNorm: "layer_norm",
}


@dataclass(frozen=True)
class Neighbor:
    """A layer before or after a product. `positive` says that the gate must not be negative to get there."""

    module: str
    side: Literal["before", "after"]
    positive: bool = False


Found = tuple[Neighbor | None, str]
"""The layer, or why there is none."""


def find_neighbor(
    model: nn.Module, flow: Flow, features: Node, product: Node, gate_call: ModuleCall, channels: int, *, positive: bool
) -> Found:
    """The layer into which a gate can go, and why there is none.

    `gate_call` is the module that makes the gate and the product, which goes away; `positive` says that no element of
    the gate is negative.
    """
    search = _Search(model, flow, gate_call, channels, positive)
    before, trouble = search.before(features)
    if before is not None or plain(product.name) == "addcmul":  # which adds the shortcut at once
        return before, trouble
    after, other = search.after(product)
    return after, "" if after is not None else f"before the product {trouble}, after it {other}"


@dataclass(frozen=True)
class _Search:
    model: nn.Module
    flow: Flow
    gate_call: ModuleCall
    channels: int
    positive: bool

    def before(self, features: Node) -> Found:
        """Go back from the features to the layer that made them."""
        node, crossed, takers = features, False, self._outside(features)
        while not takers and not self.flow.is_output(node):
            place = channel_dimension(node, self.channels)
            if place is None:
                return None, "channels are mixed"
            if (name := self._made_by(node, place)) is not None:
                return self._unless_shared(Neighbor(name, "before", crossed))
            if not self._passes(node):
                return None, f"{_words(node)} lies between"
            crossed |= plain(node.name) in POSITIVE
            below, node = node, node.made[0]
            takers = [taker for taker in self.flow.takers(node) if taker is not below]
        return None, "something else takes the features"

    def after(self, product: Node) -> Found:
        """Go on from the product to the layer that takes it."""
        node, crossed, takers = product, False, self.flow.takers(product)
        while len(takers) == 1 and not self.flow.is_output(node):
            place, node = channel_dimension(node, self.channels), takers[0]
            if place is None:
                return None, "channels are mixed"
            if (name := self._taken_by(node, place)) is not None:
                return self._unless_shared(Neighbor(name, "after", crossed))
            if not self._passes(node):
                return None, f"{_words(node)} lies between"
            crossed |= plain(node.name) in POSITIVE
            takers = self.flow.takers(node)
        return None, "something else takes the product"

    def _outside(self, features: Node) -> list[Node]:
        """What takes the features besides the product and what makes its gate."""
        return [taker for taker in self.flow.takers(features) if self.gate_call not in taker.within]

    def _made_by(self, node: Node, place: int) -> str | None:
        """The layer, with its own weights as they are, whose output a value is."""
        name, module = self._module(node)
        kind = _kind(module, node)
        last = place == len(node.shape) - 1
        if isinstance(module, nn.Linear):
            made = last and _is_linear(module) and self.flow.given(node.within[-1]) == [node]
        elif kind == "layer_norm":
            made = last and getattr(module, "normalized_shape", ()) == (self.channels,)
        else:
            made = kind is not None and place == 1
        return name if made else None

    def _taken_by(self, node: Node, place: int) -> str | None:
        """The layer that takes a value, whose channels are at this place, and nothing else; a norm must be fixed."""
        name, module = self._module(node)
        kind = _kind(module, node)
        if isinstance(module, nn.Linear):
            taken = self.flow.taken(node.within[-1])
            fits = _is_linear(module) and len(taken) == 1 and place == len(taken[0].shape) - 1
        elif kind == "batch_norm":
            fits = place == 1 and getattr(module, "running_mean", None) is not None
        else:
            fits = kind == "convolution" and place == 1
        return name if fits else None

    def _module(self, node: Node) -> tuple[str | None, nn.Module | None]:
        if not node.within:
            return None, None
        name = node.within[-1][0]
        return name, dict(self.model.named_modules()).get(name)

    def _passes(self, node: Node) -> bool:
        """Whether a factor of each channel goes through an operation, as through padding by zeros."""
        name = plain(node.name)
        if name in PADDING:
            return True
        if name == "constant_pad_nd":
            return not any(arg for arg in node.args[2:] if isinstance(arg, int | float))
        if name in ("mul", "div"):  # by a number, or by what does not depend on the image
            return len(node.made) == 1 and node.parents[0] is node.made[0]
        if name in POSITIVE:
            return self.positive and len(node.made) == 1
        if name in MEANS:
            return len(node.made) == 1
        return is_view(node)

    def _unless_shared(self, found: Neighbor) -> Found:
        module = self.model.get_submodule(found.module)
        names = [f"{found.module}.{name}" for name, _ in module.named_parameters(recurse=False)]
        used = {call for name in names for call in self.flow.users(name)}
        twice = self.flow.calls(found.module) != 1 or len(used) > 1 or _is_tied(self.model, found.module)
        return (None, f"{found.module} is used more than once") if twice else (found, "")


def _is_tied(model: nn.Module, name: str) -> bool:
    """Whether a module, or a parameter of it, has several names."""
    module = model.get_submodule(name)
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    holders = [
        place
        for place, other in model.named_modules(remove_duplicate=False)
        if other is module or own & {id(parameter) for parameter in other.parameters(recurse=False)}
    ]
    return len(holders) > 1


def _kind(module: nn.Module | None, node: Node) -> str | None:
    """What kind of layer an operation is, if it uses the module's own weights as they are."""
    if module is None or is_parametrized(module) or any(parent is not None for parent in node.parents[1:3]):
        return None
    kinds = (word for kind, word in OPERATIONS.items() if isinstance(module, kind) and word in node.name)
    kind = next(kinds, None)
    return None if kind == "convolution" and getattr(module, "transposed", False) else kind


def _is_linear(module: nn.Module) -> bool:
    return type(module).forward is nn.Linear.forward and not is_parametrized(module)


def _words(node: Node) -> str:
    return plain(node.name).strip("_")

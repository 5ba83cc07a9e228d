"""Where a network multiplies features by a gate of channels, and what can be replaced there."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from torch import nn

from dia_analysis.probes.found import FoundAttention
from dia_analysis.probes.gates import plain
from dia_analysis.probes.graph import Node
from dia_models.attention import ChannelAttention
from dia_models.backbones.stage import Stage
from dia_models.surgery.attach import AttachedAttention
from dia_models.surgery.flow import Flow, ModuleCall, channel_dimension, is_view, same_numbers


@dataclass(frozen=True)
class ScalingModule:
    """A module that gives its input times a gate made of this input, and nothing else: it can be replaced."""

    name: str
    call: ModuleCall


@dataclass(frozen=True)
class GateModule:
    """A module that gives the gate alone, of this `shape` without the images; the product is in the code of another."""

    name: str
    call: ModuleCall
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OwnLayer:
    """A layer of a stage of this library, by the stage's name, or of attached attention, `layer` from 0."""

    holder: str
    stage: int
    layer: int
    call: ModuleCall


Place = ScalingModule | GateModule | OwnLayer


@dataclass(frozen=True)
class Site:
    """A product of features and a gate. `place` is what can be replaced, None where nothing can: `trouble` says why.

    `divides` says that the features are divided by the gate. `dimension` is that of the channels in the product.
    """

    found: FoundAttention
    product: Node
    features: Node
    place: Place | None
    trouble: str = ""

    @property
    def divides(self) -> bool:
        """Whether the features are divided by the gate."""
        return plain(self.product.name) == "div"

    @property
    def channels(self) -> int:
        """How many channels the gate has."""
        return prod(self.found.shape)

    @property
    def dimension(self) -> int | None:
        """The dimension of the channels in the product."""
        return channel_dimension(self.product, self.channels)


def find_site(model: nn.Module, flow: Flow, one: FoundAttention) -> Site:
    """What can be replaced where a found gate multiplies."""
    product = next(node for node in flow.graph.nodes if node.place is not None and node.place == one.product)
    gate = product.parents[one.operand]
    operands = [n for n in product.parents[-2:] if n is not gate]
    features = next((n for n in operands if n is not None), product)
    if gate is None or channel_dimension(product, prod(one.shape)) is None:
        return Site(one, product, features, None, "its channels lie in groups")
    if plain(product.name) not in ("mul", "div", "addcmul"):
        return Site(one, product, features, None, f"it multiplies by {plain(product.name)}")
    finder = _Finder(model, flow, one, product, gate, features)
    place = finder.own() or finder.scaling() or finder.making()
    inside = (product.within[-1][0] if product.within else "") or "the network"
    return Site(one, product, features, place, "" if place else f"it is written in the code of {inside}")


@dataclass(frozen=True)
class _Finder:
    model: nn.Module
    flow: Flow
    found: FoundAttention
    product: Node
    gate: Node
    features: Node

    def own(self) -> OwnLayer | None:
        """A layer of ours, whose module also adds the shortcut and may hand on a state."""
        modules = dict(self.model.named_modules())
        for call in self.product.within:
            if isinstance(modules.get(call[0]), ChannelAttention) and self._only_features_are_scaled(call):
                return own_layer(self.model, call)
        return None

    def _only_features_are_scaled(self, call: ModuleCall) -> bool:
        """Whether the features serve as nothing but the branch."""
        return self.product.parents[0] is not self.features or plain(self.product.name) != "addcmul"

    def scaling(self) -> ScalingModule | None:
        """The outermost module that takes the features alone and gives the product alone."""
        if plain(self.product.name) == "addcmul":
            return None
        for call in self.product.within[1:]:
            taken, given = self.flow.taken(call), self.flow.given(call)
            if len(taken) != 1 or len(given) != 1 or taken[0].shape != given[0].shape:
                continue
            if same_numbers(self.features, taken[0]) and same_numbers(given[0], self.product):
                name = self._replaceable(call, self.product)
                return None if name is None else ScalingModule(name, call)
        return None

    def making(self) -> GateModule | None:
        """The outermost module that gives the gate alone, for this product alone, and has all of its weights."""
        for node in self._views_of_gate():
            for call in node.within:
                if call in self.product.within or self.flow.given(call) != [node]:
                    continue
                name = self._replaceable(call, node)
                own = {f"{call[0]}.{n}" for n, _ in self.model.get_submodule(call[0]).named_parameters()}
                if name is not None and self.found.weights <= own and prod(node.shape[1:]) == prod(self.found.shape):
                    return GateModule(name, call, node.shape[1:])
        return None

    def _views_of_gate(self) -> Iterator[Node]:
        """The gate, and what it is a view of, as long as nothing else takes it."""
        node = self.gate
        while len(self.flow.takers(node)) == 1:
            yield node
            if not is_view(node):
                return
            node = node.made[0]

    def _replaceable(self, call: ModuleCall, node: Node) -> str | None:
        """The name at which the module of a call can be replaced without changing any other call."""
        module = self.model.get_submodule(call[0])
        names = [n for n, m in self.model.named_modules(remove_duplicate=False) if m is module]
        if len(names) == 1:
            return call[0] if self.flow.calls(call[0]) == 1 else None
        place = node.within.index(call)
        parent = node.within[place - 1][0] if place else ""
        beside = [n for n in names if n.startswith(f"{parent}." if parent else "")]
        same_parent = self.flow.calls(parent) == 1 if parent else True
        return beside[0] if len(beside) == 1 and same_parent else None


def own_layer(model: nn.Module, call: ModuleCall) -> OwnLayer | None:
    """Which layer of our stages, or of attached attention, a call of a module is."""
    stages = [(n, m) for n, m in model.named_modules() if isinstance(m, Stage)]
    for number, (name, stage) in enumerate(stages):
        if (layer := _layer(stage.attention, f"{name}.attention", call)) is not None:
            return OwnLayer(name, number, layer, call)
    for name, module in model.named_modules():
        for number, attention in enumerate(module if isinstance(module, AttachedAttention) else ()):
            if (layer := _layer(attention, f"{name}.{number}", call)) is not None:
                return OwnLayer(name, number, layer, call)
    return None


def _layer(attention: nn.Module | None, name: str, call: ModuleCall) -> int | None:
    """Which layer a call of a stage's attention is, from 0."""
    if isinstance(attention, nn.ModuleList):
        own, _, number = call[0].rpartition(".")
        return int(number) if own == name and number.isdecimal() else None
    return call[1] if attention is not None and call[0] == name else None

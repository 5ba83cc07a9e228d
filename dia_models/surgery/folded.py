"""A network with constant gates multiplied into the layers beside them, and their modules taken away."""

import copy
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dia_models.backbones.stage import FoldedLayer, Stage, needed_layers
from dia_models.factory import build_model, without_attention
from dia_models.spec import ModelSpec, Network
from dia_models.surgery.attach import AttachedAttention
from dia_models.surgery.constants import Gate, Scale, scale_layer, scale_shape
from dia_models.surgery.flow import Flow
from dia_models.surgery.means import GateLayer
from dia_models.surgery.neighbors import Neighbor, find_neighbor
from dia_models.surgery.sites import GateModule, OwnLayer, ScalingModule, Site

Outcome = Literal["removed", "module runs", "constant", "as it was"]


@dataclass(frozen=True)
class Plan:
    """What can become of a layer: the `neighbor` that takes up its gate, or why there is none (`trouble`)."""

    layer: GateLayer
    site: Site
    neighbor: Neighbor | None
    trouble: str

    @classmethod
    def of(cls, model: nn.Module, flow: Flow, layer: GateLayer, site: Site) -> "Plan":
        """Look for the neighbor."""
        if site.place is None or isinstance(site.place, GateModule):
            written = f"the product is written in the code of {site.product.within[-1][0] or 'the network'}"
            return cls(layer, site, None, site.trouble or written)
        positive = bool((layer.mean >= 0).all())
        found, trouble = find_neighbor(
            model, flow, site.features, site.product, site.place.call, site.channels, positive=positive
        )
        return cls(layer, site, found, trouble)

    @property
    def possible(self) -> bool:
        """Whether the gate can be made a constant, folded or not."""
        return self.site.place is not None and (self.neighbor is not None or not isinstance(self.site.place, OwnLayer))

    @property
    def factor(self) -> Tensor:
        """What the features are multiplied by (float64), a number a channel."""
        return 1 / self.layer.mean if self.site.divides else self.layer.mean


@dataclass(frozen=True)
class LayerFate:
    """What became of a layer with a gate of channels.

    Its module was `removed`; or its product was, but the `module runs` since later calls need it; or the gate is a
    `constant` that still multiplies; or it is `as it was`. `into` is the layer that took up the gate. `reason` says
    why it was not folded, empty where it was not to be.
    """

    stage: int
    number: int
    name: str
    call: int
    outcome: Outcome
    into: str = ""
    reason: str = ""


@dataclass
class Folded:
    """A network after folding, what became of its layers, and what of it others must know to load its weights.

    `identity` are the modules to replace by `nn.Identity`; `scale` and `gate` those to replace by one that multiplies
    by a constant, and one that gives a constant; `affine` are the weights that norms without any gained.
    """

    model: nn.Module
    fates: list[LayerFate] = field(default_factory=list)
    identity: list[str] = field(default_factory=list)
    scale: list[str] = field(default_factory=list)
    gate: list[str] = field(default_factory=list)
    affine: list[str] = field(default_factory=list)


def fold(model: nn.Module, plans: Sequence[Plan], chosen: Collection[GateLayer]) -> Folded:
    """A copy of a network in which the gates of the chosen layers are constants."""
    result = Folded(copy.deepcopy(model))
    words = {layer.word for layer in chosen}
    wanted = [plan for plan in plans if plan.layer.word in words]
    fates = {plan.layer.word: fate for plan, fate in _fold_own(result, wanted)}
    for plan in wanted:
        if not isinstance(plan.site.place, OwnLayer):
            fates[plan.layer.word] = _replace(result, plan)
    for plan in plans:
        result.fates.append(fates.get(plan.layer.word) or _fate(plan, "as it was", reason=_why_not(plan)))
    return result


def _fate(plan: Plan, outcome: Outcome, into: str = "", reason: str = "") -> LayerFate:
    layer = plan.layer
    return LayerFate(layer.stage, layer.number, layer.found.name, layer.found.call, outcome, into, reason)


def _why_not(plan: Plan) -> str:
    return "" if plan.possible else plan.trouble


def _replace(result: Folded, plan: Plan) -> LayerFate:
    """Fold a gate that a module of any network makes, and replace that module."""
    place, model = plan.site.place, result.model
    if isinstance(place, ScalingModule) and plan.neighbor is not None:
        _scale(result, plan.neighbor, plan.factor)
        model.set_submodule(place.name, nn.Identity())
        result.identity.append(place.name)
        return _fate(plan, "removed", plan.neighbor.module)
    reference = next(model.parameters())
    if isinstance(place, ScalingModule):
        dimension = plan.site.dimension
        assert dimension is not None
        shape = scale_shape(dimension, len(plan.site.product.shape), plan.site.channels)
        model.set_submodule(place.name, Scale(plan.factor.reshape(shape).to(reference)))
        result.scale.append(place.name)
    else:
        assert isinstance(place, GateModule)
        model.set_submodule(place.name, Gate(plan.layer.mean.reshape(1, *place.shape).to(reference)))
        result.gate.append(place.name)
    return _fate(plan, "constant", reason=plan.trouble)


def _scale(result: Folded, neighbor: Neighbor, factor: Tensor) -> None:
    module = result.model.get_submodule(neighbor.module)
    before = dict(module.named_parameters())
    scale_layer(module, factor.to(next(result.model.parameters()).device), neighbor.side)
    new = [name for name, _ in module.named_parameters() if name not in before]
    result.affine += [f"{neighbor.module}.{name}" for name in new]


def _fold_own(result: Folded, plans: Sequence[Plan]) -> list[tuple[Plan, LayerFate]]:
    """Fold layers of our stages and of attached attention, holder by holder."""
    holders: dict[tuple[str, int], dict[int, Plan]] = defaultdict(dict)
    for plan in plans:
        if isinstance(place := plan.site.place, OwnLayer):
            holders[place.holder, place.stage][place.layer] = plan
    fates: list[tuple[Plan, LayerFate]] = []
    kept: dict[str, dict[int, bool]] = {}
    attached: dict[str, dict[int, set[int]]] = defaultdict(dict)
    for (holder, number), layers in holders.items():
        module = result.model.get_submodule(holder)
        if isinstance(module, Stage):
            found = _fold_stage(result, module, layers)
            kept[holder] = {layer: fate.outcome == "constant" for layer, (_, fate) in zip(layers, found, strict=True)}
        else:
            assert isinstance(module, AttachedAttention)
            gone = set(layers) - needed_layers(module[number], set(layers), len(module.ends[number]))
            attached[holder][number] = gone
            found = _fold_attached(result, layers, gone)
        fates += found
    for holder, stages in attached.items():
        _detach(result.model, holder, stages)
    for name, network in list(result.model.named_modules()):
        if isinstance(network, Network):
            network.spec = _described(network, name, kept)
    return fates


def _fold_stage(result: Folded, stage: Stage, layers: dict[int, Plan]) -> list[tuple[Plan, LayerFate]]:
    needed = stage.needed(layers)
    kept = {layer for layer in needed if _is_near_zero(layers[layer].factor, result.model)}
    calls = stage.fold(layers, kept, next(iter(layers.values())).site.channels)
    for layer, call in calls.items():
        call.to(next(result.model.parameters())).gate.copy_(layers[layer].factor)
    fates = []
    for layer, plan in layers.items():
        if layer in kept:
            reason = "later calls need its module, and its gate is near 0"
            fates.append((plan, _fate(plan, "constant", reason=reason)))
        else:
            fates.append((plan, _folded(result, plan, "module runs" if layer in needed else "removed")))
    return fates


def _fold_attached(result: Folded, layers: dict[int, Plan], gone: set[int]) -> list[tuple[Plan, LayerFate]]:
    reason = "later calls of its module need this one"
    return [
        (plan, _folded(result, plan, "removed") if layer in gone else _fate(plan, "as it was", reason=reason))
        for layer, plan in layers.items()
    ]


def _folded(result: Folded, plan: Plan, outcome: Outcome) -> LayerFate:
    assert plan.neighbor is not None
    _scale(result, plan.neighbor, plan.factor)
    return _fate(plan, outcome, plan.neighbor.module)


def _is_near_zero(factor: Tensor, model: nn.Module) -> bool:
    """Whether what was multiplied by a factor cannot be divided by it again."""
    return bool(factor.abs().min() < torch.finfo(next(model.parameters()).dtype).eps ** 0.5)


def _detach(model: nn.Module, holder: str, stages: dict[int, set[int]]) -> None:
    attention = model.get_submodule(holder)
    assert isinstance(attention, AttachedAttention)
    attention.remove(model.get_submodule(holder.rpartition(".")[0]), stages)


def _described(network: Network, name: str, kept: dict[str, dict[int, bool]]) -> ModelSpec:
    """The description of a network of ours: that without attention, where it has the same weights."""
    start = f"{name}." if name else ""
    stages = [f"{start}{place}" for place, module in network.named_modules() if isinstance(module, Stage)]
    words = [
        FoldedLayer(number, layer + 1, still).word
        for number, place in enumerate(stages, 1)
        for layer, still in sorted(kept.get(place, {}).items())
    ]
    if not words:
        return network.spec
    plain = without_attention(network.spec)
    if _shapes(network) == _shapes(_blueprint_of(plain)):
        return plain
    options = {**network.spec.options, "attention_folded": " ".join(words)}
    return network.spec.model_copy(update={"options": options})


def _blueprint_of(spec: ModelSpec) -> nn.Module:
    with torch.device("meta"):
        return build_model(spec)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}

"""The attention of a network, found in one watched pass: what each layer's map is, and where to take it."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dia_analysis.probes.axes import Axis, Dim, Dims
from dia_analysis.probes.gates import VIEWS, Gate, find_gates, plain
from dia_analysis.probes.graph import Giver, Graph, Node, Place, watch
from dia_analysis.probes.modes import autocast_off, undisturbed
from dia_analysis.probes.weighted_sums import WeightedSum, find_weighted_sums

IMAGES = 2
Kind = Literal["channel", "spatial", "directional", "branch", "map", "self-attention", "conditioning", "hidden"]


@dataclass(frozen=True)
class FoundAttention:
    """One use of attention in a pass.

    `name` is the module whose output the map is, or else the module in whose forward it multiplies, with `:gate` or
    `:attention` and a number behind; `call` counts the calls of that module, from 0. `axes` are those of the tensor
    that is taken, `shape` its sizes without the images. `place` is the product, `operand` the map's place among its
    arguments (-1 for fused attention); `output` says which tensor of the module's output the map is, None if it is
    none. `reason` says why it cannot be used, and is empty if it can. `feature_size` are the sizes along the positions
    of what it multiplies. Self-attention has `rows`, the axes of the queries, and `columns`, those of what is added up.
    """

    name: str
    call: int
    kind: Kind
    shape: tuple[int, ...]
    axes: Dims
    place: Place
    operand: int
    output: int | None
    reason: str = ""
    feature_size: tuple[int, ...] = ()
    rows: Dim = ()
    columns: Dim = ()

    @property
    def usable(self) -> bool:
        """Whether its maps can be captured."""
        return not self.reason


def find_attention(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> list[FoundAttention]:
    """The attention of a network, in forward order, as one pass on `args` uses it; the network is left as it was."""
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model, 0))
        stack.enter_context(autocast_off(model))
        stack.enter_context(torch.no_grad())
        return attention_in(watch(model, _some(args), kwargs))


def _some(args: Sequence[Any]) -> Sequence[Any]:
    """Two of the images, where the network is given nothing else: they show as much as all of them."""
    alone = len(args) == 1 and isinstance(args[0], Tensor) and args[0].ndim > 2
    return [args[0][:IMAGES]] if alone else args


def attention_in(graph: Graph) -> list[FoundAttention]:
    """The attention in a pass, in forward order."""
    gates = find_gates(graph)
    sums = find_weighted_sums(graph, gates)
    ordered = sorted([*gates, *sums], key=lambda one: one.product.index)
    numbers: Counter[str] = Counter()
    return [_of_gate(graph, one, numbers) if isinstance(one, Gate) else _of_sum(one, numbers) for one in ordered]


def _of_gate(graph: Graph, gate: Gate, numbers: Counter[str]) -> FoundAttention:
    assert gate.product.place is not None
    giver = _giver(graph, gate.gate)
    name, call = (giver.module, giver.call) if giver else _numbered(gate.product.place, "gate", numbers)
    size = tuple(axis.size for dim in gate.features.axes for axis in dim if axis.kind in ("position", "other"))
    where = gate.product.place, gate.operand, giver.leaf if giver else None, gate.reason, size
    return FoundAttention(name, call, gate.kind, _without_images(gate.gate.axes), gate.gate.axes, *where)


def _of_sum(one: WeightedSum, numbers: Counter[str]) -> FoundAttention:
    assert one.product.place is not None
    name, call = _numbered(one.product.place, "attention", numbers)
    size = tuple(axis.size for axis in one.columns)
    axes = (*one.weights.axes[:-2], one.rows, one.columns) if one.operand < 0 else one.weights.axes
    where = one.product.place, one.operand, None, one.reason, size, one.rows, one.columns
    return FoundAttention(name, call, "self-attention", _without_images(axes), axes, *where)


def _giver(graph: Graph, node: Node) -> Giver | None:
    """The call of the module whose output a value is, reshaped perhaps: the last without children, else the last."""
    while True:
        leaves = [giver for giver in node.givers if giver.module in graph.leaf_modules]
        if node.givers:
            return (leaves or node.givers)[-1]
        if plain(node.name) not in VIEWS or len(node.made) != 1:
            return None
        node = node.made[0]


def _numbered(place: Place, what: str, numbers: Counter[str]) -> tuple[str, int]:
    key = f"{place.module}:{what} in call {place.call}"
    numbers[key] += 1
    number = "" if numbers[key] == 1 else str(numbers[key])
    return f"{place.module}:{what}{number}", place.call


def _without_images(axes: Dims) -> tuple[int, ...]:
    """The sizes of what is left of each dimension without the images, along which the map varies."""
    kept = [[axis for axis in dim if axis.varies] for dim in axes]
    return tuple(prod(axis.size for axis in dim if axis.kind != "batch") for dim in kept if not _only_images(dim))


def _only_images(dim: list[Axis]) -> bool:
    return bool(dim) and all(axis.kind == "batch" for axis in dim)

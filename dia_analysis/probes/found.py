"""The attention of a network, found in one watched pass: what each layer's map is, and where to take it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dia_analysis.probes.axes import Axis, Dim, Dims
from dia_analysis.probes.gates import VIEWS, Gate, find_gates, plain
from dia_analysis.probes.graph import Giver, Graph, Node, Place, watch
from dia_analysis.probes.makers import gate_weights, projection_weights
from dia_analysis.probes.modes import undisturbed
from dia_analysis.probes.weighted_sums import WeightedSum, find_weighted_sums

IMAGES = 2
Kind = Literal["channel", "spatial", "directional", "branch", "map", "self-attention", "conditioning", "hidden"]


@dataclass(frozen=True)
class FoundAttention:
    """One use of attention in a pass.

    `name` is the module whose output the map is, or else the module in whose forward it multiplies, with `:gate` or
    `:attention` and a number behind; `call` counts the calls of that module, from 0. `axes` are those of the tensor
    that is taken, `shape` its sizes without the images. `place` is where it is taken: the product, or the dropout
    before it; `operand` is the map's place among that operation's arguments (-1 for fused attention). `output` says
    which tensor of the module's output the map is, None if it is none. `reason` says why it cannot be used, and is
    empty if it can. `feature_size` are the sizes along the positions of what it multiplies. Self-attention has `rows`,
    the axes of the queries, and `columns`, those of what is added up. `weights` are the names of the parameters that
    make it; `product` is where it multiplies. `sigmoid` says that a sigmoid put its values out.
    """

    name: str
    call: int
    kind: Kind
    shape: tuple[int, ...]
    axes: Dims = ()
    place: Place | None = None
    operand: int = 0
    output: int | None = None
    reason: str = ""
    feature_size: tuple[int, ...] = ()
    rows: Dim = ()
    columns: Dim = ()
    weights: frozenset[str] = field(default=frozenset(), repr=False)
    product: Place | None = None
    sigmoid: bool = False

    @property
    def usable(self) -> bool:
        """Whether its maps can be captured."""
        return not self.reason

    @property
    def over_channels(self) -> bool:
        """Whether it is self-attention of channels to channels (cross-covariance attention)."""
        return any(axis.kind == "channel" for axis in self.rows)

    @property
    def direction(self) -> tuple[bool, ...]:
        """Along which dimensions of the features a gate varies."""
        return tuple(any(axis.varies for axis in dim) for dim in self.axes)


def find_attention(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> list[FoundAttention]:
    """The attention of a network, in forward order, as one pass on `args` uses it; the network is left as it was."""
    return attention_in(watched(model, args, kwargs))


def watched(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Graph:
    """What one pass on two of the images does; the network is left as it was."""
    with undisturbed(model, 0):
        return watch(model, *_copies(_some(args), kwargs or {}))


def _copies(*given: Any) -> Any:
    """The same with tensors of their own, since a network may change its input in place."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), given)


def _some(args: Sequence[Any]) -> Sequence[Any]:
    """Two of the images, where the network is given nothing else: they show as much as all of them.

    A single one is doubled: an axis of one number is taken for any other of its size.
    """
    alone = len(args) == 1 and isinstance(args[0], Tensor) and args[0].ndim > 2
    if not alone:
        return args
    return [args[0].expand(IMAGES, *args[0].shape[1:]) if len(args[0]) == 1 else args[0][:IMAGES]]


def attention_in(graph: Graph) -> list[FoundAttention]:
    """The attention in a pass, in forward order; last what cannot be seen into."""
    gates = find_gates(graph)
    sums = find_weighted_sums(graph, gates)
    uses: list[Gate | WeightedSum] = sorted([*gates, *sums], key=lambda one: one.product.index)
    numbers: Counter[str] = Counter()
    found = [_of_gate(graph, u, numbers) if isinstance(u, Gate) else _of_sum(graph, u, numbers) for u in uses]
    return _once(found) + [
        FoundAttention(module, 0, "hidden", (), reason=f"{operation} cannot be seen into")
        for operation, module in graph.hidden.items()
    ]


def _once(found: list[FoundAttention]) -> list[FoundAttention]:
    """A map that multiplies several features counts once, at the first."""
    first: dict[tuple[str, int, int | None], FoundAttention] = {}
    for one in found:
        first.setdefault((one.name, one.call, one.output), one)
    return list(first.values())


def _of_gate(graph: Graph, gate: Gate, numbers: Counter[str]) -> FoundAttention:
    assert gate.product.place is not None
    giver = _giver(graph, gate.gate)
    name, call = (giver.module, giver.call) if giver else _numbered(gate.product.place, "gate", numbers)
    return FoundAttention(
        name,
        call,
        gate.kind,
        _without_images(gate.gate.axes),
        gate.gate.axes,
        gate.product.place,
        gate.operand,
        giver.leaf if giver else None,
        gate.reason,
        tuple(axis.size for dim in gate.features.axes for axis in dim if axis.kind in ("position", "other")),
        weights=gate_weights(graph, gate),
        product=gate.product.place,
        sigmoid=_made_by_sigmoid(gate.gate),
    )


def _of_sum(graph: Graph, one: WeightedSum, numbers: Counter[str]) -> FoundAttention:
    assert one.product.place is not None
    name, call = _numbered(one.product.place, "attention", numbers)
    place, operand, axes = _before_dropout(one) or (one.product.place, one.operand, one.weights.axes)
    if operand < 0:
        axes = (*axes[:-2], one.rows, one.columns)
    return FoundAttention(
        name,
        call,
        "self-attention",
        weights_shape([axis for dim in axes for axis in dim if axis.kind != "batch"], one.rows, one.columns),
        axes,
        place,
        operand,
        None,
        one.reason,
        tuple(axis.size for axis in one.columns),
        one.rows,
        one.columns,
        projection_weights(graph, one),
        one.product.place,
    )


def weights_shape(axes: Sequence[Axis], rows: Dim, columns: Dim) -> tuple[int, ...]:
    """The sizes (window, head, query, key) of self-attention's maps of an image; without windows (head, query, key)."""
    windows, heads = windows_and_heads(axes, rows, columns)
    return (*([_size(windows)] if windows else []), _size(heads), _size(rows), _size(columns))


def windows_and_heads(axes: Sequence[Axis], rows: Dim, columns: Dim) -> tuple[list[Axis], list[Axis]]:
    """Of the axes of weights, without those of the images, of queries and of keys, those of windows and of heads."""
    rest = [axis for axis in axes if axis.varies and axis not in (*rows, *columns)]
    windows = [axis for axis in rest if axis.kind in ("position", "other")]
    return windows, [axis for axis in rest if axis not in windows]


def _size(axes: Sequence[Axis]) -> int:
    return prod(axis.size for axis in axes if axis.varies)


def _before_dropout(one: WeightedSum) -> tuple[Place, int, Dims] | None:
    """The dropout between the softmax and the product, where among its arguments the map is, and its axes."""
    node = one.weights
    while plain(node.name) in VIEWS and len(node.made) == 1:
        node = node.made[0]
    noisy = node.name == "native_dropout" or (
        plain(node.name) == "mul" and any(parent is not None and parent.drawn for parent in node.parents)
    )
    if one.operand < 0 or not noisy or node.place is None:
        return None
    return (
        node.place,
        next(i for i, parent in enumerate(node.parents) if parent is not None and parent.sources),
        node.axes,
    )


def _giver(graph: Graph, node: Node) -> Giver | None:
    """The call of the module whose output a value is, reshaped perhaps: the last without children, else the last."""
    while True:
        leaves = [giver for giver in node.givers if giver.module in graph.leaf_modules]
        if node.givers and any(axis.kind == "batch" for axis in node.axes[0]):
            return (leaves or node.givers)[-1]
        if plain(node.name) not in VIEWS or len(node.made) != 1:
            return None
        node = node.made[0]


def _made_by_sigmoid(node: Node) -> bool:
    """Whether a value is what a sigmoid put out, reshaped perhaps."""
    while plain(node.name) in VIEWS and len(node.made) == 1:
        node = node.made[0]
    return plain(node.name) == "sigmoid"


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

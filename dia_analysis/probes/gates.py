"""Which products of a pass multiply features by a gate, and what kind of gate it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dia_analysis.probes.axes import Dim
from dia_analysis.probes.graph import Graph, Node

GateKind = Literal["channel", "spatial", "directional", "branch", "map"]

VIEWS = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "permute",
        "transpose",
        "t",
        "unsqueeze",
        "squeeze",
        "expand",
        "clone",
        "alias",
        "detach",
        "_to_copy",
        "lift_fresh",
        "contiguous",
        "copy",
    ]
)
ARITHMETIC = frozenset(["add", "sub", "rsub", "mul", "div", "neg", "pow", "sqrt", "minimum", "maximum"])
FUNCTIONS = frozenset(
    [
        "sigmoid",
        "hardsigmoid",
        "tanh",
        "hardtanh",
        "clamp",
        "clamp_min",
        "clamp_max",
        "relu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "softplus",
        "leaky_relu",
        "elu",
        "exp",
        "expm1",
        "log",
        "log1p",
        "log_sigmoid_forward",
        "erf",
        "abs",
        "sign",
        "square",
        "rsqrt",
        "reciprocal",
        "sin",
        "cos",
        "where",
        "masked_fill",
        "threshold",
        "softsign",
        "prelu",
        "_prelu_kernel",
        "native_dropout",
        "native_batch_norm",
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
    ]
)
ELEMENTWISE = VIEWS | ARITHMETIC | FUNCTIONS
SQUASHING = frozenset(["sigmoid", "hardsigmoid", "tanh", "hardtanh", "_softmax", "_safe_softmax"])
PARTS = frozenset(["split", "split_with_sizes", "unsafe_split", "unsafe_chunk", "chunk", "slice", "select", "unbind"])
RESIZING = frozenset(
    ["upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "avg_pool2d"]
)
PASSING = VIEWS | ARITHMETIC | PARTS | RESIZING | frozenset(["repeat", "cat", "stack", "native_dropout", "index"])
CUTTING = PARTS | {"native_layer_norm"}
POOLING = ("mean", "sum", "amax", "amin", "max", "var", "std", "var_mean", "avg_pool", "max_pool", "logsumexp", "norm")
PRODUCTS = {"mul": (0, 1), "div": (0, 1), "addcmul": (1, 2), "lerp": (1, 2)}


def plain(name: str) -> str:
    """The name of an operation, in place or not."""
    return name.rstrip("_") if name.endswith("_") and not name.startswith("__") else name


@dataclass(frozen=True)
class Gate:
    """A product: `gate` multiplies `features`. `operand` is the gate's place among the operation's arguments.

    `reason` says why it is not usable; empty if it is.
    """

    product: Node
    gate: Node
    features: Node
    operand: int
    kind: GateKind | Literal["conditioning"]
    reason: str = ""


def find_gates(graph: Graph) -> list[Gate]:
    """The gates of a pass, in forward order."""
    return [gate for node in graph.nodes if plain(node.name) in PRODUCTS and (gate := _gate(graph, node)) is not None]


def _gate(graph: Graph, product: Node) -> Gate | None:
    factors = PRODUCTS[plain(product.name)]
    if len(product.parents) <= max(factors):
        return None
    for operand in reversed(factors):  # people write features * gate
        other = factors[0] + factors[1] - operand
        gate, features = product.parents[operand], product.parents[other]
        if gate is None or features is None or (plain(product.name) == "div" and operand == factors[0]):
            continue
        if (found := _judged(graph, product, gate, features, operand)) is not None:
            return found
    return None


def _judged(graph: Graph, product: Node, gate: Node, features: Node, operand: int) -> Gate | None:
    if not _are_features(features, product) or not gate.sources or not _of_images(gate, product):
        return None
    if root(gate) is root(features) or _are_kin(gate, features):
        return None
    kind = _kind(gate, features)
    if kind is None:
        return None
    squash = squashed(gate)
    private = list(graph.private(gate, features))
    layers = sum(node.learned for node in private)
    over_positions = kind in ("channel", "number")
    pools = any(_pools(node) for node in private)
    if (
        squash is None
        and not (over_positions and (layers or _decays(gate)))
        and not _crossed(graph, kind, gate, features)
    ):
        return None
    if kind == "map" and layers < 2 and not pools:
        return None
    if not gate.sources & features.sources:
        return Gate(product, gate, features, operand, "conditioning", "it is made from another input than the features")
    if kind == "number":
        return Gate(product, gate, features, operand, "channel", "it is one number for each image")
    if kind == "channel" and squash is not None and "softmax" in squash.name:
        kind = "branch"
    return Gate(product, gate, features, operand, kind)


def aligned(node: Node, product: Node) -> Iterator[tuple[Dim, Dim]]:
    """The dimensions of a product and those of a factor under them, nothing where the factor has none."""
    missing = len(product.axes) - len(node.axes)
    for place, dim in enumerate(product.axes):
        yield dim, node.axes[place - missing] if place >= missing else ()


def _varies(dim: Dim) -> bool:
    return any(axis.varies for axis in dim)


def _are_features(node: Node, product: Node) -> bool:
    """Whether a factor has images, channels and positions, and varies along all that the product has."""
    kinds = {axis.kind for dim in node.axes for axis in dim}
    if not node.sources or not {"batch", "channel"} <= kinds or not kinds & {"position", "other"}:
        return False
    return all(_varies(own) or not _varies(dim) for dim, own in aligned(node, product))


def _of_images(gate: Node, product: Node) -> bool:
    """Whether the gate has an axis for the images: what all images share are statistics of the batch."""
    return any(axis.kind == "batch" for dim in gate.axes for axis in dim)


def _kind(gate: Node, features: Node) -> GateKind | Literal["number"] | None:
    """By what a gate varies over, of what its features vary over."""
    channels: list[bool] = []
    positions: list[bool] = []
    for dim, own in aligned(gate, features):
        kinds = {axis.kind for axis in dim if axis.varies}
        if "batch" in kinds:
            continue  # groups of channels, or windows, may be in it: each counts as features of its own
        if "channel" in kinds or "branch" in kinds:
            channels.append(_varies(own))
        elif kinds & {"position", "other"}:
            positions.append(_varies(own))
    if any(positions) and all(positions):
        return "map" if channels and all(channels) else "spatial"  # one for each group of channels, too
    if any(positions):
        return "directional"
    return "channel" if any(channels) else "number"


@cache
def root(node: Node) -> Node:
    """What a value is an element-wise function of; itself if it is of several or was mixed."""
    if plain(node.name) not in ELEMENTWISE:
        return node
    roots = {root(parent) for parent in node.made}
    return roots.pop() if len(roots) == 1 else node


@cache
def squashed(node: Node) -> Node | None:
    """The sigmoid, softmax or the like that a value came out of, with nothing learned since; None if there is none."""
    name = plain(node.name)
    if name in SQUASHING or (name == "clamp" and len([a for a in node.args if a is not None]) == 2):
        return node
    if name not in PASSING or not node.made:
        return None
    found = [squashed(parent) for parent in node.made]
    return found[0] if all(found) else None


def _crossed(graph: Graph, kind: str, gate: Node, features: Node) -> bool:
    """Whether a gate along one direction was made by two layers or more of what was pooled, as in coordinate attention.

    The layers may be shared with the gate along the other direction, which the features were multiplied by before.
    """
    if kind != "directional":
        return False
    while plain(features.name) == "mul" and (before := [p for p in features.made if p.shape == features.shape]):
        features = before[0]
    private = list(graph.private(gate, features))
    return sum(node.learned for node in private) > 1 and any(_pools(node) for node in private)


def _decays(gate: Node) -> bool:
    """Whether a value is an exponential, as the Gaussian gates of context transformers."""
    while plain(gate.name) in VIEWS and len(gate.made) == 1:
        gate = gate.made[0]
    return plain(gate.name) == "exp"


def _are_kin(gate: Node, features: Node) -> bool:
    """Whether each factor is one linear or convolution layer of one tensor, as in gated linear units."""
    first, second = _layer(gate), _layer(features)
    if first is None or second is None:
        return False
    return first is second or _same_numbers(first) is _same_numbers(second)


@cache
def _layer(node: Node) -> Node | None:
    """The layer that a value is the output of, parts of it taken and functions applied element by element."""
    if node.learned:
        return node
    if plain(node.name) not in ELEMENTWISE | CUTTING:
        return None
    found = {_layer(parent) for parent in node.made}
    return found.pop() if len(found) == 1 else None


@cache
def _same_numbers(layer: Node) -> Node:
    """What a layer takes, before it was reshaped."""
    node = layer.made[0]
    while plain(node.name) in VIEWS and node.made:
        node = node.made[0]
    return node


def _pools(node: Node) -> bool:
    return any(word in node.name for word in POOLING)

"""Which products of a pass are self-attention: a normalised matrix of the input that adds up values of the input."""

from dataclasses import dataclass
from functools import cache

from dia_analysis.probes.axes import Axis, Dim
from dia_analysis.probes.gates import ELEMENTWISE, PARTS, PASSING, VIEWS, Gate, plain
from dia_analysis.probes.graph import FUSED, Graph, Node

SOFTMAX = frozenset(("_softmax", "_safe_softmax"))
ALONE = frozenset(
    ("sigmoid", "relu", "hardtanh", "square", "pow", "div")
)  # what weights pass through without a softmax
REMIXING = frozenset(("convolution", "addmm", "mm", "bmm", "native_layer_norm"))  # heads are mixed again, or normed
MATRICES = {"bmm": (0, 1), "mm": (0, 1), "baddbmm": (1, 2)}


@dataclass(frozen=True)
class Weights:
    """The softmax, or what stands for it, that weights came out of, and the axes over which they add up.

    `of_scores` says that they are made of a product of two values, queries and keys.
    """

    node: Node
    summed: frozenset[Axis]
    of_scores: bool


@dataclass(frozen=True)
class WeightedSum:
    """A product in which `weights` add up `values`. `operand` is the weights' place among the operation's arguments.

    It is -1 for fused attention, which holds no weights: `weights` are its queries then. `rows` and `columns` are the
    dimensions of the weights: one row is a query, one column what is added up.
    """

    product: Node
    weights: Node
    operand: int
    rows: Dim
    columns: Dim
    reason: str = ""


def find_weighted_sums(graph: Graph, gates: list[Gate]) -> list[WeightedSum]:
    """The self-attention of a pass, in forward order; what only makes a gate is part of that gate."""
    firsts = {node.place: node for node in reversed(graph.nodes) if node.place is not None}  # of several results
    found = [one for node in sorted(firsts.values(), key=lambda node: node.index) if (one := _found(node)) is not None]
    within = {id(node) for gate in gates for node in graph.private(gate.gate, gate.features)}
    single = [one for one in found if not (id(one.product) in within and not _varies(one.rows))]
    return [_linear(graph, one) for one in single]


def _found(node: Node) -> WeightedSum | None:
    if node.name.startswith(FUSED) and len(node.parents) > 2:
        query, key, value = node.parents[:3]
        if query is None or key is None or value is None or not value.sources:
            return None
        columns = tuple(
            Axis(axis.size, axis.kind, axis) for axis in key.axes[-2]
        )  # of the same tokens, but not the queries
        return WeightedSum(node, query, -1, query.axes[-2], columns)
    if node.name in MATRICES:
        left, right = (node.parents[place] for place in MATRICES[node.name])
        if left is None or right is None or not left.sources or not right.sources:
            return None
        for weights, place, row, column in ((left, 0, -2, -1), (right, 1, -1, -2)):
            known = weights_of(weights)
            if known is not None and known.summed & set(weights.axes[column]):
                operand, reason = MATRICES[node.name][place], _why_not(known, weights, row)
                return WeightedSum(node, weights, operand, weights.axes[row], weights.axes[column], reason)
    if node.name == "sum":
        return _of_sum(node)
    return None


def _of_sum(node: Node) -> WeightedSum | None:
    """Weights times values, then added up over the axes over which the weights are normalised."""
    product = _before_views(node.parents[0]) if node.parents and node.parents[0] is not None else None
    if product is None or plain(product.name) != "mul" or product.place is None or len(product.parents) < 2:
        return None
    gone = _axes(product) - _axes(node)
    for place in (0, 1):
        weights, values = product.parents[place], product.parents[1 - place]
        if weights is None or values is None or not values.sources:
            continue
        known = weights_of(weights)
        if known is None or not known.summed & gone or {axis.kind for axis in known.summed} & {"channel", "branch"}:
            continue
        columns = tuple(known.summed & _axes(weights))
        rows = tuple(
            axis for dim in weights.axes for axis in dim if axis.kind in ("position", "other") and axis not in columns
        )
        return WeightedSum(product, weights, place, rows, columns)
    return None


def _why_not(known: Weights, weights: Node, rows: int) -> str:
    """Keys that were normalized alone, before a query met them, are linear attention if the sum meets queries later."""
    return "" if known.of_scores or not _varies(weights.axes[rows]) else LINEAR


LINEAR = "it is linear attention: no map exists"


def _linear(graph: Graph, one: WeightedSum) -> WeightedSum:
    """Take back that it is linear attention where nothing adds up its rows again."""
    if one.reason != LINEAR:
        return one
    rows = set(one.rows)
    again = any(
        node.name in MATRICES and node.depends_on(one.product) and _contracted(node) & rows
        for node in graph.nodes[one.product.index + 1 :]
    )
    kinds = {axis.kind for axis in one.columns}
    if again or kinds == {"channel"}:
        return one
    return WeightedSum(one.product, one.weights, one.operand, one.rows, one.columns)


def _contracted(node: Node) -> set[Axis]:
    left, right = (node.parents[place] for place in MATRICES[node.name])
    return (set(left.axes[-1]) if left else set()) | (set(right.axes[-2]) if right else set())


@cache
def weights_of(node: Node) -> Weights | None:
    """What the numbers of a value were normalised by, if they are weights; None if they are not."""
    name = plain(node.name)
    if name in SOFTMAX:
        dim = next((a for a in node.args if isinstance(a, int) and not isinstance(a, bool)), -1)
        return Weights(node, frozenset(node.axes[dim]), _is_score(node.made[0]))
    if name == "div" and (divided := _divided_by_own_sum(node)) is not None:
        return divided
    if name in PARTS and len(node.made) == 1 and (whole := weights_of(node.made[0])) is not None:
        return _part(node, whole)
    if name in PASSING | REMIXING | frozenset(
        ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
    ):
        found = [weights for parent in node.made if (weights := weights_of(parent)) is not None]
        if found and (name in VIEWS or len(node.made) == len(found)):
            return found[0] if found[0].summed & _axes(node) else None
    if name in ALONE and (score := score_of(node)) is not None:
        return Weights(node, frozenset(score.axes[-1]) & frozenset(_axes(node)), True)
    return None


def _part(node: Node, whole: Weights) -> Weights | None:
    """Weights of which a part was taken: as in criss-cross attention, which normalizes over two directions at once."""
    parent = node.made[0]
    if len(parent.axes) != len(node.axes):
        return whole if whole.summed & _axes(node) else None
    summed = {
        axis for before, now in zip(parent.axes, node.axes, strict=True) if whole.summed & set(before) for axis in now
    }
    return Weights(whole.node, frozenset(summed), whole.of_scores) if summed else None


def _divided_by_own_sum(node: Node) -> Weights | None:
    """exp(s) / exp(s).sum(...), written out."""
    if len(node.made) != 2:
        return None
    numbers, total = node.made
    below = _before_views(total)
    while plain(below.name) in ("add", "clamp", "clamp_min") and len(below.made) == 1:
        below = _before_views(below.made[0])
    if below.name != "sum" or _before_views(below.made[0]) is not _before_views(numbers):
        return None
    return Weights(node, frozenset(_axes(numbers) - _axes(below)), _is_score(numbers))


def _is_score(node: Node) -> bool:
    return score_of(node) is not None


@cache
def score_of(node: Node) -> Node | None:
    """The product of queries and keys that a value is a function of, element by element."""
    if node.name in MATRICES and not node.learned:
        return node if len(node.made) == 2 and _weights_among(node) is None else None
    if plain(node.name) not in ELEMENTWISE | PASSING | REMIXING:
        return None
    found = [score for parent in node.made if (score := score_of(parent)) is not None]
    return (
        found[0]
        if found and len(found) == len(node.made)
        else found[0]
        if found and plain(node.name) in VIEWS | {"add", "sub"}
        else None
    )


def _weights_among(node: Node) -> Weights | None:
    """The weights among the factors of a product, if it adds up values by them and makes no scores."""
    for place, dim in zip(MATRICES[node.name], (-1, -2), strict=True):
        factor = node.parents[place]
        if factor is not None and (known := weights_of(factor)) is not None and known.summed & set(factor.axes[dim]):
            return known
    return None


def _before_views(node: Node) -> Node:
    while plain(node.name) in VIEWS and len(node.made) == 1:
        node = node.made[0]
    return node


def _axes(node: Node) -> set[Axis]:
    return {axis for dim in node.axes for axis in dim}


def _varies(dim: Dim) -> bool:
    return any(axis.varies and axis.size > 1 for axis in dim)

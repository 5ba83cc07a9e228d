"""The parameters that make a map."""

from collections.abc import Iterable, Iterator

from torch import nn

from dia_analysis.probes.gates import CUTTING, ELEMENTWISE, PASSING, VIEWS, Gate, plain
from dia_analysis.probes.graph import Graph, Node
from dia_analysis.probes.weighted_sums import MATRICES, SOFTMAX, WeightedSum, score_of, weights_of

THROUGH = ELEMENTWISE | CUTTING | PASSING | SOFTMAX | frozenset(MATRICES)


def gate_weights(graph: Graph, gate: Gate) -> frozenset[str]:
    """Those on the way to a gate that its features do not share."""
    return frozenset[str]().union(*(node.weights for node in graph.private(gate.gate, gate.features)))


def projection_weights(graph: Graph, one: WeightedSum) -> frozenset[str]:
    """Those that make queries, keys and values from one tensor, and the output of what they add up to.

    Norms of queries and keys and what is added to the scores belong to it, what comes before the projections does not.
    """
    found = set(one.product.weights)
    waiting = list(one.product.made)
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        found |= node.weights
        if score_of(node) or weights_of(node) or (not node.learned and plain(node.name) in THROUGH):
            waiting += node.made
    return frozenset(found.union(*(node.weights for node in _after(graph, one.product))))


def _after(graph: Graph, product: Node) -> Iterator[Node]:
    """The first layer that a value goes into, reshaped perhaps."""
    same = {product}
    for node in graph.nodes[product.index + 1 :]:
        if not same & set(node.made):
            continue
        if node.learned:
            yield node
            return
        if plain(node.name) not in VIEWS:
            return
        same.add(node)


def maker(model: nn.Module, weights: Iterable[str]) -> str:
    """The outermost module all of whose parameters are among these; "" if there is none."""
    wanted = set(weights)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    name: str
    for name, module in model.named_modules():
        own = {names[id(parameter)] for parameter in module.parameters()}
        if own and own <= wanted:
            return name
    return ""

"""Where the values of a watched pass go: what takes each, what a call of a module takes and gives."""

from collections.abc import Iterable
from functools import cached_property

from dia_analysis.probes.alignment import COPIES
from dia_analysis.probes.gates import VIEWS, plain
from dia_analysis.probes.graph import Graph, Node

ModuleCall = tuple[str, int]


class Flow:
    """A pass seen forwards. Only what reaches the network's output counts."""

    def __init__(self, graph: Graph):
        self.graph = graph

    @cached_property
    def outputs(self) -> list[Node]:
        """What the network gave; where no tensor of it is known, the last value."""
        given = [node for node in self.graph.nodes if any(giver.module == "" for giver in node.givers)]
        return given or self.graph.nodes[-1:]

    @cached_property
    def live(self) -> list[Node]:
        """What the output is made of, in order."""
        reached = 0
        for node in self.outputs:
            reached |= node.ancestors | 1 << node.index
        return [node for node in self.graph.nodes if reached >> node.index & 1]

    @cached_property
    def _takers(self) -> dict[int, list[Node]]:
        found: dict[int, list[Node]] = {}
        for node in self.live:
            for parent in dict.fromkeys(node.made):
                found.setdefault(parent.index, []).append(node)
        return found

    @cached_property
    def _inside(self) -> dict[ModuleCall, list[Node]]:
        found: dict[ModuleCall, list[Node]] = {}
        for node in self.live:
            for call in node.within:
                found.setdefault(call, []).append(node)
        return found

    def takers(self, node: Node) -> list[Node]:
        """What is made of a value."""
        return self._takers.get(node.index, [])

    def is_output(self, node: Node) -> bool:
        """Whether the network gives this value."""
        return any(node is output for output in self.outputs)

    def inside(self, call: ModuleCall) -> list[Node]:
        """What is made in a call of a module."""
        return self._inside.get(call, [])

    def taken(self, call: ModuleCall) -> list[Node]:
        """What a call takes from outside, of what depends on the network's input."""
        return _once(p for node in self.inside(call) for p in node.made if call not in p.within)

    def given(self, call: ModuleCall) -> list[Node]:
        """What is made in a call and used outside of it."""
        return [
            node
            for node in self.inside(call)
            if self.is_output(node) or any(call not in taker.within for taker in self.takers(node))
        ]

    def calls(self, module: str) -> int:
        """How many times a module ran."""
        return sum(call.module == module for call in self.graph.calls)

    def users(self, weight: str) -> set[ModuleCall]:
        """The calls of modules in which a parameter was used."""
        return {node.within[-1] if node.within else ("", 0) for node in self.graph.nodes if weight in node.weights}


def is_view(node: Node) -> bool:
    """Whether a value has the same numbers as what it was made of."""
    return plain(node.name) in VIEWS | COPIES and len(node.made) == 1


def same_numbers(node: Node, other: Node) -> bool:
    """Whether `node` is `other`, or the same numbers in another shape."""
    while node is not other and is_view(node):
        node = node.made[0]
    return node is other


def channel_dimension(node: Node, channels: int) -> int | None:
    """The dimension of so many channels of a value, whose first dimension is the images'; None if there is none."""
    places = [p for p, dim in enumerate(node.axes) if any(axis.kind == "channel" and axis.varies for axis in dim)]
    if len(places) != 1 or places[0] == 0 or node.shape[places[0]] != channels:
        return None
    varying = [axis for axis in node.axes[places[0]] if axis.varies]
    return places[0] if len(varying) == 1 else None


def _once(nodes: Iterable[Node]) -> list[Node]:
    return list({node.index: node for node in nodes}.values())

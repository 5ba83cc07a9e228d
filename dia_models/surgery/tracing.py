"""What one forward pass shows of any network: what modules were given, where blocks end, where attention is."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.example import example_images
from dia_analysis.probes.found import FoundAttention, attention_in, watched
from dia_analysis.probes.graph import Call, Graph, Node
from dia_analysis.probes.modes import evaluating
from dia_models.errors import ModelInputError

FeatureSize = tuple[int, int, int]
SUMS = ("add", "add_")


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: the (channels, height, width) of the first features it took and gave, if it did."""

    module: str
    taken: FeatureSize | None
    given: FeatureSize | None


@dataclass(frozen=True)
class Sum:
    """A sum of two equally large features, made by the forward of `block`, and the residual branch among them.

    `ends` are the modules that put out the branch, first the one that made it. It is empty, and `trouble` says
    why, where the branch is not found.
    """

    block: str
    size: FeatureSize
    ends: tuple[str, ...]
    trouble: str = ""


@dataclass(frozen=True)
class Trace:
    """What was seen, in forward order; `gates` is the attention that multiplies features."""

    calls: tuple[ModuleCall, ...]
    sums: tuple[Sum, ...]
    gates: tuple[FoundAttention, ...]


def trace(model: nn.Module, images: Tensor | None = None) -> Trace:
    """Run a network once, in evaluation mode and without gradients, and leave it as it was.

    `images` (batch, channel, height, width) are by default two random images of the size that the network says it
    takes, or of 64 pixels. Raises ModelInputError if the network cannot be run on them.
    """
    try:
        given = example_images(model) if images is None else images
    except AnalysisInputError as error:
        raise ModelInputError(
            "images", f"{type(model).__name__} has no 2-D convolution; give images= that it takes"
        ) from error
    with evaluating(model), torch.no_grad():
        try:
            graph = watched(model, (given,))
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            shape = "x".join(map(str, given.shape))
            raise ModelInputError(
                "images", f"the network fails on images of {shape} ({reason}); give images= that it takes"
            ) from error
    gates = (one for one in attention_in(graph) if one.usable and one.kind != "self-attention")
    return Trace(tuple(map(_of_call, graph.calls)), tuple(_sums(graph)), tuple(gates))


def _of_call(call: Call) -> ModuleCall:
    return ModuleCall(call.module, _size(call.taken), _size(call.given))


def _size(shape: tuple[int, ...] | None) -> FeatureSize | None:
    return None if shape is None else (shape[1], shape[2], shape[3])


def _sums(graph: Graph) -> Iterator[Sum]:
    """The sums in each call that have the size of what it gave; others are of something inside the branch."""
    depths = _convolutions(graph)
    found: dict[tuple[str, int], list[Sum]] = defaultdict(list)
    for node in graph.nodes:
        if node.name in SUMS and node.within and (one := _sum(node, depths)) is not None:
            found[node.within[-1]].append(one)
    for call in graph.calls:
        ends = [one for one in found[call.module, call.number] if one.size == _size(call.given)]
        several = f"it makes {len(ends)} sums" if len(ends) > 1 else ""
        yield from (Sum(one.block, one.size, one.ends, several or one.trouble) for one in ends)


def _sum(node: Node, depths: list[int]) -> Sum | None:
    summands = [parent for parent in node.parents if parent is not None]
    if len(summands) != 2 or summands[0].shape != summands[1].shape or len(node.shape) != 4:
        return None
    shortcut, branch = sorted(summands, key=lambda parent: depths[parent.index])
    ends: tuple[str, ...] = ()
    trouble = "both of its summands have passed equally many convolutions"
    if depths[shortcut.index] < depths[branch.index]:
        ends = _ends(branch)
        trouble = "" if ends else "what it adds to the shortcut is the output of no module"
    _, channels, height, width = branch.shape
    return Sum(node.within[-1][0], (channels, height, width), ends, trouble)


def _ends(branch: Node) -> tuple[str, ...]:
    """The modules that put out a value, first the one that made it."""
    givers = [giver.module for giver in branch.givers]
    maker = branch.within[-1][0] if branch.within else ""
    return tuple(dict.fromkeys([*(name for name in givers if name == maker), *givers]))


def _convolutions(graph: Graph) -> list[int]:
    """For each value the convolutions on the longest way to it: the residual branch has more than the shortcut."""
    depths: list[int] = []
    for node in graph.nodes:
        behind = max((depths[parent.index] for parent in node.parents if parent is not None), default=0)
        depths.append(behind + (node.name == "convolution"))
    return depths

"""Whether channel numbers mean the same in two layers.

They do where one shared module makes both maps, and where both products go, each channel by itself, into sums with one
common shortcut. A gate inside a block, before a convolution that mixes channels, has channel numbers of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dia_analysis.probes.axes import Axis
from dia_analysis.probes.found import FoundAttention, attention_in, watched
from dia_analysis.probes.gates import ELEMENTWISE, VIEWS, plain
from dia_analysis.probes.graph import Graph, Node, tensors_in
from dia_analysis.probes.replacing import replacing

COPIES = frozenset(("clone", "alias", "detach", "_to_copy", "lift_fresh", "contiguous", "copy", "written"))
APART = (ELEMENTWISE - VIEWS) | COPIES  # of what each channel becomes, no other has a part


@dataclass(frozen=True)
class _Sum:
    """The sum with a shortcut that a product goes into; the dimension of its channels, and what it becomes later on."""

    node: Node
    channel: int
    stream: frozenset[int]


def aligned_layers(model: nn.Module, images: Tensor, layers: Sequence[tuple[str, int]]) -> Bool[Tensor, "layer layer"]:
    """For each two layers, given as (name, call) of their points, whether their channel numbers mean the same.

    Told by what one pass on two of the images does, in the network's present mode, and confirmed: when one channel of
    a gate changes, no other channel of the block's output may. Only gates of channels can be aligned.
    """
    with torch.no_grad():
        graph = watched(model, (images,))
        found = {(one.name, one.call): one for one in reversed(attention_in(graph))}
        points = [found.get(layer) for layer in layers]
        sums = [_confirmed(model, images[:2], graph, one) if one and one.kind == "channel" else None for one in points]
    same = torch.eye(len(layers), dtype=torch.bool)
    for i, j in torch.combinations(torch.arange(len(layers))).tolist():
        same[i, j] = same[j, i] = _one_module(points[i], points[j]) or _one_stream(sums[i], sums[j])
    return same


def _one_module(first: FoundAttention | None, second: FoundAttention | None) -> bool:
    """Whether the same parameters make both gates of channels."""
    if first is None or second is None or {first.kind, second.kind} != {"channel"}:
        return False
    return bool(first.weights) and first.weights == second.weights and first.shape == second.shape


def _one_stream(first: _Sum | None, second: _Sum | None) -> bool:
    if first is None or second is None:
        return False
    return first.channel == second.channel and bool(first.stream & second.stream)


def _confirmed(model: nn.Module, images: Tensor, graph: Graph, one: FoundAttention) -> _Sum | None:
    product = next((node for node in graph.nodes if node.place is not None and node.place == one.product), None)
    into = None if product is None else _sum(graph, product)
    if into is None or not _keeps_channels(model, images, graph, one, into):
        return None
    return into


def _sum(graph: Graph, product: Node) -> _Sum | None:
    """Follow a product's channels to the first sum with something that was not made of it, and from there on."""
    channel = _channel(product)
    if channel is None:
        return None
    reached, into = {product}, product if _adds_shortcut(product, product) else None
    for node in graph.nodes[product.index + 1 :]:
        if plain(node.name) not in APART or not any(p in reached and p.shape == node.shape for p in node.made):
            continue
        if into is None and any(p not in reached and p.depends_on(product) for p in node.made):
            continue  # what was made of the product in another way has mixed its channels
        if into is None and _adds_shortcut(node, product):
            into, reached = node, set()
        reached.add(node)
    return None if into is None else _Sum(into, channel, frozenset(node.index for node in reached))


def _adds_shortcut(node: Node, product: Node) -> bool:
    """Whether a sum has a part that is not made of the product: `addcmul` adds its first argument to a product."""
    if node is product:
        added = node.parents[0] if plain(node.name) == "addcmul" else None
        return added is not None and bool(added.sources)
    others = [parent for parent in node.made if parent is not product and not parent.depends_on(product)]
    return plain(node.name) == "add" and bool(others)


def _channel(node: Node) -> int | None:
    """The dimension of a value's channels, if there is exactly one."""
    places = [place for place, dim in enumerate(node.axes) if any(_is_channel(axis) for axis in dim)]
    return places[0] if len(places) == 1 else None


def _is_channel(axis: Axis) -> bool:
    return axis.kind == "channel" and axis.varies


def _keeps_channels(model: nn.Module, images: Tensor, graph: Graph, one: FoundAttention, into: _Sum) -> bool:
    """Change one channel of the gate and look at the block's output; where no module puts the sum out, true."""
    block = next((g for node in graph.nodes if node.index in into.stream for g in node.givers), None)
    if block is None:
        return True
    outputs: list[Tensor] = []
    calls = 0

    def keep(_: nn.Module, __: object, output: object) -> None:
        nonlocal calls
        if calls == block.call:
            outputs.append(tensors_in(output)[block.leaf].clone())
        calls += 1

    def change(point: FoundAttention, value: Tensor) -> Tensor | None:
        if (point.name, point.call) != (one.name, one.call) or len(outputs) == 0:
            return None
        new = value.clone()
        new[:, 0] += 1
        return new

    module = dict(model.named_modules())[block.module]
    with replacing(model, change, one.name):
        model(images)  # watched first: what follows runs alike
        hook = module.register_forward_hook(keep)
        try:
            for _ in range(2):
                calls = 0
                model(images)
        finally:
            hook.remove()
    before, after = outputs
    changed = (before != after).movedim(into.channel, 0).flatten(1).any(1)
    return bool(changed[0]) and not bool(changed[1:].any())

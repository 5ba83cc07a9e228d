"""Whether channel numbers mean the same in two layers.

They do where one shared module makes both maps, where both multiply one tensor, and where both products go, each
channel by itself, into sums with one common shortcut, or the one into the other. A gate inside a block, before a
convolution that mixes channels, has channel numbers of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dia_analysis.probes.axes import Axis
from dia_analysis.probes.found import IMAGES, FoundAttention, attention_in, watched
from dia_analysis.probes.gates import ELEMENTWISE, VIEWS, plain
from dia_analysis.probes.graph import Giver, Graph, Node, looking, tensors_in
from dia_analysis.probes.replacing import replacing

COPIES = frozenset(("clone", "alias", "detach", "_to_copy", "lift_fresh", "contiguous", "copy", "written"))
APART = (ELEMENTWISE - VIEWS) | COPIES | {"addcmul", "lerp"}  # of what each channel becomes, no other has a part
AT_ONCE = 16  # gates that one pass asks
NO_COMMON_MEANING = "channel numbers have no common meaning"


@dataclass(frozen=True)
class _Sum:
    """The sum with a shortcut that a product goes into, the dimension of its channels, and what has these channels."""

    node: Node
    channel: int
    stream: frozenset[int]
    scaled: bool  # all channels alike, by a map that was made of them, such as CBAM's spatial gate


def aligned_layers(model: nn.Module, images: Tensor, layers: Sequence[tuple[str, int]]) -> Bool[Tensor, "layer layer"]:
    """For each two layers, given as (name, call) of their points, whether their channel numbers mean the same.

    Told by what one pass on two of the images does, in evaluation mode, and confirmed: when one channel of
    a gate changes, no other channel of the block's output may. Only gates of channels can be aligned: another layer,
    and one that this pass does not show, is aligned with none, itself included.
    """
    with torch.no_grad(), looking():
        graph = watched(model, (images,))
        found = {(one.name, one.call): one for one in reversed(attention_in(graph)) if one.kind == "channel"}
        points = [found.get(layer) for layer in layers]
        sums = [None if one is None else _sum(graph, one) for one in points]
        kept = _keep_channels(model, images[:IMAGES], graph, points, sums)
    streams = [into if keeps else None for into, keeps in zip(sums, kept, strict=True)]
    same = torch.diag(torch.tensor([point is not None for point in points], dtype=torch.bool))
    for i, j in combinations(range(len(layers)), 2):
        same[i, j] = same[j, i] = _one_module(points[i], points[j]) or _one_stream(streams[i], streams[j])
    return same


def _one_module(first: FoundAttention | None, second: FoundAttention | None) -> bool:
    """Whether the same parameters make both gates of channels."""
    if first is None or second is None:
        return False
    return bool(first.weights) and first.weights == second.weights and first.shape == second.shape


def _one_stream(first: _Sum | None, second: _Sum | None) -> bool:
    if first is None or second is None:
        return False
    return first.channel == second.channel and bool(first.stream & second.stream)


def _sum(graph: Graph, one: FoundAttention) -> _Sum | None:
    """Follow a product's channels to the first sum with something that was not made of it, and from there on.

    Where no such sum comes, the product stands for it: gates that follow one another see the same channels. What is
    multiplied is of the stream too.
    """
    product = next(node for node in graph.nodes if node.place is not None and node.place == one.product)
    channel = _channel(product)
    if channel is None:
        return None
    reached, into, scaled = {product}, product if adds_shortcut(product, product) else None, False
    for node in graph.nodes[product.index + 1 :]:
        if plain(node.name) not in APART or not any(p in reached and p.shape == node.shape for p in node.made):
            continue
        mixed = [p for p in node.made if p not in reached and p.depends_on(product)]
        if into is None and any(_channel(p) is not None for p in mixed):
            continue  # what was made of the product in another way has mixed its channels
        scaled |= into is None and bool(mixed)
        if into is None and adds_shortcut(node, product):
            into, reached = node, set()
        reached.add(node)
    multiplied = {parent for parent in product.made if parent.shape == product.shape}
    return _Sum(into or product, channel, frozenset(node.index for node in reached | multiplied), scaled)


def adds_shortcut(node: Node, product: Node) -> bool:
    """Whether a value is the sum of a product, or of what became of it, with something that was not made of it.

    `addcmul` adds its first argument to a product: to this one, or to a later one of it such as CBAM's second.
    """
    if node is not product and not node.depends_on(product):
        return False
    if plain(node.name) == "addcmul":
        added = node.parents[0]
        return added is not None and bool(added.sources) and added is not product and not added.depends_on(product)
    others = [parent for parent in node.made if parent is not product and not parent.depends_on(product)]
    return plain(node.name) == "add" and bool(others)


def _channel(node: Node) -> int | None:
    """The dimension of a value's channels, if there is exactly one."""
    places = [place for place, dim in enumerate(node.axes) if any(_is_channel(axis) for axis in dim)]
    return places[0] if len(places) == 1 else None


def _images_first(node: Node) -> bool:
    return [axis.kind for axis in node.axes[0]] == ["batch"]


def _is_channel(axis: Axis) -> bool:
    return axis.kind == "channel" and axis.varies


def _keep_channels(
    model: nn.Module,
    images: Tensor,
    graph: Graph,
    points: Sequence[FoundAttention | None],
    sums: Sequence[_Sum | None],
) -> list[bool]:
    """Change one channel of each gate: whether no other channel of the block's output changes with it.

    One pass asks several gates, each on a copy of the image of its own, as images do not mix in evaluation mode.
    Where no module puts the sum out, images are not its first dimension, or all channels are scaled alike, the
    structure alone tells.
    """
    told = [into is not None and not into.scaled and _images_first(into.node) for into in sums]
    blocks = [_put_out(graph, into) if into and asked else None for into, asked in zip(sums, told, strict=True)]
    if not any(blocks):
        return [True] * len(blocks)
    asked = [place for place, block in enumerate(blocks) if block is not None]
    outputs: dict[Giver, Tensor] = {}
    changed_in: dict[tuple[str, int], int] = {}

    def change(point: FoundAttention, value: Tensor) -> Tensor | None:
        if (image := changed_in.get((point.name, point.call))) is None:
            return None
        new = value.clone()
        new[image, 0] += 1
        return new

    kept = [True] * len(blocks)
    some = images[:1].repeat_interleave(min(AT_ONCE, len(asked)), 0)
    with replacing(model, change, graph=graph), _keeping(model, {block for block in blocks if block}, outputs):
        model(some)
        before = dict(outputs)
        for first in range(0, len(asked), AT_ONCE):
            now = asked[first : first + AT_ONCE]
            changed_in = {(point.name, point.call): n for n, p in enumerate(now) if (point := points[p]) is not None}
            model(some)
            for image, place in enumerate(now):
                block, into = blocks[place], sums[place]
                if block is not None and into is not None:
                    kept[place] = _only_first(before[block], outputs[block], into.channel, image)
    return kept


def _only_first(before: Tensor, after: Tensor, channel: int, image: int) -> bool:
    """Whether no channel but the first changed in this image."""
    changed = (before != after)[image].movedim(channel - 1, 0).flatten(1).any(1)
    return not bool(changed[1:].any())


def _put_out(graph: Graph, into: _Sum) -> Giver | None:
    """The first call of a module whose output the sum is, or what it becomes channel by channel."""
    return next((giver for node in graph.nodes if node.index in into.stream for giver in node.givers), None)


@contextmanager
def _keeping(model: nn.Module, wanted: set[Giver], outputs: dict[Giver, Tensor]) -> Iterator[None]:
    """Inside, what these calls of modules put out in the latest pass is kept."""
    modules, calls = dict(model.named_modules()), Counter[str]()

    def keeper(name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: object, output: object) -> None:
            for leaf, tensor in enumerate(tensors_in(output)):
                if (giver := Giver(name, calls[name], leaf)) in wanted:
                    outputs[giver] = tensor.clone()
            calls[name] += 1

        return keep

    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(lambda *_: calls.clear()).remove)
        for name in {giver.module for giver in wanted}:
            hooks.callback(modules[name].register_forward_hook(keeper(name)).remove)
        yield

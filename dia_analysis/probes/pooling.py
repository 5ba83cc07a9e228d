"""Outputs of modules that the user named: what a pass shows of them, and how they are pooled over positions."""

from torch import Tensor

from dia_analysis.probes.graph import Graph, Node


def channels_of(graph: Graph, module: str) -> int | None:
    """Which dimension of a module's output is the channel's, as the pass shows; None if that is not known."""
    for node in graph.nodes:
        if any(giver.module == module and giver.leaf == 0 for giver in node.givers):
            kinds = [{axis.kind for axis in dim} for dim in node.axes]
            return next((place for place, dim in enumerate(kinds) if place and "channel" in dim), None)
    return None


def positions_behind(graph: Graph, module: str) -> list[tuple[int, ...]]:
    """For each call of a module the sizes along the positions of the last features that its output was made of."""
    calls: dict[int, tuple[int, ...]] = {}
    for node in graph.nodes:
        for giver in node.givers:
            if giver.module == module and giver.leaf == 0:
                calls[giver.call] = next(filter(None, map(_positions, graph.behind(node))), ())
    return [calls[call] for call in sorted(calls)]


def _positions(node: Node) -> tuple[int, ...]:
    return tuple(axis.size for dim in node.axes for axis in dim if axis.kind == "position")


def pooled(features: Tensor, channel: int | None) -> tuple[Tensor, tuple[int, ...]]:
    """Features (batch, ...) averaged over all but images and channels, and the sizes of what was averaged over.

    `channel` is the dimension of the channels; where it is not known, the second, or the last of tokens (batch, token,
    channel).
    """
    if features.ndim < 2:
        features = features[:, None]
    place = channel if channel is not None else 2 if features.ndim == 3 else 1
    over = [dim for dim in range(1, features.ndim) if dim != place]
    return features.mean(over) if over else features, tuple(features.shape[dim] for dim in over)

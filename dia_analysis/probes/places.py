"""Where in the image the tokens of self-attention lie: followed through windows, shifts and class tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
from jaxtyping import Int

from dia_analysis.probes.axes import Axis, Dim
from dia_analysis.probes.found import FoundAttention, windows_and_heads
from dia_analysis.probes.graph import Graph, Node

MOST_BEFORE = 16  # class tokens and registers


@dataclass(frozen=True)
class Places:
    """For every token of every window its place in a grid of (rows, columns), row by row; -1 where it has none."""

    grid: tuple[int, int]
    index: Int[np.ndarray, "window token"]

    @property
    def before(self) -> int:
        """How many tokens, the first, are no part of the image: class tokens and registers."""
        return int((self.index[0] < 0).sum())


def places_of(graph: Graph, point: FoundAttention, axes: Dim) -> Places | None:
    """The places of the tokens along `axes`, which are the point's rows (queries) or columns (keys).

    None if the tokens do not lie over the image, as channels do not.
    """
    node = next((node for node in graph.nodes if node.place == point.product), None)
    if node is None or not axes:
        return None
    others = [axis for dim in point.axes for axis in dim if axis.kind != "batch"]
    windows, _ = windows_and_heads(others, point.rows, point.columns)
    found = _of_split_axes(graph, node, windows, axes)
    return found if found is not None or windows else _after_class_token(graph, node, prod(axis.size for axis in axes))


def _of_split_axes(graph: Graph, node: Node, windows: Sequence[Axis], axes: Dim) -> Places | None:
    """Of tokens that are positions of a feature map, perhaps in windows: each axis counts off steps along its root."""
    steps = _steps(graph, [*windows, *axes])
    roots = _in_order(graph, node, {root for root, _ in steps.values()})
    if roots is None or prod(axis.size for axis in steps) != roots[0].size * roots[1].size:
        return None
    sizes = [axis.size for axis in steps]
    coordinates = np.indices(sizes).reshape(len(sizes), -1)
    where = [
        sum(coordinates[i] * step for i, (root, step) in enumerate(steps.values()) if root is wanted)
        for wanted in roots
    ]
    rows, columns = (
        (coordinate - shift) % root.size
        for coordinate, shift, root in zip(where, _shifts(graph, node, roots), roots, strict=True)
    )
    index = (rows * roots[1].size + columns).reshape(prod(axis.size for axis in windows), -1)
    return Places((roots[0].size, roots[1].size), index)


def _steps(graph: Graph, axes: Sequence[Axis]) -> dict[Axis, tuple[Axis, int]]:
    """For each axis the one that these are all parts of, and the step; a larger one, of which these are only a part as
    after patches were merged, does not count.
    """
    whole = {axis: _step(graph, axis)[0] for axis in axes}
    covered = {root: prod(axis.size for axis in axes if whole[axis] is root) for root in whole.values()}
    return {axis: _step(graph, axis, covered[whole[axis]]) for axis in axes}


def _step(graph: Graph, axis: Axis, up_to: int | float = inf) -> tuple[Axis, int]:
    """The axis, of this size at most, that was taken apart into this one, and how far apart in it are two neighbors
    along this one.
    """
    step = 1
    while axis.size < up_to and (axis in graph.parts_of or axis.like is not None):
        whole, inner = graph.parts_of.get(axis, (axis.like or axis, 1))
        step, axis = step * inner, whole
    return axis, step


def _in_order(graph: Graph, node: Node, roots: set[Axis]) -> tuple[Axis, Axis] | None:
    """Rows and columns, as they follow one another in the feature map; None if it has not both."""
    if len(roots) != 2:
        return None
    for behind in graph.behind(node):
        dims = [root for dim in behind.axes for root in roots if _is_part(graph, dim, root)]
        if len(dims) == 2 and set(dims) == roots:
            return dims[0], dims[1]
    return None


def _is_part(graph: Graph, dim: Dim, root: Axis) -> bool:
    return bool(dim) and all(_step(graph, axis, root.size)[0] is root for axis in dim)


def _shifts(graph: Graph, node: Node, roots: tuple[Axis, Axis]) -> tuple[int, int]:
    """How far rows and columns were rolled on: shifted windows are rolled back later, and count only until then."""
    total = [0, 0]
    for behind in graph.behind(node):
        if behind.name == "roll":
            for shift, dim in zip(*behind.args[1:3], strict=True):
                for place, root in enumerate(roots):
                    total[place] += shift * _is_part(graph, behind.axes[dim], root)
    return total[0], total[1]


def _after_class_token(graph: Graph, node: Node, count: int) -> Places | None:
    """Of tokens as many as the last feature map has positions, and up to 16 more before."""
    for behind in graph.behind(node):
        axes = [axis for dim in behind.axes for axis in dim if axis.kind == "position"]
        if len(axes) == 2 and len(behind.axes) == 4 and all(axis.like is None for axis in axes):
            size = (axes[0].size, axes[1].size)
            before = count - size[0] * size[1]
            if not 0 <= before <= MOST_BEFORE:
                return None
            index = np.arange(-before, count - before).clip(-1)
            return Places(size, index[None])
    return None

"""Attention maps as they are captured, with the images first."""

from math import prod

from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.axes import Axis, Dim
from dia_analysis.probes.found import FoundAttention, weights_shape, windows_and_heads


def by_image(value: Tensor, found: FoundAttention) -> Tensor:
    """A captured tensor as (image, ...): gates (image, what they vary over), self-attention (image, head, query, key).

    Maps of windows are (image, window, head, query, key). Along constant axes one number is kept.
    Raises AnalysisInputError for a value of another shape than in the pass in which it was found.
    """
    if value.ndim != len(found.axes) or not all(map(_fits, value.shape, found.axes)):
        raise AnalysisInputError(
            "model",
            f"{found.name} was given {tuple(value.shape)} instead of a map: the network does "
            "not do the same in every pass",
        )
    value = value[tuple(slice(0, 1) if _constant(dim) else slice(None) for dim in found.axes)]
    axes = [axis for dim in found.axes for axis in _kept(dim)]
    images = next(axis for axis in axes if axis.kind == "batch")
    count = value.numel() // prod(axis.size for axis in axes if axis is not images)
    parts = value.reshape([count if axis is images else axis.size for axis in axes])
    order = [images, *(axis for axis in axes if axis is not images)]
    parts = parts.permute([axes.index(axis) for axis in order])
    if found.kind != "self-attention":
        return parts.reshape(
            count,
            *(prod(a.size for a in _kept(dim) if a is not images) for dim in found.axes if not _only(dim, images)),
        )
    return _weights(parts, order, found, count)


def _fits(size: int, dim: Dim) -> bool:
    """Whether a dimension has the size it had; the images may be more or fewer."""
    known = prod(axis.size for axis in dim if axis.kind != "batch")
    return size % known == 0 if any(axis.kind == "batch" for axis in dim) else size in (1, known)


def _weights(parts: Tensor, order: list[Axis], found: FoundAttention, count: int) -> Tensor:
    windows, heads = windows_and_heads(order[1:], found.rows, found.columns)
    wanted = [order[0], *windows, *heads, *_kept(found.rows), *_kept(found.columns)]
    shape = weights_shape(order[1:], found.rows, found.columns)
    return parts.permute([order.index(axis) for axis in wanted]).reshape(count, *shape)


def _constant(dim: Dim) -> bool:
    return bool(dim) and not any(axis.varies for axis in dim)


def _kept(dim: Dim) -> Dim:
    return () if _constant(dim) else dim


def _only(dim: Dim, images: Axis) -> bool:
    return dim == (images,)

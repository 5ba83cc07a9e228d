"""Attention maps as they are captured, with the images first."""

from math import prod

from torch import Tensor

from dia_analysis.probes.axes import Axis, Dim
from dia_analysis.probes.found import FoundAttention


def by_image(value: Tensor, found: FoundAttention) -> Tensor:
    """A captured tensor as (image, ...): gates (image, what they vary over), self-attention (image, head, query, key).

    Maps of windows are (image, window, head, query, key). Along constant axes one number is kept.
    """
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


def _weights(parts: Tensor, order: list[Axis], found: FoundAttention, count: int) -> Tensor:
    rows, columns = _kept(found.rows), _kept(found.columns)
    rest = [axis for axis in order[1:] if axis not in (*rows, *columns)]
    windows = [axis for axis in rest if axis.kind in ("position", "other")]
    heads = [axis for axis in rest if axis not in windows]
    wanted = [order[0], *windows, *heads, *rows, *columns]
    shape = [count, *([prod(a.size for a in windows)] if windows else []), prod(a.size for a in heads)]
    return parts.permute([order.index(axis) for axis in wanted]).reshape(
        *shape, prod(a.size for a in rows), prod(a.size for a in columns)
    )


def _constant(dim: Dim) -> bool:
    return bool(dim) and not any(axis.varies for axis in dim)


def _kept(dim: Dim) -> Dim:
    return () if _constant(dim) else dim


def _only(dim: Dim, images: Axis) -> bool:
    return dim == (images,)

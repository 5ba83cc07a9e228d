"""Attention maps as they are captured, with the images first, and as the network holds them."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.axes import Axis, Dim
from dia_analysis.probes.found import FoundAttention, weights_shape, windows_and_heads


def by_image(value: Tensor, found: FoundAttention) -> Tensor:
    """A captured tensor as (image, ...): gates (image, what they vary over), self-attention (image, head, query, key).

    Maps of windows are (image, window, head, query, key). Along constant axes one number is kept.
    Raises AnalysisInputError for a value of another shape than in the pass in which it was found.
    """
    kept = _kept_part(value, found)
    plan = _plan(kept, found)
    return kept.reshape(plan.sizes).permute(plan.order).reshape(plan.shape)


def as_operand(map: Tensor, value: Tensor, found: FoundAttention) -> Tensor:
    """The inverse of `by_image`: a map as the network would have held it in place of the tensor `value`.

    Raises AnalysisInputError for a map of another shape than `by_image` gives of that tensor.
    """
    kept = _kept_part(value, found)
    plan = _plan(kept, found)
    if tuple(map.shape) != plan.shape:
        raise AnalysisInputError(
            "replace",
            f"{found.name} was given a map of {tuple(map.shape)}; its maps are {plan.shape}, one for each image",
        )
    ordered = map.reshape([plan.sizes[place] for place in plan.order])
    back = ordered.permute([plan.order.index(place) for place in range(len(plan.order))])
    return torch.empty_like(kept).copy_(back.reshape(kept.shape)).expand(value.shape)


def overwrite(value: Tensor, operand: Tensor, found: FoundAttention) -> None:
    """Write a map over the tensor in which the network holds its own, and whatever shares its memory."""
    _kept_part(value.detach(), found).copy_(_kept_part(operand, found))


@dataclass(frozen=True)
class _Plan:
    """A tensor of these `sizes`, one for each axis, whose axes are put in `order`, has a map's `shape`."""

    sizes: list[int]
    order: list[int]
    shape: tuple[int, ...]


def _kept_part(value: Tensor, found: FoundAttention) -> Tensor:
    if value.ndim != len(found.axes) or not all(map(_fits, value.shape, found.axes)):
        raise AnalysisInputError(
            "model",
            f"{found.name} was given {tuple(value.shape)} instead of a map: the network does "
            "not do the same in every pass",
        )
    return value[tuple(slice(0, 1) if _constant(dim) else slice(None) for dim in found.axes)]


def _plan(kept: Tensor, found: FoundAttention) -> _Plan:
    axes = [axis for dim in found.axes for axis in _kept(dim)]
    images = next(axis for axis in axes if axis.kind == "batch")
    count = kept.numel() // prod(axis.size for axis in axes if axis is not images)
    rest = [axis for axis in axes if axis is not images]
    if found.kind == "self-attention":
        windows, heads = windows_and_heads(rest, found.rows, found.columns)
        shape = weights_shape(rest, found.rows, found.columns)
        rest = [*windows, *heads, *_kept(found.rows), *_kept(found.columns)]
    else:
        shape = tuple(prod(a.size for a in _kept(d) if a is not images) for d in found.axes if not _only(d, images))
    sizes = [count if axis is images else axis.size for axis in axes]
    return _Plan(sizes, [axes.index(axis) for axis in (images, *rest)], (count, *shape))


def _fits(size: int, dim: Dim) -> bool:
    """Whether a dimension has the size it had; the images may be more or fewer."""
    known = prod(axis.size for axis in dim if axis.kind != "batch")
    return size % known == 0 if any(axis.kind == "batch" for axis in dim) else size in (1, known)


def _constant(dim: Dim) -> bool:
    return bool(dim) and not any(axis.varies for axis in dim)


def _kept(dim: Dim) -> Dim:
    return () if _constant(dim) else dim


def _only(dim: Dim, images: Axis) -> bool:
    return dim == (images,)

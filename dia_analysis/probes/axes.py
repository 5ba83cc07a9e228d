"""What the axes of a tensor stand for, followed through one operation after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import prod
from typing import Any, Literal

from torch import Tensor

AxisKind = Literal["batch", "channel", "position", "branch", "other", "constant"]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a tensor, or the part of one that a reshape took apart. It is itself alone, whatever its size.

    Along a `constant` axis nothing varies: it was expanded or repeated. `like` is the axis of the same tokens elsewhere
    in a matrix of tokens by tokens.
    """

    size: int
    kind: AxisKind
    like: "Axis | None" = None

    @property
    def varies(self) -> bool:
        """Whether numbers may differ along it."""
        return self.kind != "constant"


Dim = tuple[Axis, ...]  # what a dimension is made of, outermost first; nothing where it was pooled or is one number
Dims = tuple[Dim, ...]

BATCHED_MATRICES = ("bmm", "matmul", "baddbmm")
PLAIN_MATRICES = ("mm", "addmm", "_addmm_activation")
REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "linalg_vector_norm", "norm", "prod", "nansum")
SPATIAL = ("avg_pool", "max_pool", "upsample", "pad_", "_pad", "interpolate")


def fresh(size: int, kind: AxisKind) -> Dim:
    """A new dimension; one of size 1 is of no axis, except of images."""
    return (Axis(size, kind),) if size > 1 or kind == "batch" else ()


def input_axes(shape: Sequence[int]) -> Dims:
    """Those of a network's input (batch, channel, position, ...), or (batch, anything)."""
    kinds: list[AxisKind] = ["batch", "channel", *["position"] * (len(shape) - 2)]  # type: ignore[list-item]
    if len(shape) == 3:  # signals (batch, channel, position) or tokens (batch, position, channel)
        kinds = ["batch", "other", "other"]
    return tuple((Axis(size, kind),) for size, kind in zip(shape, kinds, strict=False))


@dataclass
class Follower:
    """Tells the axes of an operation's output from those of its inputs."""

    splits: dict[tuple[Axis, int], tuple[Axis, Axis]] = field(default_factory=dict)

    def follow(self, name: str, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims:
        """The axes of one output of the operation `name`, such as "view". `axes` gives those of a tensor."""
        dims = self._dims(name, args, axes, output)
        if (
            dims is None
            or len(dims) != output.ndim
            or any(_size(dim) not in (1, n) for dim, n in zip(dims, output.shape, strict=True))
        ):
            dims = self._unknown(args, axes, output)
        return tuple(
            dim if size > 1 or _is_image(dim) else _kept_single(dim)
            for dim, size in zip(dims, output.shape, strict=True)
        )

    def _dims(self, name: str, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
        tensors = [a for a in _flat(args) if isinstance(a, Tensor)]
        if not tensors:
            return None
        first = axes(tensors[0])
        if name in RULES:
            return RULES[name](self, args, axes, output)
        if name.rstrip("_") in REDUCTIONS:
            return _reduced(first, args, output)
        if any(word in name for word in SPATIAL):
            return _resized(first, tensors[0].shape, output.shape, "adaptive" in name)
        if name in ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"):
            return _convolved(first, tensors[0].shape, output.shape, bool(args[6]) if len(args) > 6 else False)
        if name in PLAIN_MATRICES:
            left, right = tensors[-2:] if name == "mm" else tensors[1:3]
            return _product(axes(left), axes(right), output.shape)
        if name in BATCHED_MATRICES:
            left, right = tensors[:2] if name != "baddbmm" else tensors[1:3]
            return _product(axes(left), axes(right), output.shape)
        return _broadcast([axes(t) for t in tensors], [tuple(t.shape) for t in tensors], tuple(output.shape))

    def _unknown(self, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims:
        """The axes that an input has in the same place and of the same size, and new ones."""
        given = [axes(a) for a in _flat(args) if isinstance(a, Tensor)]
        known = given[0] if given else ()
        return tuple(
            dim if dim is not None and _size(dim) == size and place == 0 else fresh(size, _kind_of(dim))
            for place, (size, dim) in enumerate(zip_longest(output.shape, known[: output.ndim]))
        )

    def reshaped(self, dims: Dims, old: Sequence[int], new: Sequence[int]) -> Dims | None:
        """Regroup the axes for another shape, taking axes apart where a new dimension ends within one."""
        waiting = [axis for dim, size in zip(dims, old, strict=True) for axis in _filled(dim, size)]
        result: list[Dim] = []
        for size in new:
            taken: list[Axis] = []
            room = size
            while room > 1 and waiting:
                axis = waiting.pop(0)
                if axis.size <= room and room % axis.size == 0:
                    taken.append(axis)
                    room //= axis.size
                elif axis.size % room == 0:
                    outer, inner = self._split(axis, room)
                    taken.append(outer)
                    waiting.insert(0, inner)
                    room = 1
                else:
                    return None
            if room > 1:
                return None
            if size == 1 and waiting and waiting[0].size == 1:
                taken.append(waiting.pop(0))
            result.append(tuple(taken))
        if waiting and result:
            result[-1] += tuple(axis for axis in waiting if axis.size == 1)
        return tuple(result)

    def _split(self, axis: Axis, outer: int) -> tuple[Axis, Axis]:
        key = (axis, outer)
        if key not in self.splits:
            self.splits[key] = (Axis(outer, axis.kind), Axis(axis.size // outer, axis.kind))
        return self.splits[key]


def _varies(dim: Dim) -> bool:
    return any(axis.varies for axis in dim)


def _is_image(dim: Dim) -> bool:
    return any(axis.kind == "batch" for axis in dim)


def _kept_single(dim: Dim) -> Dim:
    return tuple(axis for axis in dim if axis.size == 1 and axis.kind in ("batch", "position"))


def _flat(args: Sequence[Any]) -> list[Any]:
    return [leaf for a in args for leaf in (a if isinstance(a, list | tuple) else [a])]


def _size(dim: Dim) -> int:
    return prod(axis.size for axis in dim)


def _filled(dim: Dim, size: int) -> Dim:
    return dim if _size(dim) == size else (Axis(size, "constant"),)


def _kind_of(dim: Dim | None) -> AxisKind:
    kinds = {axis.kind for axis in dim or () if axis.kind not in ("batch", "constant")}
    return kinds.pop() if len(kinds) == 1 else "other"


def _place(dim: int, ndim: int) -> int:
    return dim + ndim if dim < 0 else dim


def _reduced(dims: Dims, args: Sequence[Any], output: Tensor) -> Dims | None:
    over: Sequence[int] | None = next((a for a in args[1:] if isinstance(a, list | tuple)), None)
    if over is None:
        numbers = [a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)]
        over = numbers[:1] if numbers and output.ndim else range(len(dims))
    places = {_place(dim, len(dims)) for dim in (over or range(len(dims)))}
    if output.ndim == len(dims):
        return tuple(() if place in places else dim for place, dim in enumerate(dims))
    return tuple(dim for place, dim in enumerate(dims) if place not in places)


def _resized(dims: Dims, old: Sequence[int], new: Sequence[int], to_size: bool) -> Dims | None:
    """Pooled, enlarged or padded: a dimension that keeps its size keeps its axes; one that becomes 1 loses them.

    `to_size` says that the operation was asked for the new size, as for one number a channel.
    """
    if len(old) != len(new):
        return None
    return tuple(
        dim
        if before == after and not (to_size and after == 1)
        else ()
        if after == 1
        else fresh(after, _kind_of(dim) if _kind_of(dim) != "other" else "position")
        for dim, before, after in zip(dims, old, new, strict=True)
    )


def _convolved(dims: Dims, old: Sequence[int], new: Sequence[int], transposed: bool) -> Dims | None:
    if len(old) != len(new):
        return None
    positions = tuple(
        dim if before == after else (Axis(after, "position"),)  # a single position is one, too
        for dim, before, after in zip(dims[2:], old[2:], new[2:], strict=True)
    )
    return (dims[0], fresh(new[1], "channel"), *positions)


def _product(left: Dims, right: Dims, shape: Sequence[int]) -> Dims | None:
    """Of matrices (..., row, summed) and (..., summed, column); a column that is also a row is another axis there."""
    if len(left) < 2 or len(right) < 2 or len(left) != len(shape):
        return None
    row = left[-2] if _varies(left[-2]) else fresh(shape[-2], "other")  # learned queries
    column = right[-1] if _varies(right[-1]) else fresh(shape[-1], "channel")
    rows = set(row) | {axis for dim in left[:-2] for axis in dim}
    column = tuple(Axis(axis.size, axis.kind, axis) if axis in rows else axis for axis in column)
    batch = tuple(a if _varies(a) else b for a, b in zip(left[:-2], right[:-2], strict=False))
    return (*batch, row, column)


def _broadcast(given: list[Dims], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Dims | None:
    """Element by element: of each dimension the axes of the input that varies there, the largest input first.

    Axes that are known as channels or positions come before others.
    """
    order = sorted(range(len(given)), key=lambda i: -prod(shapes[i]))
    if not any(len(given[i]) == len(shape) for i in order):
        return None
    result: list[Dim] = []
    for place in range(1, len(shape) + 1):
        choices = [given[i][-place] for i in order if len(given[i]) >= place and shapes[i][-place] == shape[-place]]
        varying = [dim for dim in choices if _varies(dim)]
        told = [dim for dim in varying if all(axis.kind != "other" for axis in dim)]
        result.append(next(iter(told or varying or choices), ()))
    return tuple(reversed(result))


def _view(follower: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    return follower.reshaped(axes(args[0]), args[0].shape, output.shape)


def _permute(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], __: Tensor) -> Dims | None:
    dims = axes(args[0])
    return tuple(dims[place] for place in args[1])


def _transpose(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], __: Tensor) -> Dims | None:
    dims = list(axes(args[0]))
    if not dims:
        return ()
    a, b = (_place(dim, len(dims)) for dim in args[1:3])
    dims[a], dims[b] = dims[b], dims[a]
    return tuple(dims)


def _t(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], __: Tensor) -> Dims | None:
    return tuple(reversed(axes(args[0])))


def _unsqueeze(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    dims = list(axes(args[0]))
    dims.insert(_place(args[1], output.ndim), ())
    return tuple(dims)


def _squeeze(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    dims, shape = axes(args[0]), args[0].shape
    over = range(len(shape)) if len(args) < 2 else args[1] if isinstance(args[1], list | tuple) else [args[1]]
    gone = {_place(dim, len(shape)) for dim in over if shape[dim] == 1}
    return tuple(dim for place, dim in enumerate(dims) if place not in gone)


def _expand(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    dims, shape = axes(args[0]), args[0].shape
    added = output.ndim - len(shape)
    new = tuple(() for _ in range(added))
    kept = tuple(
        dim if before == after else (Axis(after, "constant"),)
        for dim, before, after in zip(dims, shape, output.shape[added:], strict=True)
    )
    return tuple(dim or fresh(size, "constant") for dim, size in zip(new + kept, output.shape, strict=True))


def _select(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], __: Tensor) -> Dims | None:
    dims = axes(args[0])
    gone = _place(args[1] if len(args) > 1 else 0, len(dims))
    return tuple(dim for place, dim in enumerate(dims) if place != gone)


def _cut(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    """Of split, chunk, slice and the like: the dimensions that became shorter are other ones."""
    dims, shape = axes(args[0]), args[0].shape
    return tuple(
        dim if before == after else fresh(after, _kind_of(dim))
        for dim, before, after in zip(dims, shape, output.shape, strict=True)
    )


def _cat(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    tensors = [t for t in args[0] if t.ndim == output.ndim]
    along = _place(args[1] if len(args) > 1 else 0, output.ndim)
    dims = _broadcast(
        [axes(t) for t in tensors],
        [(*t.shape[:along], output.shape[along], *t.shape[along + 1 :]) for t in tensors],
        tuple(output.shape),
    )
    if dims is None:
        return None
    kinds = [_kind_of(axes(t)[along]) for t in tensors]
    kind: AxisKind = next((k for k in kinds if k != "other"), "other")
    return tuple(fresh(output.shape[along], kind) if place == along else dim for place, dim in enumerate(dims))


def _stack(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    along = _place(args[1] if len(args) > 1 else 0, output.ndim)
    one = list(_broadcast([axes(t) for t in args[0]], [tuple(t.shape) for t in args[0]], tuple(args[0][0].shape)) or ())
    one.insert(along, fresh(len(args[0]), "branch"))
    return tuple(one)


def _repeat(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    dims, times = axes(args[0]), list(args[1])
    dims = (*(() for _ in range(len(times) - len(dims))), *dims)
    shape = [1] * (len(times) - args[0].ndim) + list(args[0].shape)
    return tuple(
        dim if n == 1 else (Axis(size * n, "constant"),) if size == 1 else fresh(size * n, _kind_of(dim))
        for dim, n, size in zip(dims, times, shape, strict=True)
    )


def _same(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    same = next((a for a in _flat(args) if isinstance(a, Tensor) and a.shape == output.shape), None)
    return None if same is None else axes(same)


def _attended(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    """Of fused attention (query, key, value): rows of the query, columns of the value."""
    query, value = axes(args[0]), axes(args[2])
    return (*query[:-1], value[-1]) if output.ndim == len(query) else None


def _embedded(_: Follower, args: Sequence[Any], axes: Callable[[Tensor], Dims], output: Tensor) -> Dims | None:
    return (*axes(args[1]), fresh(output.shape[-1], "channel"))


RULES: dict[str, Callable[..., Dims | None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_as"), _view),
    "permute": _permute,
    **dict.fromkeys(("transpose", "transpose_", "swapaxes"), _transpose),
    "t": _t,
    **dict.fromkeys(("unsqueeze", "unsqueeze_"), _unsqueeze),
    **dict.fromkeys(("squeeze", "squeeze_"), _squeeze),
    "expand": _expand,
    **dict.fromkeys(("select", "unbind"), _select),
    **dict.fromkeys(
        (
            "split",
            "split_with_sizes",
            "unsafe_split",
            "unsafe_split_with_sizes",
            "unsafe_chunk",
            "chunk",
            "slice",
            "narrow",
            "tensor_split",
        ),
        _cut,
    ),
    "cat": _cat,
    "stack": _stack,
    "repeat": _repeat,
    **dict.fromkeys(
        ("roll", "flip", "native_layer_norm", "native_group_norm", "native_batch_norm", "native_dropout"), _same
    ),
    **dict.fromkeys(
        ("_softmax", "_log_softmax", "_safe_softmax", "cudnn_batch_norm", "_native_batch_norm_legit_no_training"), _same
    ),
    "embedding": _embedded,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attended,
    ),
}

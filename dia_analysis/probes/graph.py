"""One watched forward pass: every operation, what went into it, and the modules in which it happened."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_flatten, tree_leaves

from dia_analysis.probes.axes import Axis, Dims, Follower, input_axes

COUNTED = frozenset(
    [
        *("mul", "mul_", "div", "div_", "addcmul", "addcmul_", "lerp", "lerp_", "sum", "native_dropout"),
        *("mm", "bmm", "baddbmm", "addmm"),
    ]
)
LEARNED = frozenset(
    (
        "convolution",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "mkldnn_rnn_layer",
        "_cudnn_rnn",
        "_thnn_fused_lstm_cell",
        "_thnn_fused_gru_cell",
    )
)
SEEN_INTO = ("aten", "prims", "torchvision", "prim")
FUSED = "_scaled_dot_product"
RANDOM = (
    "bernoulli",
    "bernoulli_",
    "rand_like",
    "randn_like",
    "uniform_",
    "normal_",
    "exponential_",
    "rrelu_with_noise",
)
EMPTY = (
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "fill_",
    "zero_",
)


def is_counted(name: str) -> bool:
    """Whether operations of this name are numbered, so that one of them can be found again in another pass."""
    return name in COUNTED or name.startswith(FUSED)


@dataclass(frozen=True)
class Place:
    """Where an operation happened: the `number`-th counted one (from 0) in a call of a module, submodules included."""

    module: str
    call: int
    number: int
    operation: str


@dataclass(frozen=True)
class Giver:
    """A call of a module that put a value out, as the `leaf`-th tensor (from 0) of its output."""

    module: str
    call: int
    leaf: int


@dataclass(eq=False)
class Node:
    """A value in the pass: a tensor as it was between two operations.

    `parents` are the values that it was made of, in the order of the operation's arguments (None for a number, or a
    tensor that was there before the pass), `sources` the inputs of the network on which it depends. `learned` says that
    the operation took a weight of two dimensions or more that does not depend on the input. `weights` are the names of
    the parameters that the operation took, or that went into constants that it took. `drawn` says that it is made of
    random numbers alone. `givers` are the calls of modules that put the value out, in order, `within` the calls
    (module, number) that were running, outermost first.
    """

    index: int
    name: str
    parents: tuple["Node | None", ...] = field(repr=False)
    shape: tuple[int, ...]
    axes: Dims
    sources: frozenset[int] = frozenset()
    learned: bool = False
    args: tuple[Any, ...] = ()
    place: Place | None = None
    givers: list[Giver] = field(default_factory=list)
    dtype: torch.dtype = torch.float32
    weights: frozenset[str] = frozenset()
    drawn: bool = False
    within: tuple[tuple[str, int], ...] = ()
    ancestors: int = 0  # a bit for each value that it depends on

    @property
    def made(self) -> list["Node"]:
        """The parents that depend on the network's input."""
        return [p for p in self.parents if p is not None and p.sources]

    def depends_on(self, other: "Node") -> bool:
        """Whether another value went into this one."""
        return bool(self.ancestors >> other.index & 1)


@dataclass(frozen=True)
class Call:
    """A call of a module, the `number`-th (from 0), and the shapes of the first images or features (batch, channel,
    height, width) that it took and gave; None where it did not.
    """

    module: str
    number: int
    taken: tuple[int, ...] | None
    given: tuple[int, ...] | None


@dataclass
class Graph:
    """What a pass did. `calls` are those of modules, in the order in which they ended.

    `leaf_modules` are the names of modules without children; `hidden` are operations that cannot be seen into, with the
    modules in which they ran. `parts_of` says of an axis into which a reshape took another apart which one that is, and
    how many of its steps are one along the part.
    """

    nodes: list[Node] = field(default_factory=list, repr=False)
    calls: list[Call] = field(default_factory=list)
    leaf_modules: frozenset[str] = frozenset()
    hidden: dict[str, str] = field(default_factory=dict)
    parts_of: dict[Axis, tuple[Axis, int]] = field(default_factory=dict)

    def behind(self, node: Node) -> Iterator[Node]:
        """The values that `node` is made of, itself first, the latest before the earlier."""
        yield node
        bits = node.ancestors
        while bits:
            last = bits.bit_length() - 1
            yield self.nodes[last]
            bits ^= 1 << last

    def private(self, node: Node, other: Node) -> Iterator[Node]:
        """The values that `node` is made of, itself included, that `other` is not made of."""
        bits = (node.ancestors | 1 << node.index) & ~(other.ancestors | 1 << other.index)
        while bits:
            low = bits & -bits
            yield self.nodes[low.bit_length() - 1]
            bits ^= low


@dataclass
class _Running:
    module: str
    call: int
    taken: tuple[int, ...] | None
    counted: int = 0


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records a Graph while a network runs inside `with watch.watching(model)`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self.follower = Follower()
        self.running: list[_Running] = []
        self.calls: Counter[str] = Counter()
        self.values: dict[int, tuple[Tensor, Node]] = {}  # tensors are held, so that no other gets the same id
        self.storages: dict[int, list[int]] = {}
        self.parameters: dict[int, str] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """See every module's calls and every operation inside the block."""
        names = [(name, m) for name, m in model.named_modules() if can_be_hooked(m)]
        self.graph.leaf_modules = frozenset(name for name, m in names if not list(m.children()))
        self.parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        with ExitStack() as hooks:
            for name, module in names:
                hooks.callback(module.register_forward_pre_hook(self._entering(name), with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(self._leave, always_call=True).remove)
            with self:
                yield

    def give(self, inputs: Iterable[Tensor]) -> None:
        """Take these tensors as the network's inputs."""
        for number, tensor in enumerate(inputs):
            axes = input_axes(tensor.shape)
            self._add(tensor, Node(len(self.graph.nodes), "input", (), tuple(tensor.shape), axes, frozenset({number})))

    def _entering(self, name: str) -> Any:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append(_Running(name, self.calls[name], _first_features((args, kwargs))))
            self.calls[name] += 1

        return enter

    def _leave(self, _: nn.Module, __: Any, output: Any) -> None:
        call = self.running.pop()
        self.graph.calls.append(Call(call.module, call.call, call.taken, _first_features(output)))
        for leaf, tensor in enumerate(tensors_in(output)):
            if (known := self.values.get(id(tensor))) is not None:
                known[1].givers.append(Giver(call.module, call.call, leaf))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        parts = in_parts(self, func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        place = self._placed(name)
        output = func(*args, **kwargs)
        if func.namespace not in SEEN_INTO:
            self.graph.hidden[f"{func.namespace}.{name}"] = self.running[-1].module if self.running else ""
        given = [*args, *kwargs.values()]
        tensors = tensors_in(given)
        made = self._operation(name, args, tensors, place)
        for result in tensors_in(output):
            axes = constant_axes(result.shape)
            if made.sources:
                axes = self.follower.follow(name, given, self._axes, result)
            self._note(result, made, axes, changed=func._schema.is_mutable and any(result is t for t in tensors))
        return output

    def _operation(self, name: str, args: Any, tensors: list[Tensor], place: Place | None) -> Node:
        """What all results of an operation have in common."""
        before = [self._node(t) for t in tensors]
        made_of = () if name in RANDOM or name in EMPTY else tuple(before)
        sources = frozenset[int]().union(*(n.sources for n in made_of if n))
        constants = [n for n in made_of if n and not n.sources]
        named = (self.parameters[id(t)] for t in tensors if id(t) in self.parameters)
        learned = bool(sources) and any(
            t.ndim > 1 and (n is None or not n.sources) for t, n in zip(tensors, before, strict=True)
        )
        return Node(
            -1,
            name,
            made_of,
            (),
            (),
            sources,
            learned and name in LEARNED,
            tuple(None if isinstance(a, Tensor) else a for a in args if not isinstance(a, list) or not tensors_in(a)),
            place,
            weights=frozenset(named).union(*(n.weights for n in constants)),
            drawn=name in RANDOM or (not sources and any(n.drawn for n in constants)),
            within=tuple((call.module, call.call) for call in self.running),
        )

    def _note(self, result: Tensor, made: Node, axes: Dims, changed: bool) -> None:
        is_number = result.dtype.is_floating_point or result.dtype.is_complex
        node = replace(
            made,
            index=len(self.graph.nodes),
            shape=tuple(result.shape),
            axes=axes,
            sources=made.sources if is_number else frozenset(),
            givers=[],
            dtype=result.dtype,
        )
        for parent in node.made:
            node.ancestors |= parent.ancestors | 1 << parent.index
        self._add(result, node)
        if changed:
            self._spread(result, node)

    def _placed(self, name: str) -> Place | None:
        if not is_counted(name) or not self.running:
            return None
        call = self.running[-1]
        place = Place(call.module, call.call, call.counted, name)
        for outer in self.running:
            outer.counted += 1
        return place

    def _add(self, tensor: Tensor, node: Node) -> None:
        self.graph.nodes.append(node)
        self.values[id(tensor)] = (tensor, node)
        if tensor.layout is torch.strided:
            self.storages.setdefault(tensor.untyped_storage()._cdata, []).append(id(tensor))

    def _spread(self, changed: Tensor, node: Node) -> None:
        """What was written into a tensor is in all tensors that share its memory."""
        for other in set(self.storages.get(changed.untyped_storage()._cdata, [])) - {id(changed)}:
            tensor, old = self.values[other]
            if _are_apart(changed, tensor):
                continue
            parents = (old, node)
            filled = bool(node.sources) and not old.sources  # as a batch is with images, one after the other
            new = Node(
                len(self.graph.nodes),
                "written",
                parents,
                old.shape,
                input_axes(old.shape) if filled else old.axes,
                old.sources | node.sources,
                dtype=old.dtype,
            )
            for parent in new.made:
                new.ancestors |= parent.ancestors | 1 << parent.index
            self.graph.nodes.append(new)
            self.values[other] = (tensor, new)

    def _node(self, tensor: Tensor) -> Node | None:
        known = self.values.get(id(tensor))
        return known[1] if known else None

    def _axes(self, tensor: Tensor) -> Dims:
        node = self._node(tensor)
        if node is not None:
            return node.axes
        return constant_axes(tensor.shape)


def in_parts(mode: TorchDispatchMode, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation made of others gives, these seen by `mode` one by one; NotImplemented if it is not made so.

    Elsewhere torch takes such operations apart before a mode sees them, but not in inference mode.
    """
    if not func._can_decompose():
        return NotImplemented
    with mode:
        return func.decompose(*args, **kwargs)


def is_watched() -> bool:
    """Whether the code that asks runs inside a watched pass: hooks that count images leave it out."""
    return any(isinstance(mode, Watch) for mode in _get_current_dispatch_mode_stack())


def constant_axes(shape: Sequence[int]) -> Dims:
    """Those of what does not depend on the input."""
    return tuple((Axis(size, "constant"),) if size > 1 else () for size in shape)


def _are_apart(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors that share memory are parts of one tensor side by side, as `chunk` gives them."""
    if one.stride() != other.stride() or one.shape != other.shape:
        return False
    rest = abs(int(one.storage_offset()) - int(other.storage_offset()))
    strides: list[int] = list(one.stride())
    for dim in sorted(range(one.ndim), key=strides.__getitem__, reverse=True):
        if strides[dim]:
            rest -= strides[dim] * min(rest // strides[dim], one.shape[dim] - 1)
    return rest > 0


def can_be_hooked(module: nn.Module) -> bool:
    """Scripted modules take no hooks; what happens in them is seen from outside."""
    return not isinstance(module, torch.jit.ScriptModule)


def watch(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Graph:
    """Run a network once and record what it does. Its mode and the gradients are the caller's care."""
    seen = Watch()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"), seen.watching(model):
            seen.give(t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
            model(*args, **(kwargs or {}))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    for (whole, _), (outer, inner) in seen.follower.splits.items():
        seen.graph.parts_of |= {outer: (whole, inner.size), inner: (whole, 1)}
    return seen.graph


def _first_features(values: Any) -> tuple[int, ...] | None:
    return next((tuple(tensor.shape) for tensor in tensors_in(values) if tensor.ndim == 4), None)


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in lists, tuples and dicts of whatever depth, in order."""
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, Tensor)]

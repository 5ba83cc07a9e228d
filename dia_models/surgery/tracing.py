"""One watched forward pass of any network: what modules were given, where residual blocks end, where gates multiply."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dia_models.errors import ModelInputError

EXAMPLE_SIZE = 64
ATEN = torch.ops.aten
SQUASHING = (
    *(ATEN.sigmoid, ATEN.sigmoid_, ATEN.hardsigmoid, ATEN.hardsigmoid_, ATEN.hardtanh, ATEN.hardtanh_),
    *(ATEN.tanh, ATEN.tanh_, ATEN._softmax, ATEN.clamp, ATEN.clamp_),
)
KEEPING = (
    *(
        ATEN.view,
        ATEN._unsafe_view,
        ATEN.reshape,
        ATEN.unsqueeze,
        ATEN.expand,
        ATEN.permute,
        ATEN.transpose,
        ATEN.clone,
    ),
    *(ATEN.div, ATEN.div_, ATEN.mul, ATEN.mul_, ATEN.squeeze, ATEN.alias),
)
FeatureSize = tuple[int, int, int]


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
    """What was seen, in forward order."""

    calls: tuple[ModuleCall, ...]
    sums: tuple[Sum, ...]
    gated: tuple[str, ...]  # the modules whose own forward multiplies features by a gate


def trace(model: nn.Module, images: Tensor | None = None) -> Trace:
    """Run a network once, in evaluation mode and without gradients, and leave it as it was.

    `images` (batch, channel, height, width) are by default one black image of 64x64, with as many channels as the
    first convolution takes. Raises ModelInputError if the network cannot be run on them.
    """
    given = _example(model) if images is None else images
    watch = _Watch()
    with _evaluating(model), torch.no_grad(), watch.watching(model):
        try:
            model(given)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            shape = "x".join(map(str, given.shape))
            raise ModelInputError(
                "images", f"the network fails on images of {shape} ({reason}); give images= that it takes"
            ) from error
    return Trace(tuple(watch.calls), tuple(watch.sums), tuple(watch.gated))


def _example(model: nn.Module) -> Tensor:
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is None:
        raise ModelInputError("images", f"{type(model).__name__} has no 2-D convolution; give images= that it takes")
    return convolution.weight.new_zeros(1, convolution.in_channels, EXAMPLE_SIZE, EXAMPLE_SIZE)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass
class _Running:
    """A call that has not returned, and the sums that its own forward made: the size, the ends, the trouble."""

    module: str
    taken: FeatureSize | None
    sums: list[tuple[FeatureSize, tuple[str, ...], str]] = field(default_factory=list)


@dataclass
class _Value:
    """A tensor as it is now: who made it, who has put it out, the convolutions on the longest way to it.

    `squashed` says that it came out of a sigmoid or the like, perhaps reshaped or scaled since.
    """

    tensor: Tensor  # held, so that no other tensor gets its id
    maker: str
    convolutions: int
    squashed: bool
    givers: list[str] = field(default_factory=list)

    def ends(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(name for name in self.givers if name == self.maker), *self.givers]))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every tensor through a forward pass. The branch is the summand with more convolutions behind it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[ModuleCall] = []
        self.sums: list[Sum] = []
        self.gated: dict[str, None] = {}
        self.running: list[_Running] = []
        self.values: dict[int, _Value] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """See every module's calls and every operation inside the block."""
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                hooks.callback(module.register_forward_pre_hook(self._entering(name), with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(self._leave).remove)
            with self:
                yield

    def _entering(self, name: str) -> Any:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append(_Running(name, _size((args, kwargs))))

        return enter

    def _leave(self, _: nn.Module, __: Any, output: Any) -> None:
        call, given = self.running.pop(), _size(output)
        self.calls.append(ModuleCall(call.module, call.taken, given))
        for tensor in _tensors(output):
            if id(tensor) in self.values:
                self.values[id(tensor)].givers.append(call.module)
        found = [found for found in call.sums if found[0] == given]  # others are of something inside the branch
        several = f"it makes {len(found)} sums" if len(found) > 1 else ""
        self.sums += [Sum(call.module, size, ends, several or trouble) for size, ends, trouble in found]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet, inputs = func.overloadpacket, _tensors((args, kwargs))
        if packet in (torch.ops.aten.add, torch.ops.aten.add_) and self.running:
            self._note_sum(inputs)
        if packet in (torch.ops.aten.mul, torch.ops.aten.mul_) and self._is_gating(inputs):
            self.gated[self.running[-1].module if self.running else ""] = None
        squashed = packet in SQUASHING or (packet in KEEPING and self._is_squashed(inputs[0]))
        behind = max((self._convolutions(tensor) for tensor in inputs), default=0)
        output = func(*args, **kwargs)
        for tensor in _tensors(output):
            maker = self.running[-1].module if self.running else ""
            count = behind + (packet is torch.ops.aten.convolution)
            self.values[id(tensor)] = _Value(tensor, maker, count, squashed)
        return output

    def _note_sum(self, summands: list[Tensor]) -> None:
        sizes = {tensor.shape for tensor in summands}
        if len(summands) != 2 or len(sizes) != 1 or summands[0].ndim != 4:
            return
        shortcut, branch = sorted(summands, key=self._convolutions)
        ends: tuple[str, ...] = ()
        trouble = "both of its summands have passed equally many convolutions"
        if self._convolutions(shortcut) < self._convolutions(branch):
            ends = self.values[id(branch)].ends()
            trouble = "" if ends else "what it adds to the shortcut is the output of no module"
        self.running[-1].sums.append((_shape(branch), ends, trouble))

    def _is_gating(self, factors: list[Tensor]) -> bool:
        """Whether features are multiplied by one number a channel, or one a position, that came out of a sigmoid."""
        if len(factors) != 2:
            return False
        return any(
            _is_gate_of(gate, features) and self._is_squashed(gate) for gate, features in (factors, reversed(factors))
        )

    def _is_squashed(self, tensor: Tensor) -> bool:
        value = self.values.get(id(tensor))
        return value is not None and value.squashed

    def _convolutions(self, tensor: Tensor) -> int:
        value = self.values.get(id(tensor))
        return value.convolutions if value else 0


def _is_gate_of(gate: Tensor, features: Tensor) -> bool:
    if gate.ndim != 4 or features.ndim != 4 or features[0, 0].numel() == 1:
        return False
    over_positions, over_channels = (_is_same(gate, dims) for dims in ((2, 3), (1,)))
    return over_positions or over_channels


def _is_same(gate: Tensor, dims: Sequence[int]) -> bool:
    """Whether a tensor has one number along all these dimensions, perhaps expanded."""
    return all(gate.shape[dim] == 1 or gate.stride(dim) == 0 for dim in dims)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _size(values: Any) -> FeatureSize | None:
    return next((_shape(tensor) for tensor in _tensors(values) if tensor.ndim == 4), None)


def _shape(features: Tensor) -> FeatureSize:
    _, channels, height, width = features.shape
    return channels, height, width

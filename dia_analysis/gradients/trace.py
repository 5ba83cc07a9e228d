"""What runs in a network's forward pass: the calls of its modules, inside one another, and where its stages end."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.probes.points import match_modules

BLOCK_WEIGHTS = 2  # a block has at least two convolutions or linear layers


@dataclass
class Call:
    """One call of one module. `shape` is its output's without the batch, None if it gives no float tensor.

    `weights` counts the weight tensors (of two dimensions or more) in the module; `inner` are the calls inside.
    """

    module: str
    call: int
    weights: int
    shape: tuple[int, ...] | None = None
    inner: list["Call"] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int]:
        """Module name and call index."""
        return self.module, self.call

    @property
    def size(self) -> tuple[int, ...] | None:
        """The feature size: (height, width) of feature maps, (tokens,) of token features, None for all else."""
        match self.shape:
            case (_, height, width):
                return (height, width)
            case (tokens, _):
                return (tokens,)
        return None

    def all(self) -> Iterator["Call"]:
        """The calls inside at any depth, in the order in which they ended, then this one."""
        for call in self.inner:
            yield from call.all()
        yield self


@dataclass(frozen=True)
class StageOutput:
    """Where a stage ends: the call whose output is the stage's, and the calls of its blocks in forward order."""

    output: Call
    blocks: tuple[Call, ...]


def first_tensor(output: Any) -> Tensor | None:
    """A module's output, or the first tensor of a tuple or list; None if that is no float tensor."""
    if isinstance(output, tuple | list):
        output = next((item for item in output if isinstance(item, Tensor)), None)
    return output if isinstance(output, Tensor) and output.is_floating_point() else None


def trace(model: nn.Module, images: Tensor) -> Call:
    """Run a network on images (batch, channel, height, width) in evaluation mode, and tell which modules ran.

    The network is left as it was.
    """
    with evaluating(model), autocast_off(model), torch.no_grad(), tracing(model.named_modules()) as calls:
        model(images)
    return calls.inner[0]


@contextmanager
def tracing(modules: Iterable[tuple[str, nn.Module]], *, with_gradient: bool = False) -> Iterator[Call]:
    """Inside, the calls of modules become the inner calls of the one given.

    `with_gradient`: outputs without a gradient count as none. Compiled parts run uncompiled.
    """
    counts: Counter[str] = Counter()
    open_calls: list[Call] = [Call("", 0, 0)]

    def enter(name: str, module: nn.Module) -> None:
        weights = sum(parameter.ndim > 1 for parameter in module.parameters())
        call = Call(name, counts[name], weights)
        counts[name] += 1
        open_calls[-1].inner.append(call)
        open_calls.append(call)

    def leave(output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None and with_gradient and not tensor.requires_grad:
            tensor = None
        open_calls.pop().shape = None if tensor is None else tuple(tensor.shape[1:])

    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))
        for name, module in modules:
            before = module.register_forward_pre_hook(lambda m, _, name=name: enter(name, m))
            hooks.callback(before.remove)
            hooks.callback(module.register_forward_hook(lambda _, __, output: leave(output)).remove)
        yield open_calls[0]


def find_stages(root: Call) -> list[StageOutput]:
    """The stages of a network from the trace of its forward pass: runs of calls with one feature size.

    Modules are taken apart, at any depth, only where that brings a further feature size to light, so a block that
    halves the size stays whole. A stage's output is that of its last call with at least two weights (a block or a row
    of them), or of its last call if there is none. Pooling is no stage, nor is a single convolution (a stem, a head)
    unless the network has nothing but such. Raises AnalysisInputError if there is no stage.
    """
    sized = [call for call in _trunk(root) if call.size is not None]
    runs = [list(run) for _, run in groupby(sized, key=lambda call: call.size)]
    runs = [run for run in runs if _weights(run) >= BLOCK_WEIGHTS] or [run for run in runs if _weights(run)]
    if not runs:
        raise AnalysisInputError(
            "points",
            "no stage was found: no module with weights gives feature maps (batch, channel, height, width) or tokens "
            "(batch, token, channel); name the modules whose outputs count as stages with points=, such as 'layer*'",
        )
    return [_stage(run) for run in runs]


def named_stages(root: Call, model: nn.Module, patterns: str | Iterable[str]) -> list[StageOutput]:
    """The calls of the modules that match shell patterns, in forward order, each as a stage of its own.

    Of matching modules inside one another the outermost count, so `layer*` means `layer1`, `layer2` and so on.
    Raises AnalysisInputError for patterns that match nothing, and for modules that did not run or give no tensor.
    """
    matched = set(match_modules(model, patterns))
    names = {name for name in matched if not any(name.startswith(f"{other}.") for other in matched)}
    calls = [call for call in root.all() if call.module in names]
    if silent := sorted(names - {call.module for call in calls}):
        raise AnalysisInputError("points", f"{', '.join(silent)} never ran: the network does not use them")
    if odd := [call.module for call in calls if call.shape is None]:
        raise AnalysisInputError("points", f"{odd[0]} gives no tensor of floating-point numbers")
    return [StageOutput(call, tuple(_blocks(call))) for call in calls]


def _trunk(root: Call) -> list[Call]:
    level = [root]
    while True:
        known = {call.size for call in level}
        node = next((call for call in level if _hidden(call) - known), None)
        if node is None:
            return level
        index = level.index(node)
        level[index : index + 1] = node.inner


def _hidden(call: Call) -> set[tuple[int, ...] | None]:
    """The feature sizes that taking a call apart may bring to light: those of the modules with weights just inside.

    Wrappers are looked through: of a call that is no features itself, such as a whole classifier, every size inside
    counts; of others also a larger one, further inside, at which a block or more runs. A smaller one is no stage but
    something in a block that pools, such as squeeze-excitation.
    """
    direct: set[tuple[int, ...] | None] = {inner.size for inner in call.inner if inner.size and inner.weights}
    return direct | {size for size, weights in _outermost(call).items() if _counts(call.size, size, weights)}


def _outermost(call: Call) -> Counter[tuple[int, ...]]:
    """The sizes of the calls inside that have another one than `call`, not looked into, and their weights."""
    found: Counter[tuple[int, ...]] = Counter()
    for inner in call.inner:
        if inner.size in (None, call.size):
            found += _outermost(inner)
        else:
            found[inner.size] += inner.weights
    return found


def _counts(own: tuple[int, ...] | None, size: tuple[int, ...], weights: int) -> bool:
    if own is None:
        return weights > 0
    return weights >= BLOCK_WEIGHTS and len(size) == len(own) and prod(size) > prod(own)


def _weights(run: list[Call]) -> int:
    return sum(call.weights for call in run)


def _stage(run: list[Call]) -> StageOutput:
    large = [call for call in run if call.weights >= BLOCK_WEIGHTS]
    blocks = [block for call in large for block in _blocks(call)]
    output = large[-1] if large else run[-1]
    return StageOutput(output, tuple(blocks) or (output,))


def _blocks(call: Call) -> list[Call]:
    """The blocks that a call runs one after the other, or the call itself if it is one.

    A row of blocks ends with a block; a block with several large parts, a branch and attention, ends with another.
    """
    inner = [c for c in call.inner if c.size == call.size and c.weights >= BLOCK_WEIGHTS]
    if len(inner) == 1:
        inner = _blocks(inner[0])
    elif inner and inner[-1] is not call.inner[-1]:
        return [call]
    return inner if len(inner) > 1 else [call]

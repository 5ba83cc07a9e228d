"""Probes on the outputs of modules: what the outputs are, and what gradient comes back to them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.gradients.magnitudes import Magnitudes, MagnitudeStatistics
from dia_analysis.gradients.results import PointGradients
from dia_analysis.gradients.trace import first_tensor

Key = tuple[str, int]


class Probes:
    """Hooks on the outputs of chosen (module, call)s: their size going forward, their gradient coming back.

    Gradients are divided by `scale`; `of_statistics` is passed on to `MagnitudeStatistics`.
    """

    def __init__(self, keys: Iterable[Key], scale: float = 1.0, **of_statistics: Any):
        keys = list(keys)
        self.statistics = {key: MagnitudeStatistics(**of_statistics) for key in keys}
        self.scale = scale
        self.shapes: dict[Key, tuple[int, ...]] = {}
        self.squares = dict.fromkeys(keys, 0.0)
        self.elements = dict.fromkeys(keys, 0)
        self.calls: Counter[str] = Counter()
        self.reached: set[Key] = set()
        self.running = False

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Hear the modules inside the block."""
        modules = dict(model.named_modules())
        with ExitStack() as hooks:
            hooks.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code calls no hooks
            for name in {name for name, _ in self.statistics}:
                hear = partial(self._hear, name)
                hooks.callback(modules[name].register_forward_hook(hear).remove)
            yield

    @contextmanager
    def listening(self) -> Iterator[None]:
        """One forward pass runs inside the block; activation checkpointing runs modules again on the way back."""
        self.start()
        try:
            yield
        finally:
            self.running = False

    def start(self) -> None:
        """From here on a forward pass is heard, until `running` is false."""
        self.calls.clear()
        self.reached.clear()
        self.running = True

    @property
    def silent(self) -> list[Key]:
        """The outputs of the last pass to which no gradient came back."""
        return sorted(self.statistics.keys() - self.reached)

    def result(self, stage: int, block: int | None, key: Key) -> PointGradients:
        """What was found at one output."""
        rms = (self.squares[key] / self.elements[key]) ** 0.5
        magnitudes = Magnitudes(**self.statistics[key].compute())
        return PointGradients(stage, block, *key, self.shapes[key], rms, magnitudes)

    def _hear(self, name: str, _: nn.Module, __: Any, output: Any) -> None:
        key = (name, self.calls[name])
        self.calls[name] += self.running
        if not self.running or key not in self.statistics:
            return
        tensor = first_tensor(output)
        if tensor is None or not tensor.requires_grad:
            return
        values = tensor.detach()
        self.shapes[key] = tuple(values.shape[1:])
        self.squares[key] += _sum_of_squares(values)
        self.elements[key] += values.numel()
        # A hook on the tensor belongs to its value of now, also if a later module changes it in place.
        tensor.register_hook(partial(self._take, key))  # type: ignore[no-untyped-call]

    def _take(self, key: Key, gradient: Tensor) -> None:
        self.reached.add(key)
        self.statistics[key].update(gradient if self.scale == 1 else gradient.double() / self.scale)


def _sum_of_squares(values: Tensor) -> float:
    """In float64, which does not lose what is small or large, also where it must be computed on the CPU."""
    values = values.cpu() if values.device.type == "mps" else values
    norm = float(torch.linalg.vector_norm(values, dtype=torch.float64))
    return norm * norm

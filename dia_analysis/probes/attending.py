"""Capture the attention that a network uses, found in its first pass and taken wherever it multiplies."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.arranging import by_image
from dia_analysis.probes.found import FoundAttention, find_attention
from dia_analysis.probes.graph import tensors_in
from dia_analysis.probes.taking import Taking

Recorded = Callable[[FoundAttention, Tensor], object]


@contextmanager
def attending(model: nn.Module, record: Recorded) -> Iterator[None]:
    """Inside, every pass of the network hands each map to `record`, with what it is.

    The first pass, and one on inputs of another size, is watched first, on the same inputs: it runs twice.
    Raises AnalysisInputError, from that pass, if the network uses no attention that can be captured.
    """
    finder = _Finder(record)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it computes no weights
    looking = model.register_forward_pre_hook(finder.look, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        looking.remove()
        finder.hooks.close()
        torch.backends.mha.set_fastpath_enabled(fast)


class _Finder:
    """Looks for attention when the network is given inputs of a new size, and hooks what it finds."""

    def __init__(self, record: Recorded):
        self.record = record
        self.known: Any = None
        self.busy = False
        self.depth = 0
        self.hooks = ExitStack()
        self.calls: Counter[str] = Counter()
        self.running: list[Taking | None] = []

    def look(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each pass."""
        if self.busy:
            return
        self.calls.clear()
        given = [tuple(tensor.shape[1:]) for tensor in tensors_in((args, kwargs))]
        modes = [module.training for module in model.modules()]
        if self.known == (given, modes):
            return
        self.hooks.close()
        self.busy = True
        try:
            found = find_attention(model, args, kwargs)
        finally:
            self.busy = False
        usable = _once(one for one in found if one.usable)
        if not usable:
            raise AnalysisInputError("points", _nothing(model, found))
        self._hook(dict(model.named_modules()), usable)
        self.known = given, modes

    def _hook(self, modules: dict[str, nn.Module], found: list[FoundAttention]) -> None:
        outputs: dict[str, dict[tuple[int, int], FoundAttention]] = defaultdict(dict)
        products: dict[str, dict[int, dict[int, list[FoundAttention]]]] = defaultdict(dict)
        for one in found:
            if one.output is not None:
                outputs[one.name][one.call, one.output] = one
            else:
                products[one.place.module].setdefault(one.place.call, {}).setdefault(one.place.number, []).append(one)
        for name in {**outputs, **products}:
            module = modules[name]
            before, after = self._around(name, outputs.get(name, {}), products.get(name, {}))
            self.hooks.callback(module.register_forward_pre_hook(before).remove)
            self.hooks.callback(module.register_forward_hook(after, always_call=True).remove)

    def _around(
        self,
        name: str,
        outputs: dict[tuple[int, int], FoundAttention],
        products: dict[int, dict[int, list[FoundAttention]]],
    ) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(_: nn.Module, __: Any) -> None:
            wanted = products.get(self.calls[name])
            taking = (
                None if wanted is None else Taking({n: [self._take(one) for one in some] for n, some in wanted.items()})
            )
            self.running.append(taking)
            if taking is not None:
                taking.__enter__()

        def after(_: nn.Module, __: Any, output: Any) -> None:
            taking = self.running.pop()
            if taking is not None:
                taking.__exit__(None, None, None)
            call = self.calls[name]
            self.calls[name] += 1
            for leaf, tensor in enumerate(tensors_in(output)):
                if (one := outputs.get((call, leaf))) is not None:
                    self.record(one, tensor)

        return before, after

    def _take(self, one: FoundAttention) -> tuple[int, Callable[[Tensor], object]]:
        return one.operand, lambda value: self.record(one, by_image(value, one))


def _once(found: Iterable[FoundAttention]) -> list[FoundAttention]:
    """A map that multiplies several features counts once."""
    return list({(one.name, one.call, one.output): one for one in reversed(list(found))}.values())[::-1]


def _nothing(model: nn.Module, found: list[FoundAttention]) -> str:
    start = f"{type(model).__name__} uses no attention that can be captured"
    reasons = list(dict.fromkeys(f"{one.name}: {one.reason}" for one in found))
    return f"{start} ({'; '.join(reasons[:2])})" if reasons else start

"""Capture the attention that a network uses, found in its first pass and taken wherever it multiplies."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.arranging import by_image
from dia_analysis.probes.choosing import Choice, Patterns, choose
from dia_analysis.probes.found import FoundAttention, attention_in, watched
from dia_analysis.probes.graph import Graph, tensors_in
from dia_analysis.probes.pooling import channels_of, pooled, positions_behind
from dia_analysis.probes.records import Record, by_hand, of_found
from dia_analysis.probes.taking import Taking

Recorded = Callable[[Record], object]


@contextmanager
def attending(model: nn.Module, patterns: Patterns, record: Recorded) -> Iterator["Finder"]:
    """Inside, every pass of the network hands each map that `patterns` choose to `record`.

    The first pass, and one on inputs of another size, is watched first, on two of the same images.
    Raises AnalysisInputError, from that pass, if the network uses no attention that can be captured.
    """
    finder = Finder(patterns, record)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it computes no weights
    with ExitStack() as hooks:
        hooks.callback(torch.backends.mha.set_fastpath_enabled, fast)
        hooks.callback(finder.hooks.close)
        hooks.callback(model.register_forward_pre_hook(finder.enter, with_kwargs=True, prepend=True).remove)
        hooks.callback(model.register_forward_hook(finder.leave, always_call=True).remove)
        yield finder


class Finder:
    """Looks for attention when the network is given inputs of a new size, and hooks what it finds.

    `modules` are those whose outputs were to be recorded because the user named them, `silent` those that never ran.
    """

    def __init__(self, patterns: Patterns, record: Recorded):
        self.patterns, self.record = patterns, record
        self.known: Any = None
        self.busy = False
        self.depth = 0
        self.hooks = ExitStack()
        self.calls: Counter[str] = Counter()
        self.running: list[Taking | None] = []
        self.modules: tuple[str, ...] = ()
        self.fired: set[str] = set()

    @property
    def silent(self) -> list[str]:
        """The modules that were named and never ran."""
        return [name for name in self.modules if name not in self.fired]

    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each pass."""
        if self.busy:
            return
        self.depth += 1
        if self.depth > 1:
            return
        self.calls.clear()
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors_in((args, kwargs))]
        modes = [module.training for module in model.modules() if hasattr(module, "training")]
        now = shapes, modes, torch.is_grad_enabled()
        if self.known == now:
            return
        self.hooks.close()
        graph = self._watch(model, args, kwargs)
        before = self._hook(model, graph, choose(model, attention_in(graph), self.patterns))
        if "" in before:  # the network's own hooks of this pass are already under way
            before[""](model, args)
        self.known = now

    def leave(self, *_: Any) -> None:
        """After each pass."""
        if not self.busy:
            self.depth -= 1

    def _watch(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        self.busy = True
        try:
            return watched(model, args, kwargs)
        finally:
            self.busy = False

    def _hook(self, model: nn.Module, graph: Graph, choice: Choice) -> dict[str, Callable[..., None]]:
        modules = dict(model.named_modules())
        outputs: dict[str, dict[tuple[int, int], FoundAttention]] = defaultdict(dict)
        products: dict[str, dict[int, dict[int, list[FoundAttention]]]] = defaultdict(dict)
        for one in choice.maps:
            if one.output is not None:
                outputs[one.name][one.call, one.output] = one
            elif one.place is not None:
                products[one.place.module].setdefault(one.place.call, {}).setdefault(one.place.number, []).append(one)
        self.modules = (*choice.modules, *choice.features)
        for name in choice.modules:
            self._after(modules[name], partial(self._take_output, name, positions_behind(graph, name)))
        for name in choice.features:
            channel = channels_of(graph, name)
            self._after(modules[name], partial(self._take_features, name, channel))
        before = {}
        for name in {**outputs, **products}:
            before[name], after = self._around(name, outputs.get(name, {}), products.get(name, {}))
            self.hooks.callback(modules[name].register_forward_pre_hook(before[name]).remove)
            self.hooks.callback(modules[name].register_forward_hook(after, always_call=True).remove)
        return before

    def _after(self, module: nn.Module, take: Callable[[Any], None]) -> None:
        self.hooks.callback(module.register_forward_hook(lambda _, __, output: take(output)).remove)

    def _take_output(self, name: str, sizes: list[tuple[int, ...]], output: Any) -> None:
        if not isinstance(output, Tensor):
            raise AnalysisInputError("points", f"{name} gives a {type(output).__name__}, not a tensor")
        call = self.calls[f"output of {name}"]
        self._hand_on(name, partial(by_hand, value=output, size=sizes[call] if call < len(sizes) else ()))

    def _take_features(self, name: str, channel: int | None, output: Any) -> None:
        tensors = tensors_in(output)
        if not tensors:
            raise AnalysisInputError("points", f"{name} gives a {type(output).__name__} without a tensor")
        value, size = pooled(tensors[0], channel)
        self._hand_on(name, partial(Record, value=value, kind="features", feature_size=size))

    def _hand_on(self, name: str, make: Callable[..., Record]) -> None:
        self.fired.add(name)
        self.record(make(name, self.calls[f"output of {name}"]))
        self.calls[f"output of {name}"] += 1

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
                taking.__enter__()  # type: ignore[no-untyped-call]

        def after(_: nn.Module, __: Any, output: Any) -> None:
            taking = self.running.pop()
            if taking is not None:
                taking.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            call = self.calls[name]
            self.calls[name] += 1
            for leaf, tensor in enumerate(tensors_in(output)):
                if (one := outputs.get((call, leaf))) is not None:
                    self.record(of_found(one, tensor))

        return before, after

    def _take(self, one: FoundAttention) -> tuple[str, int, Callable[[Tensor], object]]:
        assert one.place is not None
        return one.place.operation, one.operand, lambda value: self.record(of_found(one, by_image(value, one)))

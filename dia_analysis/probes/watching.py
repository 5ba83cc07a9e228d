"""What capturing and replacing maps share: a network's passes watched, its modules hooked, their calls counted."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from dia_analysis.probes.found import FoundAttention, watched
from dia_analysis.probes.graph import Graph, tensors_in
from dia_analysis.probes.taking import Take, Taking

Before = Callable[[nn.Module, Any], None]
Numbered = Mapping[int, list[FoundAttention]]


class Watcher(ABC):
    """Watches a pass when a network is given inputs of a new size, and hooks what it finds for this and later ones.

    `graph` is what the first of them would show, where it is known.
    """

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = graph
        self.known: Any = None
        self.busy = False
        self.depth = 0
        self.hooks = ExitStack()
        self.calls: Counter[str] = Counter()
        self.running: list[Taking | None] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[Self]:
        """Inside, every pass of the network is hooked; after it no hook is left, whatever happened inside."""
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it computes no weights
        with ExitStack() as hooks:
            hooks.callback(torch.backends.mha.set_fastpath_enabled, fast)
            hooks.callback(self.hooks.close)
            hooks.callback(model.register_forward_pre_hook(self.enter, with_kwargs=True, prepend=True).remove)
            hooks.callback(model.register_forward_hook(self.leave, always_call=True).remove)
            yield self

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
        now = shapes, modes, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        if self.known == now:
            return
        self.hooks.close()
        graph, self.graph = self.graph or self._watch(model, args, kwargs), None
        before = self.hook(model, graph)
        if "" in before:  # the network's own hooks of this pass are already under way
            before[""](model, args)
        self.known = now

    def leave(self, *_: Any) -> None:
        """After each pass."""
        if not self.busy:
            self.depth -= 1

    @abstractmethod
    def hook(self, model: nn.Module, graph: Graph) -> dict[str, Before]:
        """Hook what the pass shows; give what runs before each hooked module, by its name."""

    @abstractmethod
    def take(self, one: FoundAttention, value: Tensor) -> Tensor | None:
        """Take a map from its product; what is given back takes its place there."""

    def _watch(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        self.busy = True
        try:
            return watched(model, args, kwargs)
        finally:
            self.busy = False

    def hook_products(
        self,
        model: nn.Module,
        at_products: Iterable[FoundAttention],
        done: Callable[[str, int, Any], None] | None = None,
        others: Iterable[str] = (),
    ) -> dict[str, Before]:
        """Take these maps where they multiply; `done` is given the name, the call and the output of the modules.

        Hooked are the modules in which the products happen, and the `others`.
        """
        products: dict[str, dict[int, dict[int, list[FoundAttention]]]] = defaultdict(dict)
        for one in at_products:
            assert one.place is not None
            products[one.place.module].setdefault(one.place.call, {}).setdefault(one.place.number, []).append(one)
        modules = dict(model.named_modules())
        before = {}
        for name in dict.fromkeys([*others, *products]):
            before[name], after = self._around(name, products.get(name, {}), done)
            self.hooks.callback(modules[name].register_forward_pre_hook(before[name]).remove)
            self.hooks.callback(modules[name].register_forward_hook(after, always_call=True).remove)
        return before

    def _around(
        self, name: str, products: Mapping[int, Numbered], done: Callable[[str, int, Any], None] | None
    ) -> tuple[Before, Callable[..., None]]:
        def before(_: nn.Module, __: Any) -> None:
            wanted = products.get(self.calls[name])
            taking = None if wanted is None else self._taking(wanted)
            self.running.append(taking)
            if taking is not None:
                taking.__enter__()  # type: ignore[no-untyped-call]

        def after(_: nn.Module, __: Any, output: Any) -> None:
            taking = self.running.pop()
            if taking is not None:
                taking.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            call = self.calls[name]
            self.calls[name] += 1
            if done is not None:
                done(name, call, output)

        return before, after

    def _taking(self, wanted: Numbered) -> Taking:
        return Taking({number: list(map(self._take, some)) for number, some in wanted.items()})

    def _take(self, one: FoundAttention) -> tuple[str, int, Take]:
        assert one.place is not None
        return one.place.operation, one.operand, partial(self.take, one)

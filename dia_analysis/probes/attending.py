"""Capture the attention that a network uses, found in its first pass and taken wherever it multiplies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.arranging import by_image
from dia_analysis.probes.choosing import Patterns, choose
from dia_analysis.probes.found import FoundAttention, attention_in
from dia_analysis.probes.graph import Graph, tensors_in
from dia_analysis.probes.pooling import channels_of, pooled, positions_behind
from dia_analysis.probes.records import Record, by_hand, of_found
from dia_analysis.probes.watching import Before, Watcher

Recorded = Callable[[Record], object]


@contextmanager
def attending(model: nn.Module, patterns: Patterns, record: Recorded) -> Iterator["Finder"]:
    """Inside, every pass of the network hands each map that `patterns` choose to `record`.

    The first pass, and one on inputs of another size, is watched first, on two of the same images.
    Raises AnalysisInputError, from that pass, if the network uses no attention that can be captured.
    """
    with Finder(patterns, record).watching(model) as finder:
        yield finder


class Finder(Watcher):
    """Looks for attention when the network is given inputs of a new size, and records what it finds.

    `modules` are those whose outputs were to be recorded because the user named them, `silent` those that never ran.
    """

    def __init__(self, patterns: Patterns, record: Recorded):
        super().__init__()
        self.patterns, self.record = patterns, record
        self.modules: tuple[str, ...] = ()
        self.fired: set[str] = set()

    @property
    def silent(self) -> list[str]:
        """The modules that were named and never ran."""
        return [name for name in self.modules if name not in self.fired]

    def hook(self, model: nn.Module, graph: Graph) -> dict[str, Before]:
        """Hook the modules whose outputs are maps, and those in which the other maps multiply."""
        choice = choose(model, attention_in(graph), self.patterns)
        modules = dict(model.named_modules())
        self.modules = (*choice.modules, *choice.features)
        for name in choice.modules:
            self._after(modules[name], partial(self._take_output, name, positions_behind(graph, name)))
        for name in choice.features:
            channel = channels_of(graph, name)
            self._after(modules[name], partial(self._take_features, name, channel))
        outputs = {(one.name, one.call, one.output): one for one in choice.maps if one.output is not None}

        def put_out(name: str, call: int, output: Any) -> None:
            for leaf, tensor in enumerate(tensors_in(output)):
                if (one := outputs.get((name, call, leaf))) is not None:
                    self.record(of_found(one, tensor))

        at_products = [one for one in choice.maps if one.output is None and one.place is not None]
        return self.hook_products(model, at_products, put_out, [name for name, _, _ in outputs])

    def take(self, one: FoundAttention, value: Tensor) -> None:
        """Record a map that no module puts out."""
        self.record(of_found(one, by_image(value, one)))

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

"""Put other attention maps in the place of a network's own while it runs, each at the product in which it is used."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.arranging import as_operand, by_image, overwrite
from dia_analysis.probes.capture import refuse_scripted
from dia_analysis.probes.choosing import Patterns, as_patterns, check_patterns, choose
from dia_analysis.probes.found import FoundAttention, attention_in
from dia_analysis.probes.graph import Graph
from dia_analysis.probes.watching import Before, Watcher

Replace = Callable[[FoundAttention, Tensor], Tensor | None]


@contextmanager
def replacing(
    model: nn.Module,
    replace: Replace,
    points: str | Iterable[str] | None = None,
    *,
    graph: Graph | None = None,
    state: bool = False,
) -> Iterator[None]:
    """Inside, every pass of a network uses the maps that `replace` gives in place of its own.

    Only the operand of the product changes: whatever else reads the map, such as the cell of an LSTM, keeps the
    network's own. A map that multiplies several features is replaced at the first. With fused attention the output is
    computed from the weights given and the values. Nothing of the network changes, and no hook stays behind. Gradients
    do not follow what is replaced.

    Args:
        model: Any network; it is to be run whole.
        replace: Is given the point and its map, arranged by image as `capture` has maps at products: gates (image,
            what they vary over), self-attention (image, head, query, key), of windows (image, window, head, query,
            key). It gives the map to be used, of the same shape, or None to leave the network's own. It is called in
            forward order, in every pass.
        points: Shell patterns of names that `find_points` gives; by default all that is usable.
        graph: What a watched pass on such inputs in the present mode showed, if one was made, else one is made.
        state: Whether what reads the map later in the pass sees the new one, too, such as the next step of an LSTM: the
            map is overwritten where the network holds it.

    Raises:
        AnalysisInputError: For patterns that match nothing or no map that multiplies, for a scripted network; from a
            pass if nothing can be replaced, and for a map of another shape.
    """
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        refuse_scripted(model)
    patterns = as_patterns(points)
    check_patterns(model, patterns)
    with torch.compiler.set_stance("force_eager"), _Replacer(patterns, replace, graph, state).watching(model):
        yield


class _Replacer(Watcher):
    """Replaces the maps of the points that the patterns choose."""

    def __init__(self, patterns: Patterns, replace: Replace, graph: Graph | None, state: bool):
        super().__init__(graph)
        self.patterns, self.replace, self.state = patterns, replace, state

    def hook(self, model: nn.Module, graph: Graph) -> dict[str, Before]:
        """Hook the modules in which the maps multiply, those too whose maps are a module's output."""
        choice = choose(model, attention_in(graph), self.patterns)
        if others := (*choice.modules, *choice.features):
            raise AnalysisInputError(
                "points", f"{others[0]} is no attention map that multiplies features or values; name points that do"
            )
        return self.hook_products(model, [one for one in choice.maps if one.place is not None])

    def take(self, one: FoundAttention, value: Tensor) -> Tensor | None:
        """What takes the place of a map, as its product takes it."""
        new = self.replace(one, by_image(value, one))
        if new is None:
            return None
        operand = as_operand(new, value, one)
        if self.state:
            overwrite(value, operand, one)
        return operand
